"""Whoever is erased leaves no word of their own: neither in an opening nor where the workspace shows it."""

import pytest
from sqlalchemy import select, update

from stanch.access import strangers
from stanch.console.replies import Replies
from stanch.errors import InvalidInput
from stanch.ledger.erasure import Selection
from stanch.store.schema import METADATA
from stanch.store.schema.access import principal as principals
from stanch.terms import Digest
from stanch.watch.alert import ERASED
from stanch.watch.incident import HOUR_MS, Matter
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import add_person
from stanch.workspace.verbs_alerts import Quiet, suppress_alerts
from stanch.workspace.verbs_casework import end_task, give_task, hand_evidence, note_notice, state_matter
from stanch.workspace.verbs_incident import end_incident, open_incident, show_incident
from stanch.workspace.verbs_log import erase_personal, verify_log

MARK = "MARKER call alice liddell at home"
OTHER = "somebody else's words"
BASIS = "gdpr-17-1-b"


@pytest.fixture
def workspace(tmp_path):
    with Workspace.init(tmp_path / "w") as opened:
        add_person(opened, "ada", ["incident_lead"])
        yield opened


def now(workspace):
    return int(workspace.door.clock() * 1000)


def speak(workspace, words):
    """Write the words wherever the workspace keeps a person's own; return the incident's id."""
    at_ms = now(workspace)
    quiet = Quiet(detector="D1", principal=None, model=None, until_ms=at_ms + HOUR_MS, reason=words)
    suppress_alerts(workspace, quiet)
    made = open_incident(workspace, at_ms - HOUR_MS)
    give_task(workspace, made.id, words, who="owner", due_ms=at_ms + HOUR_MS)
    hand_evidence(workspace, made.id, Digest.sha256(b"disk"), words, holder="owner", since_ms=at_ms)
    state_matter(workspace, made.id, Matter.PEOPLE, words)
    end_incident(workspace, made.id, words)
    late = open_incident(workspace, at_ms - 80 * HOUR_MS)
    note_notice(workspace, late.id, at_ms, late_because=words)
    return made.id


def said(incident):
    return [one.what for one in (*incident.tasks, *incident.custody, *incident.statements)]


def holding(workspace, mark):
    """Return the columns in whose values the mark stands."""
    found = set()
    with workspace.tables.read() as connection:
        for column in (column for table in METADATA.sorted_tables for column in table.c if column.info["personal"]):
            values = [value for value in connection.scalars(select(column)) if value is not None]
            if any(mark in (value.decode() if isinstance(value, bytes) else value) for value in values):
                found.add(str(column))
    return found


def test_every_personal_column_forgets_whoever_is_erased_and_nobody_else(workspace):
    ada = workspace.people.find("ada")
    with workspace.tables.write() as connection:
        strangers.note(connection, MARK, MARK, 0)
        strangers.forget(connection, MARK, MARK)  # as registering does
    mine, theirs = speak(workspace.acting_as("ada"), MARK), speak(workspace, OTHER)
    replies = Replies(workspace.tables)
    with replies.once("key", b"asked") as reply:
        reply.give(MARK.encode())
    with workspace.tables.write() as connection:
        named = {"issuer": MARK, "subject": MARK, "display": MARK}
        connection.execute(update(principals).where(principals.c.id == ada).values(**named))
    personal = {str(c) for table in METADATA.sorted_tables for c in table.c if c.info["personal"]}
    assert holding(workspace, MARK) == personal - {"stranger.issuer", "stranger.subject"}

    erased = erase_personal(workspace, Selection(ada), BASIS)
    assert (erased.openings, erased.columns, erased.words) == (6, 3, 6)
    assert holding(workspace, MARK) == set()
    files = [path for path in workspace.state.rglob("*") if path.is_file()]
    assert not any(MARK.encode() in path.read_bytes() for path in files)
    incident = show_incident(workspace, mine)
    assert {incident.no_notice, *said(incident)} == {ERASED}
    assert not incident.ticking  # that nobody was told was decided, and stays so
    other = show_incident(workspace, theirs)
    assert {other.no_notice, *said(other)} == {OTHER}
    assert "suppression.reason" in holding(workspace, OTHER)
    with pytest.raises(InvalidInput, match="its answer was forgotten"), replies.once("key", b"asked"):
        pytest.fail("it was done again")
    assert verify_log(workspace).openings == 6
    assert erase_personal(workspace, Selection(ada), BASIS).words == 0


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("watch.suppression.reason", "suppression.reason"), ("watch.incident.task", "incident.document"),
        ("watch.incident.evidence", "incident.document"), ("watch.incident.no_notice", "incident.document"),
        ("watch.incident.stated", "incident.document"),
    ],
)  # fmt: skip
def test_words_go_with_the_field_before_a_time_and_no_others(workspace, field, column):
    key = speak(workspace.acting_as("ada"), MARK)
    incident = show_incident(workspace, key)
    before = now(workspace) + 1
    assert erase_personal(workspace, Selection(None, field, 1), BASIS).words == 0
    erased = erase_personal(workspace, Selection(None, field, before), BASIS)
    assert (erased.openings, erased.words) == (1, 1)
    after = show_incident(workspace, key)
    told = {"suppression.reason": MARK if "suppression.reason" in holding(workspace, MARK) else ERASED}
    told |= {"task": after.tasks[0].what, "evidence": after.custody[0].what, "no_notice": after.no_notice}
    told["stated"] = after.statements[0].what
    name = field if column == "suppression.reason" else field.rpartition(".")[2]
    assert [one for one, words in told.items() if words == ERASED] == [name.removeprefix("watch.")]
    assert incident.entries == after.entries


def test_a_task_that_others_finish_keeps_its_words_until_who_gave_it_is_erased(workspace):
    made = open_incident(workspace, now(workspace) - HOUR_MS)
    task = give_task(workspace.acting_as("ada"), made.id, MARK, who="owner", due_ms=now(workspace) + 1).tasks[0]
    end_task(workspace, made.id, task.entry)
    assert erase_personal(workspace, Selection(workspace.people.find("ada")), BASIS).words == 1
    assert show_incident(workspace, made.id).tasks[0].done_ms
