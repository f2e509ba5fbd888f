"""The shapes in which a row can hold a conversation or a text, and where its strings stand."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

from stanch.data.record import Record
from stanch.errors import InvalidInput

MAX_DEPTH = 64
TEXT_ROLE = "text"
TOOL_CALL_ROLE = "tool_call"
PART_ROLE = "part"
_ROLES = {role: role for role in ("system", "developer", "user", "assistant", "tool", "function")} | {
    "ipython": "tool",
    "model": "assistant",
}
_SHAREGPT_ROLES = _ROLES | {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "observation": "tool",
}  # fmt: skip
KNOWN_ROLES = {"role": tuple(sorted(_ROLES)), "from": tuple(sorted(_SHAREGPT_ROLES))}
"""The names of roles that a turn may have, by the key that holds them."""
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_TOOL_CALL_KEYS = frozenset({"tool_calls", "function_call"})


class ChatForm(StrEnum):
    """The shape of a dataset's rows."""

    MESSAGES = "messages"
    SHAREGPT = "sharegpt"
    PROMPT = "prompt"
    INSTRUCTION = "instruction"
    TEXT = "text"
    FIELDS = "fields"
    ANY = "any"


_KEYS: dict[ChatForm, tuple[str, ...]] = {
    ChatForm.MESSAGES: ("messages",),
    ChatForm.SHAREGPT: ("conversations",),
    ChatForm.PROMPT: ("prompt", "completion"),
    ChatForm.INSTRUCTION: ("instruction", "output"),
    ChatForm.TEXT: ("text",),
}
_OPTIONAL_KEYS = {ChatForm.INSTRUCTION: ("system", "input")}


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One turn of a conversation; a plain text is a single turn with the role ``text``."""

    role: str
    content: str

    def __repr__(self) -> str:
        return f"ChatTurn(role={self.role!r}, content=<{len(self.content)} characters>)"


@dataclass(frozen=True, slots=True)
class Slot:
    """A string of a parsed row that can be read and replaced in place."""

    container: dict[str, Any] | list[Any]
    key: Any
    path: str
    role: str

    @property
    def text(self) -> str:
        """The string that stands there now."""
        value: str = self.container[self.key]
        return value

    def replace(self, text: str) -> None:
        """Put ``text`` in its place."""
        self.container[self.key] = text

    def __repr__(self) -> str:
        return f"Slot(role={self.role!r})"


def spoken_columns(form: ChatForm) -> tuple[str, ...]:
    """Return the columns that hold what is said in rows of a form; none of ``FIELDS`` and ``ANY``."""
    return _KEYS.get(form, ()) + _OPTIONAL_KEYS.get(form, ())


def recognise_form(rows: list[dict[str, Any]]) -> ChatForm:
    """Return the first form, in the order of :class:`ChatForm`, whose keys are in every row.

    Raises:
        InvalidInput: No form fits them all.
    """
    for form, keys in _KEYS.items():
        if all(key in row for row in rows for key in keys):
            return form
    raise InvalidInput(
        "no chat form fits the first records",
        why="expected messages, conversations, prompt and completion, instruction and output, or text",
        next_step="name the form, or name the columns that hold the text; a scan takes rows of any form",
    )


def slots(row: dict[str, Any], form: ChatForm, columns: tuple[str, ...] = ()) -> list[Slot]:
    """Return every string of ``row``: those of the turns in speaking order, then all others in row order.

    Role names and part types are structure and are left out; they are checked against fixed lists, so they can carry
    nothing else.

    Raises:
        InvalidInput: The row does not have the form, or is nested deeper than 64.
    """
    shape = _Shape(row, form, columns)
    spoken, structure = shape.read()
    seen = structure | {(id(slot.container), slot.key) for slot in spoken}
    rest = _strings(row, "", "", 0, shape.parts)
    return spoken + [slot for slot in rest if (id(slot.container), slot.key) not in seen]


def check_shape(row: dict[str, Any], form: ChatForm, columns: tuple[str, ...] = ()) -> None:
    """Check what :func:`slots` checks, but for the depth.

    Raises:
        InvalidInput: The row does not have the form.
    """
    _Shape(row, form, columns).read()


def fixed_parts(value: Any, path: str = "") -> Iterator[tuple[str, str | float]]:  # noqa: ANN401 - walks any JSON value
    """Yield (path, part) for what a row shows beside its strings and cannot be rewritten: key names and numbers.

    A key name comes with the path of the object that holds it.
    """
    if isinstance(value, dict):
        for key, child in value.items():
            yield path, key
            yield from fixed_parts(child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for position, child in enumerate(value):
            yield from fixed_parts(child, f"{path}[{position}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def answers(role: str, before: str) -> bool:
    """Tell whether a string of the one role goes on from the one before it: both are what is said in turns."""
    return not {"", TOOL_CALL_ROLE, PART_ROLE} & {role, before}


def turns(record: Record) -> tuple[ChatTurn, ...]:
    """Return the conversation of ``record``; a plain text is one turn with the role ``text``.

    Raises:
        InvalidInput: The record holds tool calls, or parts that are no text, which text turns cannot express.
    """
    for role, what in ((TOOL_CALL_ROLE, "calls a tool"), (PART_ROLE, "has a part that is no text")):
        if any(field.role == role for field in record.fields):
            raise InvalidInput(
                f"record {record.id}: a turn {what}",
                why="only turns of text can be tuned on",
                next_step="leave such records out, or write it as text",
            )
    spoken = [field for field in record.fields if field.role]
    return tuple(
        ChatTurn(role, separator.join(field.text for field in fields if field.text))
        for (_, role, separator), fields in groupby(spoken, lambda field: _turn_of(field.path, field.role))
    )


def conversation_row(messages: tuple[ChatTurn, ...], form: ChatForm, columns: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a row of the given form that says ``messages``; the inverse of :func:`turns`.

    Raises:
        InvalidInput: The form cannot say them (a plain text with several turns, an instruction with more than one).
    """
    said = [(turn.role, turn.content) for turn in messages]
    match form, said:
        case ChatForm.MESSAGES, _:
            return {"messages": [{"role": role, "content": content} for role, content in said]}
        case ChatForm.SHAREGPT, _:
            names = {"user": "human", "assistant": "gpt", "tool": "observation"}
            return {"conversations": [{"from": names.get(role, role), "value": content} for role, content in said]}
        case ChatForm.PROMPT, [("user", prompt), ("assistant", completion)]:
            return {"prompt": prompt, "completion": completion}
        case ChatForm.INSTRUCTION, [("user", prompt), ("assistant", completion)]:
            return {"instruction": prompt, "input": "", "output": completion}
        case ChatForm.INSTRUCTION, [("system", system), ("user", prompt), ("assistant", completion)]:
            return {"system": system, "instruction": prompt, "input": "", "output": completion}
        case ChatForm.TEXT, [("text", text)]:
            return {"text": text}
        case ChatForm.FIELDS, [("text", text)]:
            return {column: text if position == 0 else "" for position, column in enumerate(columns)}
    raise InvalidInput(f"rows of the form {form.value} cannot hold {len(said)} turns")


