"""A person's own signing key: an Ed25519 seed in a private file, plain or locked under a passphrase."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stanch.crypto.canonical import canonical_json, parse_json
from stanch.crypto.files import read_private, write_private
from stanch.crypto.passphrase import Passphrase
from stanch.crypto.signing import SigningKey, VerifyKey
from stanch.crypto.stanza import decode_base64url, encode_base64url
from stanch.errors import InvalidInput, NotAuthenticated
from stanch.terms import JsonValue

FORMAT = "stanch/local-key/v1"


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A person's key and whether a passphrase was needed for it: possession and knowledge make two factors."""

    key: SigningKey
    locked: bool


def save_local_key(path: Path, key: SigningKey, *, passphrase: Passphrase | None = None) -> None:
    """Write an Ed25519 key to a new file with mode 0600, locked if a passphrase is given."""
    public = encode_base64url(key.public.raw)
    fields: dict[str, JsonValue] = {"format": FORMAT, "public": public}
    if passphrase is None:
        fields["secret"] = encode_base64url(key.seed)
    else:
        fields["locked"] = dict(passphrase.lock(key.seed, aad=_context(public)))
    write_private(path, canonical_json(fields))


def is_locked(path: Path) -> bool:
    """Say whether a passphrase is needed for a person's key; nothing is unlocked.

    Raises:
        InvalidInput: The file is missing, readable by others, or no JSON.
    """
    match parse_json(read_private(path), what=str(path)):
        case {"locked": _}:
            return True
    return False


def local_key_id(path: Path) -> str:
    """Return the id of a person's key; nothing is unlocked.

    Raises:
        InvalidInput: The file is missing, readable by others, or no such key.
    """
    match parse_json(read_private(path), what=str(path)):
        case {"format": "stanch/local-key/v1", "public": str(public)}:
            return VerifyKey.from_raw_ed25519(decode_base64url(public, what=str(path))).key_id
    raise InvalidInput(f"{path}: expected a local key, {FORMAT}")


def load_local_key(path: Path, *, passphrase: Callable[[], Passphrase] | None = None) -> LocalKey:
    """Read a person's key; ``passphrase`` is asked only if the file is locked.

    Raises:
        InvalidInput: The file is missing, readable by others, or no such key.
        NotAuthenticated: It is locked and no passphrase is at hand.
        DecryptionFailed: The passphrase is wrong.
    """
    match parse_json(read_private(path), what=str(path)):
        case {"format": "stanch/local-key/v1", "public": str(public), "secret": str(secret), **extra} if not extra:
            seed, locked = decode_base64url(secret, what=str(path)), False
        case {"format": "stanch/local-key/v1", "public": str(public), "locked": dict(lock), **extra} if not extra:
            if passphrase is None:
                raise NotAuthenticated(
                    f"{path.stem}: the key is locked", next_step="give the passphrase with --passphrase-file FILE"
                )
            seed, locked = passphrase().unlock(lock, _context(public)), True
        case _:
            raise InvalidInput(f"{path}: expected a local key, {FORMAT}")
    if len(seed) != 32:
        raise InvalidInput(f"{path}: expected a seed of 32 bytes")
    key = SigningKey.from_seed(seed)
    if encode_base64url(key.public.raw) != public:
        raise InvalidInput(f"{path}: the public key does not belong to the secret one")
    return LocalKey(key, locked)


def _context(public: str) -> bytes:
    return FORMAT.encode() + b"\x00" + public.encode()
