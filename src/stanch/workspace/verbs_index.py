"""Verbs about indexes of training text: ask one about suspect texts, merge parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stanch.scan import Evidence, Match, SpanIndex
from stanch.terms import EntryRef
from stanch.workspace.act import Done, Request
from stanch.workspace.indexes import Sealed, open_index, save_index
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref


@dataclass(frozen=True, slots=True)
class Answer:
    """What an index says about one text: the spans that stand in it, and how likely that is by chance. No text."""

    matches: tuple[Match, ...]
    evidence: Evidence


def query_index(workspace: Workspace, path: Path, texts: Iterable[str]) -> list[Answer]:
    """Ask the index at ``path`` about texts. A right of its own: whoever may ask can test guesses."""

    def run(_ref: EntryRef) -> Done[list[Answer]]:
        index, _ = open_index(workspace.keys, path)
        answers = [Answer(tuple(index.query(text)), index.evidence(text)) for text in texts]
        return Done(answers, {"texts": len(answers), "matched": sum(bool(answer.matches) for answer in answers)})

    return workspace.door.act(Request("data.query", "data:query", workspace_ref(workspace)), run)


def merge_indexes(workspace: Workspace, paths: Sequence[Path], out: Path | Sealed) -> SpanIndex:
    """Write the index of the texts of all parts, which were built with one layout."""

    def run(_ref: EntryRef) -> Done[SpanIndex]:
        merged = SpanIndex.merge([open_index(workspace.keys, path)[0] for path in paths])
        save_index(workspace.keys, merged, out)
        return Done(merged, {"keys": merged.header.keys, "parts": len(paths)})

    return workspace.door.act(Request("data.merge", "data:read", workspace_ref(workspace)), run)
