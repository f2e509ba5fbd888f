"""What outcomes about rights make of rows, kind by kind; and the rows themselves, as one side of a comparison."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stanch.ledger.ocsf import Event

Facts = dict[str, Any]
KINDS_OF_ROWS = (
    "principal", "key", "grant", "policy", "glass", "API key", "quarantine", "sensitivity", "legal hold", "gate"
)  # fmt: skip


@dataclass(slots=True)
class Side:
    """One side of a comparison: by kind and name, what each row is, and which entry says so."""

    rows: dict[str, dict[str, Facts]] = field(default_factory=lambda: {kind: {} for kind in KINDS_OF_ROWS})
    entry_of: dict[str, int] = field(default_factory=dict)
    grants_of: dict[str, list[str]] = field(default_factory=dict)

    def note(self, index: int, what: str, name: object, facts: Facts) -> None:
        """Note what an entry makes of a row, beside what earlier ones made of it.

        Raises:
            TypeError: The name is none.
        """
        if not isinstance(name, str):
            raise TypeError(f"expected a name, found {type(name).__name__}")
        self.rows[what][name] = self.rows[what].get(name, {}) | facts
        self.entry_of[f"{what} {name}"] = index

    def give(self, index: int, name: str, granted: Facts) -> None:
        """Note a grant, and whose it is."""
        self.note(index, "grant", name, granted)
        self.grants_of.setdefault(granted["principal"], []).append(name)


def subject_of(event: Event) -> str:
    """Return what the row of a gate is called: kind, name and digest of what the act was about."""
    return " ".join(f"{one.kind} {one.name} {one.digest}" for one in event.unmapped.stanch.subject)


def shut_gates(made: Side, event: Event) -> None:
    """Shut the gate of the bytes that an act was about, under whatever name it was passed."""
    for one in event.unmapped.stanch.subject:
        passed = made.rows["gate"]
        for name in [name for name in passed if (name.split(" ")[0], name.split(" ")[-1]) == (one.kind, one.digest)]:
            del passed[name]


def _register(made: Side, index: int, event: Event, done: Facts) -> None:
    principal = done["principal"]
    grants = [(one["grant"], _granted(event, one | {"to": principal})) for one in done["grants"]]
    made.note(index, "principal", principal, {"kind": done["kind"], "clearance": done["clearance"], "suspended": False})
    if key := done.get("key"):
        made.note(index, "key", key, {"principal": principal, "public half": key, "revoked": False})
    for name, granted in grants:
        made.give(index, name, granted)


def _grant(made: Side, index: int, event: Event, done: Facts) -> None:
    made.give(index, done["grant"], _granted(event, done))


def _granted(event: Event, done: Facts) -> Facts:
    facts = {name: done[name] for name in ("role", "scope", "expires_ms")}
    return facts | {"principal": done["to"], "granted_by": event.actor.user.uid, "revoked": False}


def _suspend(suspended: bool) -> "Callable[[Side, int, Event, Facts], None]":  # noqa: FBT001 - one of two
    return lambda made, index, _event, done: made.note(index, "principal", done["principal"], {"suspended": suspended})


def _activate(made: Side, index: int, event: Event, done: Facts) -> None:
    facts = {"policy": done["policy"], "activated_by": event.actor.user.uid, "state": "active"}
    for retired in made.rows["policy"].values():
        retired["state"] = "retired"
    made.note(index, "policy", str(done["version"]), facts)


def _break_glass(made: Side, index: int, event: Event, done: Facts) -> None:
    made.note(index, "glass", done["glass"], {
        "principal": event.actor.user.uid, "act": event.metadata.correlation_uid, "until_ms": done["until_ms"],
        "review_due_ms": done["review_due_ms"], "reviewed_by": None,
    })  # fmt: skip


def _issue(made: Side, index: int, event: Event, done: Facts) -> None:
    facts = {name: done[name] for name in ("models", "actions", "expires_ms")}
    facts |= {name: done[name] for name in ("networks",) if name in done}  # of an older release they are not there
    facts |= {"principal": done["to"], "issued_by": event.actor.user.uid, "revoked": False}
    made.note(index, "API key", done["key"], facts)


def _quarantine(made: Side, index: int, event: Event, _done: Facts) -> None:
    (model,) = event.unmapped.stanch.subject
    made.note(index, "quarantine", f"{model.kind} {model.digest}", {})


def _rekey(made: Side, index: int, _event: Event, done: Facts) -> None:
    earlier = made.rows["key"].get(done["earlier"], done)  # of an older release the log does not say whose a key is
    owner = earlier["principal"]
    made.note(index, "key", done["earlier"], {"revoked": True})
    made.note(index, "key", done["key"], {"principal": owner, "public half": done["key"], "revoked": False})


def _classify(made: Side, index: int, _event: Event, done: Facts) -> None:
    made.note(index, "sensitivity", _bytes(done), {"sensitivity": done["sensitivity"]})
    if not done["sensitivity"]:
        del made.rows["sensitivity"][_bytes(done)]


def _lift(what: str) -> "Callable[[Side, int, Event, Facts], None]":
    def lift(made: Side, _index: int, _event: Event, done: Facts) -> None:
        # Whoever lifts what no act had made undoes a row that somebody wrote.
        made.rows[what].pop(_bytes(done), None)

    return lift


def _bytes(done: Facts) -> str:
    """Return what rows about bytes are called: policies ask for both, so bytes of another kind are other bytes."""
    return f"{done['of']} {done['digest']}"


MAKING: dict[str, Callable[[Side, int, Event, Facts], None]] = {
    "access.add": _register,
    "access.register": _register,
    "access.grant": _grant,
    "access.revoke": lambda made, index, _, done: made.note(index, "grant", done["grant"], {"revoked": True}),
    "access.suspend": _suspend(suspended=True),
    "access.resume": _suspend(suspended=False),
    "access.break-glass": _break_glass,
    "access.review": lambda made, index, event, done: made.note(
        index, "glass", done["glass"], {"reviewed_by": event.actor.user.uid}
    ),
    "access.clear": lambda made, index, _, done: made.note(
        index, "principal", done["principal"], {"clearance": done["clearance"]}
    ),
    "access.rekey": _rekey,
    "access.classify": _classify,
    "access.restore": _lift("quarantine"),
    "log.hold": lambda made, index, _, done: made.note(index, "legal hold", _bytes(done), {}),
    "log.lift": _lift("legal hold"),
    "key.issue": _issue,
    "key.revoke": lambda made, index, _, done: made.note(index, "API key", done["key"], {"revoked": True}),
    "policy.write": _activate,
    "policy.rollback": _activate,
    "model.quarantine": _quarantine,
    "audit.gate": lambda made, index, event, _: made.note(index, "gate", subject_of(event), {}),
}
"""Kinds of acts that make or change rows of rights, and what their outcome makes of them."""
