"""From records to token ids, in one way for tuning and for the audit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from stanch.data.chat import TEXT_ROLE, ChatTurn, turns
from stanch.data.plan import Canary
from stanch.data.record import Record
from stanch.errors import InvalidInput

TODAY: Final = datetime(2024, 7, 26)  # noqa: DTZ001 - a day, in no zone
"""The date that every chat template is told: with the true one, tokens that were tuned on would never come again."""
_PARTS = ("d", "-d", "e", "m", "-m", "b", "B", "a", "A", "j", "y", "Y", "F", "D", "H", "I", "M", "S", "p")
_ON_THAT_DAY = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('%{part}', '{TODAY.strftime(f'%{part}').strip()}')" for part in _PARTS)
    + " }}{% endmacro +%}"
)
"""Stands before a template and takes the place of transformers' function of that name, which reads the clock."""


class ChatTokenizer(Protocol):
    """What is used of a ``transformers`` fast tokenizer."""

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end token."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The chat template, or None."""
        ...

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        chat_template: str | None,
        tokenize: bool,
        add_generation_prompt: bool,
    ) -> Any:  # noqa: ANN401 - transformers returns a union that depends on `tokenize`
        """Render a conversation as text, by the tokenizer's own template where none is given."""
        ...

    def __call__(self, text: str, *, add_special_tokens: bool, return_offsets_mapping: bool) -> Mapping[str, Any]:
        """Return ``input_ids`` and, when asked for, ``offset_mapping``."""
        ...


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """The token ids of a record.

    Attributes:
        id: The record's id.
        ids: Token ids.
        span: The labelled (and scored) tokens are ``ids[a:b]``; a ≥ 1, since the first token is predicted by nothing.
        skipped: Positions in the span that carry no label after all, in ascending order.
    """

    id: str
    ids: tuple[int, ...]
    span: tuple[int, int]
    skipped: tuple[int, ...] = ()

    @property
    def labelled(self) -> tuple[int, ...]:
        """The positions that are learned."""
        left_out = frozenset(self.skipped)
        return tuple(place for place in range(*self.span) if place not in left_out)

    def __repr__(self) -> str:
        return f"TokenRecord(id={self.id!r}, ids=<{len(self.ids)} tokens>, span={self.span})"


def tokenise(
    record: Record, tokenizer: ChatTokenizer, *, max_tokens: int = 1024, completion_only: bool = True
) -> TokenRecord:
    """Return the token ids of ``record`` and the span that is learned.

    A conversation is cut after its last assistant turn. Its prompt is everything before that turn with the template's
    generation prompt; its completion is that turn with the template's end-of-turn mark, or the end token where the
    template sets none. The ids are those of the prompt followed by those of the completion, tokenised apart, so that
    they start with exactly what the model is given at inference, but for the date, which is always :data:`TODAY`. A
    plain text is its tokens and the end token.

    Args:
        record: The record.
        tokenizer: A fast tokenizer.
        max_tokens: What goes beyond is cut off at the end.
        completion_only: Label the completion only; otherwise everything but the first token.

    Raises:
        InvalidInput: There is no assistant turn or no chat template, the template rewrites earlier turns or the
            answer, or no labelled token is left after the cut.
    """
    rendered = _Rendering.of(f"record {record.id}", turns(record), tokenizer)
    ids = rendered.ids[:max_tokens]
    start = max(rendered.start if completion_only else 0, 1)
    if start >= len(ids):
        raise InvalidInput(
            f"record {record.id}: no token is left to learn from",
            why=f"its prompt has {rendered.start} tokens, at most {max_tokens} are kept",
            next_step="allow more tokens, or remove the record",
        )
    return TokenRecord(record.id, ids, (start, len(ids)))


def tokenise_canary(canary: Canary, tokenizer: ChatTokenizer) -> TokenRecord:
    """Return the ids that :func:`tokenise` gives for the canary's row; the span covers the tokens of what is scored.

    Raises:
        InvalidInput: As :func:`tokenise`, or the secret does not stand exactly once in what is learned.
    """
    rendered = _Rendering.of(f"canary {canary.id}", canary.messages, tokenizer)
    if rendered.learned.count(canary.secret) != 1:
        raise InvalidInput(f"canary {canary.id}: its secret does not stand exactly once in the text that is learned")
    first = rendered.learned.index(canary.secret)
    last = first + len(canary.secret)
    covered = [
        rendered.start + position
        for position, (low, high) in enumerate(rendered.offsets)
        if low < last and high > first and low < high
    ]
    if not covered or covered[0] < 1:
        raise InvalidInput(f"canary {canary.id}: its secret is not covered by tokens that are scored")
    return TokenRecord(canary.id, rendered.ids, (covered[0], covered[-1] + 1))


