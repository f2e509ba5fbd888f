"""Readers of tables: Parquet, Arrow files and streams, and folders that Hugging Face ``save_to_disk`` wrote.

Needs the extra ``arrow``. A batch is checked whole before a byte of it is used: a file from outside may lie about its
offsets.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import orjson

from stanch.crypto import parse_json
from stanch.data.arrow_rows import json_batch, json_rows, json_schema, load_arrow
from stanch.data.lines import MAX_RATIO, RATIO_SLACK, readable
from stanch.data.rows import PART_SIZE, BadRow, Range, Row
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 1024
Choice: TypeAlias = Callable[[int, Any], npt.NDArray[np.int64]]
_FILE_MAGIC = b"ARROW1\x00\x00"
_ENDINGS = {".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".arrows": "arrow-stream"}
_STATE = "state.json"
_MAX_STATE = 1 << 20
_MAX_FILES = 100_000


class _Unit(NamedTuple):
    """A piece of a file that is read on its own: a row group or a record batch, ``position`` counted in its file."""

    path: Path
    position: int
    rows: int
    size: int


class Table:
    """The rows of Arrow or Parquet files; see :class:`stanch.data.rows.RowFile`. Parts are counted in units.

    Attributes:
        schema: The schema that all files have.
        form: The Arrow type of the rows' JSON form.
    """

    def __init__(self, files: tuple[Path, ...], *, format: str) -> None:  # noqa: A002 - the protocol's word
        """Read the schema.

        Raises:
            InvalidInput: A file is unreadable, the files have different schemas, or a column type is not supported.
            MissingExtraError: pyarrow is not installed.
        """
        self.files = files
        self.format = format
        self.schema: pa.Schema = self._schema(files[0])
        self.form = json_schema(self.schema, name=files[0].name)

    def parts(self) -> Iterable[Range]:
        """Cut the rows at the ends of units."""
        start = size = rows = first = 0
        for position, unit in enumerate(self._units):
            size, rows = size + unit.size, rows + unit.rows
            if size >= PART_SIZE:
                yield Range(start, position + 1, first)
                start, size, first = position + 1, 0, rows
        if start < len(self._units):
            yield Range(start, len(self._units), first)

    def read(self, part: Range | None = None, *, choose: Choice | None = None) -> Iterator[Row | BadRow]:
        """Yield the rows of a part, or all; with ``choose``, those at the positions it returns of each batch.

        It is given the number of a batch's first row and the batch in its JSON form; of a batch that has none because
        of one of its rows, all rows are yielded.
        """
        for first, batch in self.batches(part):
            formed = self._formed(batch) if choose is not None else None
            if choose is None or formed is None:
                yield from self._rows(range(first + 1, first + 1 + batch.num_rows), batch)
            else:
                chosen = choose(first + 1, formed)
                yield from self._rows((chosen + first + 1).tolist(), formed.take(load_arrow().array(chosen)))

    def batches(self, part: Range | None = None) -> Iterator[tuple[int, "pa.RecordBatch"]]:
        """Yield the batches of a part, or all, of at most 1,024 rows, each with the number of rows before it."""
        start, stop, first = (part.start, part.stop, part.first) if part is not None else (0, len(self._units), 0)
        for path, units in groupby(self._units[start:stop], lambda unit: unit.path):
            with _usable(path):
                for batch in self._of_units(path, [unit.position for unit in units]):
                    self._check(path, batch)
                    for low in range(0, batch.num_rows, BATCH_ROWS):
                        yield first + low, batch.slice(low, BATCH_ROWS)
                    first += batch.num_rows

    def count(self) -> int:
        """Return the number of rows, from the files' own heads."""
        return sum(unit.rows for unit in self._units)

    def _formed(self, batch: "pa.RecordBatch") -> "pa.RecordBatch | None":
        try:
            return json_batch(batch, self.form)
        except load_arrow().ArrowInvalid:
            return None

    def _rows(self, numbers: Sequence[int], batch: "pa.RecordBatch") -> Iterator[Row | BadRow]:
        try:
            rows = json_rows(batch, self.form)
        except load_arrow().ArrowInvalid:
            if batch.num_rows == 1:
                yield BadRow(numbers[0], "columns of bytes that hold text in UTF-8")
                return
            half = batch.num_rows // 2
            yield from self._rows(numbers[:half], batch.slice(0, half))
            yield from self._rows(numbers[half:], batch.slice(half))
            return
        for number, values in zip(numbers, rows, strict=True):
            yield Row(number, orjson.dumps(values), values)

    @cached_property
    def _units(self) -> tuple[_Unit, ...]:
        units: list[_Unit] = []
        for path in self.files:
            if self._schema(path) != self.schema:
                raise InvalidInput(f"{path}: has another schema than {self.files[0].name}")
            with _usable(path):
                units += self._units_of(path)
        return tuple(units)

    def _schema(self, path: Path) -> "pa.Schema":
        with _usable(path):
            if self.format == "parquet":
                return _parquet(path).schema_arrow
            with _source(path) as source:
                return _reader(path, source).schema

    def _units_of(self, path: Path) -> Iterator[_Unit]:
        if self.format == "parquet":
            head = _parquet(path).metadata
            for position in range(head.num_row_groups):
                group = head.row_group(position)
                packed = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
                _check_size(path, group.total_byte_size, packed)
                yield _Unit(path, position, group.num_rows, group.total_byte_size)
            return
        with _source(path) as source:
            reader = _reader(path, source)
            for position, batch in enumerate(_each(reader)):
                yield _Unit(path, position, batch.num_rows, batch.get_total_buffer_size())

    def _of_units(self, path: Path, positions: list[int]) -> Iterator["pa.RecordBatch"]:
        """Yield the batches of consecutive units of one file."""
        if self.format == "parquet":
            # Group by group: pyarrow cannot join the dictionaries that nested columns have in two of them.
            for position in positions:
                yield from _parquet(path).iter_batches(batch_size=BATCH_ROWS, row_groups=[position])
            return
        with _source(path) as source:
            yield from islice(_each(_reader(path, source)), positions[0], positions[-1] + 1)

    def _check(self, path: Path, batch: "pa.RecordBatch") -> None:
        if batch.schema != self.schema:
            raise InvalidInput(f"{path}: a batch has another schema than the file")
        batch.validate(full=True)
        if self.format != "parquet":
            _check_size(path, batch.get_total_buffer_size(), path.stat().st_size)


