"""What the workspace keeps of a copy that it made: whose it is and, where it opens by quorum, record and approvals."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import msgspec

from stanch.crypto import canonical_json, parse_json, sync_folder, write_atomic
from stanch.errors import InvalidInput, NotFound
from stanch.release import QuorumFiles
from stanch.release.quorum_files import RECORD_NAME, approval_name
from stanch.terms import Digest

COPY_FORMAT: Literal["stanch/copy/v1"] = "stanch/copy/v1"
_FACTS, _COPIES, _RECEIPT = "copy.json", "copies", "receipt.json"
_NAME = re.compile(r"[0-9a-f]{64}")


class CopyFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A copy as it was made.

    Attributes:
        recipient: The recipient's name in the release.
        manifest_sha256: Digest (hex) of its manifest.
        created_ms: When it was made.
    """

    format: Literal["stanch/copy/v1"] = COPY_FORMAT
    recipient: str
    manifest_sha256: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class KeptCopy:
    """One folder below a release's ``copies``, named by the digest of the copy's manifest."""

    folder: Path
    facts: CopyFacts

    @classmethod
    def create(cls, release: Path, facts: CopyFacts, record: bytes | None) -> Self:
        """Keep a new copy, whole or not at all."""
        folder = release / _COPIES / facts.manifest_sha256
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        write_atomic(partial / _FACTS, canonical_json(msgspec.to_builtins(facts)))
        if record is not None:
            QuorumFiles(record).write(partial)
        os.rename(partial, folder)  # noqa: PTH104 - Path.rename would replace an empty folder of that name
        sync_folder(folder.parent)
        return cls(folder, facts)

    @classmethod
    def newest(cls, release: Path, recipient: str) -> Self:
        """Return the copy that was made last for a recipient.

        Raises:
            NotFound: None was made yet.
        """
        found = [copy for copy in cls.all_of(release) if copy.facts.recipient == recipient]
        if not found:
            raise NotFound(
                f"release {release.name}: no copy for {recipient[:64]!r} was made yet",
                next_step=f"stanch release create {release.name} --to {recipient[:64]} --out COPY",
            )
        return max(found, key=lambda copy: copy.facts.created_ms)

    @classmethod
    def find(cls, releases: Path, manifest: Digest) -> Self | None:
        """Return the copy with a manifest, if one of the releases below ``releases`` made it."""
        for release in sorted(releases.glob("*")):
            for copy in cls.all_of(release):
                if copy.folder.name == manifest.hex:
                    return copy
        return None

    @classmethod
    def all_of(cls, release: Path) -> Iterator[Self]:
        """Yield every copy that is kept of a release, by the digests of their manifests."""
        for folder in sorted((release / _COPIES).glob("*")):
            if _NAME.fullmatch(folder.name):
                yield cls(folder, _read_facts(folder / _FACTS))

    @classmethod
    def any_of(cls, release: Path) -> bool:
        """Say whether a copy is kept of a release; none is read."""
        return any(_NAME.fullmatch(folder.name) for folder in (release / _COPIES).glob("*"))

    @property
    def release(self) -> Path:
        """The folder of the release that it belongs to."""
        return self.folder.parent.parent

    @property
    def quorum(self) -> QuorumFiles | None:
        """Its record and the approvals so far; None for a copy that its recipient opens alone."""
        return QuorumFiles.read(self.folder) if (self.folder / RECORD_NAME).exists() else None

    def add_approval(self, x: int, approval: bytes) -> None:
        """Keep the approval that releases share ``x``, in place of an earlier one."""
        write_atomic(self.folder / approval_name(x), approval)

    def drop_approval(self, x: int) -> None:
        """Forget the approval that releases share ``x``."""
        (self.folder / approval_name(x)).unlink(missing_ok=True)

    @property
    def receipt(self) -> bytes | None:
        """What its recipient signed when it arrived, if that is here; the log says whether it counts."""
        path = self.folder / _RECEIPT
        return path.read_bytes() if path.is_file() else None

    def add_receipt(self, receipt: bytes) -> None:
        """Keep what its recipient signed."""
        write_atomic(self.folder / _RECEIPT, receipt)

    def drop_receipt(self) -> None:
        """Forget what its recipient signed."""
        (self.folder / _RECEIPT).unlink(missing_ok=True)

    def destroy(self) -> None:
        """Forget the copy; without its record nobody can open it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _read_facts(path: Path) -> CopyFacts:
    try:
        return msgspec.convert(parse_json(path.read_bytes(), what=str(path)), CopyFacts)
    except (msgspec.ValidationError, OSError) as error:
        raise InvalidInput(f"{path}: not a copy's facts", why=str(error)[:200]) from error