def _turn_of(path: str, role: str) -> tuple[str, str, str]:
    """Return a key that is equal for the strings of one turn, its role, and what joins the strings."""
    if "]" in path:
        return path[: path.index("]") + 1], role, ""
    return ("", role, "\n\n") if role == "user" else ("", role, "\n") if role == TEXT_ROLE else (path, role, "")


class _Shape:
    """Reads the turns of one row.

    Attributes:
        parts: The identities of the parts of turns that are no text.
    """

    def __init__(self, row: dict[str, Any], form: ChatForm, columns: tuple[str, ...]) -> None:
        self._row = row
        self._form = form
        self._columns = columns
        self._spoken: list[Slot] = []
        self._structure: set[tuple[int, Any]] = set()
        self.parts: set[int] = set()

    def read(self) -> tuple[list[Slot], set[tuple[int, Any]]]:
        """Return the strings of the turns, and the places (container, key) that are structure."""
        match self._form:
            case ChatForm.MESSAGES:
                self._messages("messages", "role", "content")
            case ChatForm.SHAREGPT:
                self._messages("conversations", "from", "value")
            case ChatForm.PROMPT:
                self._prompt("prompt", "user")
                self._prompt("completion", "assistant")
            case ChatForm.INSTRUCTION:
                self._string("system", "system", optional=True)
                self._string("instruction", "user")
                self._string("input", "user", optional=True)
                self._string("output", "assistant")
            case ChatForm.TEXT:
                self._string("text", TEXT_ROLE)
            case ChatForm.FIELDS:
                for column in self._columns:
                    self._string(column, TEXT_ROLE)
            case ChatForm.ANY:
                self._lists()
        return self._spoken, self._structure

    def _lists(self) -> None:
        """Read what looks like turns; what does not is left to those who read all strings."""
        for key, value in self._row.items():
            for role_key, text_key in (("role", "content"), ("from", "value")):
                if isinstance(value, list) and all(isinstance(turn, dict) and role_key in turn for turn in value):
                    with suppress(InvalidInput):
                        self._messages(key, role_key, text_key)

    def _string(self, key: str, role: str, *, optional: bool = False) -> None:
        value = self._row.get(key)
        if optional and (value is None or value == ""):
            return
        if not isinstance(value, str):
            raise InvalidInput(f"expected a string under {key!r}")
        self._spoken.append(Slot(self._row, key, key, role))

    def _prompt(self, key: str, role: str) -> None:
        if isinstance(self._row.get(key), list):
            self._messages(key, "role", "content")
        else:
            self._string(key, role)

    def _messages(self, key: str, role_key: str, text_key: str) -> None:
        messages = self._row.get(key)
        if not isinstance(messages, list) or not messages:
            raise InvalidInput(f"expected a list of turns under {key!r}")
        names = _SHAREGPT_ROLES if role_key == "from" else _ROLES
        for position, message in enumerate(messages):
            path = f"{key}[{position}]"
            name = message.get(role_key) if isinstance(message, dict) else None
            if not isinstance(name, str) or name not in names:
                raise InvalidInput(f"expected a known role under {path}.{role_key}")
            self._structure.add((id(message), role_key))
            self._content(message, text_key, f"{path}.{text_key}", names[name])

    def _content(self, message: dict[str, Any], key: str, path: str, role: str) -> None:
        content = message.get(key)
        if isinstance(content, str):
            self._spoken.append(Slot(message, key, path, role))
        elif isinstance(content, list):
            for position, part in enumerate(content):
                kind = part.get("type") if isinstance(part, dict) else None
                is_text = isinstance(kind, str) and kind in _TEXT_PARTS
                if not isinstance(kind, str) or (is_text and not isinstance(part.get("text"), str)):
                    raise InvalidInput(
                        f"expected a part with its type, and text if it is one, under {path}[{position}]"
                    )
                if is_text:
                    self._structure.add((id(part), "type"))
                    self._spoken.append(Slot(part, "text", f"{path}[{position}].text", role))
                else:
                    self.parts.add(id(part))
        elif content is not None or not _TOOL_CALL_KEYS & message.keys():
            raise InvalidInput(f"expected text under {path}")


def _strings(
    value: Any,  # noqa: ANN401 - walks any JSON value
    path: str,
    role: str,
    depth: int,
    parts: set[int],
) -> Iterator[Slot]:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"nested deeper than {MAX_DEPTH}")
    items: Any = ()
    if isinstance(value, dict):
        items = [(key, f"{path}.{key}" if path else key, child) for key, child in value.items()]
    elif isinstance(value, list):
        items = [(position, f"{path}[{position}]", child) for position, child in enumerate(value)]
    for key, child_path, child in items:
        child_role = TOOL_CALL_ROLE if key in _TOOL_CALL_KEYS else PART_ROLE if id(child) in parts else role
        if isinstance(child, str):
            yield Slot(value, key, child_path, child_role)
        else:
            yield from _strings(child, child_path, child_role, depth + 1, parts)
