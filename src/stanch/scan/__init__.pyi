from .dictionary import Dictionary
from .fold import FOLD, Folder, fold_text
from .found import Location, ScanFinding, ScanResult
from .lint import PackError, lint_pack
from .pack import load_pack, pack_digest
from .policy import Operator, Policy
from .policy_file import PolicyFile, read_policy
from .recogniser import Recogniser
from .redact import Redacted, Replacement, Replacer
from .report import KindCount, ReportBuilder, ResidualTarget, ScanReport
from .sarif import to_sarif
from .scanner import Scanner
from .spans import (
    COMPACT,
    FINE,
    STANDARD,
    Evidence,
    Hit,
    IndexParams,
    Layout,
    Match,
    MatchTracker,
    SpanCursor,
    SpanIndex,
)
from .stream import Released, StreamClosedError, StreamSession
from .vault import OpenVault, Vault, open_vault

__all__ = [
    "COMPACT",
    "FINE",
    "FOLD",
    "STANDARD",
    "Dictionary",
    "Evidence",
    "Folder",
    "Hit",
    "IndexParams",
    "KindCount",
    "Layout",
    "Location",
    "Match",
    "MatchTracker",
    "OpenVault",
    "Operator",
    "PackError",
    "Policy",
    "PolicyFile",
    "Recogniser",
    "Redacted",
    "Released",
    "Replacement",
    "Replacer",
    "ReportBuilder",
    "ResidualTarget",
    "ScanFinding",
    "ScanReport",
    "ScanResult",
    "Scanner",
    "SpanCursor",
    "SpanIndex",
    "StreamClosedError",
    "StreamSession",
    "Vault",
    "fold_text",
    "lint_pack",
    "load_pack",
    "open_vault",
    "pack_digest",
    "read_policy",
    "to_sarif",
]
