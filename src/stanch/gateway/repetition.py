"""How much a text repeats itself: of its runs of four words, how many stood earlier in it.

Source: the share of repeated n-grams of Welleck et al., "Neural Text Generation With Unlikelihood Training" (2020).
"""

import itertools
import re

_RUN = 4
_LONGEST = 32
"""Code points of a word; a longer one, such as a sentence without spaces, is cut into such pieces."""

_WORDS = re.compile(rf"\S{{1,{_LONGEST}}}")
_MOST = 4096
_GATHERED = 256


class Repetition:
    """Counts the first 4,096 runs of a text that comes in pieces, however it is cut. Sans-IO.

    It keeps hashes of the runs, and of the text no more than the last few hundred code points.
    """

    def __init__(self) -> None:
        self._seen = set[int]()
        self._runs = 0
        self._last: list[str] = []
        self._waiting: list[str] = []
        self._size = 0

    def push(self, text: str) -> None:
        """Take the next piece."""
        self._waiting.append(text)
        self._size += len(text)
        if self._size >= _GATHERED:
            self._take(is_last=False)

    def finish(self) -> tuple[int, int]:
        """Return how many runs there were, and how many of them stood earlier; the text has ended."""
        self._take(is_last=True)
        return self._runs, self._runs - len(self._seen)

    def _take(self, *, is_last: bool) -> None:
        text = "".join(self._waiting)
        self._waiting, self._size = [], 0
        if self._runs >= _MOST:
            return
        words = [word[0] for word in itertools.islice(_WORDS.finditer(text), _MOST - self._runs + _RUN)]
        if words and not is_last and not text[-1].isspace() and len(words[-1]) < _LONGEST:
            self._waiting = [words.pop()]  # the word may go on
        words = self._last + words
        runs = [hash(run) for run in zip(words, words[1:], words[2:], words[3:], strict=False)][: _MOST - self._runs]
        self._seen.update(runs)
        self._runs += len(runs)
        self._last = words[1 - _RUN :]
