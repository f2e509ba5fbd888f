"""The profile of OCSF 1.9.0 that entries follow: which class an act belongs to, and what an event must hold.

``class_uid = 1000·category + class``, ``type_uid = 100·class_uid + activity``. What is ours stands in
``unmapped.stanch``. The check here is written from the published class definitions; it is stricter than they are.
"""

import re
from collections.abc import Callable
from typing import Any

from stanch.errors import InvalidInput

OCSF_VERSION = "1.9.0"
PHASES = frozenset({"intent", "outcome", "denied", "note"})
API_ACTIVITY = 6003
AUTHENTICATION = 3002
USER_MANAGEMENT = 3007
ENTITY_MANAGEMENT = 3004
DATA_SECURITY_FINDING = 2006
OTHER_ACTIVITY = 99

KIND = re.compile(r"[a-z][a-z0-9-]{0,31}(\.[a-z][a-z0-9-]{0,31}){1,3}")
ACT_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

_CRUD = frozenset({1, 2, 3, 4, OTHER_ACTIVITY})
_ACTIVITIES: dict[int, frozenset[int]] = {
    API_ACTIVITY: _CRUD,
    AUTHENTICATION: frozenset({1, 2, OTHER_ACTIVITY}),
    USER_MANAGEMENT: frozenset({1, 2, 3, 4, 5, 14, 15, 16, 17, OTHER_ACTIVITY}),
    ENTITY_MANAGEMENT: _CRUD,
    DATA_SECURITY_FINDING: frozenset({1, 2, 3, OTHER_ACTIVITY}),
}
_VERBS = {
    **dict.fromkeys(("create", "add", "init", "new", "register", "plan"), 1),
    **dict.fromkeys(("read", "show", "list", "open", "fetch", "export", "verify"), 2),
    **dict.fromkeys(("write", "update", "approve", "revoke", "quarantine", "rotate"), 3),
    **dict.fromkeys(("delete", "erase"), 4),
}
_PEOPLE = {
    "access.register": (USER_MANAGEMENT, 1),
    "access.resume": (USER_MANAGEMENT, 4),
    "access.suspend": (USER_MANAGEMENT, 5),
    "access.grant": (USER_MANAGEMENT, 16),
    "access.revoke": (USER_MANAGEMENT, 17),
    "access.login": (AUTHENTICATION, 1),
    "access.logout": (AUTHENTICATION, 2),
}
_ENTITIES = frozenset({"policy", "key", "config", "ledger"})


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
    if last == "finding":
        return DATA_SECURITY_FINDING, 1
    return (ENTITY_MANAGEMENT if first in _ENTITIES else API_ACTIVITY), _VERBS.get(last, OTHER_ACTIVITY)


def check_event(event: Any) -> None:  # noqa: ANN401 - any JSON value may come from outside
    """Check an event against the profile.

    Raises:
        InvalidInput: A field is missing, of another type, or outside its enumeration; the field is named.
    """
    try:
        for field, holds in _RULES:
            if not holds(event):
                _refuse(field)
        for field in _REQUIRED[event["class_uid"]]:
            if not isinstance(event[field], dict):
                _refuse(field)
    except (KeyError, TypeError) as error:
        _refuse(str(error.args[0]) if isinstance(error, KeyError) else "one of its objects", error)


def _refuse(field: str, cause: Exception | None = None) -> None:
    raise InvalidInput(f"entry: {field} is missing or not as the profile demands", why="OCSF 1.9.0 profile") from cause


def _text(value: object) -> bool:
    return isinstance(value, str) and value != ""


_RULES: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("class_uid", lambda e: type(e["class_uid"]) is int and e["class_uid"] in _ACTIVITIES),
    ("activity_id", lambda e: type(e["activity_id"]) is int and e["activity_id"] in _ACTIVITIES[e["class_uid"]]),
    ("category_uid", lambda e: e["category_uid"] == e["class_uid"] // 1000),
    ("type_uid", lambda e: e["type_uid"] == 100 * e["class_uid"] + e["activity_id"]),
    ("time", lambda e: type(e["time"]) is int and e["time"] >= 0),
    ("severity_id", lambda e: e["severity_id"] in {1, 2, 3, 4, 5, 6}),
    ("status_id", lambda e: e["status_id"] in {1, 2, 99}),
    ("actor.user.uid", lambda e: _text(e["actor"]["user"]["uid"])),
    ("actor.user.type_id", lambda e: e["actor"]["user"]["type_id"] in {0, 1, 4}),
    ("metadata.version", lambda e: e["metadata"]["version"] == OCSF_VERSION),
    ("metadata.profiles", lambda e: e["metadata"]["profiles"] == ["record_integrity"]),
    ("metadata.product", lambda e: all(_text(e["metadata"]["product"][k]) for k in ("name", "vendor_name", "version"))),
    ("metadata.correlation_uid", lambda e: ACT_ID.fullmatch(e["metadata"]["correlation_uid"]) is not None),
    ("attestation", lambda e: _text(e["attestation"]["authority_uid"]) and _text(e["attestation"]["chain_uid"])),
    ("unmapped.stanch.v", lambda e: e["unmapped"]["stanch"]["v"] == 1),
    ("unmapped.stanch.phase", lambda e: e["unmapped"]["stanch"]["phase"] in PHASES),
)

_REQUIRED: dict[int, tuple[str, ...]] = {
    API_ACTIVITY: ("api", "src_endpoint"),
    AUTHENTICATION: ("user", "service"),
    USER_MANAGEMENT: ("user",),
    ENTITY_MANAGEMENT: ("entity",),
    DATA_SECURITY_FINDING: ("finding_info",),
}
