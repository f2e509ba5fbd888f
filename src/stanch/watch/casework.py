"""What people do about an incident: tasks with a day, custody of evidence from hand to hand, and what they state."""

from msgspec.structs import replace

from stanch.errors import InvalidInput, NotFound
from stanch.terms import Digest
from stanch.watch.alert import check_reason
from stanch.watch.incident import Holding, Incident, Matter, Statement, Task, check_open


def add_task(incident: Incident, what: str, *, who: str, due_ms: int, entry: int) -> Incident:
    """Return the incident with a task for somebody, which entry ``entry`` gave.

    Raises:
        InvalidInput: It is closed, the task would be due before the discovery, or nothing is to be done.
    """
    check_open(incident)
    if due_ms < incident.discovered_ms:
        raise InvalidInput("task: it would be due before the incident was discovered")
    made = Task(entry=entry, what=check_reason(what), who=who, due_ms=due_ms)
    return replace(incident, tasks=(*incident.tasks, made))


def finish_task(incident: Incident, task: int, *, at_ms: int, entry: int) -> Incident:
    """Return the incident with a task done, as entry ``entry`` says.

    Raises:
        NotFound: There is no such task.
        InvalidInput: It is done already, or the incident is closed.
    """
    check_open(incident)
    found = next((one for one in incident.tasks if one.entry == task), None)
    if found is None:
        raise NotFound(
            f"incident {incident.id}: there is no task {task}", next_step=f"stanch incident show {incident.id}"
        )
    if found.done_entry is not None:
        raise InvalidInput(f"task {task}: was done already")
    done = replace(found, done_ms=at_ms, done_entry=entry)
    return replace(incident, tasks=tuple(done if one is found else one for one in incident.tasks))


def hand_over(
    incident: Incident, digest: Digest, what: str, *, holder: str, since_ms: int, at_ms: int, entry: int
) -> Incident:
    """Return the incident with one more link of a chain of custody, which entry ``entry`` states at ``at_ms``.

    Raises:
        InvalidInput: It is closed, the time lies in the future or before the evidence came to whoever holds it now, or
            nobody says what the evidence is.
    """
    check_open(incident)
    before = [one for one in incident.custody if one.digest == str(digest)]
    earliest = before[-1].since_ms if before else 0
    if not earliest <= since_ms <= at_ms:
        raise InvalidInput("custody: the time lies in the future, or before who holds it now took it")
    made = Holding(entry=entry, digest=str(digest), what=check_reason(what), holder=holder, since_ms=since_ms)
    return replace(incident, custody=(*incident.custody, made))


def add_statement(incident: Incident, matter: Matter, what: str, *, entry: int) -> Incident:
    """Return the incident with what somebody states of it, as entry ``entry`` commits to.

    Raises:
        InvalidInput: It is closed, or nothing is stated.
    """
    check_open(incident)
    made = Statement(entry=entry, matter=matter, what=check_reason(what))
    return replace(incident, statements=(*incident.statements, made))
