"""Verification policies: small parts that compose and name the first thing that fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from stanch.crypto import VerifyKey
from stanch.errors import InvalidInput, NoTrustedSignature, PolicyViolation, VerificationError
from stanch.sign.statement import Statement
from stanch.terms import Digest


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a policy looks at: the statement, the signed bytes and the signature over them."""

    statement: Statement
    message: bytes
    signature: bytes


class Policy(Protocol):
    """A condition on a signed statement."""

    def check(self, evidence: Evidence) -> frozenset[str]:
        """Return the ids of the keys whose signature this part verified (none for parts about content).

        Raises:
            VerificationError: The condition does not hold.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The signature must verify under one of these keys."""

    keys: tuple[VerifyKey, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise InvalidInput("a policy without keys would trust nobody", next_step="name a key with --trust KEY")

    def check(self, evidence: Evidence) -> frozenset[str]:
        """Return the id of the key that signed."""
        for key in self.keys:
            try:
                key.verify(evidence.signature, evidence.message)
            except NoTrustedSignature:
                continue
            return frozenset({key.key_id})
        trusted = ", ".join(key.key_id for key in self.keys)
        raise NoTrustedSignature(
            "no trusted signature",
            why=f"none of the trusted keys signed these bytes: {trusted}",
            next_step="check that the key is the publisher's and that the file is unchanged",
        )


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


@dataclass(frozen=True, slots=True)
class _Any:
    parts: tuple[Policy, ...]

    def check(self, evidence: Evidence) -> frozenset[str]:
        failures: list[VerificationError] = []
        for part in self.parts:
            try:
                return part.check(evidence)
            except VerificationError as error:
                failures.append(error)
        raise PolicyViolation(
            f"none of {len(self.parts)} alternatives holds", why="; ".join(failure.what for failure in failures)
        )


def _parts(parts: Sequence[Policy]) -> tuple[Policy, ...]:
    if not parts:
        raise InvalidInput("an empty policy would accept everything")
    return tuple(parts)


def all_of(*parts: Policy) -> Policy:
    """Return a policy that holds when every part holds."""
    return _All(_parts(parts))


def any_of(*parts: Policy) -> Policy:
    """Return a policy that holds when one of the parts holds."""
    return _Any(_parts(parts))
