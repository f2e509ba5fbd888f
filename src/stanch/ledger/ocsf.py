"""The profile of OCSF 1.9.0 that entries follow: which class an act belongs to, and what an event must hold.

``class_uid = 1000·category + class``, ``type_uid = 100·class_uid + activity``. What is ours stands in
``unmapped.stanch``. The types here are written from the published class definitions and are stricter than they are: a
field that stands here nowhere is refused.
"""

import re
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError

from stanch.errors import InvalidInput

OCSF_VERSION: Final = "1.9.0"
API_ACTIVITY = 6003
AUTHENTICATION = 3002
USER_MANAGEMENT = 3007
ENTITY_MANAGEMENT = 3004
DETECTION_FINDING = 2004
INCIDENT_FINDING = 2005
DATA_SECURITY_FINDING = 2006
OTHER_ACTIVITY = 99

_PLACE = re.compile(r"`(\$[\w.[\]]*)`\Z")  # where msgspec says it is; it leaves out the event itself
KIND = re.compile(r"[a-z][a-z0-9-]{0,31}(\.[a-z][a-z0-9-]{0,31}){1,3}")

_CRUD = frozenset({1, 2, 3, 4, OTHER_ACTIVITY})
_ACTIVITIES: dict[int, frozenset[int]] = {
    API_ACTIVITY: _CRUD,
    AUTHENTICATION: frozenset({1, 2, OTHER_ACTIVITY}),
    USER_MANAGEMENT: frozenset({1, 2, 3, 4, 5, 14, 15, 16, 17, OTHER_ACTIVITY}),
    ENTITY_MANAGEMENT: _CRUD,
    DETECTION_FINDING: frozenset({1, 2, 3, OTHER_ACTIVITY}),
    INCIDENT_FINDING: frozenset({1, 2, 3, OTHER_ACTIVITY}),
    DATA_SECURITY_FINDING: frozenset({1, 2, 3, OTHER_ACTIVITY}),
}
_FINDINGS = {
    "finding": DATA_SECURITY_FINDING,
    "alarm": DETECTION_FINDING,
    "alert": DETECTION_FINDING,
    "incident": INCIDENT_FINDING,
}
_FINDING_VERBS = {"open": 1, "create": 1, "update": 2, "close": 3}
_VERBS = {
    **dict.fromkeys(("create", "add", "init", "new", "register", "plan"), 1),
    **dict.fromkeys(("read", "show", "list", "open", "fetch", "export", "verify"), 2),
    **dict.fromkeys(("write", "update", "approve", "revoke", "quarantine", "restore", "rotate", "rekey"), 3),
    **dict.fromkeys(("clear", "classify", "hold", "lift"), 3),
    **dict.fromkeys(("delete", "erase"), 4),
}
_PEOPLE = {
    "access.add": (USER_MANAGEMENT, 1),
    "access.register": (USER_MANAGEMENT, 1),
    "access.resume": (USER_MANAGEMENT, 4),
    "access.suspend": (USER_MANAGEMENT, 5),
    "access.grant": (USER_MANAGEMENT, 16),
    "access.revoke": (USER_MANAGEMENT, 17),
    "access.login": (AUTHENTICATION, 1),
    "access.logout": (AUTHENTICATION, 2),
}
_ENTITIES = frozenset({"policy", "key", "config", "ledger"})


@lru_cache(1024)
def class_of(kind: str) -> tuple[int, int]:
    """Return the class and activity of a kind of act, for example (6003, 1) for ``release.create``.

    Raises:
        InvalidInput: Not a kind: lower-case words joined by dots.
    """
    if not KIND.fullmatch(kind):
        raise InvalidInput(f"kind of act: expected words such as release.create, found {kind[:80]!r}")
    if kind in _PEOPLE:
        return _PEOPLE[kind]
    first, last = kind.partition(".")[0], kind.rpartition(".")[2]
    if last in _FINDINGS:
        return _FINDINGS[last], 1
    if kind.split(".")[-2] in _FINDINGS:
        return _FINDINGS[kind.split(".")[-2]], _FINDING_VERBS.get(last, OTHER_ACTIVITY)
    return (ENTITY_MANAGEMENT if first in _ENTITIES else API_ACTIVITY), _VERBS.get(last, OTHER_ACTIVITY)


Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
PrincipalId = Annotated[str, Meta(pattern=r"^(p_[a-z2-7]{26}|unknown)\Z")]
ActId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")]
Hex256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
DigestText = Annotated[str, Meta(pattern=r"^(sha256|blake3):[0-9a-f]{64}\Z")]
Signature = Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/]{85}[AQgw]==\Z")]  # 64 bytes in base64
FieldPath = Annotated[str, Meta(pattern=r"^[a-z0-9_.]{1,128}\Z")]


