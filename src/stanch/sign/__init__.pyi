from .bundle import Bundle, sign_statement, verify_bundle
from .content import IntakeFinding
from .directory import (
    MODEL_KEYS,
    SIGNATURE_NAME,
    DirectoryMismatch,
    VerifiedDirectory,
    sign_directory,
    sign_listing,
    verify_directory,
)
from .intake import STRICT, IntakePolicy, IntakeReport, inspect_model
from .policy import HasSubject, Policy, PredicateType, Scope, TrustedKeys, all_of
from .provenance import PROVENANCE_TYPE, PrivateTraining, TuningRun, state_provenance
from .sealed import sign_manifest, verify_manifest
from .statement import Statement, Subject, VerifiedStatement
from .timestamp import TimestampAuthority, Timestamped, stamp_bundle
from .trust import read_trusted_keys

__all__ = [
    "MODEL_KEYS",
    "PROVENANCE_TYPE",
    "SIGNATURE_NAME",
    "STRICT",
    "Bundle",
    "DirectoryMismatch",
    "HasSubject",
    "IntakeFinding",
    "IntakePolicy",
    "IntakeReport",
    "Policy",
    "PredicateType",
    "PrivateTraining",
    "Scope",
    "Statement",
    "Subject",
    "TimestampAuthority",
    "Timestamped",
    "TrustedKeys",
    "TuningRun",
    "VerifiedDirectory",
    "VerifiedStatement",
    "all_of",
    "inspect_model",
    "read_trusted_keys",
    "sign_directory",
    "sign_listing",
    "sign_manifest",
    "sign_statement",
    "stamp_bundle",
    "state_provenance",
    "verify_bundle",
    "verify_directory",
    "verify_manifest",
]
