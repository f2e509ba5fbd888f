"""Signed notes and their keys (C2SP signed-note), sans-IO; interoperates with Go's ``sumdb/note``.

A note is a text, an empty line, and lines ``— <name> base64(key id ‖ signature)``. Two kinds of key are read: Ed25519
over the text (type 01), and timestamped Ed25519 cosignatures (type 04, C2SP tlog-cosignature).
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from stanch.crypto import SigningKey, VerifyKey, sha256
from stanch.errors import InvalidInput, NoTrustedSignature, ProofInvalid

ED25519 = 1
"""Type of a log's key: Ed25519 over the text."""
COSIGNATURE = 4
"""Type of a witness's key: a timestamped Ed25519 cosignature."""

_MAX_NOTE = 64 << 10
_MAX_SIGNATURES = 32
_MAX_NAME = 256
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_LINE = re.compile(r"— (\S+) (\S+)")
_VKEY = re.compile(r"([^+\s]+)\+([0-9a-f]{8})\+(\S+)")


def check_name(name: str) -> str:
    """Return ``name`` if it may name a key or a log: not empty, no spaces, no ``+``, no control characters.

    Raises:
        InvalidInput: It may not.
    """
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or not {" ", "+"}.isdisjoint(name):
        raise InvalidInput(f"not a log or key name: {name[:80]!r}", why="no spaces, no '+', 1 to 256 characters")
    return name


def decode_base64(text: str, what: str) -> bytes:
    """Read canonical padded base64 (RFC 4648 section 4): the one text that encodes the bytes.

    Raises:
        ProofInvalid: It is not that.
    """
    try:
        data = base64.b64decode(text)  # drops what is no base64, which is then seen missing
    except ValueError as error:  # binascii.Error is one
        raise ProofInvalid(f"{what}: not base64") from error
    if encode_base64(data) != text:
        raise ProofInvalid(f"{what}: base64 is not in its canonical form")
    return data


def encode_base64(data: bytes) -> str:
    """Return padded standard base64."""
    return base64.b64encode(data).decode()


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A key that is trusted to sign notes: its name, signature type and public key."""

    name: str
    kind: int
    key: VerifyKey

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind not in {ED25519, COSIGNATURE} or self.key.kind != "ed25519":
            raise InvalidInput(f"key {self.name}: expected an Ed25519 key of type 1 or 4, found type {self.kind}")

    @property
    def key_id(self) -> bytes:
        """The first four bytes of ``SHA-256(name ‖ 0A ‖ type ‖ public key)``."""
        return sha256(self.name.encode(), b"\n", bytes([self.kind]), self.key.raw)[:4]

    @property
    def vkey(self) -> str:
        """The key as text: ``name+hex id+base64(type ‖ key)``."""
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(bytes([self.kind]) + self.key.raw)}"

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read a vkey.

        Raises:
            InvalidInput: It is not one, or its id is not that of its key.
        """
        match = _VKEY.fullmatch(vkey)
        if match is None:
            raise InvalidInput(f"not a note key: expected name+hex+base64, found {vkey[:80]!r}")
        try:
            data = decode_base64(match[3], "note key")
        except ProofInvalid as error:
            raise InvalidInput(f"not a note key: {match[1]}: bad base64") from error
        if len(data) != 33:
            raise InvalidInput(f"not a note key: {match[1]}: expected 33 bytes, found {len(data)}")
        verifier = cls(match[1], data[0], VerifyKey.from_raw_ed25519(data[1:]))
        if verifier.key_id.hex() != match[2]:
            raise InvalidInput(f"note key {match[1]}: expected id {verifier.key_id.hex()}, found {match[2]}")
        return verifier

    def check(self, text: str, signature: bytes) -> "NoteSignature":
        """Return what a signature under this key says, or raise :class:`stanch.errors.NoTrustedSignature`."""
        time_s, message = None, text.encode()
        if self.kind == COSIGNATURE:
            if len(signature) != 72:
                raise NoTrustedSignature(f"note: the cosignature of {self.name} is not 72 bytes")
            time_s, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            message = _cosigned(text, time_s)
        try:
            self.key.verify(signature, message)
        except NoTrustedSignature as error:
            raise NoTrustedSignature(f"note: the signature of {self.name} does not verify") from error
        return NoteSignature(self.name, self.key_id, time_s)


def signature_line(name: str, payload: bytes) -> str:
    """Return ``— <name> base64(payload)`` and a newline, where the payload is a key id and a signature."""
    return f"— {name} {encode_base64(payload)}\n"


