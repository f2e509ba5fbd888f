"""Signed statements: who says what about which bytes.

A :class:`Statement` (in-toto v1) names its subjects by digest; :func:`sign_statement` wraps it in a DSSE envelope
inside a Sigstore bundle; :func:`verify_bundle` returns a :class:`VerifiedStatement` or raises. Policies compose:

Example:
    >>> from stanch.crypto import SigningKey
    >>> from stanch.terms import Digest
    >>> from stanch.sign import PredicateType, Statement, Subject, TrustedKeys
    >>> from stanch.sign import all_of, sign_statement, verify_bundle
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

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
