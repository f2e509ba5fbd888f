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

from stanch.crypto import verify_consistency, verify_inclusion
from stanch.ledger.checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from stanch.ledger.commitment import Opening, commit
from stanch.ledger.committer import Within
from stanch.ledger.entry import (
    UNKNOWN_PRINCIPAL,
    Act,
    Credential,
    Entry,
    Phase,
    decode_entry,
    denied,
    intent,
    new_act_id,
    noted,
    outcome,
)
from stanch.ledger.fsck import FsckReport, fsck
from stanch.ledger.index import EntryQuery
from stanch.ledger.log import Ledger, LedgerParams
from stanch.ledger.note import Cosigner, NoteSigner, NoteVerifier, VerifiedNote, open_note
from stanch.ledger.policy import TrustPolicy, Witness
from stanch.ledger.read import LedgerReader, LogPlace
from stanch.ledger.signature import sign_act
from stanch.ledger.tlogproof import LedgerProofVerifier, TlogProof, verify_proof

__all__ = [
    "UNKNOWN_PRINCIPAL",
    "Act",
    "Checkpoint",
    "Cosigner",
    "Credential",
    "Entry",
    "EntryQuery",
    "FsckReport",
    "Ledger",
    "LedgerParams",
    "LedgerProofVerifier",
    "LedgerReader",
    "LogPlace",
    "NoteSigner",
    "NoteVerifier",
    "Opening",
    "Phase",
    "SignedCheckpoint",
    "TlogProof",
    "TrustPolicy",
    "VerifiedNote",
    "Within",
    "Witness",
    "commit",
    "decode_entry",
    "denied",
    "fsck",
    "intent",
    "new_act_id",
    "noted",
    "open_checkpoint",
    "open_note",
    "outcome",
    "sign_act",
    "verify_consistency",
    "verify_inclusion",
    "verify_proof",
]
