"""A callback for other people's trainers, without privacy: it checks planted canaries and records the run."""

import math
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from transformers import TrainerCallback

from stanch import __version__
from stanch.crypto import canonical_json, parse_json
from stanch.data import CanaryPlan, Dataset, DatasetManifest, inject, tokenise_canary
from stanch.errors import InvalidInput, MissingExtraError, StanchError
from stanch.terms import Digest, EntryRef, JsonValue
from stanch.tune.record import Recorder, TrainEvent
from stanch.tune.refusals import CanariesMissing
from stanch.tune.rows import IGNORED
from stanch.weights import directory_digest

_SHOWN = 16
_MAX_ROW = 64 << 20


class StanchCallback(TrainerCallback):
    """Plants canaries, checks that they reach the tokens that are tuned on, and records the run. No guarantee.

    Training does not start unless its begin is recorded durably, and stops where a later event cannot be. Of several
    processes the first alone checks and records. Used as a context around ``trainer.train()``, it records a failure::

        callback = StanchCallback(plan, recorder)
        rows = callback.plant(dataset, committed=entry, out=Path("planted.jsonl"))
        trainer = SFTTrainer(model, train_dataset=rows, callbacks=[callback])
        with callback:
            trainer.train()

    Args:
        plan: The canaries; None checks nothing.
        recorder: Where events go.
        dataset: The manifest of what is tuned on, for the record.
    """

    def __init__(self, plan: CanaryPlan | None, recorder: Recorder, dataset: DatasetManifest | None = None) -> None:
        self._plan = plan
        self._recorder = recorder
        self._dataset = dataset
        self._run = secrets.token_hex(16)
        self._begun = False

    def plant(self, dataset: Dataset, *, committed: EntryRef, out: Path, unit_column: str | None = None) -> Any:  # noqa: ANN401 - datasets ships no types
        """Write ``dataset`` with the canaries to ``out``, and return it as a ``datasets.Dataset`` of the same columns.

        Arguments are those of :func:`stanch.data.inject`.

        Raises:
            MissingExtraError: The package datasets is not installed.
            InvalidInput: There is no plan, a row is no JSON object, or as :func:`stanch.data.inject`.
        """
        try:
            import datasets  # noqa: PLC0415 - optional part
        except ImportError as error:
            raise MissingExtraError("trl") from error
        if self._plan is None:
            raise InvalidInput("plant: the callback has no canary plan", next_step="give it one")
        injected = inject(dataset, self._plan, committed=committed, out=out, unit_column=unit_column)
        self._plan = injected.plan
        return datasets.Dataset.from_list([_row(raw.raw, out) for raw in injected.dataset])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - as transformers calls it, here and below
        """Check the canaries and record the begin, or raise."""
        if not state.is_world_process_zero:
            return
        self._begun = True
        facts = {**self._facts(args, kwargs.get("model")), "step": int(state.global_step)}
        try:
            if self._plan is not None:
                found = check_planted(self._plan, _tokens(kwargs["train_dataloader"]), kwargs["processing_class"])
                facts |= {"canary_commitment": self._plan.commitment, "canaries_cut": found}
            self._record("train.begin", facts)
        except StanchError as error:
            self._fail(error)
            raise

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - same
        """Record what the trainer logs."""
        if not state.is_world_process_zero:
            return
        figures: dict[str, JsonValue] = {
            name: float(value) if math.isfinite(value) else None
            for name, value in (kwargs.get("logs") or {}).items()
            if isinstance(value, int | float)
        }
        self._record("train.progress", {**figures, "step": int(state.global_step)})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - same
        """Record a checkpoint by the digest of its files."""
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        digest = str(directory_digest(folder).root) if folder.is_dir() else None
        self._record("checkpoint.saved", {"step": int(state.global_step), "files_digest": digest})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002 - same
        """Record the end."""
        if not state.is_world_process_zero:
            return
        self._record("train.end", {"step": int(state.global_step)})
        self._begun = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None and self._begun:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._begun = False
        # The failure itself matters more than a recorder that fails too.
        with suppress(StanchError):
            self._record("train.failed", {"error": type(error).__name__})

    def _record(self, kind: str, facts: Mapping[str, JsonValue]) -> None:
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._recorder.record(TrainEvent(kind, self._run, at, facts))

    def _facts(self, args: Any, model: Any) -> dict[str, JsonValue]:  # noqa: ANN401 - transformers ships no types
        settings: JsonValue = {name: str(value) for name, value in args.to_sanitized_dict().items()}
        base = Path(getattr(model, "name_or_path", None) or "-")
        return {
            "guarantee": "none",
            "config_digest": Digest.sha256(canonical_json(settings)).hex,
            "base_digest": str(directory_digest(base).root) if (base / "config.json").is_file() else None,
            "dataset_root": self._dataset.root if self._dataset is not None else None,
            "versions": {"stanch": __version__, **{name: version(name) for name in ("torch", "transformers")}},
        }


