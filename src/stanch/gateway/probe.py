"""Flags on prompts that look as if somebody tried what the model remembers; they are recorded and refuse nothing."""

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from stanch.crypto import hmac_prf
from stanch.errors import InvalidInput
from stanch.gateway.request import GenerateRequest
from stanch.scan import SpanIndex, fold_text
from stanch.terms import JsonValue

LAST_WORDS, FEWEST_WORDS = 200, 20
PREFIX, NEAR_EQUAL, HOUR = 200, 5, 3600.0
MAX_DEPTH = 64
"""How deep lists and objects of a request may be nested in each other."""
_MOST_PREFIXES = 100_000
_TEXTS = frozenset({
    "content", "text", "prompt", "input", "output", "thinking", "reasoning", "reasoning_content", "instructions",
    "system", "suffix",
})  # fmt: skip
_CONVERSATIONS = frozenset({"messages", "input", "prompt"})


def texts_of(request: GenerateRequest) -> list[str]:
    """Return the texts of a request that the model reads; the last one is the last of the conversation.

    Raises:
        InvalidInput: It is nested too deep.
    """
    texts, left = list[str](), [(request, False, 0)]
    while left:
        value, named, depth = left.pop()
        inner: list[tuple[Any, bool]] = []
        if isinstance(value, str):
            texts += [value] if named and value else []
        elif isinstance(value, Struct):
            names = (
                value.__struct_fields__ if depth else sorted(value.__struct_fields__, key=_CONVERSATIONS.__contains__)
            )
            inner = [(getattr(value, name), name in _TEXTS) for name in names]
        elif isinstance(value, dict):
            inner = [(item, name in _TEXTS) for name, item in value.items()]
        elif isinstance(value, list):
            inner = [(item, named) for item in value]
        if inner and depth > MAX_DEPTH:
            raise InvalidInput(f"the request was refused: it is nested more than {MAX_DEPTH} deep")
        left += [(item, is_named, depth + 1) for item, is_named in reversed(inner)]
    return texts


def repeats(text: str) -> bool:
    """Say whether one word makes up half of the last 200 words; fewer than 20 say nothing."""
    words = fold_text(text, "index").split()[-LAST_WORDS:]
    return len(words) >= FEWEST_WORDS and 2 * Counter(words).most_common(1)[0][1] >= len(words)


@dataclass(slots=True)
class Probes:
    """Judges prompts; remembers for an hour which ones began alike, by keyed digests of their beginnings.

    Attributes:
        key: Makes those digests.
        monotonic: Seconds.
    """

    key: bytes = field(repr=False)
    monotonic: Callable[[], float] = time.monotonic
    _seen: OrderedDict[bytes, tuple[float, ...]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _mac: Callable[[bytes], bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._mac = hmac_prf(self.key)

    def judge(self, principal: str, texts: list[str], index: SpanIndex | None) -> dict[str, JsonValue]:
        """Return the flags of one prompt.

        Args:
            principal: Who asks.
            texts: All texts of the prompt; the last one is the question.
            index: The index of training text, or None.
        """
        question = texts[-1] if texts else ""
        return {
            "quotes": index is not None and bool(index.query("\n".join(texts))),  # at once: there may be many
            "repeats": repeats(question),
            "near_equal": self._near_equal(principal, question),
        }

    def _near_equal(self, principal: str, question: str) -> bool:
        """Count a question; say whether it is the fifth within an hour that begins alike."""
        prefix = fold_text(question[: 8 * PREFIX], "index")[:PREFIX]
        digest = self._mac(principal.encode() + b"\x00" + prefix)[:16]
        now = self.monotonic()
        with self._lock:
            # Tuples: most have one time, for which a deque would take a kilobyte.
            times = self._seen[digest] = (*self._seen.get(digest, ()), now)[-NEAR_EQUAL:]
            self._seen.move_to_end(digest)
            while len(self._seen) > _MOST_PREFIXES or now - next(iter(self._seen.values()))[-1] > HOUR:
                self._seen.popitem(last=False)
            return len(times) == NEAR_EQUAL and now - times[0] <= HOUR
