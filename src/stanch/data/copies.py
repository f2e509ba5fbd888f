"""Which records are dropped for one that says the same: those that hold nothing else either."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from stanch.data.chat import ChatForm, spoken_columns
from stanch.data.dataset import Dataset, Entry
from stanch.data.shingles import compared_texts

_DIGEST = 16
_TURN_KEYS = frozenset({"role", "from", "content", "value"})
# A hyphen inside a word is spelling; beside a word it may be a minus.
_SIGNS = re.compile(r"[%&*+/<=>\\^|~]|(?<!\w)-|-(?!\w)|[^\x00-\x7f\w\s]")


def find_copies(dataset: Dataset, clusters: Iterable[tuple[str, ...]], *, ignore_columns: bool) -> frozenset[str]:
    """Return the ids of the records of each cluster that go when the first of their like is kept.

    Two records of a cluster are alike when the signs in their texts are equal (operators, arrows, pictures: comparing
    words does not see them), and all that their turns hold beside text (tool calls, names), and their other columns.

    Args:
        dataset: The dataset that the clusters are about.
        clusters: Ids, as in a :class:`stanch.data.DuplicateReport`.
        ignore_columns: Whether records are alike that differ in other columns.
    """
    cluster_of = {name: number for number, cluster in enumerate(clusters) for name in cluster}
    kept: set[tuple[int, bytes]] = set()
    copies = []
    for entry in dataset.entries():
        name = entry[0].id
        if name in cluster_of:
            like = cluster_of[name], _rest(entry, dataset, ignore_columns=ignore_columns)
            if like in kept:
                copies.append(name)
            kept.add(like)
    return frozenset(copies)


def _rest(entry: Entry, dataset: Dataset, *, ignore_columns: bool) -> bytes:
    """Return a digest of what is not compared by its words."""
    record, _, row = entry
    spoken = dataset.columns if dataset.chat is ChatForm.FIELDS else spoken_columns(dataset.chat)
    columns = {} if ignore_columns else {name: value for name, value in row.items() if name not in spoken}
    beside = [_beside(turn) for name in spoken if isinstance(row.get(name), list) for turn in row[name]]
    rest = [columns, [held for held in beside if held], "".join(_signs("\n".join(compared_texts(record))))]
    return hashlib.blake2b(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS), digest_size=_DIGEST).digest()


def _beside(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in turn.items() if key not in _TURN_KEYS}


def _signs(text: str) -> Iterable[str]:
    return (sign for sign in _SIGNS.findall(text) if sign.isascii() or unicodedata.category(sign)[0] == "S")
