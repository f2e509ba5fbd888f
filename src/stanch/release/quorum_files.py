"""What travels beside a copy that opens by quorum: its signed record, and the approvals that there are so far.

On a disk they lie in the folder ``<copy>.quorum``: ``quorum.json`` and ``approval-<x>.json``, where x is the number of
the approver's share; in a store under the same names below ``<bundle id>/``. Nobody need trust either place: the record
carries the publisher's signature, each approval its approver's, and whoever redeems them checks both.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from stanch.crypto import write_atomic
from stanch.errors import InvalidInput, NotFound
from stanch.release.quorum import MAX_APPROVERS, MAX_RECORD, QuorumRecord, read_record
from stanch.release.redemption import MAX_APPROVAL
from stanch.release.remote import RemoteBundle
from stanch.seal import Manifest
from stanch.sign import TrustedKeys
from stanch.store import REPLACE

RECORD_NAME: Final = "quorum.json"
FOLDER_SUFFIX: Final = ".quorum"


def approval_name(x: int) -> str:
    """Return the file name of the approval that releases share ``x``."""
    return f"approval-{x}.json"


def quorum_folder(copy: Path) -> Path:
    """Return the folder beside a copy where its record and approvals lie."""
    named = copy if copy.name else copy.absolute()
    return named.with_name(named.name + FOLDER_SUFFIX)


@dataclass(frozen=True, slots=True)
class QuorumFiles:
    """A signed record and the approvals by share number, as bytes that were not looked into."""

    record: bytes
    approvals: Mapping[int, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the files into a folder, which is made if it is missing."""
        folder.mkdir(mode=0o700, exist_ok=True)
        write_atomic(folder / RECORD_NAME, self.record)
        for x, approval in self.approvals.items():
            write_atomic(folder / approval_name(x), approval)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the files of a folder.

        Raises:
            NotFound: There is no record.
            InvalidInput: A file is too long.
        """
        record = _read(folder / RECORD_NAME, MAX_RECORD)
        if record is None:
            raise NotFound(
                f"{folder / RECORD_NAME}: no such file",
                why="a copy that opens by quorum goes with the record that was made beside it",
                next_step="ask the publisher for it",
            )
        found = {x: _read(folder / approval_name(x), MAX_APPROVAL) for x in range(1, MAX_APPROVERS + 1)}
        return cls(record, {x: data for x, data in found.items() if data is not None})

    def verify(self, manifest: Manifest, trusted: TrustedKeys) -> QuorumRecord:
        """Return the record once a trusted publisher's signature held and it is about the copy with this manifest.

        Raises:
            VerificationError: It is not.
            InvalidInput: It is malformed.
        """
        record = read_record(self.record, trusted)
        record.request.check_manifest(manifest)
        return record

    def send(self, remote: RemoteBundle) -> None:
        """Put the files into a store; later approvals join or replace those that are there."""
        for x, approval in self.approvals.items():
            remote.blobs.put(remote.key(approval_name(x)), approval, mode=REPLACE)
        remote.blobs.put(remote.key(RECORD_NAME), self.record, mode=REPLACE)

    @classmethod
    def receive(cls, remote: RemoteBundle, count: int) -> Self:
        """Get the files of a delivered bundle with ``count`` approvers.

        Raises:
            BundleIncomplete: There is no record.
            InvalidInput: A file is too long.
        """
        approvals = {}
        for x in range(1, count + 1):
            with contextlib.suppress(NotFound):
                remote.blobs.head(remote.key(approval_name(x)))
                approvals[x] = remote.document(approval_name(x), MAX_APPROVAL)
        return cls(remote.document(RECORD_NAME, MAX_RECORD), approvals)


def _read(path: Path, limit: int) -> bytes | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"{path}: expected at most {limit} bytes")
    return data
