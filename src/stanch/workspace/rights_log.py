"""Who may do what, as the entries of the log say it.

An outcome counts only if the intent of its act came before it, of the same kind and principal, with the verified
signature of a key that the log says is that principal's, if the principal was permitted it then, and if it asked for
what the outcome gave. What comes from a browser, an API key, a token or a certificate carries no such signature; it
counts, and its place is noted.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stanch.access.glass import MINUTE_MS
from stanch.access.grant import DAY_MS
from stanch.access.roles import first_roles
from stanch.crypto import VerifyKey
from stanch.errors import InvalidInput, NoTrustedSignature
from stanch.ledger.entry import read_event
from stanch.ledger.fsck_tile import OWN_KEY
from stanch.ledger.ocsf import Event
from stanch.ledger.signature import check_act
from stanch.workspace.kinds import KINDS
from stanch.workspace.people import ROLLBACK
from stanch.workspace.rights_held import Held
from stanch.workspace.rights_made import MAKING, Facts, Side, shut_gates

REGISTER = "key.register"
"""The kind of act by which somebody registers the key that shares are wrapped to."""
_LEEWAY_MS = 60_000
_MISSHAPEN = (AttributeError, LookupError, TypeError, ValueError)
"""Errors of entries of whatever shape somebody wrote."""
_SHUT = ("gate-failed", "gate-inconclusive")
"""Errors of ``audit.gate`` that shut a gate which was passed before."""


@dataclass(frozen=True, slots=True)
class Registration:
    """What somebody registered for shares: in which entry, which key, signed with which, and why it does not count."""

    index: int
    recipient: str
    key_id: str
    fault: str


@dataclass(frozen=True, slots=True)
class _Begun:
    """An intent: its place, kind and principal, what it asks for, the key that signed it, and why it does not count."""

    index: int
    of: tuple[str, str]
    asked: Mapping[str, Any]
    key_id: str
    fault: str


@dataclass(slots=True)
class RightsLog:
    """What the entries that were read so far made.

    Attributes:
        origin: The log's name.
        keys: Principals and public halves of local keys as the database has them, by their ids.
        held: Who was permitted what, while the entries are read.
        made: The rows that should be there.
        owner: The first principal; empty before the first act.
        first_roles: What that principal got with the workspace.
        acts: How many acts made something.
        faults: Entries about rights that cannot be what the program wrote.
        silent: The first entry that does not say what it gave; empty where all do.
        excused: Principals of whom such entries do not say what they got.
        unsigned: Entries that made something without a signature of whoever acted.
        registered: By principal, what it registered last for shares of copies' keys.
        doubts: By local key, why somebody else than its principal may have it; keys without a doubt are not there.
    """

    origin: str
    keys: Mapping[str, tuple[str, bytes]]
    held: Held
    made: Side
    owner: str = ""
    first_roles: frozenset[str] = frozenset()
    acts: int = 0
    faults: list[str] = field(default_factory=list)
    silent: str = ""
    excused: set[str] = field(default_factory=set)
    unsigned: list[int] = field(default_factory=list)
    registered: dict[str, Registration] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)
    _spoke: bool = False
    _begun: dict[str, _Begun] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def read_all(self, entries: Iterable[tuple[int, bytes]]) -> None:
        """Take entries in their order."""
        for index, data in entries:
            self.read(index, data)

    def read(self, index: int, data: bytes) -> None:
        """Take the next entry of the log. The query index is rows that could be edited as well: nothing asks it."""
        if self.owner and not any(kind in data for kind in _WANTED):
            return
        event = read_event(data)
        ours, by = event.unmapped.stanch, event.actor.user.uid
        if not self.owner and by.startswith("p_"):
            self._found(index, event)
        if ours.kind == REGISTER or ours.kind in MAKING:
            if ours.phase == "intent":
                self._begin(index, event)
            elif ours.phase == "outcome":
                self._end(index, event)

    def _found(self, index: int, event: Event) -> None:
        """Note the first principal: registered before the log has an entry, and whoever acts in the first one."""
        ours, self.owner = event.unmapped.stanch, event.actor.user.uid
        self.first_roles = first_roles(team=ours.profile == "team")
        self.held.begin(self.owner, self.first_roles)
        self.made.note(index, "principal", self.owner, {"kind": "user", "suspended": False})
        if ours.credential:
            key = ours.credential.key_id
            self.made.note(index, "key", key, {"principal": self.owner, "public half": key, "revoked": False})

    def _begin(self, index: int, event: Event) -> None:
        ours, act, by = event.unmapped.stanch, event.metadata.correlation_uid, event.actor.user.uid
        fault = "begins an act that began before" if act in self._seen else self._check_signature(event)
        if not fault and by not in self.excused:
            try:
                fault = self.held.refusal(event, KINDS[ours.kind or ""].action)
            except (*_MISSHAPEN, InvalidInput) as error:
                fault = f"what it is about, or what its principal holds, is malformed: {str(error)[:80]}"
        self._seen.add(act)
        key_id = ours.credential.key_id if ours.credential and ours.credential.kind == OWN_KEY else ""
        self._begun[act] = _Begun(index, (ours.kind or "", by), ours.payload or {}, key_id, fault)

    def owns(self, principal: str, key_id: str) -> bool:
        """Say whether the entries make a local key this principal's; for those who are excused, a row does."""
        made = self.made.rows["key"].get(key_id)
        if made is None and principal in self.excused:
            return self.keys.get(key_id, ("", b""))[0] == principal
        return made is not None and bool(made.get("principal") == principal)

    def doubt(self, key_id: str) -> str:
        """Return why somebody else than its principal may have a local key; empty if nothing says so."""
        if key_id not in self.made.rows["key"]:
            return "an older release registered its owner, and the log does not say with which key"
        return self.doubts.get(key_id, "")

    def _check_signature(self, event: Event) -> str:
        """Return why the signature of an intent does not count; empty if it does, or if none is asked for."""
        used = event.unmapped.stanch.credential
        if not used:
            return "does not say with what its principal signed in"
        if used.kind != OWN_KEY:
            return ""
        if event.attestation.chain_uid != self.origin:
            return "is of another log"
        if not self.owns(event.actor.user.uid, used.key_id):
            return f"names the key {used.key_id}, which the log does not say is its principal's"
        if self.made.rows["key"].get(used.key_id, {}).get("revoked"):
            return f"names the key {used.key_id}, which was replaced before"
        try:
            key = VerifyKey.from_raw_ed25519(self.keys.get(used.key_id, ("", b""))[1])
            if key.key_id != used.key_id:
                return f"names the key {used.key_id}, whose row holds another"
            check_act(event, key)
        except (InvalidInput, NoTrustedSignature) as error:
            return f"its signature does not hold: {error.what}"
        return ""

    def _end(self, index: int, event: Event) -> None:
        ours, by = event.unmapped.stanch, event.actor.user.uid
        kind, begun = ours.kind or "", self._begun.pop(event.metadata.correlation_uid, None)
        done = ours.payload or {}
        if ours.result != "done":
            if kind == "audit.gate" and done.get("error") in _SHUT:
                shut_gates(self.made, event)
            return
        if begun is None or begun.of != (kind, by):
            self.faults.append(f"entry {index}: {kind} of {by} says that it was done, but no such act had begun")
            return
        try:
            fault = begun.fault or _beyond(kind, begun.asked, done, event.time)
            fault = fault or self._taken(kind, done) or self.held.gain(kind, by, done)
            if kind == REGISTER:
                why = fault or ("" if begun.key_id else "nobody signed it")
                self.registered[by] = Registration(begun.index, begun.asked["recipient"], begun.key_id, why)
            elif not fault:
                self._make(begun, index, event, done)
        except _MISSHAPEN as error:
            self._misfit(begun, index, done, str(error))
            return
        if fault:
            self.faults.append(f"entry {begun.index}: {kind} of {by}: {fault}")
            return
        self.acts += 1
        self._spoke |= kind in _GIVING
        if not begun.key_id:
            self.unsigned.append(index)

    def _make(self, begun: _Begun, index: int, event: Event, done: Facts) -> None:
        kind = begun.of[0]
        if kind in _MAKING_KEYS:
            self._doubt(begun, index, done)
        MAKING[kind](self.made, index, event, done)
        if kind in {"policy.write", ROLLBACK}:
            self.held.put_in_force(done["policy"])

    def _taken(self, kind: str, done: Mapping[str, Any]) -> str:
        """Return what an outcome says that it made, and was there before; empty if there is nothing."""
        made, principal = self.made.rows, done.get("principal", "")
        if kind in {"access.add", "access.register"} and (principal in made["principal"] or principal in self.excused):
            return f"registers {principal}, who was registered before"
        if kind in _MAKING_KEYS and done["key"] in made["key"]:
            return f"makes the key {done['key']}, which was there before"
        return ""

    def _doubt(self, begun: _Begun, index: int, done: Facts) -> None:
        """Note why a key may be another's: whoever makes a key for somebody else has had it in hand."""
        kind, by = begun.of
        if not begun.key_id:
            self.doubts[done["key"]] = f"entry {index} says that {by} made it, and nobody signed that"
        elif kind == "access.add" and "key" not in begun.asked:
            self.doubts[done["key"]] = f"{by} made it for this person (entry {index})"
        elif kind == "access.rekey" and not self.owns(by, done["earlier"]):
            self.doubts[done["key"]] = f"{by} put it in the place of the earlier one (entry {index})"
        elif done.get("earlier") in self.doubts:
            self.doubts[done["key"]] = self.doubts[done["earlier"]]

    def _misfit(self, begun: _Begun, index: int, done: Facts, why: str) -> None:
        """Note an outcome that cannot be made into rows: of an older release, which did not say what it gave, or wrong.

        Only what gave roles ever lacked that, and only before the first entry that says it. People whom such an entry
        names are excused from the comparison, if whoever acted has signed: whatever else the log says of others holds.
        """
        kind = begun.of[0]
        if kind not in _GIVING:
            self.faults.append(f"entry {index}: {kind} does not fit the entries before it: {why[:80]}")
        elif self._spoke:
            self.faults.append(f"entry {index}: {kind} does not say what it gave, though earlier entries do")
        elif not begun.key_id:
            self.faults.append(f"entry {index}: {kind} does not say what it gave, and nobody signed it")
        else:
            self.silent = self.silent or f"entry {index}: {kind} does not say what it gave"
            self.excused |= {one for one in (done.get("principal"), done.get("to")) if isinstance(one, str)}


