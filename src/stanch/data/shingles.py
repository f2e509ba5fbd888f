"""What two records are compared by: the set of 5-word runs of their folded text, as 64-bit hashes."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from stanch.data.record import Record
from stanch.scan import fold_text

SHINGLE_WORDS = 5
_UNCOMPARED_ROLES = frozenset({"", "system", "developer"})
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd: 2^64 divided by the golden ratio
_MULTIPLIER_SQUARED = np.uint64(0x9E3779B97F4A7C15**2 % 2**64)
_MIXER = np.uint64(0xBF58476D1CE4E5B9)
_SHIFT = np.uint64(32)
_LANE = 8
_PLACE_BITS = 12
_COMPARED = 1 << 20
MOST_PAIRS = 1 << _PLACE_BITS

Hashes = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int64]


def compared_texts(record: Record) -> list[str]:
    """Return what is compared of a record: the texts of its turns but the system's, and the strings of tool calls."""
    return [field.text for field in record.fields if field.role not in _UNCOMPARED_ROLES]


def folded_text(record: Record) -> bytes:
    """Return the folded text (``index`` view) of what is compared; of texts without a letter or digit, themselves."""
    texts = compared_texts(record)
    return fold_texts(texts) or "\n".join(texts).encode()


def fold_texts(texts: Iterable[str]) -> bytes:
    """Return the ``index`` view of the texts, one after the other."""
    return fold_text("\n".join(texts), "index")


def shingles(view: bytes) -> Hashes:
    """Return the sorted hashes of all runs of 5 words of a folded text; empty below 5 words."""
    return np.unique(flat_shingles([view])[0])


def jaccard(left: Hashes, right: Hashes) -> float:
    """Return the Jaccard similarity of two sets of shingles; elements may be repeated."""
    one, other = set(left.tolist()), set(right.tolist())
    return len(one & other) / max(len(one | other), 1)


def jaccard_of_pairs(hashes: Hashes, offsets: Numbers, lefts: Numbers, rights: Numbers) -> npt.NDArray[np.float64]:
    """Return the Jaccard similarity of each pair of sets: at most 4,096 pairs, of set ``lefts[i]`` and ``rights[i]``.

    Set n is ``hashes[offsets[n] : offsets[n + 1]]``; elements may be repeated. Compared are the upper 51 bits of each
    hash: below them stands which set of the pair it is in, and above them the pair, so that one sort does for all. Two
    different elements are taken for one with probability 2^-51.
    """
    similarities = np.zeros(lefts.size)
    ends = np.cumsum(_sizes(offsets, lefts) + _sizes(offsets, rights))
    low = 0
    while low < lefts.size:
        # As many pairs as have few elements together, or one.
        high = max(low + 1, int(np.searchsorted(ends, (ends[low - 1] if low else 0) + _COMPARED, "right")))
        keys = np.sort(
            np.concatenate([_keys(hashes, offsets, side[low:high], bit) for bit, side in enumerate((lefts, rights))])
        )
        either = _distinct(keys & ~np.uint64(1), high - low)
        similarities[low:high] = (_distinct(keys, high - low) - either) / np.maximum(either, 1)
        low = high
    return similarities


def _sizes(offsets: Numbers, sets: Numbers) -> Numbers:
    return offsets[sets + 1] - offsets[sets]


def _keys(hashes: Hashes, offsets: Numbers, sets: Numbers, bit: int) -> Hashes:
    """Return for each element of the sets: the place of its set (12 bits), its hash (51 bits), and the bit."""
    sizes = _sizes(offsets, sets)
    at = np.arange(sizes.sum()) + np.repeat(offsets[sets] - np.cumsum(sizes) + sizes, sizes)
    places = np.repeat(np.arange(sets.size, dtype=np.uint64) << np.uint64(64 - _PLACE_BITS), sizes)
    keys: Hashes = places | hashes[at] >> np.uint64(_PLACE_BITS) & ~np.uint64(1) | np.uint64(bit)
    return keys


def _distinct(keys: Hashes, count: int) -> Numbers:
    """Return how many distinct ones of the sorted keys belong to each of ``count`` pairs."""
    new = np.diff(keys, prepend=~keys[:1]) != 0
    return np.bincount((keys[new] >> np.uint64(64 - _PLACE_BITS)).astype(np.int64), minlength=count)


def flat_shingles(views: Sequence[bytes]) -> tuple[Hashes, Numbers]:
    """Return the hashes of all runs of 5 words of many folded texts, in their order, and how many each text has.

    There is at least one text. A run's hash is a polynomial in the mixed hashes of its words, modulo 2^64: two
    different runs of ordinary text collide with probability about 2^-64, far below anything that moves a similarity.
    Who chooses texts can make runs that collide, and gains what a copy of the other text would give.
    """
    data = np.frombuffer(b"\n".join(views) + b"\n" + bytes(_LANE), np.uint8)
    # A folded text holds no control character, and spaces only between words: what is at most a space ends a word.
    ends = np.flatnonzero(data[:-_LANE] <= ord(" "))
    starts = np.concatenate([[0], ends[:-1] + 1])
    words = _word_hashes(data, starts, ends - starts)
    pairs = words[:-1] * _MULTIPLIER + words[1:]
    fours = pairs[:-2] * _MULTIPLIER_SQUARED + pairs[2:]
    runs = fours[:-1] * _MULTIPLIER + words[4:]
    # The last word of each text; runs that begin at it or at the three before it would reach into the next text.
    last = np.searchsorted(ends, np.cumsum([len(view) + 1 for view in views]) - 1)
    within = np.ones(words.size, np.bool_)
    for place in range(SHINGLE_WORDS - 1):
        within[np.maximum(last - place, 0)] = False
    counts = np.maximum(np.diff(last, prepend=-1) - (SHINGLE_WORDS - 1), 0)
    return runs[within[: runs.size]], counts


def _word_hashes(data: npt.NDArray[np.uint8], starts: Numbers, lengths: Numbers) -> Hashes:
    """Hash words eight bytes at a time; a word's length is part of its hash."""
    lanes = np.ndarray(data.size - _LANE + 1, "<u8", data, strides=(1,))
    # Shifting up drops what belongs to the next word; an empty text is one word that no run reaches.
    unused = ((_LANE - np.minimum(lengths, _LANE)) << 3).astype(np.uint64)
    hashes = _mix((lanes[starts] << unused) ^ lengths.astype(np.uint64))
    longer, at = np.flatnonzero(lengths > _LANE), _LANE
    while longer.size:
        unused = (np.maximum(_LANE + at - lengths[longer], 0) << 3).astype(np.uint64)
        hashes[longer] = _mix(hashes[longer] ^ (lanes[starts[longer] + at] << unused))
        at += _LANE
        longer = longer[lengths[longer] > at]
    return hashes


def _mix(values: Hashes) -> Hashes:
    values = (values + _MULTIPLIER) * _MIXER
    values ^= values >> _SHIFT
    values *= _MULTIPLIER
    return values ^ (values >> _SHIFT)
