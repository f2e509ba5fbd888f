"""The feature pass on a Ray cluster: one actor a worker holds the model; needs the extras ``ray`` and ``train``.

A task carries token ids of records, and features come back: both go through Ray's object store, which may write them to
the disks of the cluster. The model's directories must have the same paths on every machine, and each worker makes sure
that they hold what this process has loaded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stanch.audit.feature_file import PassOf, decode_features, encode_features
from stanch.audit.features import Adapter, Features, Scorer, ScorerIdentity
from stanch.audit.hf_torch import HfScorer, ModelPlaces
from stanch.audit.params import Decoding
from stanch.audit.passes import Shard, score_shard
from stanch.data import TokenRecord
from stanch.data.scale_ray import connect, rows_of
from stanch.errors import ExternalError, InvalidInput, StanchError


@dataclass(frozen=True, slots=True)
class RayPass:
    """Ray Data on the cluster that this process is connected to; without one, it connects first.

    A worker that ends is replaced and its shard is done again; a shard comes out once.

    Attributes:
        workers: Number of actors; each loads the model.
        address: ``local``: a cluster on this machine that is started for this process. Otherwise as ``ray.init`` takes
            it.
        gpus: Graphics processors of each actor.
    """

    workers: int = 2
    address: str = "local"
    gpus: float = 0

    def run(
        self, scorer: Scorer, shards: Sequence[Shard], modes: tuple[Adapter, ...], decoding: Decoding
    ) -> Iterator[tuple[int, tuple[Features, ...]]]:
        """See :class:`stanch.audit.passes.PassEngine`.

        Raises:
            MissingExtraError: Ray is not installed.
            InvalidInput: The model was opened from memory, so that no worker can load it; or a worker holds another.
            ExternalError: The cluster cannot be reached, or failed.
        """
        if not isinstance(scorer, HfScorer) or scorer.places is None:
            raise InvalidInput(
                "the model cannot be loaded by other processes",
                why="it was opened from memory, and no copy of it is written",
                next_step="leave out --engine",
            )
        if not shards:
            return
        data = connect(self.address)
        items = [{"number": number, "records": msgspec.msgpack.encode(records)} for number, records in shards]
        done = data.from_items(items, override_num_blocks=len(items)).map_batches(
            ShardWorker,
            fn_constructor_args=(scorer.places, scorer.identity, modes, decoding),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(size=min(self.workers, len(items))),
            num_gpus=self.gpus or None,
        )
        by_number = dict(shards)
        for row in rows_of(done, next_step="run the same command again: finished shards are kept"):
            if row["why"]:
                kind, what, why, next_step = row["why"]
                error = InvalidInput if kind == InvalidInput.__name__ else ExternalError
                raise error(what, why=why, next_step=next_step)
            records = by_number[row["number"]]
            columns = [
                decode_features(body, PassOf(scorer.identity, mode, decoding), records, what="features of a worker")
                for mode, body in zip(modes, row["bodies"], strict=True)
            ]
            for found in zip(*columns, strict=True):
                yield row["number"], found


class ShardWorker:
    """One actor: loads the model once, then does the shards that it is given."""

    def __init__(
        self, places: ModelPlaces, expected: ScorerIdentity, modes: tuple[Adapter, ...], decoding: Decoding
    ) -> None:
        self._modes, self._decoding = modes, decoding
        self._scorer: HfScorer | None = None
        self._error: StanchError | None = None
        try:
            self._scorer = places.load()
            if self._scorer.identity != expected:
                raise InvalidInput(
                    "a worker has another model, or other versions of its libraries",
                    why="features of two models cannot be compared",
                    next_step="give every machine the same files and the same packages",
                )
        # An error that leaves an actor's constructor is tried again without end.
        except StanchError as error:
            self._error = error

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - Arrow tables on both sides
        """Do the shard of each row of the batch."""
        import pyarrow as pa  # noqa: PLC0415 - Ray brings it

        done = [self._do(row["records"]) for row in batch.to_pylist()]
        numbers = [row["number"] for row in batch.to_pylist()]
        bodies, errors = zip(*done, strict=True)
        return pa.table({"number": numbers, "bodies": pa.array(bodies, pa.list_(pa.large_binary())), "why": errors})

    def _do(self, packed: bytes) -> tuple[list[bytes], list[str]]:
        error = self._error
        if self._scorer is not None and error is None:
            records = msgspec.msgpack.decode(packed, type=tuple[TokenRecord, ...])
            try:
                found = list(score_shard(self._scorer, records, self._modes, self._decoding))
            except StanchError as raised:
                error = raised
            else:
                kinds = [PassOf(self._scorer.identity, mode, self._decoding) for mode in self._modes]
                columns = zip(kinds, zip(*found, strict=True), strict=True)
                return [encode_features(kind, records, column) for kind, column in columns], []
        if error is None:
            raise AssertionError  # the constructor leaves one of the two
        return [], [type(error).__name__, error.what, error.why, error.next_step]
