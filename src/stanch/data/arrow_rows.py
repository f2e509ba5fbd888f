"""Rows of Arrow batches as JSON and back: every supported column type has one JSON form, and comes back unchanged.

Times and decimals are texts, bytes are UTF-8, and a float that JSON has no number for is the text ``NaN``,
``Infinity`` or ``-Infinity``.
"""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import orjson

from stanch.errors import InvalidInput, MissingExtraError

if TYPE_CHECKING:
    import pyarrow as pa

_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_MAX_NESTING = 64
_SHORT_CONTROLS = b"\b\f\n\r\t"
_MARKED = b'"\\'


def json_schema(schema: "pa.Schema", *, name: str) -> "pa.StructType":
    """Return the Arrow type of the JSON form of a table's rows.

    Raises:
        InvalidInput: A column has a type without a JSON form, or two columns have one name.
        MissingExtraError: pyarrow is not installed.
    """
    arrow = load_arrow()
    if len(set(schema.names)) < len(schema.names):
        raise InvalidInput(f"{name}: two columns have one name", next_step="rename one of them")
    fields = []
    for field in schema:
        kind = _json_type(field.type, 0)
        if kind is None:
            raise InvalidInput(
                f"{name}: a column of the type {str(field.type)[:80]} is not supported",
                why="only texts, numbers, times, and lists and structs of them can be scanned and written back",
                next_step="leave the column out, or convert it",
            )
        fields.append((field.name, kind))
    return arrow.struct(fields)


def json_rows(batch: "pa.RecordBatch", form: "pa.StructType") -> list[dict[str, Any]]:
    """Return the rows of a batch in their JSON form.

    Raises:
        pyarrow.ArrowInvalid: Bytes of a binary column are not UTF-8.
    """
    columns = []
    for column, field in zip(batch.columns, form, strict=True):
        values = column.cast(field.type).to_pylist()
        columns.append([_spell(value) for value in values] if _has_floats(field.type) else values)
    names = [field.name for field in form]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def json_batch(batch: "pa.RecordBatch", form: "pa.StructType") -> "pa.RecordBatch":
    """Return a batch with its columns in the types of the JSON form.

    Raises:
        pyarrow.ArrowInvalid: Bytes of a binary column are not UTF-8.
    """
    arrow = load_arrow()
    columns = [column.cast(field.type) for column, field in zip(batch.columns, form, strict=True)]
    return arrow.record_batch(columns, schema=arrow.schema(list(form)))


def json_size(batch: "pa.RecordBatch") -> int:
    """Return how many bytes the rows of a batch in its JSON form have as JSON."""
    return _struct_size(batch.num_rows, batch.schema.names, batch.columns)


def _struct_size(count: int, names: list[str], columns: list["pa.Array"]) -> int:
    keys = sum(len(orjson.dumps(name)) + 1 for name in names)
    return count * (2 + keys + max(len(names) - 1, 0)) + sum(_array_size(column) for column in columns)


def _array_size(array: "pa.Array") -> int:
    types = load_arrow().types
    kind, nulls = array.type, int(array.null_count)
    if types.is_floating(kind):
        return len(orjson.dumps([_spell(value) for value in array.to_pylist()])) - 2 - max(len(array) - 1, 0)
    if nulls:
        array = array.drop_null()
    size = nulls * len(b"null")
    if types.is_boolean(kind):
        return size + len(array) * len(b"false") - int(array.true_count)
    if types.is_struct(kind):
        inner = [array.field(position) for position in range(kind.num_fields)]
        return size + _struct_size(len(array), [field.name for field in kind], inner)
    if types.is_large_list(kind):
        values = array.flatten()
        filled = int(np.count_nonzero(np.diff(array.offsets.to_numpy())))
        return size + 2 * len(array) + len(values) - filled + _array_size(values)
    if types.is_null(kind) or not len(array):
        return size
    if types.is_large_string(kind):
        return size + 2 * len(array) + _escaped_size(_bytes_of(array))
    return size + len(_bytes_of(array.cast(load_arrow().large_string())))


def _bytes_of(texts: "pa.LargeStringArray") -> npt.NDArray[np.uint8]:
    """Return the bytes of texts of which none is null, one after the other, without a copy."""
    _, offsets, values = texts.buffers()
    start, *_, stop = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1][[0, -1]]
    return np.frombuffer(values, np.uint8)[start:stop] if stop > start else np.empty(0, np.uint8)


