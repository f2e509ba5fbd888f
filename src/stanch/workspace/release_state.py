"""What the workspace keeps of one release: public facts, the batch of marks, and the root of all its marks."""

import os
import shutil
from pathlib import Path
from typing import Literal, Self

import msgspec

from stanch.crypto import canonical_json, parse_json, sync_folder, write_atomic, write_private
from stanch.errors import InvalidInput, NotFound
from stanch.ledger import Ledger
from stanch.mark import (
    Commitment,
    MarkKeys,
    MarkParams,
    MarkPlan,
    MarkRoot,
    Strength,
    copy_key,
    mark_keys,
    plan_mark,
    restore,
)
from stanch.mark.keys import CopyKey
from stanch.release import ReleaseRequest
from stanch.terms import Digest
from stanch.trace import beacons

FACTS, BATCH, ROOT, PROOF, ENTRY = "release.json", "batch.json", "root.key", "commitment.tlog-proof", "commitment.json"


class ReleaseFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A release as it was proposed.

    Attributes:
        name: Its name.
        model: Folder of the unmarked model.
        digest: Digest of that folder.
        schema: ``stanch/release/v1`` where the beacon is of the checkpoint's whole note, see :func:`beacons`.
        base: Folder of the base model that an adapter belongs to.
        base_digest: Digest of that folder; releases of format 1 did not keep it.
        certificate: The leak certificate's file.
        requester: Pseudonymous id of whoever proposed it.
        entry: Index of the log entry that commits to the marks.
        checkpoint: Size of the checkpoint whose text is the beacon.
        requests: The request for each recipient's copy.
        strength: How strongly the copies are marked; earlier releases did not keep it, and took the default.
        dataset: Keyed root of the data set that the model was tuned on, in hexadecimal, where its tuning states it.
        recipe: Digest of its tuning's plan, in hexadecimal, where there is one.
    """

    schema: Literal["stanch/release/v1", "stanch/release/v2"] = "stanch/release/v2"
    name: str
    model: str
    digest: str
    base: str | None
    certificate: str
    requester: str
    entry: int
    checkpoint: int
    requests: dict[str, ReleaseRequest]
    base_digest: str | None = None
    strength: Strength | None = None
    dataset: str | None = None
    recipe: str | None = None

    def request(self, recipient: str) -> ReleaseRequest:
        """Return the request for a recipient's copy.

        Raises:
            InvalidInput: The release was not proposed for that recipient.
        """
        if recipient not in self.requests:
            raise InvalidInput(
                f"release {self.name} was not proposed for {recipient[:64]!r}",
                next_step=f"recipients are: {', '.join(self.requests)}",
            )
        return self.requests[recipient]


class ReleaseState:
    """The files of one release under the workspace's state."""

    def __init__(self, folder: Path, facts: ReleaseFacts) -> None:
        self.folder = folder
        self.facts = facts
        self.model = Path(facts.model)
        self.base = Path(facts.base) if facts.base is not None else None

    @classmethod
    def create(
        cls, folder: Path, facts: ReleaseFacts, commitment: Commitment, root: MarkRoot, logged: tuple[bytes, bytes]
    ) -> Self:
        """Write a new release, whole or not at all; ``logged`` is the commitment's entry and its inclusion proof."""
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True, mode=0o700)
        root.save(partial / ROOT)
        write_private(partial / BATCH, canonical_json(commitment.to_json()))
        write_private(partial / FACTS, canonical_json(msgspec.to_builtins(facts)))
        write_atomic(partial / ENTRY, logged[0])
        write_atomic(partial / PROOF, logged[1])
        os.rename(partial, folder)  # noqa: PTH104 - Path.rename would replace an empty folder of that name
        sync_folder(folder.parent)
        return cls(folder, facts)

    def destroy(self) -> None:
        """Forget the release, and with it the keys of its marks."""
        shutil.rmtree(self.folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a release.

        Raises:
            NotFound: There is none of that name.
        """
        if not (folder / FACTS).is_file():
            raise NotFound(f"there is no release {folder.name[:64]!r}", next_step="stanch release propose MODEL …")
        try:
            facts = msgspec.convert(parse_json((folder / FACTS).read_bytes(), what=FACTS), ReleaseFacts)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"{folder / FACTS}: not a release", why=str(error)) from error
        return cls(folder, facts)

    @classmethod
    def load_all(cls, folder: Path) -> list[Self]:
        """Read every release below the folder of releases, by name."""
        return [cls.load(path.parent) for path in sorted(folder.glob(f"*/{FACTS}")) if path.parent.suffix != ".partial"]

    def mark_plan(self) -> MarkPlan:
        """Return the plan of the marks, made anew from the original.

        Raises:
            InvalidInput: The original changed since the release was proposed.
        """
        strength = self.facts.strength
        params = MarkParams.fixed(strength.alpha) if strength is not None else None
        plan = plan_mark(self.model, base=self.base, params=params)
        if plan.original != Digest.parse(self.facts.digest):
            raise InvalidInput(
                f"{self.model}: not the model that release {self.facts.name} was proposed for",
                why=f"expected {self.facts.digest}, found {plan.original}",
                next_step="restore the model, or propose a new release",
            )
        return plan

    def commitment(self, plan: MarkPlan) -> Commitment:
        """Return the batch of marks, made anew from the root and compared with what was committed."""
        return restore((self.folder / BATCH).read_bytes(), plan, self._root())

    def beacon(self) -> bytes:
        """Return what every stream of the release is bound to: the digest of the checkpoint that its commitment got."""
        of_text, of_note = beacons((self.folder / PROOF).read_bytes())
        return of_note if self.facts.schema == "stanch/release/v1" else of_text

    def copy_key(self, plan: MarkPlan, recipient: str) -> CopyKey:
        """Return what marks one recipient's copy."""
        return copy_key(self.commitment(plan), recipient, beacon=self.beacon())

    def mark_keys(self, plan: MarkPlan) -> MarkKeys:
        """Return all keys of the release, for detection."""
        return mark_keys([(self.commitment(plan), self.beacon())], self._root())

    def _root(self) -> MarkRoot:
        return MarkRoot.load(self.folder / ROOT)


def prove_commitment(ledger: Ledger, index: int) -> tuple[bytes, bytes, int]:
    """Publish a checkpoint over entry ``index``; return the entry, its proof, and the checkpoint's size."""
    size = ledger.publish().checkpoint.size
    reader = ledger.reader()
    return reader.entry(index), reader.prove(index, size), size
