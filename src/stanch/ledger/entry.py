"""Entries: what an act was, in the one serialisation that is hashed, signed for and kept.

An entry is a canonical JSON object (RFC 8785) of at most 65,535 bytes: one OCSF event with strings, booleans, null,
lists, objects and integers within ±(2^53 − 1), and never a float. Each text field of :class:`Act` and :class:`Entry`
says how it is exposed: ``public``, ``pseudonym`` (a random id) or ``commit`` (only a commitment enters the log).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import msgspec
import orjson

from stanch import __version__
from stanch.crypto import RandomBytes, random_bytes
from stanch.errors import EntryTooLarge, InvalidInput
from stanch.ledger import ocsf
from stanch.ledger.commitment import Opening
from stanch.terms import ArtifactRef, JsonValue

MAX_ENTRY = 65_535
UNKNOWN_PRINCIPAL = "unknown"
"""Stands in an entry for somebody who could not be authenticated."""

BREAK_GLASS = "access.break-glass"
"""The kind of act that opens emergency rights."""

_MAX_DEPTH = 32
_MAX_INTEGER = 2**53 - 1
_DECODER = msgspec.json.Decoder(ocsf.Event)
# With ASCII keys, code-point order is the UTF-16 order that RFC 8785 demands. A property test compares the two.
_ENCODER = msgspec.json.Encoder(order="sorted")
_FAST = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
_USER_TYPES = {"user": 1, "service": 4}
_PUBLIC: Mapping[str, str] = {"exposure": "public"}
_PSEUDONYM: Mapping[str, str] = {"exposure": "pseudonym"}
_COMMIT: Mapping[str, str] = {"exposure": "commit"}


class Phase(StrEnum):
    """Where in an act an entry stands."""

    INTENT = "intent"
    OUTCOME = "outcome"
    DENIED = "denied"
    NOTE = "note"


Result = Literal["done", "failed", "cancelled", "abandoned"]
_STATUS: dict[Result, int] = {"done": 1, "failed": 2, "cancelled": 2, "abandoned": 99}


def new_act_id(time_ms: int, *, rng: RandomBytes = random_bytes) -> str:
    """Return a fresh UUIDv7 (RFC 9562 section 5.7) for an act that begins at ``time_ms``."""
    bits = int.from_bytes(rng(10), "big")
    value = (time_ms & (1 << 48) - 1) << 80 | 7 << 76 | (bits >> 64 & 0xFFF) << 64 | 2 << 62 | bits & (1 << 62) - 1
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Which key a principal acted with; ``sig`` as :func:`stanch.ledger.signature.sign_act` makes it."""

    kind: str = field(metadata=_PUBLIC)
    key_id: str = field(metadata=_PSEUDONYM)
    sig: str = field(default="", metadata=_PUBLIC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What stays the same from an act's intent to its outcome.

    Attributes:
        kind: ``release.create``, ``tune.run`` …; decides the OCSF class.
        id: UUIDv7, as :func:`new_act_id` makes it; ``metadata.correlation_uid`` of every entry of the act.
        principal: Pseudonymous id ``p_…``, or :data:`UNKNOWN_PRINCIPAL`.
        principal_kind: ``user`` or ``service``.
        profile: ``solo`` or ``team``.
        subject: The artifacts that the act is about.
        policy: Digest of the policy version that decided.
        decision: Ids of the determining policies.
        credential: With what the principal authenticated.
        target: For acts about a person: the pseudonymous id of that person; an intent may not know it yet.
        glass: Id of the emergency rights that were open when it began; empty if none were.
    """

    kind: str = field(metadata=_PUBLIC)
    id: str = field(metadata=_PUBLIC)
    principal: str = field(metadata=_PSEUDONYM)
    principal_kind: Literal["user", "service"] = field(default="user", metadata=_PUBLIC)
    profile: Literal["solo", "team"] = field(default="team", metadata=_PUBLIC)
    subject: tuple[ArtifactRef, ...] = field(default=(), metadata=_PUBLIC)
    policy: str = field(default="", metadata=_PUBLIC)
    decision: tuple[str, ...] = field(default=(), metadata=_PUBLIC)
    credential: Credential | None = field(default=None, metadata=_PUBLIC)
    target: str = field(default="", metadata=_PSEUDONYM)
    glass: str = field(default="", metadata=_PSEUDONYM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record about an act; made by :func:`intent`, :func:`outcome`, :func:`denied` and :func:`noted`.

    Attributes:
        act: The act.
        phase: Where in the act this stands.
        time_ms: Milliseconds UTC.
        status: OCSF ``status_id``: 1 success, 2 failure, 99 intent or abandoned.
        severity: OCSF ``severity_id``: 1 normal, 3 denied, 5 break-glass.
        payload: What else is recorded; strings, integers, booleans, null, lists, objects.
        result: How the act ended, in an outcome.
        egress_bytes: Bytes of weights that were handed out, in outcomes of open, fetch and export.
        openings: Personal values; the entry holds their commitments only, the openings go to their own table.
    """

    act: Act
    phase: Phase = field(metadata=_PUBLIC)
    time_ms: int
    status: int
    severity: int = 1
    payload: Mapping[str, JsonValue] = field(default_factory=dict, metadata=_PUBLIC)
    result: str = field(default="", metadata=_PUBLIC)
    egress_bytes: int | None = None
    openings: tuple[Opening, ...] = field(default=(), metadata=_COMMIT)

    def encode(self, origin: str) -> bytes:
        """Return the entry's bytes in the log ``origin``.

        Raises:
            EntryTooLarge: Longer than 65,535 bytes.
            InvalidInput: A value may not stand in an entry.
        """
        return encode_event(self._event(origin))

    def _event(self, origin: str) -> dict[str, Any]:
        act = self.act
        class_uid, activity = ocsf.class_of(act.kind)
        kind = 0 if act.principal == UNKNOWN_PRINCIPAL else _USER_TYPES[act.principal_kind]
        event: dict[str, Any] = {
            "activity_id": activity,
            "actor": {"user": {"type_id": kind, "uid": act.principal}},
            "attestation": {"authority_uid": origin, "chain_uid": origin},
            "category_uid": class_uid // 1000,
            "class_uid": class_uid,
            "metadata": {
                "correlation_uid": act.id,
                "product": {"name": "stanch", "vendor_name": "stanch", "version": __version__},
                "profiles": ["record_integrity"],
                "version": ocsf.OCSF_VERSION,
            },
            "severity_id": self.severity,
            "status_id": self.status,
            "time": self.time_ms,
            "type_uid": 100 * class_uid + activity,
            "unmapped": {"stanch": self._ours()},
            **self._class_fields(class_uid),
        }
        if activity == ocsf.OTHER_ACTIVITY:
            event["activity_name"] = act.kind.rpartition(".")[2]
        return event

    def _class_fields(self, class_uid: int) -> dict[str, JsonValue]:
        """Return the objects that the OCSF class of this act requires."""
        act = self.act
        match class_uid:
            case ocsf.AUTHENTICATION:
                return {"service": {"name": "stanch"}, "user": {"uid": act.target or act.principal}}
            case ocsf.USER_MANAGEMENT:
                return {"user": {"uid": act.target or UNKNOWN_PRINCIPAL}}
            case ocsf.ENTITY_MANAGEMENT:
                return {"entity": {"name": act.kind.partition(".")[0]}}
            case ocsf.DATA_SECURITY_FINDING | ocsf.DETECTION_FINDING:
                return {"finding_info": {"title": act.kind, "uid": act.id}}
            case ocsf.INCIDENT_FINDING:
                return {"finding_info_list": [{"title": act.kind, "uid": act.id}]}
        return {"api": {"operation": act.kind}, "src_endpoint": {"name": "local"}}

    def _ours(self) -> dict[str, Any]:
        """Return ``unmapped.stanch``; what is empty is left out."""
        act = self.act
        optional: dict[str, Any] = {
            "subject": [{"digest": str(a.digest), "kind": a.kind, "name": a.name} for a in act.subject],
            "policy": act.policy,
            "decision": list(act.decision),
            "payload": dict(self.payload),
            "result": self.result,
            "glass": act.glass,
            "commitments": {opening.field: opening.commitment for opening in self.openings},
        }
        if act.credential is not None:
            used = {"kind": act.credential.kind, "key_id": act.credential.key_id, "sig": act.credential.sig}
            optional["credential"] = {name: value for name, value in used.items() if value}
        ours = {"v": 1, "kind": act.kind, "phase": str(self.phase), "profile": act.profile}
        ours |= {name: value for name, value in optional.items() if value}
        return ours if self.egress_bytes is None else ours | {"egress_bytes": self.egress_bytes}


def intent(
    act: Act, *, time_ms: int, payload: Mapping[str, JsonValue] | None = None, openings: tuple[Opening, ...] = ()
) -> Entry:
    """Return the entry that says an act begins; the one that opens emergency rights has the highest severity."""
    severity = 5 if act.kind == BREAK_GLASS else 1
    return Entry(
        act=act, phase=Phase.INTENT, time_ms=time_ms, status=99, severity=severity, payload=payload or {},
        openings=openings,
    )  # fmt: skip


def outcome(
    act: Act,
    *,
    time_ms: int,
    result: Result = "done",
    payload: Mapping[str, JsonValue] | None = None,
    egress_bytes: int | None = None,
) -> Entry:
    """Return the entry that says how an act ended."""
    return Entry(
        act=act,
        phase=Phase.OUTCOME,
        time_ms=time_ms,
        status=_STATUS[result],
        payload=payload or {},
        result=result,
        egress_bytes=egress_bytes,
    )


def denied(act: Act, *, time_ms: int, payload: Mapping[str, JsonValue] | None = None) -> Entry:
    """Return the entry that says an act was refused before it began."""
    return Entry(act=act, phase=Phase.DENIED, time_ms=time_ms, status=2, severity=3, payload=payload or {})


def noted(
    act: Act, *, time_ms: int, payload: Mapping[str, JsonValue] | None = None, openings: tuple[Opening, ...] = ()
) -> Entry:
    """Return an entry for something that happened at once, without an intent before it."""
    return Entry(act=act, phase=Phase.NOTE, time_ms=time_ms, status=1, payload=payload or {}, openings=openings)


def encode_event(event: dict[str, Any]) -> bytes:
    """Return the canonical bytes of an event that follows the profile.

    Raises:
        EntryTooLarge: Longer than 65,535 bytes.
        InvalidInput: Not an event of the profile, or a value that may not stand in an entry.
    """
    _check_payload(ocsf.check_event(event))
    data = _write(event)
    if len(data) > MAX_ENTRY:
        raise EntryTooLarge(
            f"entry: expected at most {MAX_ENTRY} bytes, found {len(data)}",
            next_step="store the payload as a blob and record its digest",
        )
    return data


def decode_entry(data: bytes) -> dict[str, Any]:
    """Return an entry's bytes as JSON objects, after the checks of :func:`read_event`."""
    read_event(data)
    return dict(orjson.loads(data))


def read_event(data: bytes) -> ocsf.Event:
    """Return the event that an entry's bytes hold.

    Raises:
        EntryTooLarge: Longer than 65,535 bytes.
        InvalidInput: Not canonical, or not an event of the profile.
    """
    if len(data) > MAX_ENTRY:
        raise EntryTooLarge(f"entry: expected at most {MAX_ENTRY} bytes, found {len(data)}")
    try:
        event = _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise ocsf.refusal(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("entry: not JSON") from error
    ocsf.check_class(event)
    _check_payload(event)
    # What is read is written again: only the canonical form comes back byte for byte.
    if _ENCODER.encode(event) != data:
        raise InvalidInput("entry: not in canonical form")
    return event


def _write(event: object) -> bytes:
    # With ASCII keys, code-point order is the UTF-16 order that RFC 8785 demands, and without floats nothing else
    # differs: this is canonical_json at a fraction of its time. A property test compares the two.
    try:
        return orjson.dumps(event, option=_FAST)
    except orjson.JSONEncodeError as error:
        raise InvalidInput("entry: a value cannot be written as JSON, or an integer is outside ±(2^53 − 1)") from error


def _check_payload(event: ocsf.Event) -> None:
    # Every other value has a type of the profile, which has no floats and no free keys.
    payload = event.unmapped.stanch.payload
    if payload:
        _check_value(payload, 0)


def _check_value(value: object, depth: int) -> None:
    """Refuse what may not stand in a payload: floats, keys that are not ASCII, deep nesting, other types."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -_MAX_INTEGER <= value <= _MAX_INTEGER:  # type: ignore[operator]  # kind says that it is an int
            raise InvalidInput("entry: an integer of its payload is outside ±(2^53 − 1)")
        return
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"entry: its payload is nested deeper than {_MAX_DEPTH}")
    if kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]  # kind says that it is a dict
            if type(key) is not str or not key.isascii():
                raise InvalidInput("entry: a key of its payload is not ASCII text")
            _check_value(item, depth + 1)
    elif kind is list:
        for item in value:  # type: ignore[attr-defined]  # kind says that it is a list
            _check_value(item, depth + 1)
    else:
        raise InvalidInput(f"entry: its payload holds a {kind.__name__}", why="decimals are written as strings")
