"""Verbs about a run's budget journal: the log keeps its heads, so that nobody can cut it unseen.

A journal is known by the hash of its first line, in which a random number stands.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from stanch.ledger import EntryQuery, decode_entry
from stanch.terms import EntryRef
from stanch.tune import JournalHead, Keeping, journal_name
from stanch.tune.refusals import BudgetRolledBack
from stanch.workspace.act import Done, Request
from stanch.workspace.artifacts import dataset_ref
from stanch.workspace.opening import Workspace

KIND = "tune.anchor"
OnHead = Callable[[JournalHead], None]


def keep_head(workspace: Workspace, dataset: Path, journal: str, head: JournalHead, then: OnHead | None = None) -> None:
    """Record a head of the journal with that name, and hand it on."""

    def run(_ref: EntryRef) -> Done[None]:
        _hand_on(head, then)
        return Done(None)

    payload = {"journal": journal, "head": str(head)}
    workspace.door.act(Request("tune.anchor", "model:tune", dataset_ref(dataset), payload), run)


def keep_heads(workspace: Workspace, dataset: Path, run: Path, keeping: Keeping | None = None) -> Keeping:
    """Return ``keeping`` with the log as the place where heads go, and from which a resumed run takes its anchor.

    For :func:`stanch.tune.tune` and the private trainers alike.

    Args:
        workspace: Whose log it is.
        dataset: The file of the private records.
        run: The folder in which the journal lies, or will lie.
        keeping: What else is kept; its own ``anchor`` takes the place of the log's.

    Raises:
        BudgetRolledBack: A journal lies there, but the log holds no head of it.
    """
    keeping = keeping or Keeping()
    name = journal_name(run)
    anchor = keeping.anchor
    if name is not None and anchor is None:
        anchor = _last_head(workspace, name)

    def keep(head: JournalHead) -> None:
        nonlocal name
        if head.lines == 1:
            name = head.hash
        keep_head(workspace, dataset, name or "", head, keeping.on_head)

    return replace(keeping, on_head=keep, anchor=anchor)


def _hand_on(head: JournalHead, then: OnHead | None) -> None:
    if then is not None:
        then(head)


def _last_head(workspace: Workspace, name: str) -> JournalHead:
    reader = workspace.ledger.reader()
    for ref in reader.query(EntryQuery(kind=KIND, phase="intent", newest_first=True)):
        payload = decode_entry(reader.entry(ref.index))["unmapped"]["stanch"].get("payload", {})
        if payload.get("journal") == name:
            return JournalHead.parse(payload["head"])
    raise BudgetRolledBack(
        "the log holds no head of this budget journal",
        why="the journal was exchanged, or its run was started without this workspace",
        next_step="bring the journal back, or name a head that you kept with --anchor; otherwise start a new run",
    )
