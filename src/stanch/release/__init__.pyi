from .copy import CopyOrder, ReleasedCopy, create_copy, open_copy, read_publisher
from .deliver import DeliverParams, DeliveryReport, RemoteConflict, deliver
from .fetch import FetchedBundle, FetchParams, fetch
from .fetch_key import fetch_key
from .fingerprint import Fingerprint, take_fingerprint
from .inventory import Inventory, Stray, leave_out, search
from .open_remote import open_remote
from .places import Listing
from .quorum import Approver, QuorumRecord, QuorumRequest, QuorumSplit, read_record
from .quorum_files import QuorumFiles, quorum_folder
from .redemption import Redemption, approve, check_approval, redeem, redeem_copy
from .remote import RemoteBundle
from .request import ReleaseRequest
from .revocations import NO_REVOCATIONS, Revocation, RevocationList, Revoked, read_revocations
from .revoke import RevokeOrder, revoke
from .utility import Evaluate, Loss, Utility, check_utility

__all__ = [
    "NO_REVOCATIONS",
    "Approver",
    "CopyOrder",
    "DeliverParams",
    "DeliveryReport",
    "Evaluate",
    "FetchParams",
    "FetchedBundle",
    "Fingerprint",
    "Inventory",
    "Listing",
    "Loss",
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
    "Utility",
    "approve",
    "check_approval",
    "check_utility",
    "create_copy",
    "deliver",
    "fetch",
    "fetch_key",
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
