"""Proof files (C2SP tlog-proof, suffix ``.tlog-proof``): an entry's index, inclusion path and signed checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from stanch.crypto import leaf_hash, verify_inclusion
from stanch.errors import InvalidInput, ProofInvalid
from stanch.ledger.checkpoint import open_checkpoint, parse_decimal
from stanch.ledger.note import NoteVerifier, decode_base64, encode_base64
from stanch.terms import VerifiedEntry

_HEADER = "c2sp.org/tlog-proof@v1"
_MAX_PROOF = 128 << 10
_MAX_PATH = 63


@dataclass(frozen=True, slots=True)
class TlogProof:
    """A parsed proof file; nothing about it is verified yet."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes

    def to_bytes(self) -> bytes:
        """Return the proof file."""
        lines = [_HEADER, f"index {self.index}", *map(encode_base64, self.path), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    @classmethod
    def parse(cls, proof: bytes) -> Self:
        """Read a proof file. An ``extra`` line is skipped: it is not authenticated.

        Raises:
            ProofInvalid: It is not well formed.
        """
        if len(proof) > _MAX_PROOF:
            raise ProofInvalid(f"proof: expected at most {_MAX_PROOF} bytes, found {len(proof)}")
        head, separator, checkpoint = proof.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise ProofInvalid("proof: not ASCII before its checkpoint") from error
        if not separator or lines.pop(0) != _HEADER:
            raise ProofInvalid(f"proof: expected {_HEADER} and a checkpoint")
        if lines and lines[0].startswith("extra "):
            decode_base64(lines.pop(0).removeprefix("extra "), "proof extra")
        if not lines or not lines[0].startswith("index "):
            raise ProofInvalid("proof: expected a line 'index N'")
        index = parse_decimal(lines.pop(0).removeprefix("index "), "proof index")
        if len(lines) > _MAX_PATH:
            raise ProofInvalid(f"proof: expected at most {_MAX_PATH} hashes, found {len(lines)}")
        return cls(index, tuple(decode_base64(line, "proof hash") for line in lines), checkpoint)


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Which logs a verifier trusts."""

    logs: tuple[NoteVerifier, ...]

    def __post_init__(self) -> None:
        if not self.logs:
            raise InvalidInput("trust policy: names no log key", why="then nothing could ever verify")

    @classmethod
    def of(cls, vkeys: Sequence[str]) -> Self:
        """Return the policy that trusts the logs with the given vkeys."""
        return cls(tuple(NoteVerifier.parse(vkey) for vkey in vkeys))


def verify_proof(proof: bytes, entry: bytes, policy: TrustPolicy) -> VerifiedEntry:
    """Check offline that ``entry`` is in a trusted log.

    Raises:
        ProofInvalid: The proof is malformed or does not hold for these entry bytes.
        NoTrustedSignature: Its checkpoint is not signed by a trusted log.
    """
    parsed = TlogProof.parse(proof)
    checkpoint = open_checkpoint(parsed.checkpoint, policy.logs).checkpoint
    leaf = leaf_hash(entry)
    verify_inclusion(leaf, parsed.index, checkpoint.size, parsed.path, checkpoint.root)
    return VerifiedEntry(parsed.index, leaf, entry, checkpoint.size)


@dataclass(frozen=True, slots=True)
class LedgerProofVerifier:
    """A :class:`stanch.terms.ProofVerifier` for logs of a trust policy."""

    policy: TrustPolicy

    def verify(self, proof: bytes, entry: bytes) -> VerifiedEntry:
        """Return the verified entry; see :func:`verify_proof`."""
        return verify_proof(proof, entry, self.policy)
