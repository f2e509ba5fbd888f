"""Rows that are tested for extraction alone: read on only where their first tokens leave it open whether they come out.

Each further token makes a text less likely to be drawn. A row whose first 16 tokens the target gives neither greedily
nor within any budget that the report speaks of is settled: no later token brings it back, and the base is not asked for
it. Every count and curve stays what it was.
"""

from collections.abc import Sequence
from dataclasses import replace

from stanch.audit.extraction import (
    MIN_SUFFIX,
    Probe,
    chance_of,
    comes_within,
    largest_budget,
    probe_of,
)
from stanch.audit.features import AdapterOff, Scorer
from stanch.audit.params import AuditParams
from stanch.audit.passes import Passing
from stanch.audit.subjects import Passes, run_passes
from stanch.data import TokenRecord
from stanch.terms import Progress


def look(
    target: Scorer,
    base: Scorer | AdapterOff | None,
    records: Sequence[TokenRecord],
    params: AuditParams,
    *,
    passing: Passing,
    progress: Progress,
) -> Passes:
    """Return the features of what must come out of each record; of a settled one, the target's of its first tokens.

    Records that are too short to be tested are left out.
    """
    probes = [probe for probe in map(probe_of, records) if probe is not None]
    begun = [_cut(probe, probe.start + MIN_SUFFIX) for probe in probes]
    first = run_passes(target, None, begun, params, what="first tokens of rows", passing=passing, progress=progress)
    left_open = [_cut(probe, probe.end) for probe in probes if not _is_settled(probe, first, params)]
    rest = run_passes(target, base, left_open, params, what="rows left open", passing=passing, progress=progress)
    return Passes((*first.records, *rest.records), {**first.target, **rest.target}, rest.base)


def _cut(probe: Probe, end: int) -> TokenRecord:
    return replace(probe.record, ids=probe.record.ids[:end], span=(probe.start, end))


def _is_settled(probe: Probe, seen: Passes, params: AuditParams) -> bool:
    """Say whether the target gives the first tokens neither greedily nor within the largest budget."""
    chance = chance_of(seen.target[probe.record.id], probe.start, probe.start + MIN_SUFFIX)
    return not comes_within(chance, largest_budget(params), params)
