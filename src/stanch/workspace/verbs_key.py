"""Verbs about the workspace's own keys: make a new version beside the old ones."""

from stanch.errors import InvalidInput
from stanch.terms import EntryRef
from stanch.workspace.act import Done, Request
from stanch.workspace.keyring import SIGNERS
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref

ROTATED = ("case", "log", "pepper", "publisher")
"""What may get a new version. The keys of data sets and of the index are part of what was made with them."""


def rotate_key(workspace: Workspace, name: str) -> int:
    """Make the next version of a key, which is used from now on, and return its number.

    What earlier versions signed or made stays valid; their files stay. The log's earlier key goes on signing beside the
    new one for thirty days: until then whoever verifies the log must learn of the new one.

    Raises:
        InvalidInput: This key is not rotated.
    """
    if name not in ROTATED:
        raise InvalidInput(
            f"key {name[:64]!r} is not rotated", why=_why(name), next_step=f"keys that are: {', '.join(ROTATED)}"
        )

    def run(_ref: EntryRef) -> Done[int]:
        kinds = workspace.config.chosen_algorithms()
        if name in SIGNERS:
            chosen = {"case": kinds.case_key, "log": kinds.log_key, "publisher": kinds.publisher_key}
            version = workspace.keys.add_signer(name, chosen[name])
            if name == "log":
                workspace.ledger.replace_key(workspace.keys.signer(name))
            return Done(version, {"version": version, "key_id": workspace.keys.public(name).key_id})
        version = workspace.keys.add_secret(name)
        return Done(version, {"version": version})

    request = Request("key.rotate", "access:grant", workspace_ref(workspace), {"name": name})
    return workspace.door.act(request, run)


def _why(name: str) -> str:
    if name in {"dataset", "index"}:
        return "record ids, splits and the index would no longer match what was made with it"
    return ""
