"""Writers of Parquet and Arrow, with the schema of the table that the rows come from."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from stanch.data.arrow_rows import batch_of, load_arrow
from stanch.data.readers_arrow import BATCH_ROWS, Table


@contextmanager
def write_table(stream: BinaryIO, source: Table, kind: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a writer of rows (as JSON) in the format ``kind``: ``parquet``, ``arrow`` or ``arrow-stream``.

    Raises:
        InvalidInput: A row does not fit the schema.
    """
    held: list[bytes] = []
    writer = _open(stream, source, kind)

    def flush() -> None:
        writer.write_batch(batch_of(held, source.schema, source.form))
        held.clear()

    def write(line: bytes) -> None:
        held.append(line)
        if len(held) == BATCH_ROWS:
            flush()

    try:
        yield write
        if held:
            flush()
    finally:
        # Also after an error: pyarrow would do it later, on a stream that is closed by then.
        writer.close()


def _open(stream: BinaryIO, source: Table, kind: str) -> Any:  # noqa: ANN401 - pyarrow ships no types
    arrow = load_arrow()
    if kind == "parquet":
        from pyarrow.parquet import ParquetWriter  # noqa: PLC0415 - an optional part

        return ParquetWriter(stream, source.schema)
    return (arrow.ipc.new_file if kind == "arrow" else arrow.ipc.new_stream)(stream, source.schema)
