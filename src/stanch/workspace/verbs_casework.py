"""Verbs about what people do about an incident: give a task, end it, hand evidence over, tell others, state."""

from stanch.ledger import Opening
from stanch.terms import Digest
from stanch.watch.casework import add_statement, add_task, finish_task, hand_over
from stanch.watch.incident import Incident, Matter, Notice, Told, notify
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_incident import update_incident

TASK, EVIDENCE, LATE, STATED = (
    "watch.incident.task", "watch.incident.evidence", "watch.incident.late", "watch.incident.stated"
)  # fmt: skip


def give_task(workspace: Workspace, key: str, what: str, *, who: str, due_ms: int) -> Incident:
    """Give somebody a task; the log says whose it is and by when, and holds a commitment to what it is.

    Args:
        workspace: The workspace.
        key: The incident's id.
        what: What is to be done, in a person's own words.
        who: Name or id of who does it.
        due_ms: By when (milliseconds UTC).

    Raises:
        InvalidInput: Nobody is called so, or the task is none.
        NotFound: There is no such incident.
    """
    principal = workspace.people.find(who)
    return update_incident(
        workspace, key, "task",
        lambda one, entry: add_task(one, what, who=principal, due_ms=due_ms, entry=entry),
        words=Opening.make(TASK, what), stated={"who": principal, "due_ms": due_ms},
    )  # fmt: skip


def end_task(workspace: Workspace, key: str, task: int) -> Incident:
    """Say that a task is done.

    Raises:
        NotFound: There is no such incident or task.
        InvalidInput: It was done already.
    """
    at_ms = int(workspace.door.clock() * 1000)
    return update_incident(
        workspace, key, "task-done",
        lambda one, entry: finish_task(one, task, at_ms=at_ms, entry=entry), stated={"task": task},
    )  # fmt: skip


def hand_evidence(workspace: Workspace, key: str, digest: Digest, what: str, *, holder: str, since_ms: int) -> Incident:
    """State who holds a piece of evidence from a time on; the log says whose hands and which bytes.

    Args:
        workspace: The workspace.
        key: The incident's id.
        digest: The evidence, by the digest of its bytes.
        what: What it is, in a person's own words; the log holds a commitment to them.
        holder: Name or id of who holds it from then on.
        since_ms: From when on (milliseconds UTC).

    Raises:
        InvalidInput: Nobody is called so, or the time does not follow the one before.
        NotFound: There is no such incident.
    """
    principal, at_ms = workspace.people.find(holder), int(workspace.door.clock() * 1000)
    return update_incident(
        workspace, key, "custody",
        lambda one, entry: hand_over(
            one, digest, what, holder=principal, since_ms=since_ms, at_ms=at_ms, entry=entry
        ),
        words=Opening.make(EVIDENCE, what),
        stated={"digest": str(digest), "holder": principal, "since_ms": since_ms},
    )  # fmt: skip


def note_notice(
    workspace: Workspace, key: str, told_ms: int, *, to: Told = Told.AUTHORITY, late_because: str = ""
) -> Incident:
    """Note that the authority or the people concerned were told; the first notice to the authority stops the clock.

    Args:
        workspace: The workspace.
        key: The incident's id.
        told_ms: When (milliseconds UTC).
        to: Who was told.
        late_because: Why not within 72 hours, in a person's own words; the log holds a commitment to them.

    Raises:
        InvalidInput: The time is before the discovery or in the future, or a late notice gives no reason.
        NotFound: There is no such incident.
    """
    at_ms = int(workspace.door.clock() * 1000)
    return update_incident(
        workspace, key, "notify",
        lambda one, entry: notify(one, Notice(entry=entry, to=to, at_ms=told_ms, what=late_because), at_ms),
        words=Opening.make(LATE, late_because) if late_because else None,
        stated={"notified_ms": told_ms, "to": to.value},
    )  # fmt: skip


def state_matter(workspace: Workspace, key: str, matter: Matter, what: str) -> Incident:
    """State what no entry shows: whose data it is, who can be asked, what is likely to follow.

    Args:
        workspace: The workspace.
        key: The incident's id.
        matter: What it is about.
        what: A person's own words; the log holds a commitment to them.

    Raises:
        InvalidInput: The incident is closed, or nothing is stated.
        NotFound: There is no such incident.
    """
    return update_incident(
        workspace, key, "state", lambda one, entry: add_statement(one, matter, what, entry=entry),
        words=Opening.make(STATED, what), stated={"matter": matter.value},
    )  # fmt: skip
