"""Where a dataset file came from: a small file ``<name>.provenance.json`` beside each file that stanch made."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from stanch.crypto import canonical_json, parse_json, sha256, write_atomic
from stanch.data.dataset import Dataset
from stanch.data.lines import atomic_lines
from stanch.data.tree import dataset_root
from stanch.data.writers import row_writer
from stanch.errors import InvalidInput, Tampered

Operation = Literal["redact", "deduplicate", "inject", "split"]
_MAX_FILE = 1 << 20


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One transformation: what was done, to which dataset, with which parameters.

    Attributes:
        operation: ``redact``, ``deduplicate``, ``inject`` or ``split``.
        parent: ``sha256-rfc9162:<hex>``, the salted root of the dataset it was done to, or ``sha256:<hex>``, the digest
            of its file, where the dataset was opened without its key.
        parameters: The parameters. No text, no key.
    """

    operation: Operation
    parent: str
    parameters: dict[str, Any]

    def parameters_digest(self) -> str:
        """Return the SHA-256 of the canonical parameters in hexadecimal."""
        return hashlib.sha256(canonical_json(self.parameters)).hexdigest()


class _Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sha256: str
    steps: tuple[Step, ...]
    schema: Literal["stanch/dataset-provenance/v1"] = "stanch/dataset-provenance/v1"


def provenance_path(path: Path) -> Path:
    """Return the name of the provenance file of ``path``."""
    return path.with_name(f"{path.name}.provenance.json")


def read_steps(dataset: Dataset) -> tuple[Step, ...]:
    """Return the transformations that made ``dataset``, oldest first; none for a file that stanch did not make.

    Raises:
        InvalidInput: The provenance file is none.
        Tampered: The dataset is not the file that the provenance speaks of.
    """
    beside = provenance_path(dataset.path)
    if not beside.exists():
        return ()
    with beside.open("rb") as file:
        document = parse_json(file.read(_MAX_FILE + 1), what=beside.name, max_bytes=_MAX_FILE)
    try:
        provenance = msgspec.convert(document, _Provenance)
    except msgspec.ValidationError:
        raise InvalidInput(f"{beside}: expected stanch/dataset-provenance/v1") from None
    if provenance.sha256 != file_digest(dataset.path):
        raise Tampered(
            f"{dataset.path}: is not the file that {beside.name} speaks of",
            why="one of the two was changed or replaced",
            next_step="restore the file; if the change is meant, remove the provenance file and keep its history",
        )
    return provenance.steps


def derive(
    dataset: Dataset,
    out: Path,
    step: tuple[Operation, dict[str, Any]],
    lines: Iterable[bytes],
    *,
    approve: Callable[[Path], None] | None = None,
    parent: str | None = None,
) -> Dataset:
    """Write ``lines`` as a new dataset with its provenance; nothing appears under ``out`` if anything fails.

    Args:
        dataset: What the lines were made from.
        out: The new file.
        step: The operation and its parameters.
        lines: The rows.
        approve: A last check of the complete file under a temporary name; what it raises keeps the file from appearing.
        parent: The salted root of the dataset, if it is known; otherwise it is computed.

    Raises:
        InvalidInput: ``out`` is the dataset itself, or cannot be written.
    """
    if out.exists() and out.samefile(dataset.path):
        raise InvalidInput(f"{out}: would replace the dataset it is made from", next_step="choose another file name")
    operation, parameters = step
    steps = (*read_steps(dataset), Step(operation, _name(dataset, parent), parameters))

    def finish(temporary: Path) -> None:
        if approve is not None:
            approve(temporary)
        # The provenance goes first: a crash in between leaves it beside no file, or beside an old file that it refuses.
        document = msgspec.to_builtins(_Provenance(file_digest(temporary), steps))
        write_atomic(provenance_path(out), canonical_json(document), mode=0o600)

    with atomic_lines(out, approve=finish) as stream, row_writer(out, stream, dataset) as write:
        for line in lines:
            write(line)
    return Dataset(out, chat=dataset.chat, columns=dataset.columns, key=dataset.key)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; of a folder, that of the canonical map from its files to theirs."""
    if path.is_dir():
        return sha256(canonical_json({file.name: file_digest(file) for file in path.iterdir() if file.is_file()})).hex()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(dataset: Dataset, root: str | None) -> str:
    if dataset.key is None:
        return f"sha256:{file_digest(dataset.path)}"
    return f"sha256-rfc9162:{root or dataset_root(dataset, dataset.key)}"
