"""The scan of one part of a dataset: a pure function of rows and policy, the same in whatever process it runs."""

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import orjson

from stanch.data.arrow_rows import key_names
from stanch.data.arrow_scan import SuspectRows
from stanch.data.chat import MAX_DEPTH, Slot, answers, fixed_parts
from stanch.data.dataset import Dataset, Entry, canonical_row
from stanch.data.readers_arrow import Table
from stanch.data.record import Record
from stanch.data.rows import Range, Row
from stanch.data.stage import Numbered, SharedDataset, StageSecrets
from stanch.errors import InvalidInput
from stanch.scan import Location, Operator, Replacer, ScanFinding, Scanner, ScanResult
from stanch.scan.policy_bytes import PolicySecrets, policy_from_bytes, policy_to_bytes

_REMEMBERED = 65_536
_POSITION = re.compile(r"\[[0-9]+\]")


class PartText(msgspec.Struct, frozen=True, array_like=True):
    """What was found in one text.

    Attributes:
        position: Position of its record in the part, from 0. Rows of a table that were scanned by its columns, and in
            which nothing was found, do not count.
        record: That record's id, without the number that tells equal ones apart.
        field: The path of the text.
        findings: The findings.
        residuals: What was not sure enough.
    """

    position: int
    record: str
    field: str
    findings: tuple[ScanFinding, ...]
    residuals: tuple[ScanFinding, ...]


class PartResult(msgspec.Struct, frozen=True, array_like=True):
    """The scan of one part.

    Attributes:
        records: Number of records.
        size: Bytes of the rows as JSON.
        names: With a dataset key, the 20 bytes of each record's id, one after the other; empty otherwise.
        texts: The texts in which something was found.
        skipped: A line for each row that cannot be read.
        rows: The redacted rows as JSON lines, if they were asked for.
        leaves: Then, with a dataset key, the SHA-256 of each record's canonical row, one after the other.
        dropped: How many rows the operator ``drop-record`` left out of them.
    """

    records: int
    size: int
    names: bytes
    texts: tuple[PartText, ...]
    skipped: tuple[str, ...]
    rows: bytes
    leaves: bytes
    dropped: int


@dataclass(frozen=True, slots=True)
class PartTask:
    """See :class:`stanch.data.stage.Task`: the dataset, the policy without its secrets, and whether to redact."""

    dataset: SharedDataset
    policy: bytes
    redact: bool

    def open(self, secrets: StageSecrets) -> "PartScanner":
        """Open the dataset and compile the policy."""
        if secrets.policy is None:
            raise InvalidInput("a scan needs the keys of its policy in every process")
        dataset = self.dataset.open(secrets.dataset_key)
        return PartScanner(dataset, Scanner(policy_from_bytes(self.policy, secrets.policy)), redact=self.redact)


class PartJob:
    """See :class:`stanch.data.stage.Job`: a dataset and a policy."""

    def __init__(self, dataset: Dataset, scanner: Scanner, *, redact: bool) -> None:
        self._dataset, self._scanner, self._redact = dataset, scanner, redact

    def here(self) -> "PartScanner":
        """Return what scans parts in this process."""
        return PartScanner(self._dataset, self._scanner, redact=self._redact)

    def task(self) -> PartTask:
        """Return what another process needs beside the secrets.

        Raises:
            InvalidInput: The policy cannot be shared among processes.
        """
        return PartTask(SharedDataset.of(self._dataset), policy_to_bytes(self._scanner.policy), self._redact)

    def secrets(self) -> StageSecrets:
        """Return what another process must hold."""
        return StageSecrets(PolicySecrets.of(self._scanner.policy), self._dataset.key)


