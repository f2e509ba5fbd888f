"""The vocabulary that two or more sibling packages share; nothing moves here unless two of them need it."""

import hashlib
import hmac
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO, ClassVar, Protocol, Self, TypeAlias

from stanch.errors import InvalidInput

JsonScalar: TypeAlias = str | int | float | bool | None
JsonValue: TypeAlias = "JsonScalar | list[JsonValue] | dict[str, JsonValue]"

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called as ``progress(stage, done, total)``; ``total`` is None where it is not known beforehand."""


def silent(_stage: str, _done: int, _total: int | None) -> None:
    """Report no progress."""


SILENT: Progress = silent

_DIGEST_SIZES = {"sha256": 32, "blake3": 32}


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A cryptographic digest and the name of its algorithm (``sha256`` or ``blake3``)."""

    algorithm: str
    value: bytes

    def __post_init__(self) -> None:
        if _DIGEST_SIZES.get(self.algorithm) != len(self.value):
            raise InvalidInput(f"not a digest: {self.algorithm!r} with {len(self.value)} bytes")

    @classmethod
    def sha256(cls, data: bytes) -> Self:
        """Return the SHA-256 digest of ``data``."""
        return cls("sha256", hashlib.sha256(data).digest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``algorithm:hex`` (lower case).

        Raises:
            InvalidInput: The text is not of that form.
        """
        algorithm, _, value = text.partition(":")
        if value != value.lower() or len(value) != 2 * _DIGEST_SIZES.get(algorithm, -1):
            raise InvalidInput(f"not a digest: expected sha256:<64 hex>, found {text[:80]!r}")
        try:
            return cls(algorithm, bytes.fromhex(value))
        except ValueError as error:
            raise InvalidInput(f"not a digest: expected sha256:<64 hex>, found {text[:80]!r}") from error

    @property
    def hex(self) -> str:
        """The value in lower-case hexadecimal."""
        return self.value.hex()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class SecretStr:
    """Text that must not be shown: it prints as dots, and :func:`redact` finds it in other texts while it lives."""

    __slots__ = ("__weakref__", "_value")
    _living: ClassVar["weakref.WeakSet[SecretStr]"] = weakref.WeakSet()

    def __init__(self, value: str) -> None:
        self._value = value
        self._living.add(self)

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "SecretStr(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and hmac.compare_digest(self._value.encode(), other._value.encode())

    # By identity: the living are told apart even where two hold the same text.
    __hash__ = object.__hash__

    @classmethod
    def living(cls) -> tuple["SecretStr", ...]:
        """Return every secret text that is still in use."""
        return tuple(cls._living)


def redact(text: str) -> str:
    """Return ``text`` with every secret that is still in use replaced by dots; for tracebacks."""
    for value in sorted({secret.reveal() for secret in SecretStr.living()} - {""}, key=len, reverse=True):
        text = text.replace(value, "…")
    return text


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """A thing that acts are about: its kind (``model``, ``dataset``, ``release`` …), name and digest."""

    kind: str
    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class EntryRef:
    """Where an entry stands in the log: its index, its leaf hash (RFC 9162) and the id of its act."""

    index: int
    leaf_hash: bytes
    act: str


@dataclass(frozen=True, slots=True)
class VerifiedDigest:
    """A SHA-256 digest that a trusted publisher signed; made by ``sign``, demanded by ``seal``.

    Attributes:
        sha256: The digest.
        signer_key_ids: Ids of the trusted keys whose signatures verified.
        signed_at: When they had signed at the latest, where time-stamps are demanded.
        trusted_key_ids: Ids of all keys that were trusted for it.
    """

    sha256: bytes
    signer_key_ids: tuple[str, ...]
    signed_at: datetime | None
    trusted_key_ids: tuple[str, ...] = ()

    @property
    def publisher_key_ids(self) -> tuple[str, ...]:
        """Ids of all keys that a release may be signed with: whoever signs with a new one is the same publisher."""
        return tuple(dict.fromkeys((*self.signer_key_ids, *self.trusted_key_ids)))


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval and the name of the method that made it."""

    estimate: float
    lower: float
    upper: float
    confidence: float
    method: str


class NeighboringRelation(StrEnum):
    """Which data sets count as neighbours in a differential-privacy guarantee."""

    ADD_OR_REMOVE_ONE = "ADD_OR_REMOVE_ONE"
    REPLACE_SPECIAL = "REPLACE_SPECIAL"
    REPLACE_ONE = "REPLACE_ONE"


@dataclass(frozen=True, slots=True)
class PrivacyBudget:
    """A differential-privacy guarantee: (epsilon, delta) per ``unit`` under ``relation``."""

    epsilon: float
    delta: float
    unit: str
    relation: NeighboringRelation


class Severity(StrEnum):
    """How bad a finding is; ``rank`` orders the values."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for ``info`` to 4 for ``critical``."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found in a text: its kind, severity, half-open span in characters, and the reason. Never its value."""

    kind: str
    severity: Severity
    start: int
    end: int
    reason: str


class Verdict(StrEnum):
    """The four answers of a leak test."""

    LEAK_PROVEN = "LEAK PROVEN"
    NO_LEAK_DETECTED = "NO LEAK DETECTED"
    INCONCLUSIVE = "INCONCLUSIVE"
    DP_CLAIM_FALSIFIED = "DP CLAIM FALSIFIED"


@dataclass(frozen=True, slots=True)
class CommitmentEvidence:
    """That a canary plan was committed to the log before tuning began: digest, and the two entry indexes."""

    commitment: str
    entry_index: int
    tuning_start_index: int


class SourceFile(Protocol):
    """One file of a :class:`Source`: a relative path with ``/``, its size in bytes, and a fresh reader on demand."""

    @property
    def path(self) -> str:
        """Relative path with forward slashes."""
        ...

    @property
    def size(self) -> int:
        """Size in bytes."""
        ...

    def open(self) -> BinaryIO:
        """Return a new reader at the start of the file."""
        ...


class Source(Protocol):
    """Files that need not lie on a disk, for example a copy of a model that is marked while it is read."""

    def files(self) -> Sequence[SourceFile]:
        """Return the files, sorted by path."""
        ...
