"""What stands before a text and may announce a value in it: the name of its field, or the end of the turn before.

An anchor there is taken as if the text went on after it: ``passport: X1234567``. The text is searched on its own as
well, so a lead only ever adds findings, and none that begins before the text.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

from stanch.scan.confirm import Confirmer
from stanch.scan.context import WIDTH
from stanch.scan.engine import Engine, Hit
from stanch.scan.fold import fold_text

_JOINT = b": "
_ENDING = b" \t\r\n?!.:;,*_\"')"
_POSITION = re.compile(r"\[[0-9]+\]")
# A full stop in a name ("Passport No.", "D.O.B.") parts nothing.
_PART = re.compile(r"(?<=[^.\s][^.\s])\.(?=[^.\s][^.\s])")
_JOIN = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_\-.\s]+")
_LONGEST, _REMEMBERED = 256, 1 << 16


class Lead(NamedTuple):
    """Folded bytes that stand before a text, and the anchors in them whose values may lie in it."""

    folded: bytes
    hits: tuple[Hit, ...]


Leads: TypeAlias = tuple[Lead, ...]


def lead_of(folded: bytes, hits: Iterable[Hit], confirmers: Sequence[Confirmer]) -> Lead:
    """Return the lead that folded bytes make, with those of the hits in them that may announce what comes next."""
    size = len(folded)
    announced = (hit for hit in hits if 0 < hit[0] <= size and confirmers[hit[1]].close(folded, hit[0], size) is None)
    return Lead(folded, tuple(announced))


def end_lead(folded: bytes, low: int, high: int, hits: Iterable[Hit], confirmers: Sequence[Confirmer]) -> Lead:
    """Return the lead that the end of a text, ``low`` to ``high`` in a block, makes: its last 96 bytes as a label."""
    start = max(low, high - WIDTH)
    said = folded[start:high].rstrip(_ENDING)
    inside = ((end - start, index) for end, index in hits if start < end <= start + len(said))
    return lead_of(said + _JOINT, inside, confirmers)


class NameLeads(dict[str, Leads]):
    """By the path of a field, the leads that its name makes: as it is written, in words, and of many one.

    There are none if no rule has an anchor in it. Where the last name announces nothing, those of the objects that hold
    it are tried: ``passport.number``.
    """

    def __init__(self, engine: Engine, confirmers: Sequence[Confirmer]) -> None:
        super().__init__()
        self._engine, self._confirmers = engine, confirmers

    def __missing__(self, path: str) -> Leads:
        if len(self) >= _REMEMBERED:
            self.clear()
        plain = _POSITION.sub("", path)
        self[path] = leads = self._leads(_PART.split(plain[-_LONGEST:])) if plain == path else self[plain]
        return leads

    def _leads(self, names: Sequence[str]) -> Leads:
        for first in range(len(names) - 1, -1, -1):
            # What is heard in the last of these names alone was heard before; what spans two is no name of a field.
            if not self._heard(names[first]):
                continue
            path = ".".join(names[first:])
            if leads := self._heard(path):
                return leads
        return ()

    def _heard(self, name: str) -> Leads:
        words = _JOIN.sub(" ", name)
        written = dict.fromkeys(fold_text(form) + _JOINT for form in (name, words, words.removesuffix("s")))
        leads = (lead_of(folded, self._engine.scan(folded), self._confirmers) for folded in written)
        return tuple(lead for lead in leads if lead.hits)
