"""Where the keys of a pass over data lie, and how they are read there: by this process, or by a worker elsewhere."""

from dataclasses import dataclass
from pathlib import Path

from stanch.cli.frame import Frame
from stanch.crypto import read_private
from stanch.data.stage import StageSecrets
from stanch.errors import InvalidInput
from stanch.scan.policy_bytes import PolicySecrets
from stanch.workspace import Keyring
from stanch.workspace.opening import KEYS, STATE, find_workspace

KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class KeyPlaces:
    """Where a worker reads its keys: places and names, never keys.

    Attributes:
        keyring: The folder of the workspace's keys.
        policy: For a scan, the purpose (``report``, ``pseudonym``) and the reference of each key of its policy.
        folder: Where the references of the policy begin.
        index: Whether the work needs the index key.
    """

    keyring: str
    policy: tuple[tuple[str, str | None], ...] = ()
    folder: str = ""
    index: bool = False


def key_places(frame: Frame, *, index: bool = False) -> KeyPlaces:
    """Return where the keys of the workspace lie that the global flags name."""
    return KeyPlaces(str((find_workspace(frame.workspace) / STATE / KEYS).resolve()), index=index)


def fetch_secrets(places: KeyPlaces) -> StageSecrets:
    """Read the keys of a worker, on the machine that it runs on.

    Raises:
        InvalidInput: A key is not there, or others may read it.
    """
    keyring, folder = Keyring(Path(places.keyring)), Path(places.folder)
    found = {purpose: secret_of(keyring, purpose, reference, folder) for purpose, reference in places.policy}
    policy = PolicySecrets(found["report"], found.get("pseudonym")) if found else None
    return StageSecrets(policy, keyring.secret("dataset"), keyring.secret("index") if places.index else None)


def secret_of(keyring: Keyring, purpose: str, reference: str | None, folder: Path) -> bytes:
    """Return the key that a reference names; without one, the key of that purpose derived from the data set key.

    Raises:
        InvalidInput: There is none, others may read it, or it has not 32 bytes.
    """
    if reference is None:
        return keyring.scan_key(purpose)
    scheme, _, name = reference.partition(":")
    return keyring.secret(name) if scheme == "keyring" else read_key(folder / name)


def read_key(path: Path) -> bytes:
    """Read a key of 32 bytes from a private file.

    Raises:
        InvalidInput: It is missing, others may read it, or it has another length.
    """
    key = read_private(path)
    if len(key) != KEY_SIZE:
        raise InvalidInput(
            f"{path}: expected a key of {KEY_SIZE} bytes, found {len(key)}",
            next_step=f"make one with: (umask 077; head -c {KEY_SIZE} /dev/urandom > {path})",
        )
    return key
