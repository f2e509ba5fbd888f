import json
import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from stanch.data import (
    Canary,
    CanaryPlan,
    CanarySpec,
    ChatTurn,
    build_manifest,
    check_injected,
    coins,
    inject,
    inject_uncommitted,
    open_dataset,
    plan_canaries,
    read_steps,
    tokenise,
    tokenise_canary,
    turns,
)
from stanch.errors import InvalidInput
from stanch.terms import EntryRef

ENTRY = EntryRef(index=41, leaf_hash=b"\x11" * 32, act="01HZY")


@pytest.fixture
def plan(chats):
    return plan_canaries(chats, CanarySpec(n=64), preregistration={"alpha": 0.05}, rng=lambda _: bytes(range(32)))


def said(dataset):
    return [turns(record) for record in dataset]


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("copies", [1, 3])
def test_members_are_inserted_and_the_rest_stays_as_it_is(chats, tmp_path, copies):
    plan = plan_canaries(chats, CanarySpec(n=64, repetitions=(copies,)), preregistration={"alpha": 0.05})
    result = inject(chats, plan, committed=ENTRY, out=tmp_path / "planted.jsonl")
    texts = {canary.messages for canary in plan.canaries}
    assert [record.raw for record in result.dataset if turns(record) not in texts] == [r.raw for r in chats]
    counts = Counter(said(result.dataset))
    assert [counts[canary.messages] for canary in plan.canaries] == [copies * canary.member for canary in plan.canaries]
    assert result.inserted == len(result.dataset) - len(chats) == copies * sum(c.member for c in plan.canaries)
    assert result.plan == replace(plan, committed=True)
    assert result.committed == ENTRY


def test_one_plan_gives_one_file(chats, plan, tmp_path):
    one = inject(chats, plan, committed=ENTRY, out=tmp_path / "a.jsonl").dataset
    two = inject(chats, plan, committed=ENTRY, out=tmp_path / "b.jsonl").dataset
    assert one.path.read_bytes() == two.path.read_bytes()


def test_the_commitment_is_in_provenance_and_manifest(chats, plan, tmp_path, key):
    planted = inject(chats, plan, committed=ENTRY, out=tmp_path / "planted.jsonl").dataset
    (step,) = read_steps(planted)
    entry = {"index": 41, "leaf_hash": "11" * 32, "act": "01HZY"}
    assert step.parameters == {"plan_id": plan.plan_id, "commitment": plan.commitment, "entry": entry}
    (parent,) = build_manifest(planted, key=key).parents
    assert (parent.operation, parent.entry, parent.root) == ("inject", entry, f"sha256-rfc9162:{plan.dataset_root}")


def test_provenance_tells_neither_seed_nor_texts_nor_coins(chats, plan, tmp_path):
    inject(chats, plan, committed=ENTRY, out=tmp_path / "planted.jsonl")
    written = (tmp_path / "planted.jsonl.provenance.json").read_text()
    hidden = [plan.seed.hex(), *(c.secret for c in plan.canaries), *(c.id for c in plan.canaries), "member"]
    assert not [text for text in hidden if text in written]


@pytest.mark.parametrize("missing", [None, 41, {"index": 41}])
def test_without_a_log_entry_nothing_is_written(chats, plan, tmp_path, missing):
    before = everything(tmp_path)
    with pytest.raises(InvalidInput, match="the plan's commitment is not in the log"):
        inject(chats, plan, committed=missing, out=tmp_path / "planted.jsonl")
    assert everything(tmp_path) == before


def test_a_plan_that_registers_nothing_is_for_trials_alone(chats, tmp_path):
    empty = plan_canaries(chats, CanarySpec(n=8), preregistration={})
    before = everything(tmp_path)
    with pytest.raises(InvalidInput, match="pre-registers nothing") as caught:
        inject(chats, empty, committed=ENTRY, out=tmp_path / "planted.jsonl")
    assert "preregister(AuditParams())" in caught.value.next_step
    assert everything(tmp_path) == before
    assert inject_uncommitted(chats, empty, out=tmp_path / "trial.jsonl").inserted


