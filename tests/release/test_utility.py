"""What a mark costs: both losses are those of the files, nothing is written meanwhile, too strong a mark is refused."""

import math
import sys
from dataclasses import replace

import life
import pytest
import torch
from chain_model import make_chain
from peft import PeftModel
from transformers import LlamaForCausalLM

from stanch.audit.loading_torch import load_tokenizer
from stanch.data import open_dataset, tokenise
from stanch.errors import GateFailed, InvalidInput, NotFound, PolicyViolation
from stanch.mark import MarkedSource, MarkParams, MarkRoot, RecipientSlot, commit, copy_key, embed, plan_mark
from stanch.release import Loss, check_utility, create_copy
from stanch.release.loss_torch import LossOn, SourceFiles
from stanch.release.utility import TOLERANCE
from stanch.seal import BaseModel, DirectorySource, MemorySource
from stanch.weights import directory_digest

NOW = life.in_days(0)
STRONG = MarkParams(floor=1, ceiling=1, adapter_alpha=1, alpha_outside_tested_range=True)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return make_chain(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def records(chain):
    return {
        "full": tuple(open_dataset(chain.rows, key=bytes(32))),
        "adapter": tuple(open_dataset(chain.adapter_rows, key=bytes(32))),
    }


def ordered(ordering, chain, records, kind, params=None):
    """Return an order for a copy of the whole model or of the adapter, whose loss is measured."""
    original, base = (chain.adapter, chain.model) if kind == "adapter" else (chain.model, None)
    plan = plan_mark(original, params=params)
    batch = commit(plan, MarkRoot(bytes(range(32))), [RecipientSlot("acme")], decoys=1)
    result = life.make_result(original)
    named = None if base is None else BaseModel("base", directory_digest(base).root.hex)
    return ordering.order(
        original=original, certificate=ordering.certificate(original, f"{kind}.json", result=result), plan=plan,
        key=copy_key(batch, "acme", beacon=bytes(32)), base=named, mark_commitment=batch.root,
        evaluate=LossOn(records=records[kind], base=base, base_model=named),
    )  # fmt: skip


def loss_of(folder, base, records):
    """Return the loss as transformers itself gives it, one row at a time."""
    model = LlamaForCausalLM.from_pretrained(base or folder)
    model = (model if base is None else PeftModel.from_pretrained(model, str(folder))).eval()
    total = count = 0
    tokenizer = load_tokenizer(base or folder)
    for record in records:
        ids = torch.tensor([tokenise(record, tokenizer).ids])
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count, count


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_both_losses_are_those_of_the_folders(ordering, chain, records, tmp_path, kind):
    order = ordered(ordering, chain, records, kind)
    copy = create_copy(order, tmp_path / "c", now=NOW)
    base = chain.model if kind == "adapter" else None
    embed(order.original, tmp_path / "plain", order.plan, order.key)
    before, count = loss_of(order.original, base, records[kind])
    after, _ = loss_of(tmp_path / "plain", base, records[kind])
    found = copy.utility
    assert found.original == Loss(pytest.approx(before, abs=1e-5), len(records[kind]), count)
    assert found.marked.nats == pytest.approx(after, abs=1e-5)
    assert found.original != found.marked
    assert abs(found.rise) < TOLERANCE
    assert copy.strength == order.plan.strength


@pytest.mark.parametrize("kind", ["full", "adapter"])
def test_a_mark_that_is_far_too_strong_is_refused(ordering, chain, records, tmp_path, kind):
    order = ordered(ordering, chain, records, kind, STRONG)
    with pytest.raises(GateFailed, match=r"loss \d\.\d{4} before, \d+\.\d{4} nats a token after") as caught:
        create_copy(order, tmp_path / "c", now=NOW)
    assert "--alpha" in caught.value.next_step
    assert "allowed +0.50%" in caught.value.what
    assert life.tree(tmp_path) == []
    # Unmeasured, it would have gone out.
    assert create_copy(replace(order, evaluate=None), tmp_path / "c", now=NOW).utility is None


def test_nothing_is_written_while_it_is_measured(ordering, chain, records, tmp_path):
    opened, watching = [], True

    def note(event, arguments):
        if watching and event == "open" and (arguments[2] & 3 or set("wax+") & set(str(arguments[1]))):
            opened.append(str(arguments[0]))

    order = ordered(ordering, chain, records, "full")
    sys.addaudithook(note)
    try:
        order.evaluate(MarkedSource(order.original, order.plan, order.key))
        assert opened == []
        (tmp_path / "seen").write_text("the hook sees what is written")
        assert opened == [str(tmp_path / "seen")]
    finally:
        watching = False


@pytest.mark.parametrize(("after", "is_refused"), [(1 + TOLERANCE, False), (1.00501, True), (0.5, False),
                                                   (math.nan, True), (math.inf, True)])  # fmt: skip
def test_a_rise_beyond_the_tolerance_is_refused_and_so_is_no_number(after, is_refused):
    losses = iter([Loss(1.0, 2, 30), Loss(after, 2, 30)])

    def check():
        return check_utility(lambda _source: next(losses), MemorySource({}), MemorySource({}))

    if is_refused:
        with pytest.raises(GateFailed):
            check()
    else:
        assert check().marked.nats == after


@pytest.mark.parametrize("before", [0.0, math.nan, math.inf])
def test_an_original_without_a_loss_decides_nothing(before):
    with pytest.raises(InvalidInput, match="unmarked"):
        check_utility(lambda _source: Loss(before, 1, 1), MemorySource({}), MemorySource({}))


def test_another_base_no_records_and_missing_files_are_named(ordering, chain, records, tmp_path):
    order = ordered(ordering, chain, records, "adapter")
    other = replace(order.evaluate, base_model=BaseModel("base", "00" * 32))
    with pytest.raises(PolicyViolation, match="base model"):
        create_copy(replace(order, evaluate=other), tmp_path / "c", now=NOW)
    with pytest.raises(InvalidInput, match="found none"):
        create_copy(replace(order, evaluate=replace(order.evaluate, records=())), tmp_path / "c", now=NOW)
    with pytest.raises(NotFound, match="no file 'nothing'"):
        SourceFiles(DirectorySource(chain.model), None).read("nothing")
    assert life.tree(tmp_path) == []
