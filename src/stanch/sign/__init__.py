"""Signed statements: who says what about which bytes.

A :class:`Statement` (in-toto v1) names its subjects by digest; :func:`sign_statement` wraps it in a DSSE envelope
inside a Sigstore bundle; :func:`verify_bundle` returns a :class:`VerifiedStatement` or raises. Policies compose:

Example:
    >>> from stanch.crypto import SigningKey
    >>> from stanch.terms import Digest
    >>> key = SigningKey.generate("p256")
    >>> statement = Statement((Subject("weights", Digest.sha256(b"...")),), "https://example.com/note/v1", {"ok": True})
    >>> bundle = sign_statement(statement, key)
    >>> policy = all_of(TrustedKeys((key.public,)), PredicateType("https://example.com/note/v1"))
    >>> verify_bundle(bundle, policy).statement.predicate
    {'ok': True}

Directories are signed as OpenSSF model signing does, and a model from outside is inspected before anything loads it::

    bundle = sign_directory(folder, key)
    verified = verify_directory(folder, bundle, read_trusted_keys(Path("trust.toml")))   # names every file that differs
    inspect_model(folder)                                                                # raises UnsafeArtifact

A signature says *who*, not *true*: a trusted signer can sign a wrong statement.
"""

from stanch.sign.bundle import Bundle, sign_statement, verify_bundle
from stanch.sign.content import IntakeFinding
from stanch.sign.directory import (
    MODEL_KEYS,
    SIGNATURE_NAME,
    DirectoryMismatch,
    VerifiedDirectory,
    sign_directory,
    sign_listing,
    verify_directory,
)
from stanch.sign.intake import STRICT, IntakePolicy, IntakeReport, inspect_model
from stanch.sign.policy import HasSubject, NotOlderThan, Policy, PredicateType, Scope, TrustedKeys, all_of, any_of
from stanch.sign.provenance import PROVENANCE_TYPE, PrivateTraining, TuningRun, state_provenance
from stanch.sign.sealed import sign_manifest, verify_manifest
from stanch.sign.statement import Statement, Subject, VerifiedStatement
from stanch.sign.timestamp import Timestamped, stamp_bundle
from stanch.sign.trust import read_trusted_keys

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
    "NotOlderThan",
    "Policy",
    "PredicateType",
    "PrivateTraining",
    "Scope",
    "Statement",
    "Subject",
    "Timestamped",
    "TrustedKeys",
    "TuningRun",
    "VerifiedDirectory",
    "VerifiedStatement",
    "all_of",
    "any_of",
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
