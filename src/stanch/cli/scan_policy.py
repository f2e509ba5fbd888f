"""The policy of a scan, with its keys: from files that only their owner can read, or from the workspace's keyring."""

from dataclasses import dataclass
from pathlib import Path

from stanch.cli.recipients import recipient_of
from stanch.crypto import hkdf_sha256, read_private
from stanch.errors import InvalidInput
from stanch.scan import Operator, Policy, Vault, read_policy
from stanch.scan.policy_file import parse_policy
from stanch.workspace import Keyring, Workspace

KEY_SIZE = 32
_PLAIN = b'format = "stanch/scan-policy/v1"'


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options of a scan say about its policy."""

    policy_file: Path | None
    operator: str | None
    min_score: float | None
    decode: bool
    vault: Path | None
    vault_to: tuple[str, ...]


def policy_of(workspace: Workspace, wanted: Wanted) -> Policy:
    """Return the policy of a file, or the plain one, changed as the options say.

    Raises:
        InvalidInput: The file, a key or a recipient is wrong, or a vault has no recipient.
    """
    path = wanted.policy_file
    written = parse_policy(Path("policy"), _PLAIN) if path is None else read_policy(path)
    vault = None
    if wanted.vault is not None or wanted.vault_to:
        if wanted.vault is None or not wanted.vault_to:
            raise InvalidInput("a vault needs a file and a recipient", next_step="give --vault and --vault-to")
        vault = Vault(wanted.vault, [recipient_of(text) for text in wanted.vault_to])
    folder = Path() if path is None else path.parent
    return written.build(
        lambda purpose, reference: secret_of(workspace.keys, purpose, reference, folder),
        operator=None if wanted.operator is None else Operator(wanted.operator),
        min_score=wanted.min_score,
        vault=vault,
        decode=wanted.decode,
    )


def secret_of(keyring: Keyring, purpose: str, reference: str | None, folder: Path) -> bytes:
    """Return the key that a reference names; without one, the key of that purpose derived from the data set key.

    Raises:
        InvalidInput: There is none, others may read it, or it has not 32 bytes.
    """
    if reference is None:
        return hkdf_sha256(keyring.secret("dataset"), info=f"stanch/scan-{purpose}-key/v1".encode(), length=KEY_SIZE)
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
