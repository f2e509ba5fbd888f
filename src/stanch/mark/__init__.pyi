from .adapter import BaseNeeded
from .alignment import align
from .bounds import log10_bound, threshold
from .commitment import (
    Commitment,
    Leaf,
    LeafOpening,
    commit,
    copy_key,
    mark_keys,
    restore,
)
from .detection import (
    DecoyStatistics,
    Detection,
    RecipientScore,
    ScorePlan,
    VariantResult,
    detect,
    extract,
)
from .features import FeatureSet, Variant
from .key_folder import KeyFolder, set_beacon
from .keys import CopyKey, MarkKeys, MarkRoot, RecipientSlot
from .layout import Kind, Layout, LayoutEntry
from .lineage import LineageReport, examine_lineage
from .plan import MarkPlan, plan_mark
from .rehearsal import Rehearsal, rehearse
from .scoring import score
from .source import MarkedCopy, MarkedSource, embed
from .strength import MarkParams, Strength, colluders, expected_score, solve_alpha
from .suspect import Originals, Suspect, open_suspect
from .treatments import TREATMENTS, Treatment

__all__ = [
    "TREATMENTS",
    "BaseNeeded",
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
    "Strength",
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
