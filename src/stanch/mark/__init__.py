"""Whose copy is this? Each recipient's copy gets its own invisible direction in weight space.

A mark is planned from the unmarked original, its keys are committed to before any copy exists, a copy is marked while
it is read, and a suspect is compared with the original later, with a bound on ever naming an innocent recipient::

    plan = plan_mark(original)                                  # what is marked, how strongly; refusals
    root = MarkRoot.generate()                                  # one secret a release
    batch = commit(plan, root, [RecipientSlot("acme"), RecipientSlot("globex")])
    # batch.root goes into the ledger; the first checkpoint that contains it is the beacon
    key = copy_key(batch, "acme", beacon=beacon)
    source = MarkedSource(original, plan, key)                  # sealed as it is read; embed() writes a directory
    keys = mark_keys([(batch, beacon)], root)
    found = detect(Originals(original, base), suspect, keys, ScorePlan.default(plan.kind, n=10_000))
    found.accused                                               # each with z and log10 p

Without a workspace, :class:`KeyFolder` keeps a release's keys (``stanch mark``); :func:`rehearse` measures on the real
model what treatments leave of a mark. Plain functions: no ledger, no users, no clock. What a finding proves is *this
copy or a derivative of it*, never *this person*. The formats are in ``docs/spec/mark.md``.
"""

from stanch.mark.alignment import align
from stanch.mark.bounds import log10_bound, threshold
from stanch.mark.commitment import (
    Commitment,
    Leaf,
    LeafOpening,
    commit,
    copy_key,
    mark_keys,
    restore,
)
from stanch.mark.detection import (
    DecoyStatistics,
    Detection,
    RecipientScore,
    ScorePlan,
    VariantResult,
    detect,
    extract,
)
from stanch.mark.features import FeatureSet, Variant
from stanch.mark.key_folder import KeyFolder, set_beacon
from stanch.mark.keys import CopyKey, MarkKeys, MarkRoot, RecipientSlot
from stanch.mark.layout import Kind, Layout, LayoutEntry
from stanch.mark.lineage import LineageReport, examine_lineage
from stanch.mark.plan import MarkPlan, plan_mark
from stanch.mark.rehearsal import Rehearsal, rehearse
from stanch.mark.scoring import score
from stanch.mark.source import MarkedCopy, MarkedSource, embed
from stanch.mark.strength import MarkParams, colluders, expected_score, solve_alpha
from stanch.mark.suspect import Originals, Suspect, open_suspect
from stanch.mark.treatments import TREATMENTS, Treatment

__all__ = [
    "TREATMENTS",
    "Commitment",
    "CopyKey",
    "DecoyStatistics",
    "Detection",
    "FeatureSet",
    "KeyFolder",
    "Kind",
    "Layout",
    "LayoutEntry",
    "Leaf",
    "LeafOpening",
    "LineageReport",
    "MarkKeys",
    "MarkParams",
    "MarkPlan",
    "MarkRoot",
    "MarkedCopy",
    "MarkedSource",
    "Originals",
    "RecipientScore",
    "RecipientSlot",
    "Rehearsal",
    "ScorePlan",
    "Suspect",
    "Treatment",
    "Variant",
    "VariantResult",
    "align",
    "colluders",
    "commit",
    "copy_key",
    "detect",
    "embed",
    "examine_lineage",
    "expected_score",
    "extract",
    "log10_bound",
    "mark_keys",
    "open_suspect",
    "plan_mark",
    "rehearse",
    "restore",
    "score",
    "set_beacon",
    "solve_alpha",
    "threshold",
]