def _cosigned(text: str, time_s: int) -> bytes:
    """Return what a cosignature is made over (C2SP tlog-cosignature)."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """An Ed25519 key that signs notes under a name."""

    name: str
    key: SigningKey

    @property
    def verifier(self) -> NoteVerifier:
        """The public half."""
        return NoteVerifier(self.name, ED25519, self.key.public)

    def line(self, text: str) -> str:
        """Return this key's signature line for a note's ``text``, which ends in a newline."""
        return signature_line(self.name, self.verifier.key_id + self.key.sign(text.encode()))


def sign_note(text: str, signers: Sequence[NoteSigner]) -> bytes:
    """Return the note that consists of ``text`` (ending in a newline) and a signature line of each signer."""
    if not text.endswith("\n"):
        raise InvalidInput("note: expected a text that ends in a newline")
    return f"{text}\n{''.join(signer.line(text) for signer in signers)}".encode()


@dataclass(frozen=True, slots=True)
class Cosigner:
    """An Ed25519 key of a witness (type 04): it says when it saw a text, and never signs for a log."""

    name: str
    key: SigningKey

    @property
    def verifier(self) -> NoteVerifier:
        """The public half."""
        return NoteVerifier(self.name, COSIGNATURE, self.key.public)

    def cosign(self, text: str, time_s: int) -> str:
        """Return the signature line, newline included, over ``text`` at ``time_s`` seconds since 1970."""
        signature = self.key.sign(_cosigned(text, time_s))
        return signature_line(self.name, self.verifier.key_id + time_s.to_bytes(8, "big") + signature)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """A signature that verified: the key's name and id, and the time in seconds that a cosignature states."""

    name: str
    key_id: bytes
    time_s: int | None


@dataclass(frozen=True, slots=True)
class VerifiedNote:
    """A note at least one trusted key signed; made only by :func:`open_note`."""

    text: str
    signatures: tuple[NoteSignature, ...]


@dataclass(frozen=True, slots=True)
class ParsedNote:
    """A well-formed note, of which nothing is verified: its text, and (key name, key id ‖ signature) of each line."""

    text: str
    signatures: tuple[tuple[str, bytes], ...]


def open_note(note: bytes, verifiers: Sequence[NoteVerifier]) -> VerifiedNote:
    """Check a signed note against the keys that are trusted.

    Signatures of unknown keys are ignored. Of several lines of one key the first counts, as in Go's ``sumdb/note``;
    if it is bad the whole note is refused.

    Raises:
        ProofInvalid: Not a well-formed note.
        NoTrustedSignature: No known key signed it, or a known key's signature does not verify.
    """
    parsed = parse_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    verified: dict[tuple[str, bytes], NoteSignature] = {}
    for name, payload in parsed.signatures:
        identity = (name, payload[:4])
        if identity in known and identity not in verified:
            verified[identity] = known[identity].check(parsed.text, payload[4:])
    if not verified:
        raise NoTrustedSignature(
            "note: none of the trusted keys signed it",
            why=f"trusted: {', '.join(verifier.vkey for verifier in verifiers) or 'no key at all'}"[:400],
        )
    return VerifiedNote(parsed.text, tuple(verified.values()))


def parse_note(note: bytes) -> ParsedNote:
    """Read a note without verifying anything.

    Raises:
        ProofInvalid: Not a well-formed note.
    """
    text, lines = _split(note)
    signatures = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ProofInvalid("note: a signature line is not '— name base64'")
        payload = decode_base64(match[2], "note signature")
        if len(payload) < 5 or "+" in match[1]:
            raise ProofInvalid("note: a signature line holds no signature or a bad name")
        signatures.append((match[1], payload))
    return ParsedNote(text, tuple(signatures))


def _split(note: bytes) -> tuple[str, list[str]]:
    """Return the text with its final newline, and the signature lines."""
    if len(note) > _MAX_NOTE:
        raise ProofInvalid(f"note: expected at most {_MAX_NOTE} bytes, found {len(note)}")
    try:
        decoded = note.decode()
    except UnicodeDecodeError as error:
        raise ProofInvalid("note: not UTF-8") from error
    if _CONTROL.search(decoded):
        raise ProofInvalid("note: holds a control character")
    text, separator, signatures = decoded.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise ProofInvalid("note: has no signature lines after an empty line")
    lines = signatures[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise ProofInvalid(f"note: expected at most {_MAX_SIGNATURES} signatures, found {len(lines)}")
    return text + "\n", lines
