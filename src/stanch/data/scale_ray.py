"""Scans the parts of a dataset on a Ray cluster; needs the extra ``ray``.

A task carries the dataset's path, the policy without its secrets, and check values. The secrets never travel in it:
each worker fetches them itself, from wherever its key service is, and refuses to work if they are not the right ones.
The dataset must have the same path on every machine.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stanch.data.engines import Numbered
from stanch.data.part_scan import PartJob, PartScanner, PartSecrets, PartTask
from stanch.data.rows import Range
from stanch.errors import ExternalError, InvalidInput, MissingExtraError, StanchError


@dataclass(frozen=True, slots=True)
class Ray:
    """Ray Data on the cluster that this process is connected to, or on one that it starts on this machine.

    Attributes:
        fetch: Returns the secrets; called in each worker. A function of a module, or a ``functools.partial`` of one
            over paths and names, never over keys.
        workers: Number of workers.
    """

    fetch: Callable[[], PartSecrets]
    workers: int = 2

    def run(self, job: PartJob, parts: Sequence[Numbered]) -> Iterator[tuple[int, bytes]]:
        """See :class:`stanch.data.engines.Engine`.

        Raises:
            MissingExtraError: Ray is not installed.
            InvalidInput: A worker cannot open the dataset, or holds other secrets.
            ExternalError: The cluster failed.
        """
        data = _ray_data()
        if not parts:
            return
        items = [
            {"number": number, "start": part.start, "stop": part.stop, "first": part.first} for number, part in parts
        ]
        results = data.from_items(items, override_num_blocks=len(items)).map_batches(
            PartWorker,
            fn_constructor_args=(job.task(), self.fetch),
            batch_size=1,
            batch_format="pyarrow",
            concurrency=min(self.workers, len(items)),
        )
        for row in _rows(results):
            if row["error"]:
                raise InvalidInput(row["error"], next_step="see that every machine has the data set and the keys")
            yield row["number"], row["body"]


class PartWorker:
    """One actor: opens the dataset once, then scans the parts that it is given."""

    def __init__(self, task: PartTask, fetch: Callable[[], PartSecrets]) -> None:
        self._scanner: PartScanner | None = None
        self._error = ""
        try:
            self._scanner = PartScanner.open(task, fetch())
        # An error that leaves an actor's constructor is tried again without end.
        except StanchError as error:
            self._error = error.what

    def __call__(self, batch: Any) -> Any:  # noqa: ANN401 - Arrow tables on both sides
        """Scan the part of each row of the batch."""
        import pyarrow as pa  # noqa: PLC0415 - Ray brings it

        numbers, bodies, errors = [], [], []
        for row in batch.to_pylist():
            numbers.append(row["number"])
            body, error = self._scan(Range(row["start"], row["stop"], row["first"]))
            bodies.append(body)
            errors.append(error)
        return pa.table({"number": numbers, "body": pa.array(bodies, pa.large_binary()), "error": errors})

    def _scan(self, part: Range) -> tuple[bytes, str]:
        if self._scanner is None:
            return b"", self._error
        try:
            return msgspec.msgpack.encode(self._scanner.scan(part)), ""
        except StanchError as error:
            return b"", error.what


def _rows(results: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - Ray ships no types
    from ray.exceptions import RayError  # noqa: PLC0415 - an optional part

    try:
        yield from results.iter_rows()
    except RayError as error:
        raise ExternalError(
            f"Ray failed: {type(error).__name__}",
            why="a worker or the cluster ended",
            next_step="run the same command again: finished parts are kept",
        ) from None


def _ray_data() -> Any:  # noqa: ANN401 - Ray ships no types
    try:
        import ray.data  # noqa: PLC0415 - an optional part
    except ImportError:
        raise MissingExtraError("ray") from None
    return ray.data
