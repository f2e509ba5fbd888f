"""The workspace's keys: files with mode 0600 in one folder, each key for one use."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from stanch.crypto import SigningKey, VerifyKey, random_bytes, read_private, write_atomic, write_private
from stanch.crypto.localkey import LocalKey, load_local_key, save_local_key
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotFound

SECRET_BYTES = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Keyring:
    """Keys by name.

    * ``log``: Ed25519, signs checkpoints. ``publisher``: P-256, signs bundles and certificates. ``case``: Ed25519,
      signs evidence packs. ``people/<name>``: Ed25519, the local key of a principal, plain or under a passphrase.
    * Secrets of 32 bytes: ``dataset`` (record ids, salts, splits), ``index`` (training-text index).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def create(cls, folder: Path) -> "Keyring":
        """Make the folder and the keys that every workspace has."""
        (folder / "people").mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
        keyring = cls(folder)
        for name, key in (("log", "ed25519"), ("publisher", "p256"), ("case", "ed25519")):
            signer = SigningKey.generate("p256" if key == "p256" else "ed25519")
            signer.save(folder / f"{name}.pem")
            write_atomic(folder / f"{name}.pub.pem", signer.public.to_pem())
        for name in ("dataset", "index"):
            write_private(folder / f"{name}.key", random_bytes(SECRET_BYTES))
        return keyring

    def signer(self, name: str) -> SigningKey:
        """Return a signing key.

        Raises:
            InvalidInput: There is none of that name, or others may read its file.
        """
        return SigningKey.load(self._path(name, ".pem"))

    def public(self, name: str) -> VerifyKey:
        """Return the public half of a signing key."""
        path = self._path(name, ".pub.pem")
        if not path.is_file():
            raise NotFound(f"{path}: no such key")
        return VerifyKey.from_pem(path.read_bytes(), what=str(path))

    def public_path(self, name: str) -> Path:
        """Return the file of a public half, to be handed to others."""
        return self._path(name, ".pub.pem")

    def secret(self, name: str) -> bytes:
        """Return a secret of 32 bytes."""
        data = read_private(self._path(name, ".key"))
        if len(data) != SECRET_BYTES:
            raise InvalidInput(f"{self._path(name, '.key')}: expected {SECRET_BYTES} bytes, found {len(data)}")
        return data

    def add_person(self, name: str, *, passphrase: Passphrase | None = None) -> SigningKey:
        """Make the local key of a principal, locked if a passphrase is given.

        Raises:
            InvalidInput: The name is taken or malformed.
        """
        key = SigningKey.generate("ed25519")
        save_local_key(self._path(f"people/{name}", ".json"), key, passphrase=passphrase)
        return key

    def person(self, name: str, *, passphrase: Callable[[], Passphrase] | None = None) -> LocalKey:
        """Return the local key of a principal; ``passphrase`` is asked only if it is locked."""
        return load_local_key(self._path(f"people/{name}", ".json"), passphrase=passphrase)

    def people(self) -> tuple[str, ...]:
        """Return whose local keys lie here, oldest first."""
        modified: Callable[[Path], float] = lambda path: path.stat().st_mtime_ns  # noqa: E731 - a typed sort key
        return tuple(path.stem for path in sorted((self._folder / "people").glob("*.json"), key=modified))

    def _path(self, name: str, suffix: str) -> Path:
        for part in name.split("/"):
            if not _NAME.fullmatch(part):
                raise InvalidInput(
                    f"not a key name: {name[:80]!r}", why="a name has 1 to 64 of a-z, 0-9, '.', '_' and '-'"
                )
        return self._folder / (name.replace("/", os.sep) + suffix)