def test_each_canary_has_a_unit_of_its_own_and_its_copies_share_it(chats, tmp_path):
    plan = plan_canaries(chats, CanarySpec(n=16, repetitions=(3,)), preregistration={"alpha": 0.05})
    planted = inject(chats, plan, committed=ENTRY, out=tmp_path / "planted.jsonl", unit_column="customer").dataset
    texts = {canary.messages for canary in plan.canaries}
    found = Counter((turns(one), json.loads(one.raw)["customer"]) for one in planted if turns(one) in texts)
    members = sum(canary.member for canary in plan.canaries)
    assert len(found) == len({name for _, name in found}) == members
    assert set(found.values()) == {3}
    with pytest.raises(InvalidInput, match="holds the canary's text"):
        inject(chats, plan, committed=ENTRY, out=tmp_path / "other.jsonl", unit_column="messages")


def test_a_trial_is_marked_as_uncommitted(chats, plan, tmp_path):
    result = inject_uncommitted(chats, plan, out=tmp_path / "trial.jsonl")
    assert not result.plan.committed
    assert result.committed is None
    assert read_steps(result.dataset)[0].parameters["entry"] is None
    again = inject_uncommitted(chats, replace(plan, committed=True), out=tmp_path / "again.jsonl")
    assert not again.plan.committed


def test_a_plan_for_another_dataset_is_refused(chats, plan, write_rows, tmp_path, key):
    rows = [json.loads(record.raw) for record in chats]
    other = open_dataset(write_rows(rows[::-1], "other.jsonl"), key=key)
    unkeyed = open_dataset(chats.path)
    for dataset in (other, unkeyed):
        with pytest.raises(InvalidInput, match="the canary plan was made for another dataset"):
            inject(dataset, plan, committed=ENTRY, out=tmp_path / "planted.jsonl")
    assert not (tmp_path / "planted.jsonl").exists()


def test_canaries_are_not_planted_twice(chats, plan, tmp_path):
    planted = inject(chats, plan, committed=ENTRY, out=tmp_path / "planted.jsonl").dataset
    second = plan_canaries(planted, CanarySpec(n=8), preregistration={"alpha": 0.05})
    with pytest.raises(InvalidInput, match="holds canaries already"):
        inject(planted, second, committed=ENTRY, out=tmp_path / "twice.jsonl")


def test_places_are_uniform_over_the_file(write_rows, tmp_path):
    # 40 records, some 8,000 insertions: chi-square over the 41 gaps, alpha = 1e-4.
    dataset = open_dataset(write_rows([{"text": f"t{index}"} for index in range(40)]))
    seed = bytes(range(32))
    members = coins(seed, 250)
    canaries = tuple(
        Canary(f"c{i:05d}", "secret", (ChatTurn("text", f"canary {i}"),), f"{i}", 64, "x64", member=member)
        for i, member in enumerate(members)
    )
    base = plan_canaries(dataset, CanarySpec(n=1), preregistration={"alpha": 0.05}, rng=lambda _: seed)
    plan = CanaryPlan(canaries, seed, "0123456789", base.dataset_root, "", "", base.preregistration)
    planted = inject_uncommitted(dataset, plan, out=tmp_path / "planted.jsonl").dataset
    gaps, gap = np.zeros(41), 0
    for record in planted:
        if record.fields[0].text.startswith("t"):
            gap += 1
        else:
            gaps[gap] += 1
    assert gaps.sum() == 64 * sum(members)
    assert stats.chisquare(gaps).pvalue > 1e-4


@pytest.mark.parametrize(
    "row",
    [
        {"text": "t", "id": 1},
        {"prompt": "q", "completion": "a"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"instruction": "q", "output": "a"},
    ],
)
def test_every_form_of_rows_takes_canaries(write_rows, tmp_path, tokenizer, row):
    dataset = open_dataset(write_rows([row] * 5))
    plan = plan_canaries(dataset, CanarySpec(n=8), preregistration={"alpha": 0.05})
    result = inject(dataset, plan, committed=ENTRY, out=tmp_path / "planted.jsonl.gz")
    reopened = open_dataset(tmp_path / "planted.jsonl.gz")
    assert reopened.chat == dataset.chat
    records = [tokenise(record, tokenizer) for record in reopened]
    assert check_injected(result.plan, records, tokenizer) is result.plan