def _escaped_size(text: npt.NDArray[np.uint8]) -> int:
    """Return how many bytes text has in a JSON string."""
    control = int(np.count_nonzero(text < ord(" ")))
    short = sum(int(np.count_nonzero(text == byte)) for byte in _SHORT_CONTROLS) if control else 0
    marked = sum(int(np.count_nonzero(text == byte)) for byte in _MARKED)
    return text.size + marked + short + (control - short) * (len(rb"\u0000") - 1)


def key_names(form: "pa.DataType") -> Iterator[str]:
    """Yield the key names that rows of this form have, at any depth."""
    types = load_arrow().types
    if types.is_struct(form):
        for field in form:
            yield field.name
            yield from key_names(field.type)
    elif types.is_large_list(form):
        yield from key_names(form.value_type)


def batch_of(lines: Iterable[bytes], schema: "pa.Schema", form: "pa.StructType") -> "pa.RecordBatch":
    """Return the batch of rows in their JSON form; the inverse of :func:`json_rows`.

    Raises:
        InvalidInput: A row does not fit the schema: a column it does not have, or a value of another type.
    """
    arrow = load_arrow()
    columns: dict[str, list[Any]] = {field.name: [] for field in form}
    for line in lines:
        row: dict[str, Any] = orjson.loads(line)
        if any(value not in ("", None) for name, value in row.items() if name not in columns):
            raise InvalidInput("a row has a column that the schema does not have", next_step="write to a .jsonl file")
        for name, values in columns.items():
            values.append(row.get(name))
    arrays = []
    for field, kind in zip(schema, form, strict=True):
        values = columns[field.name]
        if _has_floats(kind.type):
            values = [_unspell(value, kind.type) for value in values]
        array = _column(values, kind.type, field.type)
        # Raised here and not where it failed: pyarrow's error quotes the value.
        if array is None:
            raise InvalidInput(
                f"a value does not fit its column of the type {str(field.type)[:80]}",
                why="a redaction puts text into it",
                next_step="write to a .jsonl file, which has no column types",
            )
        arrays.append(array)
    return arrow.record_batch(arrays, schema=schema)


def _column(values: list[Any], form: "pa.DataType", kind: "pa.DataType") -> "pa.Array | None":
    arrow = load_arrow()
    try:
        return arrow.array(values, form).cast(kind)
    except (arrow.ArrowInvalid, arrow.ArrowTypeError, UnicodeEncodeError):
        return None


def load_arrow() -> Any:  # noqa: ANN401 - a module of an optional part
    """Return pyarrow.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - an optional part
    except ImportError:
        raise MissingExtraError("arrow") from None
    return pa


def _json_type(kind: "pa.DataType", depth: int) -> "pa.DataType | None":
    arrow = load_arrow()
    types = arrow.types
    if depth > _MAX_NESTING:
        return None
    if types.is_dictionary(kind):
        return _json_type(kind.value_type, depth + 1)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _json_type(kind.value_type, depth + 1)
        return None if inner is None else arrow.large_list(inner)
    if types.is_struct(kind):
        fields = [(field.name, _json_type(field.type, depth + 1)) for field in kind]
        unique = len({name for name, _ in fields}) == len(fields)
        return arrow.struct(fields) if unique and all(inner is not None for _, inner in fields) else None
    return _plain_type(arrow, kind)


def _plain_type(arrow: Any, kind: "pa.DataType") -> "pa.DataType | None":  # noqa: ANN401 - a module of an optional part
    types = arrow.types
    as_text = (
        types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary,
        types.is_timestamp, types.is_date, types.is_decimal,
    )  # fmt: skip
    if any(test(kind) for test in as_text):
        return arrow.large_string()
    if types.is_time(kind) or types.is_duration(kind):
        return arrow.int32() if types.is_time32(kind) else arrow.int64()
    if types.is_float16(kind):
        return arrow.float32()
    plain = types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
    return kind if plain else None


def _has_floats(kind: "pa.DataType") -> bool:
    return "float" in str(kind) or "double" in str(kind)


def _spell(value: Any) -> Any:  # noqa: ANN401 - walks any JSON value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_spell(item) for item in value]
    return {key: _spell(item) for key, item in value.items()} if isinstance(value, dict) else value


def _unspell(value: Any, kind: "pa.DataType") -> Any:  # noqa: ANN401 - walks any JSON value
    types = load_arrow().types
    if types.is_floating(kind):
        return _SPELLED.get(value, value) if isinstance(value, str) else value
    if isinstance(value, list) and types.is_large_list(kind):
        return [_unspell(item, kind.value_type) for item in value]
    if isinstance(value, dict) and types.is_struct(kind):
        return value | {field.name: _unspell(value.get(field.name), field.type) for field in kind}
    return value
