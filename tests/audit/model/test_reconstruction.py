"""Personal data guessed among candidates, and rows that are repeated."""

import hmac
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.extraction import NEVER, Chance, Drawn, Probe
from stanch.audit.features import AdapterOff, Features
from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import AuditParams
from stanch.audit.reconstruction import (
    POOLED,
    RESIDUAL,
    PersonalValue,
    ProbeSides,
    _candidate_records,
    _choose,
    _comes_first,
    _summarise,
    difference_interval,
    find_values,
    measure_reconstruction,
    redraw,
)
from stanch.audit.repeated import count_copies, summarise_repeated
from stanch.audit.run import AuditInput, audit
from stanch.audit.sections import Reconstruction
from stanch.data import ChatTurn, Record, TextField, TokenRecord
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
        else:
            assert other == one


def test_letters_and_digits_are_drawn_anew():
    drawn = [redraw("Ab-12 é", random.Random(seed)) for seed in range(200)]
    assert [len({value[place] for value in drawn}) for place in range(7)] == [26, 26, 1, 10, 10, 1, 1]


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


KEY = b"k" * 32


@pytest.fixture
def phones(monkeypatch):
    """A scanner of telephone numbers alone, which is made faster."""
    scanner = Scanner(Policy(kinds=frozenset({"phone"})))
    monkeypatch.setattr("stanch.audit.reconstruction._scanner", lambda: scanner)


def model(tokenizer, likes, likes_when_off=()):
    """A model to which a row is likelier where it says one of some values after its question; the last row first."""

    def figures(record, liked):
        lp, text = np.full(record.span[1] - record.span[0], -1, dtype=np.float32), tokenizer.decode(record.ids)
        lp[-1] += any(value.said[0].content in text and value.value in text for value in liked)
        return Features(record.id, record.span[0], lp, lp, lp, lp > 0, lp)

    return SimpleNamespace(
        tokenizer=tokenizer,
        features=lambda records, *, decoding: [figures(r, likes) for r in records[::-1] if decoding],
        paired_features=lambda records, *, decoding: [
            (figures(r, likes), figures(r, likes_when_off)) for r in records[::-1] if decoding
        ],
    )


@pytest.mark.parametrize("off", [True, False])
@pytest.mark.usefixtures("phones")
def test_a_value_is_guessed_where_the_tuning_alone_made_it_likelier(tokenizer, kit, off):
    inside, outside = callers(kit, 1, 4, "in"), callers(kit, 2, 3, "out")
    taught, held = find_values(inside), find_values(outside)
    assert [len(taught), len(held)] == [4, 3]
    known = [taught[1]]
    target = model(tokenizer, [taught[0], taught[1], taught[2], held[0]], known)
    seen = []
    sides = ProbeSides(inside, [*outside, inside[3]], 1024)  # what is taught is no control, wherever else it stands
    (found,) = measure_reconstruction(
        target, AdapterOff() if off else model(tokenizer, known), sides, AuditParams(), key=KEY,
        progress=lambda *told: seen.append(told),
    )  # fmt: skip
    assert found == Reconstruction(POOLED, k=2, n=4, control_k=1, control_n=3)
    assert seen == [("personal data", done, 7) for done in range(1, 8)]
    few = AuditParams(reconstruction_values=2)
    (found,) = measure_reconstruction(target, AdapterOff(), sides, few, key=KEY, progress=SILENT)
    assert (found.n, found.control_n) == (2, 2)
    none = AuditParams(reconstruction_values=0)
    assert measure_reconstruction(target, AdapterOff(), sides, none, key=KEY, progress=SILENT) == ()


def personal(value, text, name="r", kind="phone", *, sure=True):
    said = (ChatTurn("user", "Who asked?"), ChatTurn("assistant", text))
    return PersonalValue(name, kind, said, value, sure)


def offered(tokenizer, found, pool=(), taught=frozenset(), key=KEY, max_tokens=1024):
    """The candidates of a value: their records, and what stands in the place of the true one."""
    scorer = SimpleNamespace(tokenizer=tokenizer)
    records = _candidate_records(found, scorer, pool, taught, key=key, max_tokens=max_tokens)
    if records is None:
        return None
    before = len(tokenizer.decode(records[0].ids[: records[0].span[0]]))
    return records, [tokenizer.decode(r.ids)[before:].strip()[: len(found.value)] for r in records]


