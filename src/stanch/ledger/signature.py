"""Signatures of acts: a principal with a key of its own signs the intent, so that nobody else can invent its acts.

What is signed is ``frame("stanch/ledger/v1/act", J)``, where J is the canonical JSON of ``{act, kind, origin,
params_digest, subject, time}``, ``params_digest`` the SHA-256 of the canonical JSON of the entry's payload, and
``subject`` the artifacts' digests in the entry's order.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from stanch.crypto import SigningKey, VerifyKey, canonical_json, frame
from stanch.errors import InvalidInput, NoTrustedSignature
from stanch.ledger.entry import Entry
from stanch.ledger.ocsf import Event
from stanch.terms import Digest, JsonValue

_LABEL = b"stanch/ledger/v1/act"


def sign_act(entry: Entry, origin: str, key: SigningKey) -> Entry:
    """Return the entry with the signature of its principal, whose key its credential names.

    Raises:
        InvalidInput: The entry names no key, or another one.
    """
    act, credential = entry.act, entry.act.credential
    if credential is None or credential.key_id != key.key_id:
        raise InvalidInput(f"entry: its credential does not name the key {key.key_id}")
    message = act_message(
        act=act.id,
        kind=act.kind,
        origin=origin,
        subject=[str(artifact.digest) for artifact in act.subject],
        payload=entry.payload,
        time_ms=entry.time_ms,
    )
    sig = base64.b64encode(key.sign(message)).decode()
    return replace(entry, act=replace(act, credential=replace(credential, sig=sig)))


def check_act(event: Event, key: VerifyKey) -> None:
    """Check the signature of an entry's principal.

    Raises:
        NoTrustedSignature: It carries none, or one that does not verify under ``key``.
    """
    ours = event.unmapped.stanch
    if not ours.credential or not ours.credential.sig:
        raise NoTrustedSignature("entry: its principal has not signed it")
    message = act_message(
        act=event.metadata.correlation_uid,
        kind=ours.kind or "",
        origin=event.attestation.chain_uid,
        subject=[subject.digest for subject in ours.subject],
        payload=ours.payload or {},
        time_ms=event.time,
    )
    key.verify(base64.b64decode(ours.credential.sig), message)


def act_message(
    *, act: str, kind: str, origin: str, subject: Sequence[str], payload: Mapping[str, Any], time_ms: int
) -> bytes:
    """Return what the principal of an act signs."""
    params_digest = str(Digest.sha256(canonical_json(dict(payload))))
    what: dict[str, JsonValue] = {
        "act": act, "kind": kind, "origin": origin, "params_digest": params_digest,
        "subject": list(subject), "time": time_ms,
    }  # fmt: skip
    return frame(_LABEL, canonical_json(what))
