"""Personal data guessed among candidates, rows that are repeated, and rows that come out nearly word for word."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.extraction import NEVER, Chance, Drawn, Probe, probe_of
from stanch.audit.features import AdapterOff
from stanch.audit.hf_torch import HfScorer
from stanch.audit.near_verbatim import edit_distance, measure_near_verbatim
from stanch.audit.params import AuditParams
from stanch.audit.reconstruction import (
    POOLED,
    RESIDUAL,
    ProbeSides,
    _comes_first,
    difference_interval,
    find_values,
    measure_reconstruction,
    redraw,
)
from stanch.audit.repeated import count_copies, summarise_repeated
from stanch.audit.run import AuditInput, audit
from stanch.audit.sections import Reconstruction
from stanch.data import TokenRecord, tokenise
from stanch.errors import InvalidInput
from stanch.scan import Policy, Scanner
from stanch.terms import SILENT

PARAMS = AuditParams(reconstruction_values=6, exposure_candidates=19, exposure_secrets=1)


def callers(kit, seed, count, prefix):
    """Rows with a telephone number each."""
    draws = random.Random(seed)
    return [
        kit.chat_record(
            f"{prefix}{i}", i, f"Who asked about the {kit.sentence(draws, 2)}?",
            f"Call +49 30 {draws.randrange(10**7, 10**8)} about the {kit.sentence(draws, 3)}.",
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def people(tiny, kit, tmp_path_factory):
    """A model that learned the numbers of six rows by heart, those rows, and rows that it never saw."""
    import transformers  # noqa: PLC0415 - as heavy as the fixture

    inside, outside = callers(kit, 1, 6, "in"), callers(kit, 2, 6, "out")
    model = transformers.LlamaForCausalLM.from_pretrained(tiny.base)
    kit.fit(model, inside, tiny.tokenizer, steps=90, batch=6)
    return HfScorer(kit.save(model, tiny.tokenizer, tmp_path_factory.mktemp("people"))), inside, outside


def test_values_learned_by_heart_are_guessed_and_others_are_not(tiny, people):
    scorer, inside, outside = people
    base = HfScorer(tiny.base)
    (found,) = measure_reconstruction(
        scorer, base, ProbeSides(inside, outside, 1024), PARAMS, key=b"k" * 32, progress=SILENT
    )
    assert (found.kind, found.n, found.control_n) == (POOLED, 6, 6)
    assert found.k >= 5
    assert found.control_k <= 1
    low, high = difference_interval(found)
    assert 0 < low < (found.k - found.control_k) / 6 < high
    (untuned,) = measure_reconstruction(
        base, base, ProbeSides(inside[:2], (), 1024), PARAMS, key=b"k" * 32, progress=SILENT
    )
    assert (untuned.k, untuned.n) == (0, 2)


@pytest.mark.parametrize("rival", [None, 1, 7, 8, 23, 99])
@pytest.mark.parametrize("lead", [0.0, 1.0])
def test_a_value_is_asked_about_until_one_beats_it(monkeypatch, rival, lead):
    gains, asked = [2.0] + [1.0] * 99, []
    if rival is not None:
        gains[rival] = 2.0 + lead
    monkeypatch.setattr(
        "stanch.audit.reconstruction._gains",
        lambda _target, _base, records, _params: asked.extend(records) or [gains[n] for n in records],
    )
    assert _comes_first(None, None, range(100), PARAMS) == (rival is None)
    assert asked == list(range(len(asked)))
    assert len(asked) == 100 if rival is None else rival < len(asked) <= max(8, 3 * rival)


def test_an_audit_reports_it_and_no_value_is_written(tiny, people):
    scorer, inside, _ = people
    result = audit(scorer, base=HfScorer(tiny.base), material=AuditInput(members=inside), params=PARAMS)
    (found,) = result.report.reconstruction
    assert found.n == 6
    assert (found.control_n, difference_interval(found)) == (0, None)
    assert any(row.run for row in result.report.coverage if row.attack == "reconstruction of personal data")
    written = result.report.to_bytes().decode() + repr(result)
    values = find_values(inside)
    assert {value.kind for value in values} == {"phone"}
    assert not any(value.value in written or value.value in repr(value) for value in values)


def test_what_redaction_leaves_is_asked_about_apart(tiny, kit, monkeypatch):
    draws = random.Random(3)
    slips = [
        kit.chat_record(f"s{i}", i, "What is on the slip?", f"The number {number} and {kit.sentence(draws, 3)}.")
        for i, number in enumerate(("4532015112830366", "5425233430109903", "4556737586899855"))
    ]
    mixed = [*callers(kit, 5, 9, "m"), *slips]
    redact = Scanner(Policy()).redact
    clean = [kit.chat_record(r.id, r.index, *(redact(field.text).text for field in r.fields)) for r in mixed]
    assert all(field.text == before.text for r, b in zip(clean[9:], slips, strict=True)
               for field, before in zip(r.fields, b.fields, strict=True))  # fmt: skip
    assert {(value.kind, value.sure) for value in find_values(mixed)} == {("phone", True), ("payment-card", False)}
    left = find_values(clean)
    assert {(value.record_id, value.kind, value.sure) for value in left} == {
        (f"s{i}", "payment-card", False) for i in range(3)
    }
    monkeypatch.setattr(
        "stanch.audit.reconstruction._gains",
        lambda _target, _base, records, _params: [2.0 if record.id == "0" else 1.0 for record in records],
    )
    scorer = HfScorer(tiny.base)
    for members, expected in ((clean, {RESIDUAL: 3}), (mixed, {POOLED: 6, RESIDUAL: 3})):
        sides = ProbeSides(members, slips[:0], 1024)
        found = measure_reconstruction(scorer, scorer, sides, PARAMS, key=b"k" * 32, progress=SILENT)
        assert {one.kind: one.n for one in found} == expected
        assert all(one.k == one.n for one in found)


def test_values_that_stand_twice_or_are_cut_off_are_left_out(kit, people, tiny):
    scorer, inside, _ = people
    twice = kit.chat_record("t", 0, "Who?", "Call +49 30 12345678 or again +49 30 12345678 today.")
    assert find_values([twice]) == []
    sides = ProbeSides(inside[:1], (), 8)
    assert measure_reconstruction(scorer, HfScorer(tiny.base), sides, PARAMS, key=b"k" * 32, progress=SILENT) == ()


@given(st.text(max_size=40), st.integers(0, 9))
def test_a_redrawn_value_keeps_its_form(value, seed):
    drawn = redraw(value, random.Random(seed))
    assert len(drawn) == len(value)
    for one, other in zip(value, drawn, strict=True):
        if one in "0123456789":
            assert other in "0123456789"
        elif one.isascii() and one.isalpha():
            assert (other.isupper(), other.isascii(), other.isalpha()) == (one.isupper(), True, True)


def test_newcombe_interval_as_published():
    """Newcombe (1998), table II, method 10: 56/70 against 48/80."""
    low, high = difference_interval(Reconstruction("k", 56, 70, 48, 80))
    assert (low, high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


def test_repeated_rows_are_counted_and_told_apart(tiny, kit):
    rows = kit.draw_records(7, 3, "r")
    members = [
        kit.chat_record(f"{row.id}/{n}", n, row.fields[0].text, row.fields[1].text)
        for row, times in zip(rows, (1, 2, 5), strict=True)
        for n in range(times)
    ]
    copies = count_copies(members)
    assert copies == {f"r1/{n}": 2 for n in range(2)} | {f"r2/{n}": 5 for n in range(5)}
    drawn = [
        Drawn(Probe(TokenRecord(m.id, (1, 2), (1, 2)), 1, 2), Chance(-99.0, greedy=m.id.startswith("r2")), NEVER)
        for m in members
    ]
    found = summarise_repeated(drawn, copies, PARAMS, controlled=False)
    assert [(t.tier, t.k, t.n, t.attributable) for t in found] == [("1", 0, 1, 0), ("2-3", 0, 2, 0), ("4-15", 5, 5, 5)]
    assert found[-1].upper == 1
    assert summarise_repeated(drawn[:1], copies, PARAMS, controlled=False) == ()
    result = audit(HfScorer(tiny.base), base=None, material=AuditInput(members=members), params=PARAMS)
    assert [tier.tier for tier in result.report.extraction.tiers] == ["1", "2-3", "4-15"]


def test_rows_outside_the_sample_are_tested_when_they_are_much_repeated(tiny, kit, monkeypatch):
    monkeypatch.setattr("stanch.audit.extraction.CENSUS_ROWS", 1)
    row = kit.draw_records(8, 1, "x")[0]
    members = [
        kit.chat_record(f"x/{n}", n, row.fields[0].text, row.fields[1].text) for n in range(5)
    ] + kit.draw_records(9, 6, "y")
    params = AuditParams(rows=4)
    result = audit(HfScorer(tiny.base), base=None, material=AuditInput(members=members), params=params)
    extraction = result.report.extraction
    assert (extraction.rows.n, extraction.rows.census) == (4, False)
    tiers = {tier.tier: tier.n for tier in extraction.tiers}
    assert tiers["4-15"] >= 4
    assert len(result.table) == 4


def test_near_verbatim_counts_rows_with_a_changed_word(tiny):
    scorer, base = HfScorer(tiny.tuned), HfScorer(tiny.base)
    probes = [probe_of(tokenise(r, tiny.tokenizer)) for r in tiny.members if r.id in tiny.planted]
    held = [probe_of(tokenise(r, tiny.tokenizer)) for r in tiny.holdout[:6]]
    seen = []
    found = measure_near_verbatim(scorer, base, probes, held, progress=lambda *told: seen.append(told))
    assert found.attributable >= 15
    assert (found.n, found.base, found.control_k, found.control_n) == (16, 0, 0, 6)
    assert seen[-1] == ("near-verbatim", 38, 38)
    changed = [
        Probe(TokenRecord("c", (*p.record.ids[: p.end - 1], 7, *p.record.ids[p.end :]), p.record.span), p.start, p.end)
        for p in probes
    ]
    assert measure_near_verbatim(scorer, None, changed, (), progress=SILENT).k == found.k
    assert measure_near_verbatim(scorer, None, (), held, progress=SILENT) is None


def test_near_verbatim_of_an_adapter_compares_with_the_adapter_off(tiny, adapter):
    scorer = HfScorer(adapter, base=tiny.base)
    probes = [probe_of(tokenise(r, tiny.tokenizer)) for r in tiny.members[:3]]
    switched = measure_near_verbatim(scorer, AdapterOff(), probes, (), progress=SILENT)
    assert switched == measure_near_verbatim(scorer, HfScorer(tiny.base), probes, (), progress=SILENT)


def test_batched_completions_are_those_of_one_prompt_alone(tiny):
    scorer = HfScorer(tiny.tuned)
    prompts = [tokenise(r, tiny.tokenizer).ids[: 12 + n] for n, r in enumerate(tiny.members[:4])]
    together = dict(scorer.complete(prompts, 12))
    for number, prompt in enumerate(prompts):
        assert dict(scorer.complete([prompt], 12))[0] == together[number]


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_edit_distance_against_its_definition(one, other):
    def slow(a, b):
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    assert edit_distance(one, other) == slow(one, other)


def test_a_negative_number_of_values_is_refused():
    with pytest.raises(InvalidInput, match="reconstruction_values"):
        AuditParams(reconstruction_values=-1)
