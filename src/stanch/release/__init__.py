"""One copy for one recipient: gate, mark, seal, sign, in one pass over the bytes.

:func:`create_copy` re-checks the certificate against the files as they are now, reads the model while the recipient's
mark is added, encrypts what it reads to the recipient's key, and signs the manifest. No plaintext of a marked copy is
written anywhere. :func:`open_copy` is the recipient's side: the publisher's signature is checked before a byte is used.

:func:`deliver` puts a bundle into a store, whole or not at all; :func:`fetch` gets it from one that nobody needs to
trust; :func:`revoke` takes it back from a recipient, as far as that can be done.

:func:`search` finds plaintext copies of protected weights on disks and in buckets.

Two people: a :class:`ReleaseRequest` binds model, certificate, recipient and expiry. Where a copy is sealed for a
:class:`QuorumSplit`, its root key exists only in shares: each approver's :func:`approve` releases one to the recipient,
and :func:`redeem` joins enough of them::

    split = QuorumSplit(request, approvers, 2)                  # seal for it alone; then keep what it made:
    signed = split.record.sign(publisher_key)
    approval = approve(read_record(signed, trusted), identity, key, now=now)            # each approver
    redeem_copy(bundle, trusted, signed, approvals, identity, now=now)                  # the recipient
"""

from stanch.release.copy import CopyOrder, ReleasedCopy, create_copy, open_copy, read_publisher
from stanch.release.deliver import DeliveryReport, RemoteConflict, deliver
from stanch.release.fetch import FetchedBundle, FetchParams, fetch
from stanch.release.fingerprint import Fingerprint, take_fingerprint
from stanch.release.inventory import Inventory, Stray, leave_out, search
from stanch.release.open_remote import open_remote
from stanch.release.places import Listing
from stanch.release.quorum import Approver, QuorumRecord, QuorumRequest, QuorumSplit, read_record
from stanch.release.quorum_files import QuorumFiles, quorum_folder
from stanch.release.redemption import Redemption, approve, check_approval, redeem, redeem_copy
from stanch.release.remote import RemoteBundle
from stanch.release.request import ReleaseRequest
from stanch.release.revocations import NO_REVOCATIONS, Revocation, RevocationList, Revoked, read_revocations
from stanch.release.revoke import RevokeOrder, revoke

__all__ = [
    "NO_REVOCATIONS",
    "Approver",
    "CopyOrder",
    "DeliveryReport",
    "FetchParams",
    "FetchedBundle",
    "Fingerprint",
    "Inventory",
    "Listing",
    "QuorumFiles",
    "QuorumRecord",
    "QuorumRequest",
    "QuorumSplit",
    "Redemption",
    "ReleaseRequest",
    "ReleasedCopy",
    "RemoteBundle",
    "RemoteConflict",
    "Revocation",
    "RevocationList",
    "RevokeOrder",
    "Revoked",
    "Stray",
    "approve",
    "check_approval",
    "create_copy",
    "deliver",
    "fetch",
    "leave_out",
    "open_copy",
    "open_remote",
    "quorum_folder",
    "read_publisher",
    "read_record",
    "read_revocations",
    "redeem",
    "redeem_copy",
    "revoke",
    "search",
    "take_fingerprint",
]
