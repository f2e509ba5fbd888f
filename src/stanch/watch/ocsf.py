"""Alerts and incidents as OCSF 1.9.0 events: Detection Finding 2004 and Incident Finding 2005.

Both carry the ``record_integrity`` profile: where the ledger holds the entry that raised or changed them, its place and
hash are in ``attestation_list``. What OCSF has no field for stands in ``unmapped.stanch``. The profile's schema is
``docs/spec/ocsf-profile.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from stanch import __version__
from stanch.ledger.ocsf import DETECTION_FINDING, INCIDENT_FINDING, OCSF_VERSION
from stanch.terms import JsonValue
from stanch.watch.alarm import Severity
from stanch.watch.alert import AlertState
from stanch.watch.incident import IncidentState
from stanch.watch.outbox import Notice

INCIDENT_SCHEMA: Final = "urn:stanch:incident:v1"
SEVERITY_IDS: Final = {Severity.LOW: 2, Severity.MEDIUM: 3, Severity.HIGH: 4, Severity.CRITICAL: 5}
_CREATE, _UPDATE, _CLOSE = 1, 2, 3
_NEW, _IN_PROGRESS, _SUPPRESSED, _RESOLVED = 1, 2, 3, 4
_STATUS_IDS = {
    AlertState.OPEN: _NEW,
    AlertState.SUPPRESSED: _SUPPRESSED,
    AlertState.ACKNOWLEDGED: _IN_PROGRESS,
    AlertState.INVESTIGATING: _IN_PROGRESS,
    AlertState.CONTAINED: _IN_PROGRESS,
    AlertState.CLOSED: _RESOLVED,
}


@dataclass(frozen=True, slots=True)
class Attested:
    """Where the ledger holds an entry: its index, its fingerprint, the log's origin and the key of its checkpoints.

    Attributes:
        index: Its index.
        fingerprint: SHA-256 of its canonical bytes, in hex.
        origin: The log.
        key_id: The key that signs the log's checkpoints.
    """

    index: int
    fingerprint: str
    origin: str
    key_id: str

    def to_json(self) -> JsonValue:
        """Return the OCSF attestation."""
        return {
            "uid": str(self.index),
            "fingerprint": {"algorithm_id": 3, "value": self.fingerprint},
            "chain_uid": self.origin,
            "authority_uid": self.key_id,
        }


def alert_event(notice: Notice, attested: tuple[Attested, ...] = ()) -> dict[str, JsonValue]:
    """Return a notice of an alert as a Detection Finding."""
    facts = notice.facts
    state = AlertState(str(facts["state"]))
    severity = SEVERITY_IDS[Severity(str(facts["severity"]))]
    activity = _CREATE if facts["event"] == "raised" else _CLOSE if state is AlertState.CLOSED else _UPDATE
    event = _event(DETECTION_FINDING, activity, severity, _int(facts["raised_ms"]), notice.key, attested)
    event |= {
        "status_id": _STATUS_IDS[state],
        "count": facts["count"],
        "finding_info": _finding(str(facts["alert"]), f"{facts['detector']} {facts['signal']}", facts),
        "unmapped": {"stanch": {**facts, "key": notice.key}},
    }
    return event


def notice_event(notice: Notice, attested: tuple[Attested, ...] = ()) -> dict[str, JsonValue]:
    """Return a notice as what it is about: an incident, or else an alert."""
    if notice.facts["schema"] != INCIDENT_SCHEMA:
        return alert_event(notice, attested)
    facts = {**notice.facts, "key": notice.key}
    return _incident(facts, _int(facts["raised_ms"]), notice.key, attested)


def _incident(
    facts: Mapping[str, JsonValue], at_ms: int, uid: str, attested: tuple[Attested, ...]
) -> dict[str, JsonValue]:
    state, alerts = IncidentState(str(facts["state"])), facts["alerts"]
    states = {IncidentState.OPEN: 1, IncidentState.CONTAINED: 2, IncidentState.NOTIFIED: 2, IncidentState.CLOSED: 5}
    activity = {IncidentState.OPEN: _CREATE, IncidentState.CLOSED: _CLOSE}.get(state, _UPDATE)
    severity = SEVERITY_IDS[Severity.CRITICAL]
    event = _event(INCIDENT_FINDING, activity, severity, at_ms, uid, attested)
    named = alerts if isinstance(alerts, list) else []
    infos: list[JsonValue] = [{"uid": alert, "title": "alert"} for alert in named]
    event |= {
        "status_id": states[state],
        "finding_info_list": infos or [{"uid": facts["incident"], "title": "incident"}],
        "unmapped": {"stanch": {**facts}},
    }
    return event


def _event(
    class_uid: int, activity: int, severity: int, time_ms: int, uid: str, attested: tuple[Attested, ...]
) -> dict[str, JsonValue]:
    names = {_CREATE: "Create", _UPDATE: "Update", _CLOSE: "Close"}
    return {
        "activity_id": activity,
        "activity_name": names[activity],
        "attestation_list": [one.to_json() for one in attested],
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "metadata": {
            "uid": uid,
            "version": OCSF_VERSION,
            "profiles": ["record_integrity"],
            "product": {"name": "stanch", "vendor_name": "stanch", "version": __version__},
        },
        "severity_id": severity,
        "time": time_ms,
        "type_uid": 100 * class_uid + activity,
    }


def _finding(uid: str, title: str, facts: Mapping[str, JsonValue]) -> JsonValue:
    return {
        "uid": uid,
        "title": title,
        "first_seen_time": 1000 * _int(facts["first_at"]),
        "last_seen_time": 1000 * _int(facts["last_at"]),
    }


def _int(value: JsonValue) -> int:
    return value if isinstance(value, int) else 0
