"""Verification policies: small parts that compose and name the first thing that fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Protocol

from stanch.crypto import VerifyKey
from stanch.errors import InvalidInput, NoTrustedSignature, PolicyViolation
from stanch.sign.statement import Statement
from stanch.terms import Digest, JsonValue


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a policy looks at: the statement, the signed bytes, the signatures over them, and time-stamps of these."""

    statement: Statement
    message: bytes
    signatures: tuple[bytes, ...]
    timestamps: tuple[bytes, ...] = ()


class Policy(Protocol):
    """A condition on a signed statement."""

    def check(self, evidence: Evidence) -> frozenset[str]:
        """Return the ids of the keys whose signature this part verified (none for parts about content).

        Raises:
            VerificationError: The condition does not hold.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a trusted key may sign, and when it is trusted.

    Attributes:
        name: Whose key it is.
        predicate_types: The types of statements; None for all.
        lineages: Shell-style patterns of the predicate's ``lineage``; None for all, also for statements without one.
        not_before: The key is not trusted earlier.
        not_after: Nor later. Both are compared with the time of the check, unless a time-stamp proves another one
            (:class:`stanch.sign.Timestamped`): the statement itself does not.
    """

    name: str
    predicate_types: tuple[str, ...] | None = None
    lineages: tuple[str, ...] | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None

    def refusal(self, statement: Statement, now: datetime) -> str | None:
        """Return why the key does not count for ``statement`` at ``now``; None if it does."""
        lineage = statement.predicate.get("lineage")
        if self.not_before is not None and now < self.not_before:
            return f"is trusted only from {self.not_before.isoformat()}"
        if self.not_after is not None and now > self.not_after:
            return f"was trusted until {self.not_after.isoformat()}"
        if self.predicate_types is not None and statement.predicate_type not in self.predicate_types:
            return f"may not sign statements of type {statement.predicate_type[:200]}"
        if not self.admits(lineage):
            return f"may not sign for lineage {lineage[:200] if isinstance(lineage, str) else 'none'}"
        return None

    def admits(self, lineage: JsonValue) -> bool:
        """Say whether the key may sign for a lineage, None where there is none."""
        return self.lineages is None or (
            isinstance(lineage, str) and any(fnmatchcase(lineage, pattern) for pattern in self.lineages)
        )


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """At least ``threshold`` of these keys must have signed.

    Attributes:
        keys: The keys; each counts once.
        threshold: How many must have signed.
        scopes: What a key may sign; a key without an entry may sign everything.
        clock: Tells the time of the check.
    """

    keys: tuple[VerifyKey, ...]
    threshold: int = 1
    scopes: Mapping[VerifyKey, Scope] = field(default_factory=dict, hash=False)
    clock: Callable[[], datetime] = field(default=_now, compare=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise InvalidInput("a policy without keys would trust nobody", next_step="name a key with --trust KEY")
        if not 1 <= self.threshold <= len(set(self.keys)):
            raise InvalidInput(f"a threshold of {self.threshold} needs as many different keys, and at least one")

    def for_lineage(self, lineage: str) -> "TrustedKeys":
        """Return the trust in what says no lineage of its own but belongs to a bundle of ``lineage``.

        A key that may sign for that lineage may then sign statements without one, such as a list of revocations.
        Whoever calls this has checked by another signature that the bundle is of that lineage.
        """
        scopes = {
            key: replace(scope, lineages=None) if scope.admits(lineage) else scope for key, scope in self.scopes.items()
        }
        return replace(self, scopes=scopes)

    def check(self, evidence: Evidence) -> frozenset[str]:
        """Return the ids of the keys that signed and may sign this statement."""
        now = self.clock()
        signers: set[str] = set()
        refusals: list[str] = []
        for key in self.keys:
            if _has_signed(key, evidence):
                scope = self.scopes.get(key)
                refusal = scope.refusal(evidence.statement, now) if scope is not None else None
                if scope is None or refusal is None:
                    signers.add(key.key_id)
                else:
                    refusals.append(f"{scope.name} ({key.key_id}) {refusal}")
        if len(signers) >= self.threshold:
            return frozenset(signers)
        if refusals:
            raise PolicyViolation(
                "a trusted key signed what it may not sign",
                why="; ".join(refusals),
                next_step="ask the publisher which key signs this now; what a key may sign stands in your trust file",
            )
        trusted = ", ".join(key.key_id for key in self.keys)
        if signers:
            raise NoTrustedSignature(
                f"too few trusted signatures: expected {self.threshold}, found {len(signers)}",
                why=f"of the trusted keys {trusted} signed {', '.join(sorted(signers))}",
                next_step="name the other signature files too",
            )
        raise NoTrustedSignature(
            "no trusted signature",
            why=f"none of the trusted keys signed these bytes: {trusted}",
            next_step="check that the key is the publisher's and that the file is unchanged",
        )


def _has_signed(key: VerifyKey, evidence: Evidence) -> bool:
    for signature in evidence.signatures:
        try:
            key.verify(signature, evidence.message)
        except NoTrustedSignature:
            continue
        return True
    return False


@dataclass(frozen=True, slots=True)
class PredicateType:
    """The statement must be of this predicate type."""

    uri: str

    def check(self, evidence: Evidence) -> frozenset[str]:
        """Compare the predicate type."""
        if evidence.statement.predicate_type != self.uri:
            raise PolicyViolation(
                f"the statement is of another type: expected {self.uri}, "
                f"found {evidence.statement.predicate_type[:200]}"
            )
        return frozenset()


@dataclass(frozen=True, slots=True)
class HasSubject:
    """The statement must be about a subject of this name and digest."""

    name: str
    digest: Digest

    def check(self, evidence: Evidence) -> frozenset[str]:
        """Compare name and digest."""
        found = {subject.name: subject.digest for subject in evidence.statement.subjects}.get(self.name)
        if found != self.digest:
            raise PolicyViolation(
                f"the statement is about other bytes: expected {self.name} {self.digest}, "
                f"found {found or 'no such name'}"
            )
        return frozenset()


@dataclass(frozen=True, slots=True)
class _All:
    parts: tuple[Policy, ...]

    def check(self, evidence: Evidence) -> frozenset[str]:
        return frozenset().union(*(part.check(evidence) for part in self.parts))


def all_of(*parts: Policy) -> Policy:
    """Return a policy that holds when every part holds."""
    if not parts:
        raise InvalidInput("an empty policy would accept everything")
    return _All(parts)
