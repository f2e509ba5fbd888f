"""A record of a dataset and the texts in it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextField:
    """One text of a record.

    Attributes:
        path: Where it stands in the row, for example ``messages[1].content``.
        role: Who speaks (``system``, ``user``, ``assistant``, ``tool``), ``text`` for plain text, ``tool_call`` inside
            a tool call, ``part`` in a part of a turn that is no text, and empty for every other string of the row.
        text: The text.
    """

    path: str
    role: str
    text: str

    def __repr__(self) -> str:
        # The path is left out: it may hold keys of the row, which are data.
        return f"TextField(role={self.role!r}, text=<{len(self.text)} characters>)"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a dataset.

    Attributes:
        id: ``r<line>``, or the keyed id when the dataset was opened with its key.
        index: Position among the records, from 0.
        source: Name of the file.
        fields: The turns in speaking order, then every other string of the row.
        raw: The row as it stands in the file, without the line end.
    """

    id: str
    index: int
    source: str
    fields: tuple[TextField, ...]
    raw: bytes

    def __repr__(self) -> str:
        return f"Record(id={self.id!r}, index={self.index}, fields={self.fields!r}, raw=<{len(self.raw)} bytes>)"
