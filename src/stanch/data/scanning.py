"""Scans a dataset for what must not be tuned on, and writes it without that."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from stanch.data.dataset import Dataset
from stanch.data.engines import LOCAL, Engine
from stanch.data.part_scan import PartJob, PartResult, PartText
from stanch.data.pass_file import PassFile
from stanch.data.provenance import derive, file_digest, read_steps
from stanch.data.record_names import NAME_SIZE, shown_names
from stanch.data.spill import Spill
from stanch.data.stage import Numbered
from stanch.data.tree import RootBuilder
from stanch.errors import InvalidInput, LeakFound, StanchError
from stanch.scan import FOLD, Location, ReportBuilder, Scanner, ScanReport, ScanResult
from stanch.scan.policy_bytes import PolicySecrets
from stanch.terms import SILENT, JsonValue, Progress


@dataclass(frozen=True, slots=True)
class ScanPlan:
    """How a dataset is scanned; none of it changes the result.

    Attributes:
        engine: Who scans the parts.
        resume: Where finished parts are kept until all are done. A pass over the same file under the same policy and
            keys goes on from there. By default ``.<out>.pass`` beside a file that is written, and nowhere else.
    """

    engine: Engine = LOCAL
    resume: Path | None = None


def scan_dataset(
    dataset: Dataset,
    scanner: Scanner,
    *,
    out: Path | None = None,
    plan: ScanPlan = ScanPlan(),
    progress: Progress = SILENT,
) -> ScanReport:
    """Scan every string, key name and number of ``dataset``; with ``out``, write it redacted.

    The new file keeps the schema and the order of the rows; roles and other structure stay as they are. Only the
    operator ``drop-record`` leaves rows out; they are counted. The file is scanned again, and the vault of the policy
    is saved, before it appears. The report is that of the dataset as it was: places and kinds, never a value.

    Args:
        dataset: The dataset.
        scanner: What to look for, and what replaces it.
        out: The redacted file; its ending says in which format.
        plan: How to scan.
        progress: Told the stages ``scan`` and ``check`` in records, part by part.

    Raises:
        InvalidInput: A row cannot be read, the dataset holds canaries, ``out`` cannot be written, or ``plan.resume``
            holds another pass.
        LeakFound: Findings would remain in ``out`` (in a key name or a number, which are not rewritten). Nothing is
            written then.
    """
    if out is None:
        work = _Pass(dataset, scanner, plan, redact=False)
        with work.kept(plan.resume) as kept:
            report = work.report(work.results(kept, ("scan", progress)))
    else:
        report = _redact(dataset, scanner, out, plan, progress)
    if plan.resume is not None:
        plan.resume.unlink()
    return report


def _redact(dataset: Dataset, scanner: Scanner, out: Path, plan: ScanPlan, progress: Progress) -> ScanReport:
    if any(step.operation == "inject" for step in read_steps(dataset)):
        raise InvalidInput(
            f"{dataset.uri}: holds canaries and is not redacted",
            why="a redacted canary would spoil the audit without a trace",
            next_step="redact first, then inject",
        )
    vault = scanner.policy.vault
    if vault is not None and plan.resume is not None:
        raise InvalidInput(
            "a pass with a vault cannot be resumed",
            why="the values of a part that is done would be missing from it",
            next_step="leave out --resume",
        )
    work = _Pass(dataset, scanner, plan, redact=True)
    own = out.with_name(f".{out.name}.pass") if plan.resume is None else None

    def check(written: Path) -> None:
        copy = Dataset(written, chat=dataset.chat, columns=dataset.columns)
        again = _Pass(copy, scanner, plan, redact=False)
        _check(again.report(again.results(None, ("check", progress))), out)
        if vault is not None:
            vault.save()

    with work.kept(plan.resume or own, anew=own is not None) as kept:
        try:
            root = None if dataset.key is None else RootBuilder(dataset.key)
            report = work.report(work.results(kept, ("scan", progress)), root)
            rows = (row for result in work.stored(kept) for row in result.rows.split(b"\n")[:-1])
            parent = None if root is None else root.root()
            derive(dataset, out, ("redact", _parameters(report)), rows, approve=check, parent=parent)
        except StanchError:
            if own is not None:
                own.unlink(missing_ok=True)
            raise
        if own is not None:
            own.unlink(missing_ok=True)
    return report


def _parameters(report: ScanReport) -> dict[str, JsonValue]:
    facts: dict[str, JsonValue] = {
        "pack": str(report.pack),
        "policy": str(report.policy),
        "findings": len(report.findings),
    }
    return facts | ({"skipped": len(report.skipped)} if report.skipped else {})


class _Pass:
    """One pass of a policy over a dataset, part by part."""

    def __init__(self, dataset: Dataset, scanner: Scanner, plan: ScanPlan, *, redact: bool) -> None:
        self._dataset, self._scanner, self._engine = dataset, scanner, plan.engine
        self._redact = redact
        self._parts: Sequence[Numbered] = tuple(enumerate(dataset.file.parts()))

    def kept(self, path: Path | None, *, anew: bool = False) -> AbstractContextManager[PassFile | None]:
        """Open the file of finished parts, if there is to be one; ``anew``: also where another pass left its own."""
        if path is None:
            return nullcontext()
        return PassFile.open(path, self._about(), key=self._scanner.policy.report_key, anew=anew)

    def results(self, kept: PassFile | None, stage: tuple[str, Progress]) -> Iterator[PartResult]:
        """Yield the results of all parts in their order; what is kept already is not done again."""
        name, progress = stage
        total, done = len(self._dataset), 0
        waiting: dict[int, bytes] = {}
        todo = [entry for entry in self._parts if kept is None or entry[0] not in kept]
        running = self._engine.run(PartJob(self._dataset, self._scanner, redact=self._redact), todo)
        for number, _ in self._parts:
            while number not in waiting and (kept is None or number not in kept):
                finished, body = next(running)
                if kept is None:
                    waiting[finished] = body
                else:
                    kept.add(finished, body)
            result = _decode(waiting.pop(number) if kept is None else kept.read(number))
            done += result.records
            yield result
            progress(name, done, total)

    def stored(self, kept: PassFile | None) -> Iterator[PartResult]:
        """Yield the results of all parts, all of which are kept."""
        return (_decode(kept.read(number)) for number, _ in self._parts) if kept is not None else iter(())

    def report(self, results: Iterator[PartResult], root: RootBuilder | None = None) -> ScanReport:
        """Join the results of the parts; ``root`` takes the digests of their rows."""
        builder = ReportBuilder(self._scanner.policy, self._scanner.engine)
        found: list[tuple[int, PartText]] = []
        first = dropped = 0
        with Spill(np.uint8, NAME_SIZE) as spill:
            for result in results:
                builder.record(result.records)
                builder.size += result.size
                dropped += result.dropped
                for reason in result.skipped:
                    builder.skip(reason)
                found += ((first + text.position, text) for text in result.texts)
                first += result.records
                spill.append(np.frombuffer(result.names, np.uint8))
                if root is not None:
                    root.add(result.leaves)
            keyed = self._dataset.key is not None
            names = shown_names(spill.mapped(), {place for place, _ in found}) if keyed else {}
        for place, text in found:
            location = Location(names.get(place, text.record), text.field)
            builder.add(ScanResult(location, text.findings, text.residuals, 0))
        return replace(builder.build(), dropped=dropped)

    def _about(self) -> dict[str, JsonValue]:
        dataset, policy = self._dataset, self._scanner.policy
        return {
            # The values of a part that is done would be missing from a vault: such a pass is never gone on with.
            "once": secrets.token_hex(16) if self._redact and policy.vault is not None else "",
            "fold": FOLD,
            "source": file_digest(dataset.path),
            "parts": [[part.start, part.stop] for _, part in self._parts],
            "task": [dataset.chat.value, list(dataset.columns), dataset.skip_bad, self._redact],
            "policy": str(policy.digest()),
            "secrets": PolicySecrets.of(policy).check_value().hex(),
            "dataset_key": dataset.key_check(),
        }


def _decode(body: bytes) -> PartResult:
    return msgspec.msgpack.decode(body, type=PartResult)


def _check(report: ScanReport, out: Path) -> None:
    if report.findings:
        kinds = ", ".join(count.kind for count in report.counts)
        raise LeakFound(
            f"{out}: {len(report.findings)} findings would remain ({kinds}); nothing was written",
            why="key names and numbers are reported and not rewritten",
            next_step="rename the keys, write the numbers as strings, or turn the kinds off",
        )
