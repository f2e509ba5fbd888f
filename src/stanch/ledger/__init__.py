"""The record: an append-only Merkle log (RFC 9162) of who did what to which digest, checkable with others' tools.

Entries are OCSF events in canonical JSON; tiles, checkpoints, notes and proofs follow C2SP. An append returns when the
entry is durable, and :class:`stanch.errors.LedgerUnavailable` means: the act must not happen. Verifying a proof needs
no log, no database and no key but the log's public one.

Example:
    >>> with Ledger.create(tables, blobs, origin="example.com/log", signer=key, params=params) as log:  # doctest: +SKIP
    ...     act = Act(kind="tune.run", id=new_act_id(now_ms), principal=principal)
    ...     log.append(intent(act, time_ms=now_ms))
    ...     ref = log.append(outcome(act, time_ms=now_ms))
    ...     log.publish()
    ...     proof = log.reader().prove(ref.index)
    >>> verify_proof(proof, entry, TrustPolicy.of(["example.com/log+b2e24c33+AQOh…"]))                  # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
