"""Proof files (C2SP tlog-proof, suffix ``.tlog-proof``): an entry's index, inclusion path and signed checkpoint."""

from dataclasses import dataclass
from typing import Self

from stanch.crypto import leaf_hash, verify_inclusion
from stanch.errors import ProofInvalid
from stanch.ledger.checkpoint import parse_decimal
from stanch.ledger.note import decode_base64, encode_base64
from stanch.ledger.policy import TrustPolicy

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
class VerifiedEntry:
    """An entry whose inclusion was proven under a checkpoint of a trusted log."""

    index: int
    leaf_hash: bytes
    entry: bytes
    checkpoint_size: int


def verify_proof(proof: bytes, entry: bytes, policy: TrustPolicy, *, not_before_s: int = 0) -> VerifiedEntry:
    """Check offline that ``entry`` is in a trusted log, under a checkpoint that enough witnesses cosigned.

    Args:
        proof: A proof file.
        entry: The entry's bytes.
        policy: Which logs and witnesses are trusted, and how many of them are needed.
        not_before_s: Cosignatures made earlier (seconds since 1970) do not count: a guard against a stale view.

    Raises:
        ProofInvalid: The proof is malformed or does not hold for these entry bytes.
        NoTrustedSignature: Its checkpoint is not signed by a trusted log.
        QuorumUnmet: Too few of the policy's witnesses cosigned it.
    """
    parsed = TlogProof.parse(proof)
    checkpoint = policy.open(parsed.checkpoint, not_before_s=not_before_s).checkpoint
    leaf = leaf_hash(entry)
    verify_inclusion(leaf, parsed.index, checkpoint.size, parsed.path, checkpoint.root)
    return VerifiedEntry(parsed.index, leaf, entry, checkpoint.size)
