"""Scans a dataset for what must not be tuned on, and writes it without that."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from stanch.data.chat import Slot, fixed_parts
from stanch.data.dataset import Dataset
from stanch.data.provenance import derive, read_steps
from stanch.data.record import Record
from stanch.errors import InvalidInput, LeakFound
from stanch.scan import Location, Operator, Replacer, ReportBuilder, Scanner, ScanReport
from stanch.terms import SILENT, Progress

_REMEMBERED = 65_536
_PROGRESS_EVERY = 1_000
_POSITION = re.compile(r"\[[0-9]+\]")


def scan_dataset(
    dataset: Dataset, scanner: Scanner, *, out: Path | None = None, progress: Progress = SILENT
) -> ScanReport:
    """Scan every string, key name and number of ``dataset``; with ``out``, write it redacted.

    The new file keeps the schema and the order of the rows; roles and other structure stay as they are. Only the
    operator ``drop-record`` leaves rows out; they are counted. The file is scanned again, and the vault of the policy
    is saved, before it appears. The report is that of the dataset as it was: places and kinds, never a value.

    Args:
        dataset: The dataset.
        scanner: What to look for, and what replaces it.
        out: The redacted file.
        progress: Told the stages ``scan``, ``redact`` and ``check`` in records.

    Raises:
        InvalidInput: A row cannot be read, the dataset holds canaries, or ``out`` cannot be written.
        LeakFound: Findings would remain in ``out`` (in a key name or a number, which are not rewritten). Nothing is
            written then.
    """
    if out is not None and any(step.operation == "inject" for step in read_steps(dataset)):
        raise InvalidInput(
            f"{dataset.uri}: holds canaries and is not redacted",
            why="a redacted canary would spoil the audit without a trace",
            next_step="redact first, then inject",
        )
    report = _scan(dataset, scanner, ("scan", progress))
    if out is not None:
        redaction = _Redaction(scanner, report)
        parameters = {"pack": str(report.pack), "policy": str(report.policy), "findings": len(report.findings)}

        def check(written: Path) -> None:
            _check(Dataset(written, chat=dataset.chat, columns=dataset.columns), scanner, progress, out)
            if scanner.policy.vault is not None:
                scanner.policy.vault.save()

        derive(dataset, out, ("redact", parameters), redaction.lines(dataset, progress), approve=check)
        return replace(report, dropped=redaction.dropped)
    return report


def _scan(dataset: Dataset, scanner: Scanner, stage: tuple[str, Progress]) -> ScanReport:
    builder = ReportBuilder(scanner.policy, scanner.engine)
    texts = _texts(dataset, _Names(scanner), builder, stage)
    for result in scanner.scan_many(texts):
        builder.add(result)
    return builder.build()


def _texts(
    dataset: Dataset, names: "_Names", builder: ReportBuilder, stage: tuple[str, Progress]
) -> Iterator[tuple[Location, str]]:
    for record, _, row in _followed(dataset, *stage):
        builder.record()
        for field in record.fields:
            yield Location(record.id, names.shown(field.path)), field.text
        for path, part in fixed_parts(row):
            if not (isinstance(part, str) and names.is_clean(part)):
                yield Location(record.id, names.shown(path)), str(part)


class _Redaction:
    """The pass that writes rows without their findings."""

    def __init__(self, scanner: Scanner, report: ScanReport) -> None:
        self._scanner = scanner
        self._touched = {location.record for location, _ in report.findings}
        self._doomed = {location.record for location, finding in report.findings if self._drops(finding.kind)}
        self.dropped = 0

    def lines(self, dataset: Dataset, progress: Progress) -> Iterator[bytes]:
        for record, places, row in _followed(dataset, "redact", progress):
            if self._keeps(record, places):
                # Always written anew: the raw line may hide a value under a key that stands twice.
                yield orjson.dumps(row)
            else:
                self.dropped += 1

    def _keeps(self, record: Record, places: list[Slot]) -> bool:
        """Redact a row in place; tell whether it stays. What comes to light on the way can drop it as well."""
        if record.id in self._doomed:
            return False
        if record.id in self._touched:
            replacer = Replacer(self._scanner.policy)
            for place in places:
                location = Location(record.id, place.path)
                done = self._scanner.redact(place.text, location=location, replacer=replacer)
                if any(self._drops(finding.kind) for finding in done.findings):
                    return False
                place.replace(done.text)
        return True

    def _drops(self, kind: str) -> bool:
        return self._scanner.policy.operator(kind) == Operator.DROP_RECORD


def _check(written: Dataset, scanner: Scanner, progress: Progress, out: Path) -> None:
    remaining = _scan(written, scanner, ("check", progress))
    if remaining.findings:
        kinds = ", ".join(count.kind for count in remaining.counts)
        raise LeakFound(
            f"{out}: {len(remaining.findings)} findings would remain ({kinds}); nothing was written",
            why="key names and numbers are reported and not rewritten",
            next_step="rename the keys, write the numbers as strings, or turn the kinds off",
        )


def _followed(dataset: Dataset, stage: str, progress: Progress) -> Iterator[tuple[Record, list[Slot], dict[str, Any]]]:
    total = len(dataset)
    for entry in dataset.entries():
        yield entry
        done = entry[0].index + 1
        if done % _PROGRESS_EVERY == 0 or done == total:
            progress(stage, done, total)


class _Names:
    """Judges key names and paths, which repeat in every row, once each."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._clean: set[str] = set()

    def shown(self, path: str) -> str:
        """Return a path for the report; keys that are findings themselves are replaced in it."""
        return path if self.is_clean(_POSITION.sub("[]", path)) else self._scanner.redact(path).text

    def is_clean(self, text: str) -> bool:
        """Say whether nothing is found in a key name or path."""
        if text in self._clean:
            return True
        result = self._scanner.scan(text)
        if result.findings or result.residuals:
            return False
        if len(self._clean) >= _REMEMBERED:
            self._clean.clear()
        self._clean.add(text)
        return True