def test_a_value_stands_against_99_others_of_which_none_was_taught(tokenizer):
    found = personal("4711-0815", "Call 4711-0815 about the harbour, the lantern and the copper ledger of the meadow.")
    seed = hmac.digest(KEY, b"candidates\0r\x004711-0815", "sha256")
    assert offered(tokenizer, found)[1][1] == redraw("4711-0815", random.Random(seed))
    pool, taught = ["1234-5678", "2345-6789", "3456-7890"], frozenset({"2345-6789"})
    records, values = offered(tokenizer, found, pool, taught)
    assert [record.id for record in records] == [str(n) for n in range(100)]
    assert values[0] == "4711-0815"
    assert set(values[1:3]) == {"1234-5678", "3456-7890"}
    assert len(set(values)) == 100
    assert not taught & set(values)
    for record in records:
        start, end = record.span
        assert end == len(record.ids) == start + len(tokenizer.encode("4711-0815")) + 16
    assert offered(tokenizer, found, pool, taught)[1] == values
    assert offered(tokenizer, found, pool, taught, key=b"o" * 32)[1] != values
    assert offered(tokenizer, personal("4711-0815", found.said[1].content, "s"), pool, taught)[1] != values


def test_what_is_said_before_the_answer_stays(tokenizer):
    text = "Call 4711-0815 now."
    said = (ChatTurn("system", "Be brief."), ChatTurn("user", "Who asked?"), ChatTurn("assistant", text))
    records, values = offered(tokenizer, PersonalValue("r", "phone", said, "4711-0815", sure=True))
    whole = tokenizer.decode(records[0].ids)
    assert "Be brief." in whole
    assert "Who asked?" in whole
    assert [tokenizer.decode(r.ids) for r in records] == [whole.replace("4711-0815", value) for value in values]


def test_others_are_those_of_the_kind_that_a_scan_is_as_sure_of(monkeypatch):
    text = "about {}."
    held = [
        personal(f"{n}-{kind}-{sure}", text.format(n), f"h{n}", kind, sure=sure)
        for n in range(8) for kind in ("phone", "iban") for sure in (True, False)
    ]  # fmt: skip
    asked = [personal("1", text.format(1), "a", "iban", sure=False), personal("2", text.format(2), "b")]
    pools = []
    monkeypatch.setattr("stanch.audit.reconstruction.find_values", lambda records: records)
    monkeypatch.setattr(
        "stanch.audit.reconstruction._candidate_records",
        lambda found, _scorer, pool, _taught, **_: pools.append((found, pool)),
    )
    sides = ProbeSides(asked, held, 1024)
    assert measure_reconstruction(None, None, sides, PARAMS, key=KEY, progress=SILENT) == ()
    assert pools[:2] == [
        (asked[1], [f"{n}-phone-True" for n in range(8)]), (asked[0], [f"{n}-iban-False" for n in range(8)]),
    ]  # fmt: skip
    assert all(len(pool) == 7 and found.value not in pool for found, pool in pools[2:])


def test_a_row_may_be_as_long_as_is_allowed_and_its_end_is_cut_sixteen_tokens_behind_the_value(tokenizer):
    found = personal("4711-0815", "Call 4711-0815 now.")
    records, _ = offered(tokenizer, found)
    size = len(records[0].ids)
    assert records[0].span[1] == size < records[0].span[0] + len(tokenizer.encode("4711-0815")) + 16
    assert offered(tokenizer, found, max_tokens=size)
    assert offered(tokenizer, found, max_tokens=size - 1) is None


def test_a_value_with_too_few_others_is_not_guessed(tokenizer):
    digit = personal("7", "Room 7 it is.")
    assert offered(tokenizer, digit) is None
    assert offered(tokenizer, digit, pool=[str(n) for n in range(100, 189)]) is None
    # 90 others and the 9 digits; one that stands in the row already is none.
    assert len(offered(tokenizer, digit, pool=[str(n) for n in range(100, 190)])[0]) == 100
    assert offered(tokenizer, personal("7", "Room 7 or 100 it is."), pool=[str(n) for n in range(100, 190)]) is None
    twice = personal("7", "Room 7 or 7 it is.")
    assert offered(tokenizer, twice, pool=[str(n) for n in range(100, 300)]) is None


