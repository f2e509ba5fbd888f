"""What a model from outside must not hold: anything that could run code when it is loaded.

Files are judged by what they contain, and by their names where a loader chooses by name. Nothing is unpickled,
unpacked or imported to look at it. Silence is no proof of safety: a loader's own bugs are not looked for.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from stanch.errors import InvalidInput, UnsafeArtifact, printable
from stanch.sign.content import IntakeFinding, find_unsafe
from stanch.weights import check_paths, list_files

_SHOWN = 20


class IntakePolicy(StrEnum):
    """What happens when something unsafe is found: refuse the model, or only report it."""

    STRICT = "strict"
    REPORT = "report"


STRICT = IntakePolicy.STRICT


@dataclass(frozen=True, slots=True)
class IntakeReport:
    """What was found below a directory.

    Attributes:
        files: Number of files looked at.
        findings: Everything unsafe, in the order of the paths.
    """

    files: int
    findings: tuple[IntakeFinding, ...]


def inspect_model(path: Path, policy: IntakePolicy = STRICT) -> IntakeReport:
    """Look at every file below ``path``.

    Raises:
        UnsafeArtifact: Something unsafe was found, and the policy is strict; the message lists it.
        InvalidInput: The directory or a file in it cannot be read.
    """
    listing = list_files(path, hub=True)
    findings = [
        IntakeFinding(
            name, "link", "is a link or a special file: it leads out of the folder", "put a copy of the file there"
        )
        for name in listing.others
    ]
    findings += _find_names((*listing.files, *listing.others))
    for name in listing.files:
        findings += find_unsafe(path, name)
    report = IntakeReport(len(listing.files), tuple(sorted(findings, key=lambda found: (found.path, found.kind))))
    if findings and policy is IntakePolicy.STRICT:
        raise _refusal(path, report.findings)
    return report


def _find_names(names: Sequence[str]) -> Iterator[IntakeFinding]:
    """Find names that some system cannot hold, or that one system takes for one and another for two."""
    folders = {_fold(str(folder)) for name in names for folder in PurePosixPath(name).parents}
    seen: set[str] = set()
    for name in names:
        try:
            check_paths([name])
        except InvalidInput:
            yield IntakeFinding(name, "name", "has a name that not every system can hold", "rename it")
        if _fold(name) in seen or _fold(name) in folders:
            yield IntakeFinding(
                name, "name-clash", "has the name of another file or folder, letter case aside", "rename one of them"
            )
        seen.add(_fold(name))


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _refusal(path: Path, findings: Sequence[IntakeFinding]) -> UnsafeArtifact:
    first, *rest = findings
    others = [f"{printable(found.path)} {found.reason}" for found in rest[:_SHOWN]]
    more = [f"and {len(rest) - _SHOWN} more"] if len(rest) > _SHOWN else []
    return UnsafeArtifact(
        f"{path}: {printable(first.path)} {first.reason}",
        why="; ".join(["loading it could run code, or differ from what was checked", *others, *more]),
        next_step=first.convert,
    )
