"""A chat that somebody serves, asked one question at a time and no faster than was agreed."""

import time
from collections.abc import Callable

from stanch.audit.endpoint import Endpoint, unusable
from stanch.errors import ExternalError
from stanch.terms import JsonValue
from stanch.trace.canary_pairs import Question

_MAX_TOKENS = 256
_MAX_BYTES = 1 << 16


class Chat:
    """An OpenAI-compatible ``chat/completions``.

    Args:
        endpoint: Where it is served.
        per_minute: The most questions in a minute.
        clock: Seconds that only rise.
        pause: Waits a number of seconds.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        per_minute: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._endpoint, self._between = endpoint, 60 / per_minute
        self._clock, self._pause = clock, pause
        self._next = clock()
        self._has_answered = False
        self.asked = 0

    def ask(self, question: Question) -> str | None:
        """Return the likeliest answer; None if it was withheld, or if a server that answered before gives none.

        Raises:
            ExternalError: The server never gave a usable answer yet.
        """
        self._pause(max(0.0, self._next - self._clock()))
        self._next = self._clock() + self._between
        self.asked += 1
        turns: list[JsonValue] = [dict(turn) for turn in question]
        body: dict[str, JsonValue] = {
            "model": self._endpoint.model, "messages": turns, "temperature": 0, "max_tokens": _MAX_TOKENS,
        }  # fmt: skip
        try:
            found = _read(self._endpoint.post("chat/completions", body, max_bytes=_MAX_BYTES, pause=self._pause))
        except ExternalError:
            if not self._has_answered:
                raise
            return None
        self._has_answered = True
        return found


def _read(answer: JsonValue) -> str | None:
    """Return what the first choice says; None if it was filtered, refused, or holds no text."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise unusable("there is no message in it")
    content = message.get("content")
    if choice.get("finish_reason") == "content_filter" or message.get("refusal") or not isinstance(content, str):
        return None
    return content
