"""The verb that takes in what a recipient signed when its copy arrived: the copy goes from applied to received.

The log decides: a receipt counts once its entry is there, and no file beside a copy counts without one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from stanch.crypto import VerifyKey
from stanch.errors import Conflict, PolicyViolation, Tampered
from stanch.ledger import EntryQuery, decode_entry
from stanch.terms import Digest, EntryRef, JsonValue
from stanch.trace import Receipt, verify_receipt
from stanch.workspace.act import Done, Request
from stanch.workspace.copies import KeptCopy
from stanch.workspace.opening import Workspace
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_release import model_of_copy, release_folder

CLOCKS_APART = timedelta(minutes=10)
"""How far a recipient's clock may be from ours."""


@dataclass(frozen=True, slots=True)
class Received:
    """A receipt that is in the log: of which copy (its manifest), when it arrived, and the digest of the receipt."""

    manifest: Digest
    at: str
    receipt: Digest


def expect_receipt(workspace: Workspace, manifest: Digest) -> Receipt | None:
    """Return what the recipient of a copy must sign; None for a copy that was not made here."""
    kept = KeptCopy.find(workspace.state / "releases", manifest)
    return None if kept is None else _expected(ReleaseState.load(kept.release), kept)


def receive(workspace: Workspace, name: str, recipient: str, receipt: bytes, key: VerifyKey) -> Received:
    """Take in the receipt of the copy that was made last for a recipient.

    Args:
        workspace: The workspace.
        name: Name of the release.
        recipient: The recipient's name in it.
        receipt: What the recipient signed.
        key: The recipient's public key, from the recipient.

    Raises:
        VerificationError: Another key signed it, or it is of another copy, release or recipient.
        PolicyViolation: It says that the copy arrived before it was made, or in the future; or the release's file names
            another model than the log.
        Conflict: The log holds a receipt of this copy already.
        NotFound: No such release, or no copy for that recipient was made yet.
    """
    state = ReleaseState.load(release_folder(workspace, name))
    state.facts.request(recipient)  # refuses whom it was not proposed for
    kept = KeptCopy.newest(state.folder, recipient)
    manifest, digest = Digest.parse(f"sha256:{kept.facts.manifest_sha256}"), Digest.sha256(receipt)

    def run(_ref: EntryRef) -> Done[Received]:
        expected = _expected(state, kept)
        at = verify_receipt(receipt, key, expected)
        _check_time(workspace, kept, at)
        if find_receipt(workspace, manifest) is not None:
            raise Conflict(
                f"{recipient}'s copy of {name}: the log holds its receipt already",
                next_step=f"deliver the key: stanch release deliver COPY URI; the copy's manifest is {manifest}",
            )
        kept.add_receipt(receipt)
        payload: dict[str, JsonValue] = {
            "manifest": str(manifest), "receipt": str(digest), "leaf": expected.leaf, "key_id": key.key_id,
            "received_at": at,
        }  # fmt: skip
        return Done(Received(manifest, at, digest), payload, undo=kept.drop_receipt, stays=True)

    payload: dict[str, JsonValue] = {"manifest": str(manifest), "receipt": str(digest)}
    ref = model_of_copy(workspace, state, kept)
    return workspace.door.act(Request("release.receive", "release:create", ref, payload), run)


def find_receipt(workspace: Workspace, manifest: Digest) -> Received | None:
    """Return the receipt of a copy that the log holds."""
    return next((one for _, one in list_receipts(workspace) if one.manifest == manifest), None)


def list_receipts(workspace: Workspace) -> Iterator[tuple[int, Received]]:
    """Yield every receipt that the log holds, with the index of its entry."""
    reader = workspace.ledger.reader()
    refs = reader.query(EntryQuery(kind="release.receive", phase="outcome", status=1))
    for index, data in reader.entries(ref.index for ref in refs).items():
        told = decode_entry(data)["unmapped"]["stanch"]["payload"]
        yield index, Received(Digest.parse(told["manifest"]), told["received_at"], Digest.parse(told["receipt"]))


def receipts_of(workspace: Workspace, state: ReleaseState) -> dict[str, bytes]:
    """Return the receipts of a release's copies as they were taken in, by recipient; of several copies, the last.

    Raises:
        Tampered: A file beside a copy is another than the one whose digest is in the log.
    """
    logged = {one.manifest.hex: one for _, one in list_receipts(workspace)}
    found: dict[str, bytes] = {}
    for kept in sorted(KeptCopy.all_of(state.folder), key=lambda one: one.facts.created_ms):
        data, one = kept.receipt, logged.get(kept.facts.manifest_sha256)
        if data is None or one is None:
            continue
        if Digest.sha256(data) != one.receipt:
            raise Tampered(
                f"{kept.folder}: its receipt is not the one that was taken in",
                why=f"expected {one.receipt}, found {Digest.sha256(data)}",
                next_step="find out who changed the workspace's files",
            )
        found[kept.facts.recipient] = data
    return found


def _expected(state: ReleaseState, kept: KeptCopy) -> Receipt:
    commitment = state.commitment(state.mark_plan())
    recipient, manifest = kept.facts.recipient, Digest.parse(f"sha256:{kept.facts.manifest_sha256}")
    return Receipt(commitment.root.hex(), commitment.index[recipient], manifest, recipient)


def _check_time(workspace: Workspace, kept: KeptCopy, at: str) -> None:
    moment = datetime.fromisoformat(at)
    made = datetime.fromtimestamp(kept.facts.created_ms / 1000, moment.tzinfo)
    if not made - CLOCKS_APART <= moment <= workspace.now() + CLOCKS_APART:
        raise PolicyViolation(
            f"receipt of {kept.facts.recipient}: the copy cannot have arrived at {at}",
            why=f"it was made at {made.isoformat(timespec='seconds')}, and now is {workspace.now().isoformat()[:19]}",
            next_step="ask the recipient to set its clock and to sign again",
        )