@dataclass(frozen=True, slots=True)
class TokenStream:
    """All rows end to end: token ids, whether each is learned, and the number of its row."""

    ids: npt.NDArray[np.uint64]
    learned: npt.NDArray[np.bool_]
    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[tuple[Sequence[int], Sequence[bool]]]) -> Self:
        """Join rows of token ids and labels."""
        found = [(np.asarray(ids, np.uint64), np.asarray(learned, np.bool_)) for ids, learned in rows]
        if not found:
            return cls(np.zeros(0, np.uint64), np.zeros(0, np.bool_), np.zeros(0, np.int64))
        numbers = np.repeat(np.arange(len(found)), [len(ids) for ids, _ in found])
        return cls(np.concatenate([ids for ids, _ in found]), np.concatenate([own for _, own in found]), numbers)

    def find(self, needles: Mapping[tuple[int, ...], str]) -> Iterator[tuple[str, slice]]:
        """Yield the name and place of each occurrence of a needle, across rows too."""
        for width in sorted({len(needle) for needle in needles}):
            wanted = {needle: name for needle, name in needles.items() if len(needle) == width}
            # A hash of each window; its factors are fixed, and each hit is compared.
            factors = np.random.default_rng(0).integers(1, 1 << 63, width, dtype=np.uint64) | np.uint64(1)
            last = len(self.ids) - width + 1
            if last < 1:
                continue
            hashes = np.zeros(last, np.uint64)
            for offset, factor in enumerate(factors):
                hashes += self.ids[offset : last + offset] * factor
            keys = [int((np.array(needle, np.uint64) * factors).sum()) for needle in wanted]
            for place in np.flatnonzero(np.isin(hashes, np.array(keys, np.uint64))):
                span = slice(int(place), int(place) + width)
                name = wanted.get(tuple(int(token) for token in self.ids[span]))
                if name is not None:
                    yield name, span


def check_planted(plan: CanaryPlan, stream: TokenStream, tokenizer: Any) -> int:  # noqa: ANN401 - transformers ships no types
    """Return how many planted secrets are cut by the border of a row, as packing does.

    Each canary with coin 1 must stand there ``copies`` times with its whole secret learned, each other one not at all.

    Raises:
        CanariesMissing: They do not; the message lists the ids.
    """
    needles = {}
    for canary in plan.canaries:
        tokens = tokenise_canary(canary, tokenizer)
        needles[tokens.ids[slice(*tokens.span)]] = canary.id
    counts: Counter[str] = Counter()
    present, cut = set(), 0
    for name, span in stream.find(needles):
        present.add(name)
        counts[name] += bool(stream.learned[span].all())
        cut += int(stream.rows[span][0] != stream.rows[span][-1])
    wrong = [c.id for c in plan.canaries if (counts[c.id] != c.copies if c.member else c.id in present)]
    if len(needles) != len(plan.canaries) or wrong:
        shown = ", ".join(wrong[:_SHOWN]) + (" …" if len(wrong) > _SHOWN else "")
        raise CanariesMissing(
            f"{len(wrong)} of {len(plan.canaries)} canaries are not in the trainer's rows as planned: {shown}",
            why="another file than the planted one, de-duplication or a short max_length are the usual causes",
            next_step="train on what plant returned, and allow enough tokens",
        )
    return cut


def _tokens(loader: Any) -> TokenStream:  # noqa: ANN401 - transformers ships no types
    """Read the rows as the trainer will: each alone through its collator, without padding."""
    rows = getattr(loader, "dataset", None)
    if rows is None or not hasattr(rows, "__len__"):
        raise CanariesMissing(
            "the trainer's rows cannot be read before training",
            why="a stream has no end, so nobody knows whether all canaries are in it",
            next_step="use a dataset with a length",
        )
    return TokenStream.of(_row_tokens(loader.collate_fn([rows[number]])) for number in range(len(rows)))


def _row_tokens(batch: Mapping[str, Any]) -> tuple[list[int], list[bool]]:
    ids = batch["input_ids"].reshape(-1)
    labels = batch.get("labels", batch["input_ids"]).reshape(-1)
    seen = batch.get("attention_mask", ids.new_ones(ids.shape)).reshape(-1).bool()
    return ids[seen].tolist(), (labels != IGNORED)[seen].tolist()


def _row(raw: bytes, path: Path) -> dict[str, Any]:
    row = parse_json(raw, what=str(path), max_bytes=_MAX_ROW)
    if not isinstance(row, dict):
        raise InvalidInput(f"{path}: a row is no JSON object", next_step="trainers need named columns")
    return row
