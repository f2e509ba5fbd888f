"""The canary plan: which texts, which coins, and the commitment that is published before tuning."""

import hashlib
import hmac
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import msgspec

from stanch.crypto import (
    canonical_json,
    hmac_sha256,
    leaf_hash,
    merkle_root,
    parse_json,
    read_private,
    write_atomic,
    write_private,
)
from stanch.data.chat import ChatTurn
from stanch.errors import InvalidInput, Tampered
from stanch.terms import JsonValue

SEED_SIZE = 32
_SCHEMA = "stanch/canary-plan/v1"
KINDS = ("secret", "synthetic", "rare-token")
_COMMITMENT_SCHEMA = "stanch/canary-commitment/v1"


@dataclass(frozen=True, slots=True)
class Canary:
    """A planted text, part of which the audit scores.

    Attributes:
        id: Its name; the only thing about it that is exported.
        kind: One of ``KINDS``.
        messages: The conversation, or one turn with the role ``text``.
        secret: What is scored; it stands once, in the last turn. Of a ``secret`` it is the random symbols, of a
            ``synthetic`` all that the base model wrote, of a ``rare-token`` the token at the end.
        copies: How often it is inserted when its coin says so.
        tier: Name of the group of canaries with as many copies.
        member: The coin: whether it is inserted.
    """

    id: str
    kind: str
    messages: tuple[ChatTurn, ...]
    secret: str
    copies: int
    tier: str
    member: bool

    def __repr__(self) -> str:
        return f"Canary(id={self.id!r}, kind={self.kind!r}, copies={self.copies})"

    def public_part(self) -> dict[str, JsonValue]:
        """Return everything but the coin, as it is committed to."""
        return {
            "copies": self.copies,
            "id": self.id,
            "kind": self.kind,
            "messages": [{"content": turn.content, "role": turn.role} for turn in self.messages],
            "secret": self.secret,
            "tier": self.tier,
        }


def coins(seed: bytes, count: int) -> tuple[bool, ...]:
    """Return independent fair coins: bit 0 of the first byte of HMAC(HMAC(seed, "stanch/coin/v1"), LE64(i)).

    Never an exact half: the one-run bound of Steinke, Nasr and Jagielski (2023) needs independence.
    """
    key = hmac_sha256(seed, b"stanch/coin/v1")
    return tuple(bool(hmac_sha256(key, index.to_bytes(8, "little"))[0] & 1) for index in range(count))


def seed_commitment(seed: bytes) -> str:
    """Return SHA-256("stanch/canary-seed/v1" ‖ 0 ‖ seed) in hexadecimal."""
    return hashlib.sha256(b"stanch/canary-seed/v1\x00" + seed).hexdigest()


