"""What the engines run: a stage of a pass, a pure function of one part of a dataset."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from stanch.data.chat import ChatForm
from stanch.data.dataset import Dataset
from stanch.data.rows import Range
from stanch.errors import InvalidInput
from stanch.scan.policy_bytes import PolicySecrets

Numbered = tuple[int, Range]
"""A part and its number."""

Work = Callable[[Numbered], bytes]
"""Does one part; equal parts give equal bytes in whatever process."""


@dataclass(frozen=True, slots=True)
class StageSecrets:
    """What a process must hold to do its parts, and what never travels with a task."""

    policy: PolicySecrets | None = None
    dataset_key: bytes | None = field(default=None, repr=False)
    index_key: bytes | None = field(default=None, repr=False)


class Task(Protocol):
    """What another process needs beside the secrets; it is sent as it is and holds no secret."""

    def open(self, secrets: StageSecrets) -> Work:
        """Prepare the work, once for all parts.

        Raises:
            InvalidInput: The dataset is not there, or the secrets are not those that the task was made under.
        """
        ...


class Job(Protocol):
    """A stage, for whoever does the parts: here, or in another process."""

    def here(self) -> Work:
        """Return what does parts in this process."""
        ...

    def task(self) -> Task:
        """Return what another process needs beside the secrets.

        Raises:
            InvalidInput: The stage cannot be shared among processes.
        """
        ...

    def secrets(self) -> StageSecrets:
        """Return what another process must hold."""
        ...


@dataclass(frozen=True, slots=True)
class SharedDataset:
    """A dataset as another process opens it; its key is checked and does not travel."""

    path: str
    chat: str
    columns: tuple[str, ...]
    skip_bad: bool
    key_check: str

    @classmethod
    def of(cls, dataset: Dataset) -> "SharedDataset":
        """Describe an open dataset."""
        path = str(dataset.path.resolve())
        return cls(path, dataset.chat.value, dataset.columns, dataset.skip_bad, dataset.key_check())

    def open(self, key: bytes | None) -> Dataset:
        """Open it in this process.

        Raises:
            InvalidInput: It is not there, or ``key`` is not the key it was opened with.
        """
        dataset = Dataset(
            Path(self.path),
            chat=ChatForm(self.chat),
            columns=self.columns,
            key=key if self.key_check else None,
            skip_bad=self.skip_bad,
        )
        if not hmac.compare_digest(dataset.key_check(), self.key_check):
            raise InvalidInput(f"{dataset.uri}: the dataset key here is not the one of the task")
        return dataset