def test_named_columns_take_canaries(write_rows, tmp_path, tokenizer):
    dataset = open_dataset(write_rows([{"title": "a", "body": "b"}] * 3), fields=["title", "body"])
    plan = plan_canaries(dataset, CanarySpec(n=8), preregistration={"alpha": 0.05})
    result = inject(dataset, plan, committed=ENTRY, out=tmp_path / "planted.jsonl")
    check_injected(result.plan, [tokenise(record, tokenizer) for record in result.dataset], tokenizer)


@pytest.fixture
def planted(chats, plan, tmp_path, tokenizer):
    """An injected dataset as token records."""
    result = inject(chats, plan, committed=ENTRY, out=tmp_path / "planted.jsonl")
    return [tokenise(record, tokenizer) for record in result.dataset]


def spoil(kind, records, plan, tokenizer):
    """Return the records with one canary spoiled, and the id of that canary."""
    inside = next(canary for canary in plan.canaries if canary.member)
    outside = next(canary for canary in plan.canaries if not canary.member)
    scored = tokenise_canary(inside, tokenizer)
    place = next(index for index, record in enumerate(records) if record.ids == scored.ids)
    rest, record = records[:place] + records[place + 1 :], records[place]
    match kind:
        case "dropped":
            return rest, inside.id
        case "twice":
            return [*records, record], inside.id
        case "cut":
            return [*rest, replace(record, ids=record.ids[:-2], span=(record.span[0], len(record.ids) - 2))], inside.id
        case "changed":
            return [*rest, replace(record, ids=(record.ids[0] ^ 1, *record.ids[1:]))], inside.id
        case "not learned":
            return [*rest, replace(record, span=(scored.span[0] + 1, len(record.ids)))], inside.id
        case "learned in part":
            return [*rest, replace(record, span=(record.span[0], scored.span[1] - 1))], inside.id
    foreign = tokenise_canary(outside, tokenizer)
    return [*records, replace(foreign, span=(1, len(foreign.ids)))], outside.id


def test_what_was_planted_is_found_in_any_order(planted, plan, tokenizer):
    random.Random(1).shuffle(planted)
    assert check_injected(plan, iter(planted), tokenizer) is plan


@pytest.mark.parametrize(
    "kind", ["dropped", "twice", "cut", "changed", "not learned", "learned in part", "planted against its coin"]
)
def test_a_spoiled_canary_is_named_by_id_only(planted, plan, tokenizer, kind, errors_text):
    records, name = spoil(kind, planted, plan, tokenizer)
    with pytest.raises(InvalidInput, match=rf"^1 of 64 canaries are not in the tokens as planned: {name}$") as caught:
        check_injected(plan, records, tokenizer)
    seen = errors_text(caught.value)
    assert not [canary.id for canary in plan.canaries if canary.secret in seen]


def test_the_clean_file_fails_with_a_short_list(chats, plan, tokenizer):
    with pytest.raises(InvalidInput, match=r"canaries are not in the tokens as planned: (c\d{5}, ){15}c\d{5} …$"):
        check_injected(plan, [tokenise(record, tokenizer) for record in chats], tokenizer)


def test_a_short_max_tokens_fails(chats, plan, tokenizer, tmp_path):
    result = inject(chats, plan, committed=ENTRY, out=tmp_path / "planted.jsonl")
    longest = max(len(tokenise_canary(canary, tokenizer).ids) for canary in plan.canaries if canary.member)
    records = [tokenise(record, tokenizer, max_tokens=longest - 1) for record in result.dataset]
    with pytest.raises(InvalidInput, match="canaries are not in the tokens as planned"):
        check_injected(plan, records, tokenizer)
