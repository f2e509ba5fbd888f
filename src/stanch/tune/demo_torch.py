"""Measure how far removing one record moves a clipped sum, with the right and with the wrong loss."""

from collections.abc import Sequence

import torch

from stanch.data import TokenRecord
from stanch.tune.chunks import Chunk, Row
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.lora_torch import LoraLinear
from stanch.tune.model_torch import CausalModel
from stanch.tune.models_torch import tiny_llama
from stanch.tune.spec import MethodSpec

BOUND = 2.0
_SHORT, _LONG, _COPIES, _VOCABULARY = 12, 256, 15, 4096


def measure_sensitivity(*, batch_mean: bool) -> float:
    """Return the move of the clipped sum, divided by the clipping bound, when the one long record is removed.

    With ``batch_mean`` each record's loss is what reaches our engine from ``model.loss`` times the batch size, as
    libraries with mean reduction scale it: its tokens weigh B/(labelled tokens of the batch), so they weigh more when
    the long record is gone.
    """
    model = _demo_model()
    generator = torch.Generator().manual_seed(1)
    short, long = (tuple(torch.randint(3, _VOCABULARY, (n,), generator=generator).tolist()) for n in (_SHORT, _LONG))
    records = [TokenRecord(f"short-{n}", short, (1, _SHORT)) for n in range(_COPIES)]
    everybody = [*records, TokenRecord("long", long, (1, _LONG))]
    gradients = UnitGradients(model.adapter.parameters(), BOUND, "flat")
    model.adapter.collect(gradients)
    moved = [
        x - y
        for x, y in zip(
            _sum_clipped(model, gradients, everybody, batch_mean=batch_mean),
            _sum_clipped(model, gradients, records, batch_mean=batch_mean),
            strict=True,
        )
    ]
    return float(torch.stack([part.square().sum() for part in moved]).sum().sqrt()) / BOUND


def _sum_clipped(
    model: CausalModel, gradients: UnitGradients, records: Sequence[TokenRecord], *, batch_mean: bool
) -> list[torch.Tensor]:
    labelled = sum(record.span[1] - record.span[0] for record in records)
    rows = tuple(
        Row(record, len(records) / labelled if batch_mean else 1 / (record.span[1] - record.span[0]))
        for record in records
    )
    chunk = Chunk(len(rows), (rows,))
    gradients.reset()
    gradients.expect(chunk.units, len(rows))
    model.loss(rows).backward()  # type: ignore[no-untyped-call]  # torch types no backward
    gradients.add_clipped()
    return [total.clone() for total in gradients.total.values()]


def _demo_model() -> CausalModel:
    """Return the model of the published figure: Llama, 6 layers, d 256, with a rank-8 adapter that is not zero."""
    base = tiny_llama(vocab=_VOCABULARY, d=256, layers=6, heads=8, kv=4, ffn=688)
    model = CausalModel(base, MethodSpec(rank=8, alpha=16))
    generator = torch.Generator().manual_seed(0)
    model.adapter.initialise(generator)
    with torch.no_grad():
        for layer in [part for part in base.modules() if isinstance(part, LoraLinear)]:
            layer.up.normal_(0, 0.02, generator=generator)
    return model
