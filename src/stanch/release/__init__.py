"""One copy for one recipient: gate, mark, seal, sign, in one pass over the bytes.

:func:`create_copy` re-checks the certificate against the files as they are now, reads the model while the recipient's
mark is added, encrypts what it reads to the recipient's key, and signs the manifest. No plaintext of a marked copy is
written anywhere. :func:`open_copy` is the recipient's side: the publisher's signature is checked before a byte is used.

Two people: :class:`ReleaseRequest` is what approvers sign; its digest binds model, certificate, recipient and expiry.
"""

from stanch.release.copy import CopyOrder, ReleasedCopy, create_copy, open_copy, read_publisher
from stanch.release.request import ReleaseRequest

__all__ = [
    "CopyOrder",
    "ReleaseRequest",
    "ReleasedCopy",
    "create_copy",
    "open_copy",
    "read_publisher",
]
