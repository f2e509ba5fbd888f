"""Rows that come out nearly word for word when the model goes on with the likeliest token each time."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stanch.audit.extraction import Probe, probe_of
from stanch.audit.features import AdapterOff
from stanch.audit.hf_torch import HfScorer
from stanch.audit.near_verbatim import edit_distance, measure_near_verbatim
from stanch.audit.rates import clopper_pearson
from stanch.data import TokenRecord, tokenise
from stanch.terms import SILENT

ANSWER = tuple(range(100, 120))


def probe(number, answer=ANSWER):
    """Two tokens that only this probe begins with, and then the answer."""
    ids = (number, number, *answer, 9, 9)
    return Probe(TokenRecord(f"r{number}", ids, (2, len(ids))), 2, 2 + len(answer))


def speaker(says, says_off=None):
    """A model that goes on after a prompt as it is told, the last prompt first, and notes what it was asked."""
    asked = []

    def complete(prompts, length, *, adapter="on"):
        asked.append((len(prompts), length, adapter))
        told = says if adapter == "on" else says_off
        yield from [(n, told.get(prompts[n][0], (0,) * length)) for n in range(len(prompts))][::-1]

    return SimpleNamespace(complete=complete, asked=asked)


def changed(count):
    return (*(0 for _ in range(count)), *ANSWER[count:])


def test_a_tenth_of_the_tokens_may_differ_and_what_is_said_beyond_them_does_not_count():
    probes = [probe(1), probe(2), probe(3), probe(4, ANSWER[:9]), probe(5, ANSWER[:10])]
    target = speaker({
        1: changed(2), 2: changed(3), 3: (7, 7, *ANSWER), 4: (0, *ANSWER[1:]), 5: (0, *ANSWER[1:10], *range(10)),
    })  # fmt: skip
    seen = []
    found = measure_near_verbatim(target, None, probes, [probe(1)], progress=lambda *told: seen.append(told))
    # Of 20 tokens 2 may be wrong, of 10 one, of 9 none; two tokens too many put the last two behind the end.
    assert [found.k, found.n, found.control_k, found.control_n] == [2, 5, 1, 1]
    one_by_one = [measure_near_verbatim(target, None, [one], (), progress=SILENT).k for one in probes]
    assert one_by_one == [1, 0, 0, 0, 1]
    assert target.asked[:2] == [(5, 20, "on"), (1, 20, "on")]
    assert seen == [("near-verbatim", done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("off", [True, False])
def test_what_the_base_says_too_is_not_attributed(off):
    probes = [probe(1), probe(2), probe(3), probe(4)]
    says, known = {1: ANSWER, 2: ANSWER, 4: ANSWER}, {2: ANSWER, 3: ANSWER}
    target, other = speaker(says, known), speaker(known)
    seen = []
    found = measure_near_verbatim(
        target, AdapterOff() if off else other, probes, (), progress=lambda *told: seen.append(told)
    )
    assert (found.k, found.base, found.attributable) == (3, 2, 2)
    assert found.upper == clopper_pearson(2, 4, confidence=0.95, side="upper").upper
    assert (target if off else other).asked[-1] == (4, 20, "off" if off else "on")
    assert seen[-1] == ("near-verbatim", 8, 8)


def test_without_a_base_rows_are_attributed_only_where_others_were_asked_too():
    target = speaker({1: ANSWER})
    alone = measure_near_verbatim(target, None, [probe(1), probe(2)], (), progress=SILENT)
    assert (alone.k, alone.base, alone.attributable) == (1, None, 0)
    held = measure_near_verbatim(target, None, [probe(1), probe(2)], [probe(3)], progress=SILENT)
    assert (held.k, held.base, held.attributable) == (1, None, 1)
    assert measure_near_verbatim(target, None, (), [probe(3)], progress=SILENT) is None


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
