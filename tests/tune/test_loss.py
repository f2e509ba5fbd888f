"""The loss of positions, the demonstration of the wrong loss, and the frozen prefix."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from stanch.data import TokenRecord
from stanch.tune import show_batch_loss
from stanch.tune.chunks import Row
from stanch.tune.loss_torch import OutputLayer, token_losses
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.refusals import UnsupportedModule
from stanch.tune.spec import MethodSpec


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("count", [1, 128, 300])
def test_token_losses_are_cross_entropy_with_its_gradient(count, bias):
    generator = torch.Generator().manual_seed(count)
    head = nn.Linear(16, 50, bias=bias).requires_grad_(requires_grad=False)
    hidden = torch.randn(count, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (count,), generator=generator)
    upstream = torch.randn(count, generator=generator)
    losses = token_losses(hidden, OutputLayer(head), targets)
    (ours,) = torch.autograd.grad((losses * upstream).sum(), hidden)
    expected = functional.cross_entropy(head(hidden), targets, reduction="none")
    (theirs,) = torch.autograd.grad((expected * upstream).sum(), hidden)
    assert torch.allclose(losses, expected, atol=1e-5)
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_removing_one_record_moves_the_batch_mean_sum_by_many_bounds():
    """The regression that this package exists to prevent; published: 6.6 C by one prototype, at least 5 C demanded."""
    moved = show_batch_loss()
    assert moved.batch_mean > 5
    assert moved.per_record <= 1 + 1e-5


def test_the_loss_of_a_pass_is_the_sum_of_the_losses_of_its_rows():
    model = CausalModel(tiny_llama(layers=3), MethodSpec(rank=2, alpha=2, layers=(2,)))
    rows = [
        Row(TokenRecord(str(n), tuple(range(3, 3 + length)), (length // 2, length)), 1 / (length - length // 2))
        for n, length in enumerate((4, 17, 9))
    ]
    expected = []
    for row in rows:
        a, b = row.record.span
        ids = torch.tensor([row.record.ids])
        logits = model.model(input_ids=ids).logits[0, a - 1 : b - 1]
        expected.append(functional.cross_entropy(logits, ids[0, a:b]))
    assert float(model.loss(rows).detach()) == pytest.approx(float(sum(expected).detach()), rel=1e-5)


def test_padding_gets_no_gradient():
    model = CausalModel(tiny_llama(), MethodSpec(rank=2, alpha=2))
    seen = []
    model.body.layers[0].register_forward_hook(lambda _module, _given, out: out.register_hook(seen.append) and None)
    rows = [
        Row(TokenRecord("a", (5, 6, 7), (1, 3)), 0.5),
        Row(TokenRecord("b", tuple(range(9, 19)), (2, 10)), 0.1),
    ]
    model.loss(rows).backward()
    (gradient,) = seen
    assert torch.equal(gradient[0, 3:], torch.zeros_like(gradient[0, 3:]))
    assert gradient[0, :2].abs().sum() > 0


def test_the_prefix_keeps_what_fits_and_gives_the_same():
    model = CausalModel(tiny_llama(layers=3), MethodSpec(rank=2, alpha=2, layers=(1, 2)))
    prefix = model._prefix
    assert prefix is not None
    records = [TokenRecord(str(n), tuple(range(3, 9 + n)), (1, 6 + n)) for n in range(3)]
    first = prefix.finish(records, 9)
    assert len(prefix._states) == 3
    copy = dataclasses.replace(records[0], id="copy")
    assert torch.equal(prefix.finish([copy], 9), prefix.finish(records[:1], 9))
    assert len(prefix._states) == 3
    prefix._states.clear()
    prefix._room = 0
    assert torch.equal(first, prefix.finish(records, 9))
    assert not prefix._states


def test_a_model_that_changes_its_logits_is_refused():
    class Scaled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
            self.base_model = inner.base_model
            self.config = inner.config

        def get_output_embeddings(self):
            return self.inner.get_output_embeddings()

        def forward(self, **given):
            out = self.inner(**given)
            out.logits = out.logits * 2
            return out

    with pytest.raises(UnsupportedModule, match="Scaled"):
        CausalModel(Scaled(tiny_llama()), MethodSpec())
