"""Whom to trust: one public key in PEM, or a TOML file of keys with scopes, validity and a threshold.

There is no trust on first use: a key that is not in the file is not trusted. See ``docs/spec/model-signature.md``.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec

from stanch.config.toml import load_toml
from stanch.crypto import VerifyKey
from stanch.errors import InvalidInput
from stanch.sign.policy import Scope, TrustedKeys

_MAX_BYTES = 1 << 20
_PEM = b"-----BEGIN "

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
_Words = Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=200)], ...], msgspec.Meta(min_length=1)]


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    pem: str
    predicate_types: _Words | None = None
    lineages: _Words | None = None
    not_before: _Moment | None = None
    not_after: _Moment | None = None


class _TrustFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: Annotated[tuple[_Key, ...], msgspec.Meta(min_length=1, max_length=64)]
    threshold: Annotated[int, msgspec.Meta(ge=1)] = 1


def read_trusted_keys(path: Path) -> TrustedKeys:
    """Read the file that says whom to trust: PEM of one key, or TOML of several.

    Raises:
        InvalidInput: Missing, too large, neither of the two, an unknown field, a key that stands twice, a validity that
            ends before it begins, or a threshold that the keys cannot reach.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidInput(
            f"{path}: cannot be read", why=error.strerror or "", next_step="ask the publisher for the public key"
        ) from error
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{path}: expected a file of trusted keys, found more than {_MAX_BYTES} bytes")
    if data.lstrip().startswith(_PEM):
        return TrustedKeys((VerifyKey.from_pem(data, what=str(path)),))
    try:
        file = msgspec.convert(load_toml(data.decode()), _TrustFile)
    except ValueError as error:  # a ValidationError is one
        raise InvalidInput(
            f"{path}: expected a public key in PEM, or a TOML file of trusted keys", why=str(error)
        ) from error
    scopes: dict[VerifyKey, Scope] = {}
    for key in file.keys:
        _add(scopes, key, f"{path}: key {key.name}")
    return TrustedKeys(tuple(scopes), file.threshold, scopes)


def _add(scopes: dict[VerifyKey, Scope], key: _Key, what: str) -> None:
    public = VerifyKey.from_pem(key.pem, what=what)
    if public in scopes:
        raise InvalidInput(f"{what}: this key stands twice", why="a threshold counts each key once")
    if key.not_before is not None and key.not_after is not None and key.not_after < key.not_before:
        raise InvalidInput(f"{what}: not_after is before not_before")
    scopes[public] = Scope(
        name=key.name, predicate_types=key.predicate_types, lineages=key.lineages, not_before=key.not_before,
        not_after=key.not_after,
    )  # fmt: skip
