"""On which line of a TOML file each setting stands; the parser of the standard library does not say."""

from typing import Any

from stanch.config.toml import load_toml

_LONGEST = 200


def statement_lines(text: str) -> dict[str, int]:
    """Return the line, counted from 1, where each section and each ``section.key`` of a valid TOML text is first set.

    A statement ends where it parses together with its table header: so long strings and lists need no parser of ours.
    The lines behind one of more than 200 lines are guessed, and what stands there may be missing.
    """
    found: dict[str, int] = {}
    header, statement, start = "", "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        if not statement:
            start = number
        statement += line + "\n"
        parsed = _parse(header + statement)
        if parsed is None:
            if number - start >= _LONGEST:  # each line parses the statement again
                statement = ""
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
        return load_toml(text)
    except ValueError:
        return None
