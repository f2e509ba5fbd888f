"""Making one recipient's copy, and opening it on the other side."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stanch.audit import GatePolicy, gate
from stanch.crypto import SigningKey
from stanch.crypto.stanza import KeyProvider
from stanch.errors import InvalidInput
from stanch.mark import CopyKey, MarkedSource, MarkPlan, Strength
from stanch.release.plain_signature import plain_signer
from stanch.release.quorum import QuorumSplit
from stanch.release.revocations import NO_REVOCATIONS, RevocationList, drop_revoked
from stanch.release.utility import Evaluate, Utility, check_utility
from stanch.seal import (
    BaseModel,
    Commitments,
    DirectorySource,
    Manifest,
    OpenBundle,
    Recipients,
    ReleaseMemory,
    SealParams,
    open_bundle,
    parse_manifest,
    read_manifest,
    read_signature,
    seal,
)
from stanch.seal.folder import RECIPIENTS_NAME, BundleFolder
from stanch.seal.recipients import MAX_RECIPIENTS_FILE
from stanch.sign import (
    Bundle,
    TimestampAuthority,
    Timestamped,
    TrustedKeys,
    VerifiedStatement,
    sign_manifest,
    verify_manifest,
)
from stanch.terms import SILENT, Digest, Progress, VerifiedDigest
from stanch.weights import directory_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOrder:
    """Everything that one copy needs.

    Attributes:
        original: The unmarked model or adapter folder.
        certificate: Its verified leak certificate.
        policy: The gate's policy, applied again to the files as they are now.
        plan: How the original is marked.
        key: The recipient's mark.
        recipient: The recipient's public key, or the split of the root key among approvers.
        signer: The publisher's key.
        authority: Who confirms when the copy was signed; None where nobody is asked.
        lineage: The line of releases.
        release_number: Its number in that line; recipients refuse one that does not rise.
        not_after: When the grant ends.
        base: Name and digest of the base model that an adapter belongs to.
        certificate_digest: Digest of the certificate's bytes, recorded in the manifest.
        mark_commitment: Root of the batch of marks, recorded in the manifest.
        dataset: Keyed root of the data set that the model was tuned on, in hexadecimal, where its tuning states it.
        recipe: Digest of its tuning's plan, in hexadecimal, where there is one.
        evaluate: Measures what the mark costs; None where nobody asked.
    """

    original: Path
    certificate: VerifiedStatement
    policy: GatePolicy
    plan: MarkPlan
    key: CopyKey
    recipient: KeyProvider
    signer: SigningKey
    authority: TimestampAuthority | None = None
    lineage: str
    release_number: int
    not_after: datetime
    base: BaseModel | None
    certificate_digest: Digest
    mark_commitment: bytes
    dataset: str | None = None
    recipe: str | None = None
    evaluate: Evaluate | None = None


@dataclass(frozen=True, slots=True)
class ReleasedCopy:
    """A finished copy.

    Attributes:
        path: Where it lies.
        manifest: Digest of its manifest.
        recipient: The recipient's name.
        size: How many bytes it holds.
        record: For a quorum its signed record, without which nobody can ever open the copy; else None.
        strength: How strongly it is marked.
        utility: The loss before and after marking; None where it was not measured.
    """

    path: Path
    manifest: Digest
    recipient: str
    size: int
    record: bytes | None
    strength: Strength
    utility: Utility | None = None

    def destroy(self) -> None:
        """Remove the bundle."""
        shutil.rmtree(self.path, ignore_errors=True)


def create_copy(order: CopyOrder, dest: Path, *, now: datetime, progress: Progress = SILENT) -> ReleasedCopy:
    """Gate, mark, seal and sign one copy into the new folder ``dest``, its marked plain files too.

    Raises:
        GateFailed: The certificate or the policy refuses these very files, or the mark raises the loss too much.
        Inconclusive: The gate cannot decide.
        InvalidInput: The original changed since the mark was planned, the grant has ended, or the quorum's request
            asks for another model or recipient.
        PolicyViolation: The quorum's request names another certificate, line, number or end than the order.
        ExternalError: The time-stamping authority did not answer; nothing is left.
        Conflict: ``dest`` exists.
    """
    found = directory_digest(order.original)
    if found.root != order.plan.original:
        raise InvalidInput(
            f"{order.original}: not the model that this release was proposed for",
            why=f"expected {order.plan.original}, found {found.root}",
            next_step="propose a release of the model as it is now",
        )
    if now >= order.not_after:
        raise InvalidInput(f"the grant would end before it begins: {order.not_after.isoformat()}")
    gate(order.certificate, found, order.policy, now=now)
    split = order.recipient if isinstance(order.recipient, QuorumSplit) else None
    wanted = (str(found.root), order.key.recipient)
    if split is not None and (split.release.model, split.release.recipient_name) != wanted:
        raise InvalidInput("the quorum's request asks for another copy than the order")
    source = MarkedSource(order.original, order.plan, order.key)
    utility = check_utility(order.evaluate, DirectorySource(order.original), source) if order.evaluate else None
    sign_files = plain_signer(order.original, [order.signer])
    params = SealParams(
        kind=order.plan.kind if order.plan.kind == "adapter" else "model",
        lineage=order.lineage,
        release_number=order.release_number,
        not_after=order.not_after,
        base_model=order.base,
        commitments=_commitments(order),
        quorum=split.quorum if split is not None else None,
        plaintext_sha256=sign_files is not None,
        progress=progress,
    )

    def finish(manifest: bytes) -> bytes:
        if split is not None:
            split.record.request.check_manifest(parse_manifest(manifest))
        return sign_manifest(manifest, order.signer, authority=order.authority).to_bytes()

    sealed = seal(source, dest, [order.recipient], params, finish, sign_files)
    size = sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())
    record = split.record.sign(order.signer) if split is not None else None
    return ReleasedCopy(dest, sealed.digest, order.key.recipient, size, record, order.plan.strength, utility)


def _commitments(order: CopyOrder) -> Commitments:
    certificate, mark = order.certificate_digest.hex, order.mark_commitment.hex()
    return Commitments(dataset=order.dataset, recipe=order.recipe, certificate=certificate, mark=mark)


def read_publisher(bundle: Path, trusted: TrustedKeys | Timestamped) -> tuple[Manifest, VerifiedDigest]:
    """Return a bundle's manifest once a trusted publisher's signature over it held.

    Raises:
        VerificationError: Not sealed, not signed, not by a trusted key, or not with the time-stamp that is demanded.
    """
    manifest = read_manifest(bundle)  # canonical: its bytes are those of the file
    signature = Bundle.parse(read_signature(bundle), what="manifest.sigstore.json")
    return manifest, verify_manifest(manifest.to_bytes(), signature, trusted)


def open_copy(
    bundle: Path,
    trusted: TrustedKeys | Timestamped,
    identities: Sequence[KeyProvider],
    *,
    memory: ReleaseMemory,
    revocations: RevocationList = NO_REVOCATIONS,
) -> OpenBundle:
    """Open a copy as its recipient: signature first, then revocations, then rollback memory, then the key.

    Raises:
        Revoked: The publisher took this copy back from every one of ``identities``.
        VerificationError: Any check fails; nothing of the content was used.
    """
    verified = read_publisher(bundle, trusted)[1]
    document = BundleFolder(bundle).document(RECIPIENTS_NAME, MAX_RECIPIENTS_FILE)
    recipients = drop_revoked(Recipients.parse(document), identities, [revocations])
    return open_bundle(bundle, verified, identities, memory=memory, recipients=recipients)
