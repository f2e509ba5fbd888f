"""Verbs about copies that leave: put one into a store, take one back."""

from pathlib import Path

from stanch.errors import ApprovalsMissing
from stanch.release import (
    DeliverParams,
    DeliveryReport,
    QuorumFiles,
    RemoteBundle,
    RevocationList,
    RevokeOrder,
    deliver,
    read_publisher,
    revoke,
)
from stanch.sign import TrustedKeys
from stanch.terms import SILENT, ArtifactRef, Digest, EntryRef, JsonValue, Progress
from stanch.workspace.act import ApprovalNeed, Done, Request
from stanch.workspace.approvers import APPROVING
from stanch.workspace.copies import KeptCopy
from stanch.workspace.logged_lists import LoggedLists
from stanch.workspace.opening import Workspace
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_receipt import find_receipt
from stanch.workspace.verbs_release import model_of, model_of_copy


def deliver_copy(
    workspace: Workspace, bundle: Path, uri: str, trusted: TrustedKeys, *, before_receipt: bool = False,
    check: bool = False, progress: Progress = SILENT,
) -> DeliveryReport:  # fmt: skip
    """Put a copy into the store at ``uri``; one that opens by quorum together with its record and the approvals.

    What opens it is left out until the log holds the recipient's receipt, unless ``before_receipt`` is set: then the
    log says so. A bundle that the workspace did not make passed no gate here, and is refused. Of a copy that was
    delivered whole only what opens it is sent; with ``check`` every byte in the store is compared again.

    Raises:
        ApprovalsMissing: In profile ``team``, fewer people than the copy asks for have released it who may do so still.
        NotPermitted: The gate was not passed, or the role is missing.
        VerificationError: The bundle is not what its publisher signed, or the release's file names another model than
            the log. Rollback: the store's revocation list is older than the log says.
        StoreError: The store failed; deliver again to go on.
    """
    manifest, publisher = read_publisher(bundle, trusted)
    digest = Digest("sha256", publisher.sha256)
    kept, ref = _find(workspace, manifest.lineage, digest)
    if kept is not None:
        ref = model_of_copy(workspace, ReleaseState.load(kept.release), kept)
    files = kept.quorum if kept is not None else None
    need = None
    if kept is not None and files is not None:
        request = files.verify(manifest, trusted).request
        requester = ReleaseState.load(kept.release).facts.requester
        # Counted and not used up: an interrupted delivery goes on, and they release this one copy, wherever it lies.
        need = ApprovalNeed(request.digest, requester, lambda _connection, _act: None, APPROVING)

    def run(_ref: EntryRef) -> Done[DeliveryReport]:
        _require_approvals(files, manifest.quorum.m if manifest.quorum is not None else 0)
        with_key = before_receipt or find_receipt(workspace, digest) is not None
        remote = RemoteBundle.at(uri, manifest.bundle_id)
        memory = LoggedLists(workspace.ledger.reader(), remote)
        params = DeliverParams(decided=publisher, quorum=files, with_key=with_key, check=check, progress=progress)
        report = deliver(bundle, remote, trusted, memory=memory, params=params)
        sent: dict[str, JsonValue] = {
            "bundle": report.bundle_id, "sent": report.sent, "skipped": report.skipped, "key": report.has_key,
        }  # fmt: skip
        return Done(report, sent | memory.seen())

    payload: dict[str, JsonValue] = {"manifest": str(digest), "before_receipt": before_receipt}
    asked = Request("release.deliver", "release:export", ref, payload, need)
    return workspace.door.act(asked, run)


def revoke_copy(
    workspace: Workspace, remote: RemoteBundle, order: RevokeOrder, trusted: TrustedKeys
) -> tuple[EntryRef, RevocationList]:
    """Take a delivered copy back from a recipient, as far as that can be done.

    Returns:
        The act's intent, and the list that says so.

    Raises:
        NotPermitted: The role is missing.
        StanchError: As :func:`stanch.release.revoke`.
    """
    signed = remote.signed_manifest(trusted)
    digest = Digest("sha256", signed.publisher.sha256)
    ref = _find(workspace, signed.manifest.lineage, digest)[1]

    def run(ref: EntryRef) -> Done[tuple[EntryRef, RevocationList]]:
        memory = LoggedLists(workspace.ledger.reader(), remote)
        made = revoke(remote, order, trusted, memory=memory)
        return Done((ref, made), {"number": made.number} | memory.seen())

    payload = {"bundle": remote.bundle_id, "key_id": order.key_id}
    return workspace.door.act(Request("release.revoke", "release:revoke", ref, payload), run)


def _find(workspace: Workspace, lineage: str, manifest: Digest) -> tuple[KeptCopy | None, ArtifactRef]:
    """Return what is kept of a copy, and the model that it is of; what was not made here is named by its manifest."""
    kept = KeptCopy.find(workspace.state / "releases", manifest)
    if kept is None:
        return None, ArtifactRef("model", lineage, manifest)
    return kept, model_of(ReleaseState.load(kept.release))


def _require_approvals(files: QuorumFiles | None, needed: int) -> None:
    found = len(files.approvals) if files is not None else 0
    if found < needed:
        raise ApprovalsMissing(
            f"approvals of this copy: expected {needed}, found {found}",
            why="its recipient could not open it",
            next_step="ask another approver: stanch release approve",
        )