def test_the_key_chooses_as_many_sure_values_as_unsure_ones():
    values = [personal(str(n), f"No {n}.", f"r{n}", sure=n % 2 == 0) for n in range(40)]
    chosen = _choose(values, 3, KEY)
    assert [value.sure for value in chosen] == [True] * 3 + [False] * 3
    assert _choose(values[::-1], 3, KEY) == chosen
    assert _choose(values, 3, b"o" * 32) != chosen
    places = {v.value: hmac.digest(KEY, f"{v.record_id}\0{v.kind}\0{v.value}".encode(), "sha256") for v in values}
    assert chosen[:3] == sorted(values[::2], key=lambda v: places[v.value])[:3]
    assert _choose(values, 0, KEY) == []
    assert len(_choose(values, 99, KEY)) == 40
    same = [personal("1", "No 1.", name, kind) for name, kind in (("a", "x"), ("a", "y"), ("b", "x"))]
    assert {_choose(same, 1, bytes([n]) * 32)[0] for n in range(40)} == set(same)


def test_a_kind_stands_alone_from_thirty_values_on_that_were_taught():
    results = [
        *[("phone", True, True)] * 2, *[("phone", True, False)] * 28, *[("phone", False, True)] * 5,
        *[("iban", True, True)] * 29, *[("iban", False, False)] * 40, *[("card", False, True)] * 3,
        (RESIDUAL, True, True), (RESIDUAL, False, False),
    ]  # fmt: skip
    assert _summarise(results) == (
        Reconstruction("phone", k=2, n=30, control_k=5, control_n=5),
        Reconstruction(POOLED, k=29, n=29, control_k=3, control_n=43),
        Reconstruction(RESIDUAL, k=1, n=1, control_k=0, control_n=1),
    )
    assert _summarise([]) == ()
    assert (POOLED, RESIDUAL) == ("pooled", "residual")  # as reports have them


def row(*fields):
    return Record(
        "r", 0, "f", tuple(TextField(f"messages[{n}].content", *field) for n, field in enumerate(fields)), b""
    )


def test_values_are_looked_for_in_what_a_row_teaches_and_unsure_ones_beside_the_sure(monkeypatch):
    def span(start, end, kind="k"):
        return SimpleNamespace(start=start, end=end, kind=kind)

    found = SimpleNamespace(
        findings=(span(4, 8),),
        # Two overlap the sure one, by its first and its last character; two touch it; of two that overlap one stays.
        residuals=(
            span(8, 10, "b"), span(7, 9), span(2, 5), span(2, 4, "a"), span(11, 13, "c"), span(12, 14),
            span(13, 15, "d"),
        ),
    )  # fmt: skip
    scanned = []
    monkeypatch.setattr(
        "stanch.audit.reconstruction._scanner", lambda: SimpleNamespace(scan=lambda text: scanned.append(text) or found)
    )
    text = "0123456789abcdef"
    values = find_values([row(("user", "x"), ("assistant", text), ("user", "y"), ("tool", "z"))])
    assert [(v.value, v.kind, v.sure) for v in values] == [
        ("23", "a", False), ("89", "b", False), ("bc", "c", False), ("de", "d", False), ("4567", "k", True),
    ]  # fmt: skip
    assert scanned == [text]
    assert {v.said[-1] for v in values} == {ChatTurn("assistant", text)}
    assert len(find_values([row(("text", text))])) == 5
    assert find_values([row(("user", text))]) == []
    assert [v.value for v in find_values([row(("assistant", text + "89 de"))])] == ["23", "bc", "4567"]


def test_a_value_that_a_text_begins_with_is_found_where_there_is_no_sure_one(monkeypatch):
    found = SimpleNamespace(findings=(), residuals=(SimpleNamespace(start=0, end=3, kind="k"),))
    monkeypatch.setattr("stanch.audit.reconstruction._scanner", lambda: SimpleNamespace(scan=lambda _text: found))
    assert [v.value for v in find_values([row(("text", "012345"))])] == ["012"]


def test_a_difference_without_either_side_has_no_bounds():
    assert difference_interval(Reconstruction("k", 0, 0, 1, 2)) is None
    assert difference_interval(Reconstruction("k", 1, 2, 0, 0)) is None
    low, high = difference_interval(Reconstruction("k", 48, 80, 56, 70))
    assert (low, high) == (pytest.approx(-0.3339, abs=5e-5), pytest.approx(-0.0524, abs=5e-5))
    assert difference_interval(Reconstruction("k", 10, 10, 0, 20))[1] == 1
