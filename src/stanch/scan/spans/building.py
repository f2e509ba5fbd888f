"""An index out of parts that are read one by one, by whoever: what a part says, and what is made of all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stanch.errors import InvalidInput
from stanch.scan.spans.bloom import Words
from stanch.scan.spans.params import IndexParams
from stanch.scan.spans.rolling import Hashes, RollingKey
from stanch.scan.spans.windows import Numbers, Windows, distinct_windows

KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class IndexKey:
    """What all parts of an index share.

    Raises:
        InvalidInput: The key has not 32 bytes.
    """

    key: bytes = field(repr=False)
    salt: bytes
    params: IndexParams

    def __post_init__(self) -> None:
        if len(self.key) != KEY_SIZE:
            raise InvalidInput(f"span index: the key has {len(self.key)} bytes, expected {KEY_SIZE}")

    def windows(self, folded: Sequence[bytes]) -> Windows:
        """Return the windows of folded texts."""
        return Windows(RollingKey.derive(self.key, self.salt), self.params.k, folded)

    def sampled(self, folded: Sequence[bytes]) -> Words:
        """Return the windows of folded texts that are indexed unless they are boilerplate."""
        return self.windows(folded).sampled(self.params.stride)


@dataclass(slots=True)
class Gathered:
    """The windows of all texts, and in how many texts each of them stands.

    Memory: 16 bytes a window, and 8 more while texts are counted.

    Attributes:
        windows: The windows, distinct.
        records: Number of distinct texts.
        chars: Their folded bytes.
    """

    windows: Words
    records: int
    chars: int
    _texts: Numbers = field(init=False, repr=False)

    @classmethod
    def of(cls, parts: Iterable[Words], *, records: int, chars: int) -> "Gathered":
        """Join what was sampled of the parts."""
        return cls(distinct_windows(np.concatenate([np.empty((0, 2), np.uint64), *parts])), records, chars)

    def __post_init__(self) -> None:
        self._texts = np.zeros(len(self.windows), dtype=np.int64)

    @property
    def keys(self) -> Hashes:
        """The first halves of the windows, sorted."""
        return np.ascontiguousarray(self.windows[:, 0])

    def count(self, numbers: Numbers, texts: Numbers) -> None:
        """Add what :meth:`Windows.held` says of a part; the order of the parts does not matter."""
        self._texts[numbers] += texts

    def kept(self, after: int | None, public: Windows) -> Words:
        """Return the windows that stand in at most ``after`` texts and in no public one."""
        windows = self.windows if after is None else self.windows[self._texts <= after]
        known, _ = public.held(np.ascontiguousarray(windows[:, 0]))
        return np.delete(windows, known, axis=0)
