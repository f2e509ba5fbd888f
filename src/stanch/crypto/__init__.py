"""Primitives and keys: the only package that imports ``cryptography``.

Hashes and Merkle trees (RFC 9162), canonical JSON (RFC 8785), key derivation, keyed streams, signatures, and whole or
private files. The encrypted stream (:mod:`stanch.crypto.floe`), HPKE and identities are imported from their modules.

Example:
    >>> from stanch.crypto import canonical_json, merkle_root, leaf_hash
    >>> canonical_json({"b": 1, "a": [1.5, None]})
    b'{"a":[1.5,null],"b":1}'
    >>> merkle_root([leaf_hash(b"")]).hex()[:16]
    '6e340b9cffb37a98'
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
