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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
