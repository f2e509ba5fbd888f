"""What a glance must know of a policy, written down as numbers once for all streams."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stanch.scan.fold import ASCII_TO_INDEX
from stanch.scan.hold import CAPITAL_ENDS, CapitalsHold, HeldEnds, HoldsAfter, LiteralPrefixes

Array = npt.NDArray[Any]

FLAGS, LOWER, RULES, LITERALS, HOLDS, LIMIT = 0, 256, 512, 768, 1024, 1280
"""Where in a sheet things lie. For each byte: what it is, what it folds to in ``index``, its column in the automaton of
the anchors' literals and in that of the policy's, and where the rules stand that hold an end with this byte. At last
the length from which on a run is loud."""

IS_LOUD, IS_MEMBER, IS_LETTER, IS_CAPITAL, IS_NAME = 1, 2, 4, 8, 16
"""What a byte can be: none of quiet text, one of a run, a letter or digit, a capital, one of a name."""

MOST_STATES = 1 << 17
"""Of the automaton of a policy's literals: of letters and digits about 20 MB, and half a second to write."""

_LOUD = frozenset([0x1E, 0x1F, ord("\\"), *range(0x80, 0x100)])


class States(NamedTuple):
    """Where the rows of an automaton stand in a sheet, and how long each is."""

    place: int
    width: int

    def row(self, state: int) -> int:
        """Return where a state's row stands."""
        return self.place + self.width * state

    def state(self, row: int) -> int:
        """Return the state of a row."""
        return (row - self.place) // self.width


class Sheet(NamedTuple):
    """What is known of a policy.

    Attributes:
        numbers: All of it. Nobody writes there; but numba takes twice as long to be given what cannot be written.
        rules: The states of the literals of the anchors.
        literals: Those of the policy's literals.
    """

    numbers: Array
    rules: States
    literals: States


class _Writer:
    """Appends numbers, equal ones once."""

    def __init__(self, size: int) -> None:
        self.parts: list[Array] = []
        self.size = size
        self._places: dict[bytes, int] = {}

    def place(self, numbers: Iterable[int] | Array) -> int:
        """Return where the numbers stand."""
        part = np.asarray(numbers if isinstance(numbers, np.ndarray) else [*numbers], dtype=np.int32).reshape(-1)
        if (place := self._places.get(part.tobytes())) is None:
            place = self._places[part.tobytes()] = self.size
            self.parts.append(part)
            self.size += len(part)
        return place

    def members(self, members: bytes) -> int:
        """Return where it stands for each byte whether it is one of these."""
        return self.place(byte in members for byte in range(256))

    def rules(self, rules: HoldsAfter) -> int:
        """Return where the hold rules stand: how many runs, of each its length, heads and members; then of names."""
        runs = [(longest, members, members) for members, longest in rules.joint]
        runs += [
            (hold.longest, hold.heads, hold.members) for hold in rules.others if not isinstance(hold, CapitalsHold)
        ]
        numbers = [(longest, self.members(heads), self.members(members)) for longest, heads, members in runs]
        names = max((hold.longest for hold in rules.others if isinstance(hold, CapitalsHold)), default=0)
        return self.place([len(runs), *(number for run in numbers for number in run), names])


def sheet_of(held: HeldEnds, literals: LiteralPrefixes, members: bytes, limit: int) -> Sheet | None:
    """Return the sheet of a policy; None if it has so many literals that their table would take too much memory.

    Args:
        held: The hold rules, and the literals of the anchors.
        literals: The literals of the policy.
        members: The bytes of runs that no search sees before they end; if there are none, all is seen at once.
        limit: The length from which on such a run is loud.
    """
    if literals.states > MOST_STATES:
        return None
    head = np.zeros(LIMIT + 1, dtype=np.int32)
    writer = _Writer(len(head))
    head[FLAGS : FLAGS + 256] = [_flags(byte, members) for byte in range(256)]
    head[LOWER : LOWER + 256] = list(ASCII_TO_INDEX)
    states = []
    for columns, prefixes in ((RULES, held.prefixes), (LITERALS, literals)):
        head[columns : columns + 256], rows = prefixes.table(writer.size)
        states.append(States(writer.place(rows), rows.shape[1]))
    head[HOLDS : HOLDS + 256] = [writer.rules(rules) for rules in held.after]
    head[LIMIT] = limit
    return Sheet(np.concatenate([head, *writer.parts]), *states)


def _flags(byte: int, members: bytes) -> int:
    name = byte in CAPITAL_ENDS and byte != ord(" ")
    is_letter = byte < 0x80 and chr(byte).isalnum()
    return (
        IS_LOUD * (byte in _LOUD)
        + IS_MEMBER * (byte in members)
        + IS_LETTER * is_letter
        + IS_CAPITAL * (is_letter and chr(byte).isupper())
        + IS_NAME * name
    )
