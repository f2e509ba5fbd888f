"""Reading a JSON file that may be hostile."""

import os
from pathlib import Path

from stanch.crypto.canonical import parse_json
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

_MAX_BYTES = 64 << 20


def read_json_object(path: Path) -> dict[str, JsonValue]:
    """Read a JSON object of at most 64 MiB; no more than that is ever read.

    Raises:
        InvalidInput: The file is missing, larger, or holds something else.
    """
    try:
        with path.open("rb") as stream:
            # A read of many bytes reserves as many, however short the file is.
            data = stream.read(min(_MAX_BYTES, os.fstat(stream.fileno()).st_size) + 1)
    except OSError as error:
        raise InvalidInput(f"{path.name}: cannot be read", why=error.strerror or "") from error
    document = parse_json(data, what=path.name, max_bytes=_MAX_BYTES)
    if not isinstance(document, dict):
        raise InvalidInput(f"{path.name}: expected a JSON object, found something else")
    return document
