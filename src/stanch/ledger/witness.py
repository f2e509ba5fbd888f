"""A witness (C2SP tlog-witness), sans-IO: it cosigns a checkpoint only if it extends the last one that it cosigned.

A log that shows different histories to different people cannot get both cosigned, as long as the witness keeps what it
is told to keep before it answers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stanch.crypto import EMPTY_ROOT, verify_consistency
from stanch.errors import NoTrustedSignature, ProofInvalid
from stanch.ledger.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint, parse_checkpoint, parse_decimal
from stanch.ledger.note import Cosigner, NoteVerifier, decode_base64, encode_base64, parse_note

MAX_REQUEST = 128 << 10
SIZE_TYPE = "text/x.tlog.size"
TEXT_TYPE = "text/plain; charset=utf-8"

_MAX_PATH = 63


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A parsed request: the size that the log believes was cosigned last, the proof from there, and the checkpoint."""

    old_size: int
    path: tuple[bytes, ...]
    note: bytes

    def to_bytes(self) -> bytes:
        """Return the body of the request."""
        lines = [f"old {self.old_size}", *map(encode_base64, self.path), "", ""]
        return "\n".join(lines).encode() + self.note

    @classmethod
    def parse(cls, body: bytes) -> "AddCheckpoint":
        """Read the body of a request.

        Raises:
            ProofInvalid: It is not well formed.
        """
        if len(body) > MAX_REQUEST:
            raise ProofInvalid(f"add-checkpoint: expected at most {MAX_REQUEST} bytes, found {len(body)}")
        head, separator, note = body.partition(b"\n\n")
        try:
            first, *lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise ProofInvalid("add-checkpoint: not ASCII before its checkpoint") from error
        if not separator or not first.startswith("old "):
            raise ProofInvalid("add-checkpoint: expected a line 'old N', a proof, an empty line and a checkpoint")
        if len(lines) > _MAX_PATH:
            raise ProofInvalid(f"add-checkpoint: expected at most {_MAX_PATH} hashes, found {len(lines)}")
        path = tuple(decode_base64(line, "add-checkpoint hash") for line in lines)
        if any(len(node) != 32 for node in path):
            raise ProofInvalid("add-checkpoint: a hash is not 32 bytes")
        return cls(parse_decimal(first.removeprefix("old "), "add-checkpoint old size"), path, note)


@dataclass(frozen=True, slots=True)
class WitnessState:
    """What a witness answers from: its key, the keys of the logs it watches, and what it last cosigned of each."""

    cosigner: Cosigner
    logs: tuple[NoteVerifier, ...]
    cosigned: Mapping[str, Checkpoint] = field(default_factory=dict)

    def last(self, origin: str) -> Checkpoint:
        """Return what was cosigned last of a log; the empty tree if nothing was."""
        return self.cosigned.get(origin, Checkpoint(origin, 0, EMPTY_ROOT))


@dataclass(frozen=True, slots=True)
class WitnessReply:
    """What is answered, and what must be durable before it is.

    Attributes:
        status: HTTP status.
        body: HTTP body.
        content_type: Its type.
        record: The checkpoint that is now the last one, when it was cosigned.
        evidence: Whether the request must be kept: a signed checkpoint that does not fit what was cosigned before.
    """

    status: int
    body: bytes
    content_type: str = TEXT_TYPE
    record: SignedCheckpoint | None = None
    evidence: bool = False


def add_checkpoint(state: WitnessState, body: bytes, clock: Callable[[], float]) -> WitnessReply:
    """Answer one request as C2SP tlog-witness says; the first check that fails decides.

    400 malformed, or an old size above the checkpoint's · 404 unknown log · 403 not signed by the log · 409 an old
    size that is not the last cosigned one, which the body then says · 422 not an extension of what was cosigned.

    Args:
        state: What the witness knows. It must not change until the reply's record is durable.
        body: The request as it came, not trusted.
        clock: Seconds since 1970.
    """
    try:
        request = AddCheckpoint.parse(body)
        parsed = parse_note(request.note)
        checkpoint = parse_checkpoint(parsed.text)
    except ProofInvalid as error:
        return _refuse(400, error.what)
    keys = [key for key in state.logs if key.name == checkpoint.origin]
    if not keys:
        return _refuse(404, "this witness does not know the log")
    try:
        signed = open_checkpoint(request.note, keys)
    except NoTrustedSignature:
        return _refuse(403, "the checkpoint is not signed by the log")
    last = state.last(checkpoint.origin)
    if request.old_size > checkpoint.size:
        return _refuse(400, "the old size is larger than the checkpoint's")
    if request.old_size != last.size:
        return WitnessReply(409, f"{last.size}\n".encode(), SIZE_TYPE)
    try:
        _check_extension(last, checkpoint, request.path)
    except ProofInvalid as error:
        return WitnessReply(422, f"{error.what}\n".encode(), evidence=True)
    line = state.cosigner.cosign(parsed.text, int(clock()))
    note = _bare(parsed.text, request.note, keys)
    return WitnessReply(200, line.encode(), record=SignedCheckpoint(signed.checkpoint, note + line.encode()))


def _check_extension(last: Checkpoint, checkpoint: Checkpoint, path: Sequence[bytes]) -> None:
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise ProofInvalid("consistency proof: the empty tree has another root")
    verify_consistency(last.size, last.root, checkpoint.size, checkpoint.root, path)


def _bare(text: str, note: bytes, keys: Sequence[NoteVerifier]) -> bytes:
    """Return a note with the lines of the log alone: what others signed was not checked and is not served."""
    known = {(key.name, key.key_id) for key in keys}
    lines = note.decode().removeprefix(f"{text}\n").splitlines(keepends=True)
    kept = [
        line
        for line, (name, payload) in zip(lines, parse_note(note).signatures, strict=True)
        if (name, payload[:4]) in known
    ]
    return f"{text}\n{''.join(dict.fromkeys(kept))}".encode()


def _refuse(status: int, why: str) -> WitnessReply:
    return WitnessReply(status, f"{why}\n".encode())
