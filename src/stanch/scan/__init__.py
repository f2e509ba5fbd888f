"""One engine that finds secrets, personal data and known texts in files and streams, and redacts them.

A :class:`Policy` says what to look for and what to do with it; a :class:`Scanner` does it. The same policy gives the
same answer for a whole text and for a stream, however the stream is cut. :class:`SpanIndex` finds training text.

Example:
    >>> from stanch.scan import Policy, Scanner
    >>> scanner = Scanner(Policy())
    >>> scanner.redact("Write to ana.diaz@correo.es today.").text
    'Write to <EMAIL> today.'
    >>> session = scanner.open_stream()
    >>> [session.feed(part).text for part in ("Write to ana.di", "az@correo", ".es today.")]
    ['Write to ', '', '<EMAIL> ']
    >>> session.finish().text
    'today.'
"""

from stanch.scan.dictionary import Dictionary
from stanch.scan.fold import FOLD, Folder, fold_text
from stanch.scan.found import Location, ScanFinding, ScanResult
from stanch.scan.lint import PackError, lint_pack
from stanch.scan.pack import load_pack, pack_digest
from stanch.scan.policy import Operator, Policy
from stanch.scan.policy_file import PolicyFile, read_policy
from stanch.scan.recogniser import Recogniser
from stanch.scan.redact import Redacted, Replacement, Replacer
from stanch.scan.report import KindCount, ReportBuilder, ResidualTarget, ScanReport
from stanch.scan.sarif import to_sarif
from stanch.scan.scanner import Scanner
from stanch.scan.spans import (
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
from stanch.scan.stream import Released, StreamClosedError, StreamSession
from stanch.scan.vault import OpenVault, Vault, open_vault

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