def open_table(path: Path) -> Table | None:
    """Return the table that the name of ``path`` promises, or None if it promises none.

    Raises:
        InvalidInput: The file or folder is not what its name says.
        MissingExtraError: pyarrow is not installed.
    """
    if path.is_dir():
        return Table(_saved_files(path), format="saved-folder")
    kind = table_format(path)
    if kind is None or kind == "parquet":
        return None if kind is None else Table((path,), format=kind)
    # The two Arrow formats go by the same names.
    return Table((path,), format="arrow" if _is_arrow_file(path) else "arrow-stream")


def table_format(path: Path) -> str | None:
    """Return the format in which a table is written under this name: ``parquet``, ``arrow``, ``arrow-stream``."""
    return _ENDINGS.get(path.suffix)


def _saved_files(folder: Path) -> tuple[Path, ...]:
    """Return the Arrow files that ``state.json`` of a saved folder lists; a name that leads out of it is refused."""
    with readable(folder / _STATE), (folder / _STATE).open("rb") as file:
        state = parse_json(file.read(_MAX_STATE + 1), what=f"{folder.name}/{_STATE}", max_bytes=_MAX_STATE)
    listed = state.get("_data_files") if isinstance(state, dict) else None
    names = [entry.get("filename") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    if not 0 < len(names) <= _MAX_FILES or not all(
        isinstance(name, str) and name == Path(name).name and name.endswith(".arrow") for name in names
    ):
        raise InvalidInput(f"{folder}/{_STATE}: expected the names of the Arrow files of a saved data set")
    return tuple(folder / str(name) for name in names)


def _is_arrow_file(path: Path) -> bool:
    with readable(path), path.open("rb") as file:
        return file.read(len(_FILE_MAGIC)) == _FILE_MAGIC


def _parquet(path: Path) -> Any:  # noqa: ANN401 - pyarrow ships no types
    load_arrow()
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - an optional part

    return ParquetFile(path, memory_map=True)


def _source(path: Path) -> Any:  # noqa: ANN401 - pyarrow ships no types
    return load_arrow().memory_map(str(path))


def _reader(path: Path, source: Any) -> Any:  # noqa: ANN401 - pyarrow ships no types
    ipc = load_arrow().ipc
    return ipc.open_file(source) if _is_arrow_file(path) else ipc.open_stream(source)


def _each(reader: Any) -> Iterator["pa.RecordBatch"]:  # noqa: ANN401 - pyarrow ships no types
    if hasattr(reader, "get_batch"):
        return (reader.get_batch(position) for position in range(reader.num_record_batches))
    return iter(reader)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Turn what pyarrow makes of a damaged file into an error that names the file and quotes nothing of it."""
    damaged = False
    try:
        with readable(path):
            yield
    except load_arrow().ArrowException:
        damaged = True
    if damaged:
        raise InvalidInput(f"cannot read {path}", why="it is damaged, or not of the format that its name says")


def _check_size(path: Path, size: int, packed: int) -> None:
    if size > MAX_RATIO * packed + RATIO_SLACK:
        raise InvalidInput(f"{path.name}: the file expands more than {MAX_RATIO}-fold")
