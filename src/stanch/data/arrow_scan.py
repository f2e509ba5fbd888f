"""The scan of Arrow batches by their columns, so that rows in which nothing is found are never made.

The texts of a column are searched together, without a Python object for each; only those outside ASCII are folded one
by one. A row about which there is a doubt is read and scanned as one of any other format.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stanch.data.arrow_rows import json_size, load_arrow
from stanch.data.chat import KNOWN_ROLES, ChatForm, spoken_columns
from stanch.scan import Location, Scanner, ScanResult
from stanch.scan.block import FoldedBlock
from stanch.scan.fold import SEPARATOR, fold_text, may_have_gap

if TYPE_CHECKING:
    import pyarrow as pa

_SEPARATOR = bytes([SEPARATOR])
_TURNS = {
    ChatForm.MESSAGES: ("messages", "role", "content"),
    ChatForm.SHAREGPT: ("conversations", "from", "value"),
}
_STRINGS: dict[ChatForm, tuple[str, ...]] = {
    ChatForm.PROMPT: ("prompt", "completion"),
    ChatForm.INSTRUCTION: ("instruction", "output"),
    ChatForm.TEXT: ("text",),
}
_OPTIONAL: dict[ChatForm, tuple[str, ...]] = {ChatForm.INSTRUCTION: ("system", "input")}

Numbers = npt.NDArray[np.int64]


class SuspectRows:
    """Scans batches in their JSON form, and chooses the rows that must still be read.

    Attributes:
        records: Number of rows that were left out.
        size: Their bytes as JSON.
        results: For the number of a row that is scanned already, what was found, by the path of its string or number.
    """

    def __init__(self, scanner: Scanner, chat: ChatForm, columns: tuple[str, ...], shown: Callable[[str], str]) -> None:
        """Take the scanner, the form of the rows, and what turns a path into that of the report."""
        self.records = self.size = 0
        self.results: dict[int, dict[str, ScanResult]] = {}
        self._scanner, self._chat, self._columns, self._shown = scanner, chat, columns, shown
        spoken = frozenset((*spoken_columns(chat), *columns))
        self._spoken = spoken if len(spoken) > 1 or chat in _TURNS else frozenset()

    def choose(self, first: int, batch: "pa.RecordBatch") -> Numbers:
        """Return the positions of the rows in which something is found or that may not have the form of the chat.

        Key names are not looked at: they are the same in every batch.

        Args:
            first: Number of the batch's first row.
            batch: A batch in its JSON form.
        """
        suspects = self._misfits(batch)
        found: dict[int, dict[str, ScanResult]] = {}
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for leaf in _leaves(_Nested(column, (name,), ())):
                self._scan(leaf, suspects, found)
        self.results |= {first + row: results for row, results in found.items() if not suspects[row]}
        suspects[list(found)] = True
        chosen = np.flatnonzero(suspects)
        if chosen.size < batch.num_rows:
            self.records += batch.num_rows - chosen.size
            self.size += json_size(batch) - json_size(batch.take(load_arrow().array(chosen)))
        return chosen

    def _scan(self, leaf: "_Nested", suspects: npt.NDArray[np.bool_], found: dict[int, dict[str, ScanResult]]) -> None:
        """Scan the texts of an array; mark the rows with one that is not folded as a whole."""
        pc = load_arrow().compute
        plain = leaf.array.cast(load_arrow().large_string())
        plain = plain.fill_null("") if plain.null_count else plain
        texts, block = plain, _joined(plain)
        if block.count(_SEPARATOR) >= len(texts):
            texts = pc.replace_substring(texts, _SEPARATOR.decode(), " ")
            block = _joined(texts)
        lengths = pc.binary_length(texts).to_numpy()
        if not block.isascii():
            numbers = np.flatnonzero(~pc.string_is_ascii(texts).to_numpy(zero_copy_only=False))
            others = texts.take(load_arrow().array(numbers)).to_pylist()
            for number, other in zip(numbers.tolist(), others, strict=True):
                if may_have_gap(other):
                    suspects[leaf.row(number)] = True
            block, lengths = _replaced(block, lengths, numbers, [fold_text(other) for other in others])

        def where(number: int) -> Location:
            return Location("", self._shown(leaf.place(number)[1]))

        def text(number: int) -> str:
            value: str = plain[number].as_py()
            return value

        ends = np.cumsum(lengths + 1) - 1
        found_in = self._scanner.scan_folded(
            FoldedBlock(block, ends.tolist(), text), where, "".join(leaf.names), spoken=self._is_spoken(leaf)
        )
        for number, result in found_in:
            row, path = leaf.place(number)
            if result.findings or result.residuals:
                found.setdefault(row, {})[path] = result
            else:  # what is said next decides
                suspects[row] = True

    def _is_spoken(self, leaf: "_Nested") -> bool:
        return leaf.names[0] in self._spoken or (self._chat is ChatForm.ANY and bool(leaf.lists))

    def _misfits(self, batch: "pa.RecordBatch") -> npt.NDArray[np.bool_]:
        """Tell which rows may not have the form of the chat."""
        misfits = np.zeros(batch.num_rows, np.bool_)
        found = dict(zip(batch.schema.names, batch.columns, strict=True))
        if self._chat in _TURNS:
            name, *keys = _TURNS[self._chat]
            _mark_turns(misfits, found.get(name), keys[0], keys[1])
        for name in _STRINGS.get(self._chat, self._columns):
            if self._chat is ChatForm.PROMPT and name in found and load_arrow().types.is_large_list(found[name].type):
                _mark_turns(misfits, found[name], "role", "content")
            else:
                _mark_strings(misfits, found.get(name), optional=False)
        for name in _OPTIONAL.get(self._chat, ()):
            if name in found:
                _mark_strings(misfits, found[name], optional=True)
        return misfits


@dataclass(frozen=True, slots=True)
class _Nested:
    """An array of a batch, and where it stands in a row.

    ``names`` is its path, cut at the positions in lists; ``lists`` are the offsets of these lists, outermost first.
    """

    array: Any
    names: tuple[str, ...]
    lists: tuple[list[int], ...]

    def row(self, number: int) -> int:
        """Return the row of an element."""
        for offsets in reversed(self.lists):
            number = bisect_right(offsets, number) - 1
        return number

    def place(self, number: int) -> tuple[int, str]:
        """Return the row of an element, and its path there."""
        path = self.names[-1]
        for name, offsets in zip(reversed(self.names[:-1]), reversed(self.lists), strict=True):
            outer = bisect_right(offsets, number) - 1
            path = f"{name}[{number - offsets[outer]}]{path}"
            number = outer
        return number, path

    def elements(self) -> "_Nested":
        """Return the elements of a list array."""
        offsets = self.array.offsets.to_numpy()
        values = self.array.values.slice(offsets[0], offsets[-1] - offsets[0])
        return _Nested(values, (*self.names, ""), (*self.lists, (offsets - offsets[0]).tolist()))

    def field(self, position: int) -> "_Nested":
        """Return a field of a struct array."""
        *before, last = self.names
        name = f"{last}.{self.array.type.field(position).name}"
        return _Nested(self.array.field(position), (*before, name), self.lists)


def _leaves(nested: _Nested) -> Iterator[_Nested]:
    """Yield the arrays of texts and numbers in an array."""
    types, array = load_arrow().types, nested.array
    if types.is_large_list(array.type):
        yield from _leaves(nested.elements())
    elif types.is_struct(array.type):
        for position in range(array.type.num_fields):
            yield from _leaves(nested.field(position))
    elif types.is_floating(array.type):
        shown = [None if value is None else str(value) for value in array.to_pylist()]
        yield _Nested(load_arrow().array(shown, load_arrow().large_string()), nested.names, nested.lists)
    elif len(array) and not (types.is_boolean(array.type) or types.is_null(array.type)):
        yield nested


def _joined(texts: "pa.LargeStringArray") -> bytes:
    arrow = load_arrow()
    whole = arrow.LargeListArray.from_arrays(arrow.array([0, len(texts)], arrow.int64()), texts)
    block: bytes = (
        arrow.compute.binary_join(whole, arrow.scalar(_SEPARATOR, arrow.large_string()))[0].as_buffer().to_pybytes()
    )
    return block


def _replaced(block: bytes, lengths: Numbers, numbers: Numbers, folded: Sequence[bytes]) -> tuple[bytes, Numbers]:
    """Return a block and the lengths of its texts with some of the texts in another form."""
    ends = np.cumsum(lengths + 1) - 1
    pieces, done = [], 0
    for start, end, text in zip((ends - lengths)[numbers].tolist(), ends[numbers].tolist(), folded, strict=True):
        pieces += [block[done:start], text]
        done = end
    pieces.append(block[done:])
    lengths = lengths.copy()
    lengths[numbers] = [len(text) for text in folded]
    return b"".join(pieces), lengths


def _mark_strings(misfits: npt.NDArray[np.bool_], column: "pa.Array | None", *, optional: bool) -> None:
    types = load_arrow().types
    if column is None or not (types.is_large_string(column.type) or (optional and types.is_null(column.type))):
        misfits[:] = True
    elif not optional:
        misfits |= _nulls(column)


def _mark_turns(misfits: npt.NDArray[np.bool_], column: "pa.Array | None", role: str, text: str) -> None:
    arrow = load_arrow()
    types = arrow.types
    if column is None or not types.is_large_list(column.type) or not types.is_struct(column.type.value_type):
        misfits[:] = True
        return
    turns = _Nested(column, ("",), ()).elements()
    kinds = {field.name: field.type for field in turns.array.type}
    if not (types.is_large_string(kinds.get(role)) and types.is_large_string(kinds.get(text))):
        misfits[:] = True
        return
    known = arrow.array(KNOWN_ROLES[role], arrow.large_string())
    names, contents = turns.array.field(role), turns.array.field(text)
    wrong = ~arrow.compute.is_in(names, value_set=known).to_numpy(zero_copy_only=False) | _nulls(contents)
    misfits |= _nulls(column) | (np.diff(turns.lists[0]) == 0)
    for number in np.flatnonzero(wrong | _nulls(turns.array)):
        misfits[turns.row(int(number))] = True


def _nulls(column: "pa.Array") -> npt.NDArray[np.bool_]:
    nulls: npt.NDArray[np.bool_] = column.is_null().to_numpy(zero_copy_only=False)
    return nulls
