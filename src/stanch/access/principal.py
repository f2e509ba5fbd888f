"""Who acts: people and services, by a random id that says nothing about them."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from stanch.crypto import RandomBytes, random_bytes

PrincipalKind = Literal["user", "service"]
MAX_CLEARANCE = 100
"""Highest sensitivity of a model, and highest clearance."""


def new_principal_id(*, rng: RandomBytes = random_bytes) -> str:
    """Return ``p_`` and the base32 of 16 random bytes, in lower case without padding."""
    return "p_" + base64.b32encode(rng(16)).decode().rstrip("=").lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A registered person or service. Its repr shows the pseudonymous id only.

    Attributes:
        id: ``p_…``; the only name of the principal that enters the log.
        kind: ``user`` or ``service``.
        issuer: Who vouches for the subject, for example ``local:<origin>``; None once erased.
        subject: The name of the principal at its issuer; for a local key its key id; None once erased.
        display: A name for people to read; None once erased.
        clearance: Highest sensitivity of a model that it may use.
        suspended: It may do nothing at all.
    """

    id: str
    kind: PrincipalKind
    issuer: str | None = field(repr=False)
    subject: str | None = field(repr=False)
    display: str | None = field(repr=False)
    clearance: int
    suspended: bool


def principal_of(row: Sequence[Any]) -> Principal:
    """Return the principal that a whole row of the table is."""
    key, kind, issuer, subject, display, clearance, suspended, _created_ms = row
    return Principal(
        id=key, kind=kind, issuer=issuer, subject=subject, display=display, clearance=clearance,
        suspended=bool(suspended),
    )  # fmt: skip
