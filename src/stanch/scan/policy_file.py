"""Scan policies as TOML files (``docs/spec/scan-policy.md``), read strictly: what is not understood is refused."""

import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from stanch.config.origin import statement_lines
from stanch.config.toml import load_toml
from stanch.errors import InvalidInput
from stanch.scan.dictionary import Dictionary
from stanch.scan.policy import KEYED, Operator, Policy
from stanch.scan.vault import Vault
from stanch.terms import Severity

_MAX_BYTES = 1 << 16
KeyReference = Annotated[str, msgspec.Meta(pattern=r"^(file:[^\0]+|keyring:[a-z0-9._-]+)\Z")]
"""Where a key of 32 bytes lies: a private file, or the keyring of the workspace. Never the key itself."""


class DictionarySection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[dictionaries]]``: a dictionary file, its key, the severity of what it finds; paths start at the policy."""

    file: str
    key: KeyReference | None = None
    severity: Severity = Severity.HIGH


class KeysSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[keys]``: where keys lie, if not derived from the workspace's own."""

    pseudonym: KeyReference | None = None
    report: KeyReference | None = None


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["stanch/scan-policy/v1"]
    kinds: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    min_score: Annotated[float, msgspec.Meta(ge=0.2, le=1)] = 0.5
    decode_depth: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    operators: dict[str, Operator] = {}
    keys: KeysSection = KeysSection()
    dictionaries: tuple[DictionarySection, ...] = ()


KeySource = Callable[[str, str | None], bytes]
"""Called with a purpose (``pseudonym``, ``report``, ``dictionary``) and a reference or None; returns 32 bytes."""


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy as it was written; its keys are not read yet."""

    path: Path
    text: str
    document: _Document

    def build(
        self, keys: KeySource, *, operator: Operator | None = None, min_score: float | None = None,
        vault: Vault | None = None, decode: bool = False,
    ) -> Policy:  # fmt: skip
        """Return the policy with its keys and dictionaries.

        Args:
            keys: Reads keys.
            operator: In place of the file's operator of all other kinds.
            min_score: In place of the file's.
            vault: Takes the values of the operator ``vault``.
            decode: Search encoded runs as well, whatever the file says.

        Raises:
            InvalidInput: A kind does not exist (the setting and its line are named), or a key or dictionary cannot be
                read.
            VerificationError: A dictionary was changed or belongs to another key.
        """
        document = self.document
        operators = dict(document.operators) | ({"*": operator} if operator is not None else {})
        found = Policy(dictionaries=tuple(self._dictionary(entry, keys) for entry in document.dictionaries))
        self._check("kinds", document.kinds or (), found.known - {"*"})
        self._check("without", document.without, found.known - {"*"})
        self._check("operators", tuple(document.operators), found.known)
        return replace(
            found,
            kinds=None if document.kinds is None else frozenset(document.kinds),
            without=frozenset(document.without),
            min_score=document.min_score if min_score is None else min_score,
            operators=operators,
            decode_depth=1 if decode else document.decode_depth,
            pseudonym_key=keys("pseudonym", document.keys.pseudonym) if KEYED & set(operators.values()) else None,
            vault=vault,
            report_key=keys("report", document.keys.report),
        )

    def _dictionary(self, entry: DictionarySection, keys: KeySource) -> Dictionary:
        return Dictionary.load(
            self.path.parent / entry.file, key=keys("dictionary", entry.key), severity=entry.severity
        )

    def _check(self, setting: str, kinds: Sequence[str], known: Collection[str]) -> None:
        unknown = next((kind for kind in kinds if kind not in known), None)
        if unknown is not None:
            place = f"{setting}.{unknown}" if setting == "operators" else setting
            raise _wrong(self.path, self.text, place, f"there is no kind {unknown[:80]!r}", ", ".join(sorted(known)))


def read_policy(path: Path) -> PolicyFile:
    """Read a policy file.

    Raises:
        InvalidInput: The file is missing, too long, or not TOML, others may write it, or a setting in it is unknown or
            has a wrong value; the setting and its line are named.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(
            f"{path}: others may write it, so the policy cannot be trusted", next_step=f"chmod 644 {path}"
        )
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{path}: a policy has at most {_MAX_BYTES} bytes")
    return parse_policy(path, data)


def parse_policy(path: Path, data: bytes) -> PolicyFile:
    """Read the bytes of a policy; ``path`` stands in messages, and dictionaries are looked for beside it.

    Raises:
        InvalidInput: As :func:`read_policy`.
    """
    try:
        text = data.decode()
        values = load_toml(text)
    except ValueError as error:
        raise InvalidInput(f"{path}: not valid TOML", why=str(error)[:200]) from None
    operators = values.get("operators")
    for kind, name in operators.items() if isinstance(operators, dict) else ():
        if name not in list(Operator):
            raise _wrong(path, text, f"operators.{kind}", "there is no such operator", ", ".join(Operator))
    try:
        return PolicyFile(path, text, msgspec.convert(values, _Document))
    except msgspec.ValidationError as error:
        reason, _, location = str(error).partition(" - at `$.")
        reason = reason.partition(" - at `$`")[0]
        unknown = re.search("(?:unknown|required) field `(.+?)`", reason)
        setting = ".".join(part for part in (location.rstrip("`"), unknown[1] if unknown else "") if part)
        shown = re.sub("(value) .*", r"\1", reason)
    raise _wrong(path, text, setting, shown[:200])


def _wrong(path: Path, text: str, setting: str, why: str, choices: str = "") -> InvalidInput:
    """Return an error that names the line and the setting, but not its value."""
    lines = statement_lines(text)
    plain = re.sub(r"\[.*?\]", "", setting)
    line = lines.get(plain, lines.get(plain.partition(".")[0]))
    place = f"{path}:{line}" if line else str(path)
    return InvalidInput(f"{place}: {setting}: {why}", next_step=f"use one of {choices}" if choices else "")
