"""DSSE v1 envelopes inside Sigstore bundles v0.3: one statement, no network.

Sigstore's own readers want exactly one signature in an envelope. Where nobody but us reads it, as beside a manifest,
further signers add theirs, which DSSE allows.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from stanch.crypto import SigningKey, canonical_json, parse_json
from stanch.errors import InvalidInput, NoTrustedSignature, PolicyViolation
from stanch.sign.policy import Evidence, Policy
from stanch.sign.statement import Statement, VerifiedStatement
from stanch.terms import JsonValue

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_SIGNATURES = 8
_MAX_TIMESTAMPS = 16


def pre_authentication(payload: bytes) -> bytes:
    """Return DSSE's ``PAE(type, payload)`` (DSSE v1, protocol.md): the bytes that are signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A signed payload. Its content is not to be believed before :func:`verify_bundle` returned it.

    Attributes:
        payload: The statement's bytes.
        signature: The signature over :func:`pre_authentication` of the payload.
        hint: Hex SHA-256 of the signer's PEM public key: which key to try, not a proof.
        further: The signatures of further signers over the same bytes.
        timestamps: Answers of time-stamping authorities (RFC 3161) about the signatures.
    """

    payload: bytes
    signature: bytes
    hint: str
    further: tuple[bytes, ...] = ()
    timestamps: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the bundle as canonical JSON."""
        material: dict[str, JsonValue] = {"publicKey": {"hint": self.hint}, "tlogEntries": []}
        if self.timestamps:
            stamps: list[JsonValue] = [
                {"signedTimestamp": base64.b64encode(stamp).decode()} for stamp in self.timestamps
            ]
            material["timestampVerificationData"] = {"rfc3161Timestamps": stamps}
        return canonical_json(
            {
                "mediaType": MEDIA_TYPE,
                "verificationMaterial": material,
                "dsseEnvelope": {
                    "payload": base64.b64encode(self.payload).decode(),
                    "payloadType": PAYLOAD_TYPE,
                    "signatures": [
                        {"sig": base64.b64encode(signature).decode(), "keyid": ""}
                        for signature in (self.signature, *self.further)
                    ],
                },
            }
        )

    @classmethod
    def parse(cls, data: bytes, *, what: str = "signature") -> Self:
        """Read a bundle strictly: one to eight signatures by public keys, no certificates, no log entries.

        Raises:
            InvalidInput: It is not such a bundle.
        """
        match parse_json(data, what=what):
            case {
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "verificationMaterial": {"publicKey": {"hint": str(hint)}, "tlogEntries": [], **material},
                "dsseEnvelope": {
                    "payload": str(payload),
                    "payloadType": "application/vnd.in-toto+json",
                    "signatures": [*signatures],
                },
            } if 1 <= len(signatures) <= MAX_SIGNATURES:
                first, *further = (_read_signature(item, what) for item in signatures)
                stamps = _read_timestamps(material.get("timestampVerificationData"), what)
                return cls(_decode(payload, what), first, hint, tuple(further), stamps)
        raise InvalidInput(f"{what}: expected a Sigstore bundle v0.3 with a DSSE signature by a public key")


def _read_signature(item: JsonValue, what: str) -> bytes:
    match item:
        case {"sig": str(text)}:
            return _decode(text, what)
    raise InvalidInput(f"{what}: expected signatures with a field sig")


def _read_timestamps(value: object, what: str) -> tuple[bytes, ...]:
    match value:
        case None:
            return ()
        case {"rfc3161Timestamps": [*items]} if len(items) <= _MAX_TIMESTAMPS:
            stamps = [item.get("signedTimestamp") if isinstance(item, dict) else None for item in items]
            return tuple(_decode(stamp if isinstance(stamp, str) else "!", what) for stamp in stamps)
    raise InvalidInput(f"{what}: expected at most {_MAX_TIMESTAMPS} time-stamps of RFC 3161")


def _decode(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:  # binascii.Error is one
        raise InvalidInput(f"{what}: a field is not base64") from error


def sign_statement(statement: Statement, signer: SigningKey, *others: SigningKey) -> Bundle:
    """Sign ``statement`` with one key or with several; or let each signer make a bundle over the same payload.

    Raises:
        InvalidInput: A key stands twice, or there are more than eight.
    """
    payload, signers = statement.to_bytes(), (signer, *others)
    if len({key.public for key in signers}) != len(signers) or len(signers) > MAX_SIGNATURES:
        raise InvalidInput(f"expected 1 to {MAX_SIGNATURES} different signing keys")
    message = pre_authentication(payload)
    first, *further = (key.sign(message) for key in signers)
    return Bundle(payload, first, hashlib.sha256(signer.public.to_pem()).hexdigest(), tuple(further))


def gather_evidence(bundle: Bundle, beside: Sequence[Bundle] = ()) -> Evidence:
    """Return what a policy looks at; nothing of it is verified yet.

    Raises:
        PolicyViolation: A bundle beside it is over another payload.
        InvalidInput: The payload is not a statement.
    """
    if any(other.payload != bundle.payload for other in beside):
        raise PolicyViolation("the signatures are about different statements", why="a threshold needs one payload")
    # The statement is parsed before the signature is known to hold; the strict reader is total, and nothing acts on it.
    statement = Statement.parse(bundle.payload)
    signatures = tuple(signature for item in (bundle, *beside) for signature in (item.signature, *item.further))
    timestamps = tuple(stamp for item in (bundle, *beside) for stamp in item.timestamps)
    return Evidence(statement, pre_authentication(bundle.payload), signatures, timestamps)


def verify_bundle(bundle: Bundle, policy: Policy, *, beside: Sequence[Bundle] = ()) -> VerifiedStatement:
    """Check ``bundle`` against ``policy``, which must contain :class:`stanch.sign.TrustedKeys`.

    Args:
        bundle: The signed statement.
        policy: What must hold.
        beside: Further signers' bundles over the same payload, for a threshold.

    Raises:
        NoTrustedSignature: No trusted key signed these bytes, or too few.
        PolicyViolation: The signature holds but the statement breaks the policy, with the first failing part; or a
            bundle beside it is over another payload.
        InvalidInput: The payload is not a statement.
    """
    evidence = gather_evidence(bundle, beside)
    signers = policy.check(evidence)
    if not signers:
        raise NoTrustedSignature(
            "no trusted signature", why="the policy names no key", next_step="name the publisher's key with --trust KEY"
        )
    return VerifiedStatement(evidence.statement, tuple(sorted(signers)))
