"""Privacy that was spent on the same data before a run: by runs that it names, and by those that its base came from."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from stanch.errors import InvalidInput
from stanch.tune import journal as journals
from stanch.tune import statement as statements
from stanch.tune.refusals import PrivacySpent
from stanch.tune.statement import Earlier, EarlierRun, PrivacyStatement, UnfinishedRun
from stanch.tune.verify import verify_run


def read_earlier(
    named: Iterable[Path | Earlier], base: Path | None, dataset_root: str
) -> tuple[tuple[EarlierRun, ...], tuple[UnfinishedRun, ...]]:
    """Return the private runs on a dataset whose loss adds to that of a new one, each once; then those without an end.

    Args:
        named: The earlier runs that somebody names: folders, which are verified, or what a log says of them.
        base: Folder of the base model, if there is one: where a run on this very dataset made it, that run counts too.
        dataset_root: Root of the dataset's manifest.

    Raises:
        InvalidInput: A folder holds no private run on this dataset.
        PrivacySpent: The base was tuned on this dataset without a guarantee.
        VerificationError: A run's files do not agree.
    """
    found: dict[str, EarlierRun] = {}
    unfinished: dict[str, UnfinishedRun] = {}
    for one in named:
        if isinstance(one, UnfinishedRun):
            unfinished[one.journal] = one
            continue
        runs = (one,) if isinstance(one, EarlierRun) else _read_run(one, dataset_root)
        found |= {run.journal: run for run in runs}
    if base is not None:
        found |= {run.journal: run for run in _read_base(base, dataset_root)}
    return tuple(found.values()), tuple(unfinished.values())


def _read_run(folder: Path, dataset_root: str) -> tuple[EarlierRun, ...]:
    """Return a verified run, and before it those that it names itself."""
    run = verify_run(folder)
    if run.plan is None or run.head is None or run.plan.dataset_root != dataset_root:
        raise InvalidInput(
            f"{folder}: not a private run on this dataset",
            why="only the privacy loss of private runs on the same dataset adds up to a bound",
            next_step="name the runs on this dataset alone",
        )
    before = msgspec.convert(run.statement.fields["earlier_runs"], tuple[EarlierRun, ...])
    return (*before, EarlierRun.of(run.plan, run.head))


def _read_base(base: Path, dataset_root: str) -> tuple[EarlierRun, ...]:
    """Return the runs that made a base model, by the statement in its folder; none where it speaks of other data."""
    path = base / statements.NAME
    if not path.is_file() and not (base / journals.NAME).exists():
        return ()
    stated = PrivacyStatement.from_json(path.read_bytes()) if path.is_file() else None
    if stated is not None and stated.fields.get("dataset_root") != dataset_root:
        return ()
    if stated is None or stated.guarantee != "dp":
        raise PrivacySpent(
            f"{base}: the base model was tuned on this very dataset, and nothing bounds what it reveals",
            why="a private run cannot take back what its base has learned",
            next_step="start from the model that was there before, or tune without privacy",
        )
    return _read_run(base, dataset_root)
