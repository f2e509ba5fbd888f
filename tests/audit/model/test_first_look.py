"""Rows read on only where their first tokens leave it open: the same counts, curve and list as from whole rows."""

import dataclasses

import pytest

from stanch.audit.extraction import MIN_SUFFIX, draw, extraction_curve, list_extracted, probe_of, summarise_rows
from stanch.audit.first_look import look
from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import AuditParams, Decoding
from stanch.audit.passes import Passing
from stanch.audit.subjects import run_passes
from stanch.data import TokenRecord, tokenise
from stanch.terms import SILENT

PARAMS = AuditParams()
HOT = AuditParams(decoding=Decoding(temperature=6.0))
"""So hot that only what comes greedily comes at all."""


@pytest.fixture(scope="module")
def models(tiny):
    return HfScorer(tiny.tuned), HfScorer(tiny.base)


@pytest.fixture(scope="module")
def records(tiny):
    return [tokenise(record, tiny.tokenizer) for record in (*tiny.members[:24], *tiny.holdout)]


def examined(passes, records, params):
    rows = draw([probe for probe in map(probe_of, records) if probe is not None], passes.target, passes.base, params)
    listed = list_extracted(rows, params, controlled=False)
    return (
        summarise_rows(rows, (), params, too_short=0, census=True),
        extraction_curve(rows, (), params),
        [(row.record_id, row.span, row.attributable) for row in listed],
        [row.chance.log_p for row in listed],
    )


@pytest.mark.parametrize(
    "params",
    [
        PARAMS,
        AuditParams(sample_budget=1),
        AuditParams(sample_budget=10**12),
        AuditParams(decoding=Decoding(top_k=3)),
        HOT,
    ],
)
@pytest.mark.parametrize("with_base", [True, False])
def test_counts_curve_and_list_are_those_of_whole_rows(models, records, params, with_base):
    target, base = models[0], models[1] if with_base else None
    whole = run_passes(target, base, records, params, what="rows", passing=Passing(), progress=SILENT)
    looked = look(target, base, records, params, passing=Passing(), progress=SILENT)
    *counts, log_p = examined(looked, records, params)
    *expected, expected_log_p = examined(whole, records, params)
    assert counts == expected
    assert log_p == pytest.approx(expected_log_p, abs=1e-4)
    assert counts[0].k >= 16 or params.sample_budget == 1


def test_only_rows_that_are_left_open_are_read_on(models, records):
    looked = look(*models, records, PARAMS, passing=Passing(), progress=SILENT)
    again = looked.records[len(records) :]
    assert {record.id for record in again} >= {f"p{number}" for number in range(16)}
    assert len(again) < len(records)
    for record in looked.records[: len(records)]:
        assert record.span[1] - record.span[0] == MIN_SUFFIX
        assert len(record.ids) == record.span[1]
    by_id = {record.id: record for record in records}
    for record in again:
        probe = probe_of(by_id[record.id])
        assert record.span == (probe.start, probe.end)
        assert looked.target[record.id].lp.size == looked.base[record.id].lp.size == probe.end - probe.start
    assert set(looked.base) == {record.id for record in again}


def test_what_the_target_does_not_give_is_not_asked_of_the_base(models, records):
    target, base = models
    (row,) = (record for record in records if record.id == "p0")
    for way in (look, lambda *args, **more: run_passes(*args, what="rows", **more)):
        seen = way(base, target, [row], PARAMS, passing=Passing(), progress=SILENT)
        found, curve, listed, _ = examined(seen, [row], PARAMS)
        assert (found.k, found.base, found.attributable, listed) == (0, 0, 0, [])
        assert {point.base for point in curve} == {0.0}


def test_rows_that_are_too_short_are_left_out(models):
    short = TokenRecord("s", tuple(range(5, 30)), (20, 25))
    assert look(*models, [short], PARAMS, passing=Passing(), progress=SILENT).records == ()
    assert probe_of(dataclasses.replace(short, ids=tuple(range(5, 41)), span=(20, 36))) is not None
