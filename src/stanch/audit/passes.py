"""The feature pass in shards: by this process or by others, and taken up again where an interrupted audit left it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from stanch.audit.feature_file import SHARD_RECORDS, PassOf, cut_shards, decode_features, encode_features
from stanch.audit.features import Adapter, Features, Scorer
from stanch.audit.params import Decoding
from stanch.crypto import read_private, write_atomic
from stanch.data import TokenRecord
from stanch.errors import InvalidInput
from stanch.terms import Progress

Shard: TypeAlias = tuple[int, tuple[TokenRecord, ...]]
_MOST_BYTES = 1 << 32


class PassEngine(Protocol):
    """Puts shards of records through a model; the results do not depend on which engine does."""

    def run(
        self, scorer: Scorer, shards: Sequence[Shard], modes: tuple[Adapter, ...], decoding: Decoding
    ) -> Iterator[tuple[int, tuple[Features, ...]]]:
        """Yield a shard's number and one record's features in each mode, until all records of all shards are done."""
        ...


class LocalPass:
    """This process, with the scorer that it has loaded."""

    def run(
        self, scorer: Scorer, shards: Sequence[Shard], modes: tuple[Adapter, ...], decoding: Decoding
    ) -> Iterator[tuple[int, tuple[Features, ...]]]:
        """See :class:`PassEngine`."""
        for number, records in shards:
            for found in score_shard(scorer, records, modes, decoding):
                yield number, found


def score_shard(
    scorer: Scorer, records: Sequence[TokenRecord], modes: tuple[Adapter, ...], decoding: Decoding
) -> Iterator[tuple[Features, ...]]:
    """Yield each record's features in each mode; with two modes the layers below the adapter run once."""
    if len(modes) == 2:
        yield from scorer.paired_features(records, decoding=decoding)
    else:
        for found in scorer.features(records, decoding=decoding, adapter=modes[0]):
            yield (found,)


@dataclass(frozen=True, slots=True)
class Passing:
    """How feature passes are done.

    Attributes:
        engine: Who does the shards.
        keep: A private folder for finished shards; an audit of the same model and records takes up what lies there.
            None: nothing is kept.
        shard_records: Records of a shard.
    """

    engine: PassEngine = field(default_factory=LocalPass)
    keep: Path | None = None
    shard_records: int = SHARD_RECORDS


def run_pass(
    stage: str,
    scorer: Scorer,
    records: Sequence[TokenRecord],
    modes: tuple[Adapter, ...],
    decoding: Decoding,
    *,
    passing: Passing,
    progress: Progress,
) -> tuple[dict[str, Features], ...]:
    """Return the features of all records by id, once for each mode."""
    found: tuple[dict[str, Features], ...] = tuple({} for _ in modes)
    kinds = [PassOf(scorer.identity, mode, decoding) for mode in modes]
    # A model without a digest cannot be told from another one.
    keep = passing.keep if scorer.identity.model else None
    waiting: dict[int, tuple[TokenRecord, ...]] = {}
    for number, shard in enumerate(cut_shards(records, passing.shard_records)):
        finished = [] if keep is None else [_read(keep, kind, shard) for kind in kinds]
        kept = [features for features in finished if features is not None]
        if len(kept) < len(kinds):
            waiting[number] = shard
            continue
        for by_id, features in zip(found, kept, strict=True):
            by_id.update((one.record_id, one) for one in features)
        progress(stage, len(found[0]), len(records))
    open_shards = {number: len(shard) for number, shard in waiting.items()}
    for number, one in passing.engine.run(scorer, tuple(waiting.items()), modes, decoding):
        for by_id, features_of_one in zip(found, one, strict=True):
            by_id[features_of_one.record_id] = features_of_one
        open_shards[number] -= 1
        if keep is not None and not open_shards[number]:
            for kind, by_id in zip(kinds, found, strict=True):
                _write(keep, kind, waiting[number], by_id)
        progress(stage, len(found[0]), len(records))
    return found


def _read(folder: Path, kind: PassOf, shard: Sequence[TokenRecord]) -> list[Features] | None:
    """Return the features of a finished shard; None if there are none, or the file is damaged: then it is done again.

    Raises:
        InvalidInput: Others than the owner may read or write the file.
    """
    path = folder / kind.name(shard)
    if not path.exists():
        return None
    data = read_private(path, limit=_MOST_BYTES)
    try:
        return decode_features(data, kind, shard, what=path.name)
    except InvalidInput:
        return None


def _write(folder: Path, kind: PassOf, shard: Sequence[TokenRecord], found: dict[str, Features]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    data = encode_features(kind, shard, [found[record.id] for record in shard])
    write_atomic(folder / kind.name(shard), data, mode=0o600)