class PartScanner:
    """Scans parts of one dataset."""

    def __init__(self, dataset: Dataset, scanner: Scanner, *, redact: bool) -> None:
        self._dataset, self._scanner, self._redact = dataset, scanner, redact
        self._names = _Names(scanner)

    def __call__(self, numbered: Numbered) -> bytes:
        """Return the :class:`PartResult` of a part in MessagePack."""
        return msgspec.msgpack.encode(self.scan(numbered[1]))

    def scan(self, part: Range) -> PartResult:
        """Scan one part.

        Raises:
            InvalidInput: A row cannot be read.
            LeakFound: A redaction does not come to an end.
        """
        skipped: dict[int, str] = {}
        held: list[Entry] = []
        leaves: list[bytes] = []
        keyed = self._dataset.key is not None
        names: list[str] = []
        texts: list[PartText] = []
        quick = self._quick()
        rows = list(self._dataset.read(part, skipped=skipped, choose=quick.choose if quick is not None else None))
        scanned = quick.results if quick is not None else {}
        clean = self.clean(rows) if quick is None else ()

        def entries() -> Iterator[Entry]:
            for entry in self._dataset.entries_of(rows, clean=clean, skipped=skipped, loose=True):
                names.append(entry[0].id.partition("-")[0])
                if self._redact:
                    held.append(entry)
                    if keyed:
                        leaves.append(hashlib.sha256(canonical_row(entry[2])).digest())
                known = scanned.get(int(entry[0].id[1:])) if scanned else None
                if known is None:
                    yield entry
                else:
                    texts.extend(self._known(entry, known))

        # A location is numbered while it is under way: ids are given in order, and only the caller knows the others.
        for result in self._scanner.scan_many(self._texts(entries())):
            if result.findings or result.residuals:
                position = int(result.location.record)
                found = PartText(position, names[position], result.location.field, result.findings, result.residuals)
                texts.append(found)
        texts.sort(key=lambda text: text.position)
        redacted = list(self._redacted(held, texts))
        return PartResult(
            records=len(names) + (quick.records if quick is not None else 0),
            size=sum(len(row.raw) for row in rows) + (quick.size if quick is not None else 0),
            names=b"".join(map(base64.b32decode, names)) if keyed else b"",
            texts=tuple(texts),
            skipped=tuple(reason for _, reason in sorted(skipped.items())),
            rows=b"".join(redacted),
            leaves=b"".join(leaves),
            dropped=len(held) - len(redacted),
        )

    def _quick(self) -> SuspectRows | None:
        """Return what chooses the rows of a table that must be read one by one; None if all must be."""
        dataset, table = self._dataset, self._dataset.file
        if self._redact or dataset.key is not None or not isinstance(table, Table):
            return None  # a row is written, or named by its content
        deep = str(table.form).count("<") > MAX_DEPTH
        if deep or not self._scanner.by_rules_alone or not all(map(self._is_plain, key_names(table.form))):
            return None
        return SuspectRows(self._scanner, dataset.chat, dataset.columns, self._names.shown)

    def _is_plain(self, name: str) -> bool:
        """Say whether nothing is found in a key name, and paths with it name one place."""
        return not set(name) & set(".[]") and self._names.is_clean(name)

    def clean(self, rows: Sequence[Row]) -> frozenset[int]:
        """Return the numbers of the rows that show by their line that nothing is found in them."""
        suspects = self._scanner.suspect_lines([row.raw for row in rows])
        return frozenset(
            row.number
            for position, row in enumerate(rows)
            if position not in suspects and row.raw.count(b"[") + row.raw.count(b"{") <= MAX_DEPTH
        )

    def _texts(self, entries: Iterable[Entry]) -> Iterator[tuple[Location, str]]:
        for record, places, row in entries:
            if not places:
                continue
            position = str(record.index)
            for text, before in zip(record.fields, (None, *record.fields), strict=False):
                follows = before is not None and answers(text.role, before.role)
                yield Location(position, self._names.shown(text.path), follows), text.text
            for path, part in fixed_parts(row):
                if not (isinstance(part, str) and self._names.is_clean(part)):
                    yield Location(position, self._names.shown(path)), str(part)

    def _known(self, entry: Entry, results: Mapping[str, ScanResult]) -> Iterator[PartText]:
        """Yield what was found in a row of a table, in the order of :meth:`_texts`."""
        record, _, row = entry
        paths = [text.path for text in record.fields]
        paths += [path for path, part in fixed_parts(row) if not isinstance(part, str)]
        for path in paths:
            if path in results:
                result = results[path]
                yield PartText(record.index, record.id, result.location.field, result.findings, result.residuals)

    def _redacted(self, held: Sequence[Entry], texts: Sequence[PartText]) -> Iterator[bytes]:
        touched = {text.position for text in texts if text.findings}
        doomed = {text.position for text in texts if any(self._drops(found.kind) for found in text.findings)}
        for record, places, row in held:
            if record.index in doomed or (record.index in touched and not self._redact_places(record, places)):
                continue
            # The reader refuses lines that say more than the row that was looked at.
            yield (orjson.dumps(row) if record.index in touched else record.raw) + b"\n"

    def _redact_places(self, record: Record, places: Sequence[Slot]) -> bool:
        """Redact a row in place; tell whether it stays. What comes to light on the way can drop it as well."""
        replacer = Replacer(self._scanner.policy)
        said, before = "", None
        for place in places:
            location, text = Location(record.id, place.path), place.text
            follows = before is not None and answers(place.role, before.role)
            # What the text before it says is looked at as it was found, and as it is written.
            for lead in dict.fromkeys([said, before.text] if follows and before is not None else [""]):
                done = self._scanner.redact(place.text, location=location, replacer=replacer, before=lead)
                if any(self._drops(finding.kind) for finding in done.findings):
                    return False
                place.replace(done.text)
            said, before = text, place
        return True

    def _drops(self, kind: str) -> bool:
        return self._scanner.policy.operator(kind) == Operator.DROP_RECORD


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
