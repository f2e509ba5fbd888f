"""The workspace's keys: files with mode 0600 in one folder, each key for one use; what is rotated has versions."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from stanch.config import Algorithms
from stanch.crypto import (
    KeyKind,
    SigningKey,
    VerifyKey,
    hkdf_sha256,
    random_bytes,
    read_private,
    sync_folder,
    write_atomic,
    write_private,
)
from stanch.crypto.localkey import LocalKey, is_locked, load_local_key, local_key_id, save_local_key
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotFound

SECRET_BYTES = 32
SECRETS = ("dataset", "index", "pepper")
SIGNERS = ("log", "publisher", "case")
_EARLIER = ".json.earlier"
_NAME = re.compile(r"(?!.*\.v[0-9]+\Z)[a-z0-9][a-z0-9._-]{0,63}")  # an ending such as .v2 is a version


class Keyring:
    """Keys by name.

    * ``log``: Ed25519, signs checkpoints. ``publisher``: P-256, signs bundles and certificates. ``case``: Ed25519,
      signs evidence packs. ``people/<name>``: Ed25519, the local key of a principal, plain or under a passphrase.
    * Secrets of 32 bytes: ``dataset`` (record ids, salts, splits), ``index`` (training-text index), ``pepper`` (MACs of
      API keys).

    Version 1 of a key lies in ``<name>.pem`` or ``<name>.key``, version n in ``<name>.v<n>.pem`` or ``.key``. A new
    version never replaces an old one: what was made with the old one is still read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def create(cls, folder: Path, chosen: Algorithms) -> "Keyring":
        """Make the folder and the keys that every workspace has, with the algorithms of a profile."""
        (folder / "people").mkdir(parents=True, mode=0o700)
        folder.chmod(0o700)
        keyring = cls(folder)
        for name, kind in (("log", chosen.log_key), ("publisher", chosen.publisher_key), ("case", chosen.case_key)):
            keyring.add_signer(name, kind)
        for name in SECRETS:
            keyring.add_secret(name)
        return keyring

    def signer(self, name: str, version: int | None = None) -> SigningKey:
        """Return a signing key; without a version the newest.

        Raises:
            InvalidInput: There is none of that name, or others may read its file.
        """
        return SigningKey.load(self._path(name, ".pem", self._chosen(name, version)))

    def public(self, name: str, version: int | None = None) -> VerifyKey:
        """Return the public half of a signing key; without a version of the newest.

        Raises:
            NotFound: There is none of that name.
        """
        path, private = (self._path(name, end, self._chosen(name, version)) for end in (".pub.pem", ".pem"))
        if path.is_file():
            return VerifyKey.from_pem(path.read_bytes(), what=str(path))
        if not private.is_file():
            raise NotFound(f"{path}: no such key")
        return SigningKey.load(private).public  # an interruption left out the other file

    def publics(self, name: str) -> tuple[VerifyKey, ...]:
        """Return the public halves of all versions of a signing key, the newest first: what each signed is trusted.

        A host that signs nothing has public halves alone.
        """
        return tuple(self.public(name, version) for version in reversed(self._found(name, r"(?:pub\.)?pem")))

    def signers(self, name: str) -> tuple[SigningKey, ...]:
        """Return all versions of a signing key, the newest first.

        Raises:
            InvalidInput: Others may read the file of one.
        """
        return tuple(self.signer(name, version) for version in reversed(self.versions(name)))

    def public_path(self, name: str, version: int | None = None) -> Path:
        """Return the file of a public half, to be handed to others; one that an interruption left out is written."""
        path = self._path(name, ".pub.pem", self._chosen(name, version))
        if not path.exists():
            write_atomic(path, self.public(name, version).to_pem())
        return path

    def private_path(self, name: str) -> Path:
        """Return the file of the newest version of a signing key or secret; never handed to others."""
        return self._path(name, ".pem" if name in SIGNERS else ".key", self._chosen(name, None))

    def add_signer(self, name: str, kind: KeyKind) -> int:
        """Make the next version of a signing key and return its number.

        Raises:
            InvalidInput: The name is malformed, the folder cannot be written, or somebody else made this version at
                the same time.
        """
        version = max(self.versions(name), default=0) + 1
        signer = SigningKey.generate(kind)
        signer.save(self._path(name, ".pem", version))  # never replaces one: of two makers at once, one has the number
        write_atomic(self._path(name, ".pub.pem", version), signer.public.to_pem())
        return version

    def secret(self, name: str, version: int | None = None) -> bytes:
        """Return a secret of 32 bytes; without a version the newest.

        Raises:
            InvalidInput: There is none of that name or version, others may read its file, or it is damaged.
        """
        path = self._path(name, ".key", self._chosen(name, version))
        data = read_private(path)
        if len(data) != SECRET_BYTES:
            raise InvalidInput(f"{path}: expected {SECRET_BYTES} bytes, found {len(data)}")
        return data

    def scan_key(self, purpose: str) -> bytes:
        """Return the key of 32 bytes for a purpose of the scanner, such as its dictionaries.

        Raises:
            InvalidInput: The data set key, from which it is derived, cannot be read.
        """
        info = f"stanch/scan-{purpose}-key/v1".encode()
        return hkdf_sha256(self.secret("dataset"), info=info, length=SECRET_BYTES)

    def add_secret(self, name: str) -> int:
        """Make the next version of a secret and return its number.

        Raises:
            InvalidInput: The name is malformed, or the folder cannot be written.
        """
        version = max(self.versions(name), default=0) + 1
        write_private(self._path(name, ".key", version), random_bytes(SECRET_BYTES))
        return version

    def versions(self, name: str) -> tuple[int, ...]:
        """Return the versions that exist of a signing key or secret, oldest first; one that was dropped is left out."""
        return self._found(name, "pem|key")

    def drop_secret(self, name: str, version: int) -> None:
        """Delete a version of a secret, which was made just now; those that others made meanwhile stay."""
        self._path(name, ".key", version).unlink()

    def add_person(self, name: str, *, passphrase: Passphrase | None = None) -> SigningKey:
        """Make the local key of a principal, locked if a passphrase is given.

        Raises:
            InvalidInput: The name is taken or malformed.
        """
        key = SigningKey.generate("ed25519")
        save_local_key(self._path(f"people/{name}", ".json"), key, passphrase=passphrase)
        return key

    def drop_person(self, name: str) -> None:
        """Delete a local key that was made just now and belongs to nobody."""
        self._path(f"people/{name}", ".json").unlink()

    def person_id(self, name: str) -> str:
        """Return the id of a principal's local key; nothing is unlocked."""
        return local_key_id(self._path(f"people/{name}", ".json"))

    def replace_person(self, name: str, *, passphrase: Passphrase | None = None) -> SigningKey:
        """Make a new local key of a principal; the earlier one lies beside it until it is returned or forgotten.

        Raises:
            InvalidInput: A replacement was interrupted before: both keys lie there.
        """
        path, earlier = self._path(f"people/{name}", ".json"), self._path(f"people/{name}", _EARLIER)
        if earlier.exists():
            raise InvalidInput(
                f"{earlier}: is left of a replacement that was interrupted",
                next_step=f"if {name} can sign in, delete it; otherwise move it to {path.name}",
            )
        key = SigningKey.generate("ed25519")
        fresh = path.with_suffix(".fresh")
        fresh.unlink(missing_ok=True)
        save_local_key(fresh, key, passphrase=passphrase)
        write_private(earlier, read_private(path))
        fresh.replace(path)
        sync_folder(path.parent)  # before a row says that this key counts
        return key

    def return_person(self, name: str) -> None:
        """Undo a replacement."""
        path = self._path(f"people/{name}", ".json")
        self._path(f"people/{name}", _EARLIER).replace(path)
        sync_folder(path.parent)

    def forget_earlier(self, name: str) -> None:
        """Delete the key that was replaced."""
        self._path(f"people/{name}", _EARLIER).unlink()

    def person(self, name: str, *, passphrase: Callable[[], Passphrase] | None = None) -> LocalKey:
        """Return the local key of a principal; ``passphrase`` is asked only if it is locked."""
        return load_local_key(self._path(f"people/{name}", ".json"), passphrase=passphrase)

    def people(self) -> tuple[str, ...]:
        """Return whose local keys lie here, in the order of their names."""
        return tuple(sorted(path.stem for path in (self._folder / "people").glob("*.json")))

    def unlocked(self) -> tuple[str, ...]:
        """Return those of the people here whose keys no passphrase locks."""
        return tuple(name for name in self.people() if not is_locked(self._path(f"people/{name}", ".json")))

    def private_files(self) -> tuple[Path, ...]:
        """Return every file that holds a secret, in the order of their names."""
        files = (path for path in self._folder.rglob("*") if path.is_file() and not path.name.endswith(".pub.pem"))
        return tuple(sorted(files))

    def _found(self, name: str, ending: str) -> tuple[int, ...]:
        first = self._path(name, "")
        shape = re.compile(rf"{re.escape(first.name)}(?:\.v([1-9][0-9]*))?\.(?:{ending})")
        found = (shape.fullmatch(path.name) for path in first.parent.glob(f"{first.name}.*"))
        return tuple(sorted({int(match[1] or 1) for match in found if match}))

    def _chosen(self, name: str, version: int | None) -> int:
        return version if version is not None else max(self.versions(name), default=1)

    def _path(self, name: str, suffix: str, version: int = 1) -> Path:
        for part in name.split("/"):
            if not _NAME.fullmatch(part):
                raise InvalidInput(
                    f"not a key name: {name[:80]!r}", why="a name has 1 to 64 of a-z, 0-9, '.', '_' and '-'"
                )
        return self._folder / (name.replace("/", os.sep) + (f".v{version}" if version > 1 else "") + suffix)