@dataclass(frozen=True)
class CanaryPlan:
    """Canaries with their coins, before and after they are planted. A secret until tuning has ended.

    Attributes:
        canaries: The canaries, in the order of their coins.
        seed: 32 bytes from which coins, texts and places follow.
        symbols: The alphabet of the secrets.
        dataset_root: Root of the dataset that the plan is made for.
        tokenizer_digest: Digest of the tokenizer that tuning and audit must use, or empty.
        base_digest: Digest of the base model, or empty.
        preregistration: What the audit will compute, fixed beforehand.
        committed: Whether the canaries were injected under a logged commitment.
    """

    canaries: tuple[Canary, ...]
    seed: bytes = field(repr=False)
    symbols: str
    dataset_root: str
    tokenizer_digest: str
    base_digest: str
    preregistration: dict[str, JsonValue]
    committed: bool = False

    def __post_init__(self) -> None:
        if len(self.seed) != SEED_SIZE or not self.canaries:
            raise InvalidInput(f"canary plan: expected a seed of {SEED_SIZE} bytes and at least one canary")
        if tuple(canary.member for canary in self.canaries) != coins(self.seed, len(self.canaries)):
            raise Tampered("canary plan: its coins are not those of its seed", next_step="restore the plan file")

    def __repr__(self) -> str:
        return f"CanaryPlan(plan_id={self.plan_id!r}, canaries=<{len(self.canaries)}>, committed={self.committed})"

    @cached_property
    def commitment(self) -> str:
        """SHA-256 of the canonical commitment document, in hexadecimal."""
        return hashlib.sha256(canonical_json(self.commitment_document())).hexdigest()

    @property
    def plan_id(self) -> str:
        """Name of the plan, derived from its commitment."""
        return f"plan-{self.commitment[:32]}"

    @property
    def tripwires(self) -> tuple[str, ...]:
        """What proves a leak when a model says it: all that is scored but rare tokens, which anybody may say."""
        return tuple(canary.secret for canary in self.canaries if canary.kind != "rare-token")

    def commitment_document(self) -> dict[str, JsonValue]:
        """Return ``stanch/canary-commitment/v1``: what is logged before tuning; it hides texts and coins."""
        kinds = sorted({canary.kind for canary in self.canaries})
        repetitions: list[JsonValue] = [*sorted({canary.copies for canary in self.canaries})]
        return {
            "schema": _COMMITMENT_SCHEMA,
            "n": len(self.canaries),
            "kinds": {kind: sum(canary.kind == kind for canary in self.canaries) for kind in kinds},
            "repetitions": repetitions,
            "symbols": self.symbols,
            "seed": seed_commitment(self.seed),
            "texts": self._texts_root().hex(),
            "tokenizer": self.tokenizer_digest,
            "base": self.base_digest,
            "dataset_root": self.dataset_root,
            "preregistration": self.preregistration,
        }

    def _texts_root(self) -> bytes:
        """Return the RFC 9162 root over ``salt ‖ SHA-256(canonical canary)``; the salts hide the texts."""
        key = hmac_sha256(self.seed, b"stanch/canary-salt/v1")
        return merkle_root(
            leaf_hash(
                hmac_sha256(key, index.to_bytes(8, "little"))[:16]
                + hashlib.sha256(canonical_json(canary.public_part())).digest()
            )
            for index, canary in enumerate(self.canaries)
        )

    def to_json(self) -> bytes:
        """Return the plan file, ``stanch/canary-plan/v1``, in canonical JSON. It holds the seed."""
        return canonical_json(
            {
                "schema": _SCHEMA,
                "plan_id": self.plan_id,
                "commitment": self.commitment,
                "committed": self.committed,
                "seed": self.seed.hex(),
                "symbols": self.symbols,
                "dataset_root": self.dataset_root,
                "tokenizer": self.tokenizer_digest,
                "base": self.base_digest,
                "preregistration": self.preregistration,
                "canaries": [canary.public_part() | {"member": canary.member} for canary in self.canaries],
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Read a plan file.

        Raises:
            InvalidInput: It is no plan file.
            Tampered: Its coins, texts or settings are not those of its commitment.
        """
        try:
            file = msgspec.convert(parse_json(data, what="canary plan"), _PlanFile)
            plan = cls(
                canaries=tuple(row.canary() for row in file.canaries),
                seed=bytes.fromhex(file.seed),
                symbols=file.symbols,
                dataset_root=file.dataset_root,
                tokenizer_digest=file.tokenizer,
                base_digest=file.base,
                preregistration=file.preregistration,
                committed=file.committed,
            )
        except (msgspec.ValidationError, ValueError):
            raise InvalidInput(
                "canary plan: expected a file of the form stanch/canary-plan/v1", next_step="give the plan file"
            ) from None
        if (
            not hmac.compare_digest(plan.commitment.encode(), file.commitment.encode())
            or plan.to_json() != data.strip()
        ):
            raise Tampered(
                "canary plan: its content is not what it committed to",
                why="a text, a coin or the pre-registration was changed",
                next_step="restore the plan file",
            )
        return plan

    def save(self, path: Path) -> None:
        """Write the plan file with mode 0600; it replaces a file of the same plan only.

        Raises:
            InvalidInput: Another file stands there: a lost seed cannot be drawn again.
        """
        if path.exists():
            if self.load(path).plan_id != self.plan_id:
                raise InvalidInput(f"{path}: holds another canary plan", next_step="choose another file name")
            write_atomic(path, self.to_json(), mode=0o600)
        else:
            write_private(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a plan file that only its owner may read.

        Raises:
            InvalidInput: It is missing, readable by others, or no plan file.
            Tampered: It was changed.
        """
        return cls.from_json(read_private(path))


class _TurnRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: str
    content: str


class _CanaryRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    kind: str
    messages: tuple[_TurnRow, ...]
    secret: str
    copies: int
    tier: str
    member: bool

    def canary(self) -> Canary:
        said = tuple(ChatTurn(turn.role, turn.content) for turn in self.messages)
        return Canary(self.id, self.kind, said, self.secret, self.copies, self.tier, self.member)


class _PlanFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The plan file as it is written."""

    schema: Literal["stanch/canary-plan/v1"]
    plan_id: str
    commitment: str
    committed: bool
    seed: str
    symbols: str
    dataset_root: str
    tokenizer: str
    base: str
    preregistration: dict[str, Any]
    canaries: tuple[_CanaryRow, ...]