class Profile(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all objects of the profile: what is not named is refused, and what is empty is left out.

    Fields stand in the order of their names, in which the canonical form writes them.
    """


class ActingUser(Profile, frozen=True):
    """OCSF ``user`` of the actor: 0 unknown, 1 user, 4 service."""

    type_id: Literal[0, 1, 4]
    uid: PrincipalId


class Actor(Profile, frozen=True):
    """OCSF ``actor``."""

    user: ActingUser


class TargetUser(Profile, frozen=True):
    """OCSF ``user`` that an act is about."""

    uid: PrincipalId


class Named(Profile, frozen=True):
    """OCSF objects of which the name is enough: ``src_endpoint``, ``service``, ``entity``."""

    name: Text


class Api(Profile, frozen=True):
    """OCSF ``api``."""

    operation: Text


class FindingInfo(Profile, frozen=True):
    """OCSF ``finding_info``."""

    title: Text
    uid: Text


class Attestation(Profile, frozen=True):
    """OCSF ``attestation`` of the record_integrity profile."""

    authority_uid: Text
    chain_uid: Text


class Product(Profile, frozen=True):
    """OCSF ``product``."""

    name: Text
    vendor_name: Text
    version: Text


class Metadata(Profile, frozen=True):
    """OCSF ``metadata``; ``correlation_uid`` is the id of the act."""

    correlation_uid: ActId
    product: Product
    profiles: tuple[Literal["record_integrity"]]
    version: Literal["1.9.0"]


class Subject(Profile, frozen=True):
    """An artifact that an act is about."""

    digest: DigestText
    kind: Text
    name: Text


class KeyUse(Profile, frozen=True):
    """Which key a principal acted with, and its signature of the act where the key is the principal's own."""

    key_id: Text
    kind: Text
    sig: Signature | UnsetType = UNSET


class Ours(Profile, frozen=True, kw_only=True):
    """What stanch adds to an event, in ``unmapped.stanch``."""

    commitments: dict[FieldPath, Hex256] | UnsetType = UNSET
    credential: KeyUse | UnsetType = UNSET
    decision: tuple[Text, ...] = ()
    egress_bytes: Count | UnsetType = UNSET
    glass: Text | UnsetType = UNSET
    kind: Text | UnsetType = UNSET
    payload: dict[str, Any] | UnsetType = UNSET
    phase: Literal["intent", "outcome", "denied", "note"]
    policy: Text | UnsetType = UNSET
    profile: Literal["solo", "team"] | UnsetType = UNSET
    result: Literal["done", "failed", "cancelled", "abandoned"] | UnsetType = UNSET
    subject: tuple[Subject, ...] = ()
    v: Literal[1]


class Unmapped(Profile, frozen=True):
    """OCSF ``unmapped``."""

    stanch: Ours


class Event(Profile, frozen=True, kw_only=True):
    """One entry of the log as an OCSF event."""

    activity_id: int
    activity_name: Text | UnsetType = UNSET
    actor: Actor
    api: Api | UnsetType = UNSET
    attestation: Attestation
    category_uid: int
    class_uid: int
    entity: Named | UnsetType = UNSET
    finding_info: FindingInfo | UnsetType = UNSET
    finding_info_list: tuple[FindingInfo] | UnsetType = UNSET
    metadata: Metadata
    service: Named | UnsetType = UNSET
    severity_id: Literal[1, 2, 3, 4, 5, 6]
    src_endpoint: Named | UnsetType = UNSET
    status_id: Literal[1, 2, 99]
    time: Count
    type_uid: int
    unmapped: Unmapped
    user: TargetUser | UnsetType = UNSET


_BELONGING = frozenset(
    (uid, uid // 1000, activity, 100 * uid + activity)
    for uid, activities in _ACTIVITIES.items()
    for activity in activities
)
_REQUIRED: dict[int, tuple[str, ...]] = {
    API_ACTIVITY: ("api", "src_endpoint"),
    AUTHENTICATION: ("user", "service"),
    USER_MANAGEMENT: ("user",),
    ENTITY_MANAGEMENT: ("entity",),
    DETECTION_FINDING: ("finding_info",),
    INCIDENT_FINDING: ("finding_info_list",),
    DATA_SECURITY_FINDING: ("finding_info",),
}


def refusal(error: ValidationError) -> InvalidInput:
    """Return the error that names the field in which an event breaks the profile, and not its value."""
    found = _PLACE.search(str(error))
    place = found[1] if found else "$"
    return InvalidInput(f"entry: {place} is not as the profile demands", why=f"OCSF {OCSF_VERSION} profile")


def check_class(event: Event) -> None:
    """Check what an event's class demands.

    Raises:
        InvalidInput: Class, category, type and activity do not belong together, or an object is missing.
    """
    class_uid = event.class_uid
    if (class_uid, event.category_uid, event.activity_id, event.type_uid) not in _BELONGING:
        raise InvalidInput("entry: its class, category, type and activity do not belong together")
    for field in _REQUIRED[class_uid]:
        if getattr(event, field) is UNSET:
            raise InvalidInput(f"entry: {field} is missing, which class {class_uid} demands")
