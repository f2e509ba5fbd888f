"""The data set that a command is given."""

from pathlib import Path

from stanch.data import Dataset, open_dataset
from stanch.workspace import Workspace


def open_dataset_of(workspace: Workspace, path: Path, *, skip_bad: bool = False) -> Dataset:
    """Open a data set under the workspace's key, so that ids and digests of it are keyed."""
    return open_dataset(path, key=workspace.keys.secret("dataset"), skip_bad=skip_bad)
