"""The shift gate: can members be told from hold-out records without asking the target?

If texts alone give membership away, an attack that "works" may only have seen the difference of two sources (Das et al.
2024, "Blind baselines beat membership inference attacks"). The blind test reads texts, their lengths and the base's
losses, never the target.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import scipy

from stanch.audit.features import BoolArray, FloatArray
from stanch.audit.rates import auc, either_way
from stanch.audit.sections import Shift

MAX_BLIND_AUC: Final = 0.55
"""Above this lower bound of any blind AUC the two sides count as different."""

MAX_RECORDS: Final = 4000
MIN_SIDE: Final = 10
"""Fewest records of each side."""

_COLUMN_BITS = 18
_GRAMS = (3, 4, 5)
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_FOLDS = 5
_RIDGE = 1.0


def measure_shift(texts: Sequence[str], member: BoolArray, base_loss: FloatArray | None, *, seed: int = 0) -> Shift:
    """Measure how well members are told from the others without the target.

    Args:
        texts: One text a record, both sides.
        member: Which records were tuned on; both sides need at least 10.
        base_loss: Mean log-probability of each record in the base model, if there is one.
        seed: Of the balanced sample (above 4,000 records) and of the folds.
    """
    generator = np.random.PCG64(seed)
    chosen = _sample(member, generator)
    member = member[chosen]
    lengths = np.log([len(texts[i].encode()) + 1 for i in chosen])
    losses = None if base_loss is None else base_loss[chosen]
    numbers = [_standardised(column) for column in (lengths, losses) if column is not None]
    columns = scipy.sparse.hstack(
        [_text_columns([texts[i] for i in chosen]), scipy.sparse.csr_array(np.stack(numbers, axis=1))]
    )
    scores = _out_of_fold(columns.tocsr(), member, _folds(member, generator))
    return Shift(
        blind_auc=auc(scores, member),
        length_auc=either_way(auc(lengths, member)),
        base_loss_auc=None if losses is None else either_way(auc(losses, member)),
    )


def is_shifted(shift: Shift) -> bool:
    """Say whether any blind test tells the sides apart: a lower confidence bound above 0.55."""
    tests = (shift.blind_auc, shift.length_auc, shift.base_loss_auc)
    return any(test is not None and test.lower > MAX_BLIND_AUC for test in tests)


def _sample(member: BoolArray, generator: np.random.PCG64) -> npt.NDArray[np.int64]:
    """Return indices of all records, or of a balanced sample of 4,000."""
    if member.size <= MAX_RECORDS:
        return np.arange(member.size)
    keys = generator.random_raw(member.size)
    inside, outside = (np.flatnonzero(member == side) for side in (True, False))
    half = MAX_RECORDS // 2
    sizes = (max(half, MAX_RECORDS - outside.size), max(half, MAX_RECORDS - inside.size))
    sides = zip((inside, outside), sizes, strict=True)
    return np.sort(np.concatenate([side[np.argsort(keys[side], kind="stable")[:size]] for side, size in sides]))


def _folds(member: BoolArray, generator: np.random.PCG64) -> npt.NDArray[np.int64]:
    """Return the fold of each record; each side is dealt out evenly."""
    folds = np.empty(member.size, dtype=np.int64)
    for side in (True, False):
        mine = np.flatnonzero(member == side)
        folds[mine[np.argsort(generator.random_raw(mine.size), kind="stable")]] = np.arange(mine.size) % _FOLDS
    return folds


def _out_of_fold(columns: "scipy.sparse.csr_array", member: BoolArray, folds: npt.NDArray[np.int64]) -> FloatArray:
    """Return scores of a dual ridge regression, for each record from the folds it is not in, centred per fold."""
    kernel = (columns @ columns.T).toarray()
    scores = np.empty(member.size)
    for fold in range(_FOLDS):
        test, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        target = member[train].astype(np.float64)
        inner = kernel[np.ix_(train, train)] + _RIDGE * np.eye(train.size)
        weights = scipy.linalg.solve(inner, target - target.mean(), assume_a="pos")
        raw = kernel[np.ix_(test, train)] @ weights
        scores[test] = raw - raw.mean()
    return np.round(scores, 9)  # records that are alike get one score, however a sum was rounded


def _text_columns(texts: Sequence[str]) -> "scipy.sparse.csr_array":
    """Return hashed character 3-5-grams and words: tf-idf, rows of length 1."""
    rows = [_hashes(text.lower()) for text in texts]
    indices = np.concatenate(rows)
    pointers = np.concatenate(([0], np.cumsum([row.size for row in rows])))
    counts = scipy.sparse.csr_array((np.ones(indices.size), indices, pointers), shape=(len(texts), 1 << _COLUMN_BITS))
    counts.sum_duplicates()
    present = np.bincount(counts.indices, minlength=1 << _COLUMN_BITS)
    counts.data *= np.log((1 + len(texts)) / (1 + present[counts.indices])) + 1
    norms = np.sqrt(counts.multiply(counts).sum(axis=1))
    return scipy.sparse.csr_array(scipy.sparse.diags_array(1 / np.maximum(norms, 1e-12)) @ counts)


def _hashes(text: str) -> npt.NDArray[np.int64]:
    data = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint64) + np.uint64(1)
    found = [np.array([zlib.crc32(word.encode()) for word in text.split()], dtype=np.uint64) * _MULTIPLIER]
    for width in _GRAMS:
        if data.size >= width:
            value = np.zeros(data.size - width + 1, dtype=np.uint64)
            for offset in range(width):
                value = value * np.uint64(1_000_003) + data[offset : offset + value.size]
            found.append((value + np.uint64(width)) * _MULTIPLIER)
    return (np.concatenate(found) >> np.uint64(64 - _COLUMN_BITS)).astype(np.int64)


def _standardised(column: npt.ArrayLike) -> FloatArray:
    values = np.asarray(column, dtype=np.float64)
    spread = float(values.std())
    return np.asarray((values - values.mean()) / (spread if spread > 0 else 1.0))
