"""Checkpoints (C2SP tlog-checkpoint): a log's size and root hash, signed by the log."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stanch.errors import ProofInvalid
from stanch.ledger.note import (
    NoteSignature,
    NoteSigner,
    NoteVerifier,
    decode_base64,
    encode_base64,
    open_note,
    sign_note,
)

_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_MAX_SIZE = 2**63


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to: its origin, its number of entries and the root hash over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{encode_base64(self.root)}\n"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose log signature verified, and the note that carries it.

    Attributes:
        checkpoint: What the log committed to.
        note: The whole note.
        cosignatures: Those of witnesses that were trusted when it was opened.
    """

    checkpoint: Checkpoint
    note: bytes
    cosignatures: tuple[NoteSignature, ...] = ()


def parse_decimal(text: str, what: str) -> int:
    """Read an ASCII decimal below 2^63 without leading zeros.

    Raises:
        ProofInvalid: It is not one.
    """
    if not _DECIMAL.fullmatch(text) or int(text) >= _MAX_SIZE:
        raise ProofInvalid(f"{what}: expected a decimal without leading zeros, found {text[:24]!r}")
    return int(text)


def sign_checkpoint(checkpoint: Checkpoint, *signers: NoteSigner) -> SignedCheckpoint:
    """Sign a checkpoint with the log's keys, whose name is the origin."""
    return SignedCheckpoint(checkpoint, sign_note(checkpoint.text(), signers))


def open_checkpoint(note: bytes, keys: Sequence[NoteVerifier]) -> SignedCheckpoint:
    """Check a signed checkpoint; a key of type 01 named as the checkpoint's origin must have signed it.

    Args:
        note: The signed note.
        keys: Keys of logs, and of witnesses whose cosignatures are wanted.

    Raises:
        ProofInvalid: Not a well-formed checkpoint.
        NoTrustedSignature: The log it names is not trusted or did not sign it.
    """
    verified = open_note(note, keys)
    checkpoint = parse_checkpoint(verified.text)
    if checkpoint.origin not in {signature.name for signature in verified.signatures if signature.time_s is None}:
        raise ProofInvalid(f"checkpoint: it is of log {checkpoint.origin[:80]!r}, which did not sign it")
    return SignedCheckpoint(checkpoint, note, tuple(s for s in verified.signatures if s.time_s is not None))


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the three lines of a checkpoint, whoever signed them.

    Raises:
        ProofInvalid: They are not a checkpoint.
    """
    lines = text.split("\n")
    if len(lines) != 4:
        raise ProofInvalid(f"checkpoint: expected 3 lines, found {len(lines) - 1}")
    size, root = parse_decimal(lines[1], "checkpoint size"), decode_base64(lines[2], "checkpoint root")
    if len(root) != 32:
        raise ProofInvalid(f"checkpoint: expected a root of 32 bytes, found {len(root)}")
    return Checkpoint(lines[0], size, root)
