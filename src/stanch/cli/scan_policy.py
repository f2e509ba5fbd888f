"""The policy of a scan, with its keys: from files that only their owner can read, or from the workspace's keyring."""

from dataclasses import dataclass, replace
from pathlib import Path

from stanch.cli.key_places import KeyPlaces, secret_of
from stanch.cli.recipients import recipient_of
from stanch.errors import InvalidInput
from stanch.scan import Operator, Policy, Vault, read_policy
from stanch.scan.policy_file import PolicyFile, parse_policy
from stanch.workspace import Workspace

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
    path, written = wanted.policy_file, _written(wanted)
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


def keys_of(places: KeyPlaces, wanted: Wanted, policy: Policy) -> KeyPlaces:
    """Return where workers find the keys of ``policy``, which was built as ``wanted``."""
    keys = _written(wanted).document.keys
    purposes: tuple[tuple[str, str | None], ...] = (("report", keys.report),)
    if policy.pseudonym_key is not None:
        purposes += (("pseudonym", keys.pseudonym),)
    folder = Path() if wanted.policy_file is None else wanted.policy_file.parent
    return replace(places, policy=purposes, folder=str(folder.resolve()))


def _written(wanted: Wanted) -> PolicyFile:
    path = wanted.policy_file
    return parse_policy(Path("policy"), _PLAIN) if path is None else read_policy(path)
