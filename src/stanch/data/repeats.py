"""Long runs of text that stand in more than one record: what a model learns by heart first.

Fingerprints of windows are thinned by winnowing, so that two texts that share a long run share a fingerprint. A first
pass counts in how many records each stands, in a sketch of fixed size; a second one keeps those that may be repeated,
on disk; then bytes are compared and runs extended. Source: Schleimer, Wilkerson, Aiken, Winnowing (2003); Cormode,
Muthukrishnan, Count-Min (2005).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stanch.crypto import RandomBytes, canonical_json, random_bytes
from stanch.data.dataset import Dataset
from stanch.data.runs import PLACE, Place, Run, Runs
from stanch.data.spill import Spill
from stanch.data.winnowing import CountMin, Winnower
from stanch.errors import InvalidInput
from stanch.scan import fold_text
from stanch.terms import JsonValue

_SHORTEST, _LONGEST = 64, 4096
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class RepeatedSpan:
    """A run of folded text that stands in several records. No text.

    Attributes:
        length: Folded bytes, cut to whole words.
        records: Number of records that hold it.
        occurrences: How often it stands in them.
        bits: Length times the entropy of a character after two others, in this dataset.
        risk: Occurrences times bits.
        ids: Ids of the first hundred of these records.
    """

    length: int
    records: int
    occurrences: int
    bits: float
    risk: float
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RepeatReport:
    """The repeated spans of a dataset, the riskiest first. No text.

    Attributes:
        spans: What was found.
        records: Number of records read.
        min_chars: The shortest run that was looked for, in folded bytes.
        bits_per_char: Entropy of a character after two others.
    """

    spans: tuple[RepeatedSpan, ...] = field(repr=False)
    records: int
    min_chars: int
    bits_per_char: float

    def to_json(self) -> bytes:
        """Return ``stanch/repeat-report/v1`` in canonical JSON."""
        spans: list[JsonValue] = [
            {
                "length": span.length,
                "records": span.records,
                "occurrences": span.occurrences,
                "bits": span.bits,
                "risk": span.risk,
                "ids": list(span.ids),
            }
            for span in self.spans
        ]
        return canonical_json(
            {
                "schema": "stanch/repeat-report/v1",
                "records": self.records,
                "min_chars": self.min_chars,
                "bits_per_char": self.bits_per_char,
                "spans": spans,
            }
        )


def find_repeated_spans(dataset: Dataset, *, min_chars: int = 200, rng: RandomBytes = random_bytes) -> RepeatReport:
    """Find every run of at least ``min_chars`` folded bytes that stands in the texts of two or more records.

    A run is as long as all its occurrences agree, and is reported from its first whole word to its last. A part of
    a run that stands in more records is a run of its own. Compared is the ``index`` view of each text of a record.

    Memory: 256 MiB, the ids, and a sixteenth of the repeated fingerprints at a time. The folded texts
    that hold a repeated fingerprint lie in a file without a name while it runs.

    Args:
        dataset: The dataset; read twice.
        min_chars: 64 to 4,096.
        rng: Source of the key of the fingerprints, so that nobody can make texts that meet in the sketch.

    Raises:
        InvalidInput: ``min_chars`` is out of range, or a row cannot be read.
    """
    if not _SHORTEST <= min_chars <= _LONGEST:
        raise InvalidInput(f"repeated spans: expected {_SHORTEST} to {_LONGEST} characters, found {min_chars}")
    winnower = Winnower(rng(32), min_chars)
    ids, counts, trigrams = [], CountMin(), _Trigrams()
    for name, texts in _long_texts(dataset, min_chars):
        ids.append(name)
        counts.add(np.concatenate([np.empty(0, np.uint64), *(winnower.winnow(text)[0] for text in texts)]))
        for text in texts:
            trigrams.add(text)
    bits_per_char = trigrams.entropy()
    with Spill(np.uint8) as texts_file, Spill(PLACE) as places_file:
        _keep_repeated(dataset, min_chars, winnower, counts, texts_file, places_file)
        runs = Runs(texts_file.mapped(), winnower.window, min_chars)
        found = runs.find(places_file.mapped())
    spans = [_span(run, ids, bits_per_char) for run in found]
    spans.sort(key=lambda span: (-span.risk, -span.length, span.ids))
    return RepeatReport(tuple(spans), len(ids), min_chars, bits_per_char)


def _long_texts(dataset: Dataset, min_chars: int) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the id of each record, and its folded texts that are long enough."""
    for record in dataset:
        folded = (fold_text(field.text, "index") for field in record.fields)
        yield record.id, [text for text in folded if len(text) >= min_chars]


def _keep_repeated(
    dataset: Dataset,
    min_chars: int,
    winnower: Winnower,
    counts: CountMin,
    texts_file: Spill[np.uint8],
    places_file: Spill[np.void],
) -> None:
    """Write the places whose fingerprint may stand in two records, and the texts that hold one."""
    length = 0
    for number, (_, texts) in enumerate(_long_texts(dataset, min_chars)):
        for text in texts:
            prints, starts = winnower.winnow(text)
            repeated = counts.in_several(prints)
            if not repeated.any():
                continue
            places: Place = np.empty(int(repeated.sum()), PLACE)
            places["print"], places["at"] = prints[repeated], starts[repeated] + length
            places["record"], places["low"], places["high"] = number, length, length + len(text)
            places_file.append(places)
            texts_file.append(np.frombuffer(text, np.uint8))
            length += len(text)


def _span(run: Run, ids: Sequence[str], bits_per_char: float) -> RepeatedSpan:
    bits = run.length * bits_per_char
    shown = tuple(ids[number] for number in run.records[:_SHOWN])
    return RepeatedSpan(run.length, len(run.records), run.occurrences, bits, run.occurrences * bits, shown)


class _Trigrams:
    """Counts of three bytes in a row."""

    def __init__(self) -> None:
        self._counts = np.zeros(1 << 24, np.uint32)

    def add(self, text: bytes) -> None:
        codes: npt.NDArray[np.uint32] = np.frombuffer(text, np.uint8).astype(np.uint32)
        np.add.at(self._counts, codes[:-2] << 16 | codes[1:-1] << 8 | codes[2:], 1)

    def entropy(self) -> float:
        """Return the entropy, in bits, of a byte after the two before it; 0 without text."""
        pairs = np.repeat(self._counts.reshape(-1, 256).sum(axis=1, dtype=np.uint64), 256)
        seen = np.flatnonzero(self._counts)
        counts = self._counts[seen].astype(np.float64)
        return float(-(counts * np.log2(counts / pairs[seen])).sum() / max(counts.sum(), 1))