def _beyond(kind: str, asked: Mapping[str, Any], done: Mapping[str, Any], ended_ms: int) -> str:
    """Return what of an outcome its intent did not ask for; an intent of an older release may say nothing of it."""
    for name, value in _GIVES.get(kind, _same())(done).items():
        if name in asked and asked[name] != value:
            return f"asked for {name} {asked[name]}, and its outcome says {value}"
    span_ms = asked.get("days", 0) * DAY_MS or asked.get("minutes", 0) * MINUTE_MS
    ends = [one.get("expires_ms") or one.get("until_ms") or 0 for one in (done, *done.get("grants", ()))]
    if span_ms and max(ends) > ended_ms + span_ms + _LEEWAY_MS:
        return "its outcome gave more time than it asked for"
    return ""


def _registered(done: Mapping[str, Any]) -> Facts:
    roles = [one["role"] for one in done["grants"]]
    key = {"key": done["key"]} if "key" in done else {}
    return {"kind": done["kind"], "clearance": done["clearance"], "roles": roles, **key}


def _same(*names: str) -> Callable[[Mapping[str, Any]], Facts]:
    return lambda done: {name: done[name] for name in names if name in done}


_MAKING_KEYS = ("access.add", "access.rekey")
_GIVING = ("access.add", "access.register", "access.grant")

_GIVES: dict[str, Callable[[Mapping[str, Any]], Facts]] = {
    "access.add": _registered,
    "access.register": _registered,
    "access.grant": _same("to", "role", "scope"),
    "access.revoke": _same("grant"),
    "access.suspend": _same("principal"),
    "access.resume": _same("principal"),
    "access.review": _same("glass"),
    "access.clear": _same("principal", "clearance"),
    "access.classify": _same("of", "digest", "sensitivity"),
    "access.restore": _same("of", "digest"),
    "access.rekey": _same("earlier", "key"),
    "log.hold": _same("of", "digest"),
    "log.lift": _same("of", "digest"),
    "key.issue": _same("to", "models", "networks", "actions"),
    "key.revoke": _same("key"),
    "policy.write": _same("policy"),
}
"""What an intent asks for under the same name as its outcome says it was given."""


_WANTED = tuple(f'"kind":"{kind}"'.encode() for kind in (*MAKING, REGISTER))
