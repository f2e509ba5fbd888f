"""Entries: what an act was, in the one serialisation that is hashed, signed for and kept.

An entry is a canonical JSON object (RFC 8785) of at most 65,535 bytes: one OCSF event with strings, booleans, null,
lists, objects and integers within ±(2^53 − 1), and never a float. Each text field of :class:`Act` and :class:`Entry`
says how it is exposed: ``public``, ``pseudonym`` (a random id) or ``commit`` (only a commitment enters the log).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import UNSET, Meta, Struct

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
# The profile's fields stand in the order of their names and its other keys are ASCII, of which code-point order is the
# UTF-16 order that RFC 8785 demands; without floats nothing else differs. A property test compares the two.
_ENCODER = msgspec.json.Encoder(order="deterministic")
_USER_TYPES: dict[str, Literal[1, 4]] = {"user": 1, "service": 4}
_PRODUCT = ocsf.Product(name="stanch", vendor_name="stanch", version=__version__)
_PROFILES: tuple[Literal["record_integrity"]] = ("record_integrity",)
_STANCH, _LOCAL = ocsf.Named(name="stanch"), ocsf.Named(name="local")
_PUBLIC, _PSEUDONYM, _COMMIT = (Meta(extra={"exposure": how}) for how in ("public", "pseudonym", "commit"))
_Public = Annotated[str, _PUBLIC]
_Pseudonym = Annotated[str, _PSEUDONYM]


class Phase(StrEnum):
    """Where in an act an entry stands."""

    INTENT = "intent"
    OUTCOME = "outcome"
    DENIED = "denied"
    NOTE = "note"


Result = Literal["done", "failed", "cancelled", "abandoned"]
_STATUS: dict[Result, Literal[1, 2, 99]] = {"done": 1, "failed": 2, "cancelled": 2, "abandoned": 99}


def new_act_id(time_ms: int, *, rng: RandomBytes = random_bytes) -> str:
    """Return a fresh UUIDv7 (RFC 9562 section 5.7) for an act that begins at ``time_ms``."""
    time, rest = f"{time_ms & (1 << 48) - 1:012x}", rng(10).hex()
    variant = "89ab"[int(rest[3], 16) & 3]
    return f"{time[:8]}-{time[8:]}-7{rest[:3]}-{variant}{rest[4:7]}-{rest[7:19]}"


class Credential(Struct, frozen=True, kw_only=True):
    """Which key a principal acted with; ``sig`` as :func:`stanch.ledger.signature.sign_act` makes it."""

    kind: _Public
    key_id: _Pseudonym
    sig: _Public = ""


class Act(Struct, frozen=True, kw_only=True):
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

    kind: _Public
    id: _Public
    principal: _Pseudonym
    principal_kind: Annotated[Literal["user", "service"], _PUBLIC] = "user"
    profile: Annotated[Literal["solo", "team"], _PUBLIC] = "team"
    subject: Annotated[tuple[ArtifactRef, ...], _PUBLIC] = ()
    policy: _Public = ""
    decision: Annotated[tuple[str, ...], _PUBLIC] = ()
    credential: Annotated[Credential | None, _PUBLIC] = None
    target: _Pseudonym = ""
    glass: _Pseudonym = ""


class Entry(Struct, frozen=True, kw_only=True):
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
    phase: Annotated[Phase, _PUBLIC]
    time_ms: int
    status: Literal[1, 2, 99]
    severity: Literal[1, 3, 5] = 1
    payload: Annotated[Mapping[str, JsonValue], _PUBLIC] = {}
    result: Annotated[Result | Literal[""], _PUBLIC] = ""
    egress_bytes: int | None = None
    openings: Annotated[tuple[Opening, ...], _COMMIT] = ()

    def encode(self, origin: str) -> bytes:
        """Return the entry's bytes in the log ``origin``.

        Raises:
            EntryTooLarge: Longer than 65,535 bytes.
            InvalidInput: A value may not stand in an entry.
        """
        try:
            data = _ENCODER.encode(self._event(origin))
        except UnicodeEncodeError as error:
            raise InvalidInput("entry: a text of it is not Unicode") from error
        _decode(data)  # nothing is written that a reader would refuse
        return data

    def _event(self, origin: str) -> ocsf.Event:
        act = self.act
        class_uid, activity = ocsf.class_of(act.kind)
        kind = 0 if act.principal == UNKNOWN_PRINCIPAL else _USER_TYPES[act.principal_kind]
        return ocsf.Event(
            activity_id=activity,
            activity_name=act.kind.rpartition(".")[2] if activity == ocsf.OTHER_ACTIVITY else UNSET,
            actor=ocsf.Actor(user=ocsf.ActingUser(type_id=kind, uid=act.principal)),
            attestation=ocsf.Attestation(authority_uid=origin, chain_uid=origin),
            category_uid=class_uid // 1000,
            class_uid=class_uid,
            metadata=ocsf.Metadata(
                correlation_uid=act.id, product=_PRODUCT, profiles=_PROFILES, version=ocsf.OCSF_VERSION
            ),
            severity_id=self.severity,
            status_id=self.status,
            time=self.time_ms,
            type_uid=100 * class_uid + activity,
            unmapped=ocsf.Unmapped(stanch=self._ours()),
            **self._class_fields(class_uid),
        )

    def _class_fields(self, class_uid: int) -> dict[str, Any]:
        """Return the objects that the OCSF class of this act requires."""
        act = self.act
        match class_uid:
            case ocsf.API_ACTIVITY:
                return {"api": ocsf.Api(act.kind), "src_endpoint": _LOCAL}
            case ocsf.AUTHENTICATION:
                return {"service": _STANCH, "user": ocsf.TargetUser(act.target or act.principal)}
            case ocsf.USER_MANAGEMENT:
                return {"user": ocsf.TargetUser(act.target or UNKNOWN_PRINCIPAL)}
            case ocsf.ENTITY_MANAGEMENT:
                return {"entity": ocsf.Named(act.kind.partition(".")[0])}
            case ocsf.INCIDENT_FINDING:
                return {"finding_info_list": (ocsf.FindingInfo(title=act.kind, uid=act.id),)}
        return {"finding_info": ocsf.FindingInfo(title=act.kind, uid=act.id)}

    def _ours(self) -> ocsf.Ours:
        """Return ``unmapped.stanch``; what is empty is left out."""
        act, used, payload = self.act, self.act.credential, dict(self.payload)
        _check_value(payload, 0)
        return ocsf.Ours(
            commitments={opening.field: opening.commitment for opening in self.openings} or UNSET,
            credential=ocsf.KeyUse(key_id=used.key_id, kind=used.kind, sig=used.sig or UNSET) if used else UNSET,
            decision=act.decision,
            egress_bytes=UNSET if self.egress_bytes is None else self.egress_bytes,
            glass=act.glass or UNSET,
            kind=act.kind,
            payload=payload or UNSET,
            phase=self.phase.value,
            policy=act.policy or UNSET,
            profile=act.profile,
            result=self.result or UNSET,
            subject=tuple(ocsf.Subject(digest=str(a.digest), kind=a.kind, name=a.name) for a in act.subject),
            v=1,
        )


def intent(
    act: Act, *, time_ms: int, payload: Mapping[str, JsonValue] | None = None, openings: tuple[Opening, ...] = ()
) -> Entry:
    """Return the entry that says an act begins; the one that opens emergency rights has the highest severity."""
    return Entry(
        act=act, phase=Phase.INTENT, time_ms=time_ms, status=99, severity=5 if act.kind == BREAK_GLASS else 1,
        payload=payload or {}, openings=openings,
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
    event = _decode(data)
    ocsf.check_class(event)
    if payload := event.unmapped.stanch.payload:
        _check_value(payload, 0)
    # What is read is written again: only the canonical form comes back byte for byte.
    if _ENCODER.encode(event) != data:
        raise InvalidInput("entry: not in canonical form")
    return event


def subjects_text(event: ocsf.Event) -> str:
    """Return an event's subjects as its entry writes them; empty if it has none."""
    subjects = event.unmapped.stanch.subject
    return _ENCODER.encode(subjects).decode() if subjects else ""


def _decode(data: bytes) -> ocsf.Event:
    if len(data) > MAX_ENTRY:
        raise EntryTooLarge(
            f"entry: expected at most {MAX_ENTRY} bytes, found {len(data)}",
            next_step="store the payload as a blob and record its digest",
        )
    try:
        return _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise ocsf.refusal(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput("entry: not JSON") from error


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
