"""On which line of a TOML file each setting stands; the parser of the standard library does not say."""

import tomllib
from typing import Any


def statement_lines(text: str) -> dict[str, int]:
    """Return the line, counted from 1, where each section and each ``section.key`` of a valid TOML text is first set.

    A statement ends where it parses together with its table header: so long strings and lists need no parser of ours.
    """
    found: dict[str, int] = {}
    header, statement, start = "", "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement:
            start = number
        statement += line + "\n"
        parsed = _parse(header + statement)
        if parsed is None:
            continue
        if statement.lstrip().startswith("["):
            header = statement
        for section, entries in parsed.items():
            found.setdefault(section, start)
            for key in entries if isinstance(entries, dict) else ():
                found.setdefault(f"{section}.{key}", start)
        statement = ""
    return found


def _parse(text: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
