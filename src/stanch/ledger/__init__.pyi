from .checkpoint import Checkpoint, SignedCheckpoint, open_checkpoint
from .commitment import Opening, commit
from .committer import Within
from .entry import (
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
from .fsck import FsckReport, fsck
from .index import EntryQuery
from .log import Ledger, LedgerParams
from .note import Cosigner, NoteSigner, NoteVerifier, VerifiedNote, open_note
from .policy import TrustPolicy, Witness
from .read import LedgerReader, LogPlace
from .signature import sign_act
from .tlogproof import TlogProof, verify_proof

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
    "verify_proof",
]
