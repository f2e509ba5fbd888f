"""The folder of an export: entries or an incident with the proof of each entry beside it."""

from pathlib import Path


def make_export_folder(folder: Path) -> Path:
    """Make a new folder and return its folder of proofs; both for their owner alone, for they hold people's own words.

    Raises:
        FileExistsError: There is one.
    """
    folder.mkdir(parents=True, mode=0o700)
    proofs = folder / "proofs"
    proofs.mkdir(mode=0o700)
    return proofs
