"""The folder of an export: entries or an incident with the proof of each entry beside it."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from stanch.errors import InvalidInput


@contextlib.contextmanager
def exporting(folder: Path) -> Iterator[Path]:
    """Make a new folder and yield its folder of proofs; both for their owner alone, for they hold people's own words.

    Whatever is raised inside the block removes the folder: it was made here, and nobody else's is touched.

    Raises:
        InvalidInput: There is one, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise _unwritten(folder, error) from error
    proofs = folder / "proofs"
    try:
        proofs.mkdir(mode=0o700)
        yield proofs
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise _unwritten(folder, error) from error
        raise


def _unwritten(folder: Path, error: OSError) -> InvalidInput:
    return InvalidInput(f"{folder}: cannot be written", why=error.strerror or "", next_step="choose a new folder")