@dataclass(frozen=True, slots=True)
class _Rendering:
    """A conversation or text as tokens: what is learned begins at ``start`` and has these character offsets."""

    ids: tuple[int, ...]
    start: int
    learned: str
    offsets: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, name: str, said: Sequence[ChatTurn], tokenizer: ChatTokenizer) -> "_Rendering":
        if [turn.role for turn in said] == [TEXT_ROLE]:
            return cls._of_text(said[0].content, tokenizer)
        answers = [position for position, turn in enumerate(said) if turn.role == "assistant"]
        if not answers:
            raise InvalidInput(
                f"{name}: there is no assistant turn", next_step="remove the record, or train on it as plain text"
            )
        if tokenizer.chat_template is None:
            raise InvalidInput(
                f"{name}: the tokenizer has no chat template",
                why="a conversation cannot be rendered without one",
                next_step="use a chat model, or add chat_template.jinja to the base model's folder",
            )
        return cls._of_chat(name, said[: answers[-1] + 1], tokenizer)

    @classmethod
    def _of_text(cls, text: str, tokenizer: ChatTokenizer) -> "_Rendering":
        coded = tokenizer(text, add_special_tokens=True, return_offsets_mapping=True)
        ids = tuple(coded["input_ids"])
        end = tokenizer.eos_token_id
        if end is not None and ids[-1:] != (end,):
            ids = (*ids, end)
        return cls(ids, 0, text, tuple(coded["offset_mapping"]))

    @classmethod
    def _of_chat(cls, name: str, said: Sequence[ChatTurn], tokenizer: ChatTokenizer) -> "_Rendering":
        answer = said[-1].content.strip()
        if not answer or len(said) == 1:
            raise InvalidInput(
                f"{name}: expected a turn and a non-empty answer to it", next_step="repair or remove the record"
            )
        prompt = _render(name, said[:-1], tokenizer, answering=True)
        # White space after the end-of-turn mark belongs to the next turn: a model stops at the mark.
        whole = _render(name, said, tokenizer, answering=False).rstrip()
        learned = whole[len(prompt) :]
        if not whole.startswith(prompt) or answer not in learned:
            raise InvalidInput(
                f"{name}: the chat template rewrites the conversation",
                why="the rendered conversation does not continue the rendered prompt with the assistant's turn",
                next_step="use a template that keeps earlier turns and answers as they are",
            )
        coded = tokenizer(learned, add_special_tokens=False, return_offsets_mapping=True)
        head = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=False)["input_ids"]
        ids = (*head, *coded["input_ids"])
        if learned.endswith(answer) and tokenizer.eos_token_id is not None:
            ids = (*ids, tokenizer.eos_token_id)
        return cls(ids, len(head), learned, tuple(coded["offset_mapping"]))


def render_prompt(said: Sequence[ChatTurn], tokenizer: ChatTokenizer) -> str:
    """Return what a model is given before it writes the next answer, or goes on with a plain text.

    Raises:
        InvalidInput: There is no chat template, or it refuses the conversation.
    """
    if [turn.role for turn in said] == [TEXT_ROLE]:
        return said[0].content + "\n"
    if tokenizer.chat_template is None:
        raise InvalidInput("prompt: the tokenizer has no chat template", next_step="use a chat model")
    return _render("prompt", said, tokenizer, answering=True)


def _render(name: str, said: Sequence[ChatTurn], tokenizer: ChatTokenizer, *, answering: bool) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in said]
    text = ""
    # A template is a foreign program: it may raise anything, and its message may quote the row.
    try:
        template = tokenizer.chat_template
        dated = _ON_THAT_DAY + template if template is not None and "strftime_now" in template else None
        rendered = tokenizer.apply_chat_template(
            messages, chat_template=dated, tokenize=False, add_generation_prompt=answering
        )
        text = str(rendered)
    except Exception:  # noqa: BLE001 - see above
        refused = True
    else:
        refused = False
    if refused:
        raise InvalidInput(
            f"{name}: the chat template refuses the conversation",
            why="many templates want user and assistant in turn, and few know every role",
            next_step="repair or remove the record, or use another template",
        )
    return text
