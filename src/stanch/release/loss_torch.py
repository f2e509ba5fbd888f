"""The loss of a model that need not lie on a disk: it is loaded from memory, as its recipient will load it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stanch.audit.params import Decoding
from stanch.audit.sealed_torch import load_scorer
from stanch.data import Record, tokenise
from stanch.errors import InvalidInput, NotFound
from stanch.release.utility import Loss
from stanch.seal import BaseModel
from stanch.terms import SILENT, Progress, Source, SourceFile
from stanch.weights import Header, read_head


class SourceFiles:
    """A source as the loaders of bundles read it: each file into memory when it is asked for."""

    def __init__(self, source: Source, base_model: BaseModel | None) -> None:
        self.base_model = base_model
        self._files = {file.path: file for file in source.files()}

    def files(self) -> Sequence[SourceFile]:
        """Return the files, sorted by path."""
        return tuple(self._files.values())

    def read(self, name: str) -> memoryview:
        """Return a file's bytes."""
        with self._file(name).open() as reader:
            return memoryview(reader.read())

    def read_weights(self, name: str) -> tuple[Header, memoryview]:
        """Return a safetensors file's header and its data section, which is new, writable and the caller's own."""
        file = self._file(name)
        with file.open() as reader:
            header = read_head(reader, file.size, what=name)
            data = memoryview(bytearray(header.data_size))
            rest = data
            while rest:
                count = reader.readinto(rest)  # type: ignore[attr-defined]  # every reader of a source has it
                if not count:
                    raise InvalidInput(f"{name}: it became shorter while it was read")
                rest = rest[count:]
        return header, data

    def _file(self, name: str) -> SourceFile:
        if name not in self._files:
            raise NotFound(f"the model has no file {name[:200]!r}")
        return self._files[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOn:
    """Measures models on records; an :data:`stanch.release.utility.Evaluate`.

    Attributes:
        records: Records that the model was not tuned on.
        base: The base model's folder, for an adapter.
        base_model: What the release calls it.
        max_tokens: As in the tuning.
        completion_only: As in the tuning: whether answers alone were learned.
        progress: Told after each record.
    """

    records: Sequence[Record]
    base: Path | None = None
    base_model: BaseModel | None = None
    max_tokens: int = 1024
    completion_only: bool = True
    progress: Progress = SILENT

    def __call__(self, source: Source) -> Loss:
        """Return the loss of the model in ``source``; nothing of it is written.

        Raises:
            InvalidInput: No record, one without a token to score, or no model that can be loaded from memory.
            PolicyViolation: The base model is not the one that the release names.
            UnsafeArtifact: Loading the model could run code.
        """
        if not self.records:
            raise InvalidInput("expected records to measure the loss on, found none")
        scorer = load_scorer(SourceFiles(source, self.base_model), self.base)
        tokens = [
            tokenise(one, scorer.tokenizer, max_tokens=self.max_tokens, completion_only=self.completion_only)
            for one in self.records
        ]
        total, count = 0.0, 0
        for done, found in enumerate(scorer.features(tokens, decoding=Decoding()), 1):
            total -= float(found.lp.sum(dtype=float))
            count += found.lp.size
            self.progress("loss: records", done, len(tokens))
        return Loss(total / count, len(tokens), count)
