"""Verbs about the workspace's own keys: make a new version beside the old ones."""

from functools import partial

from stanch.errors import InvalidInput
from stanch.terms import EntryRef, JsonValue
from stanch.workspace.act import Done, Request, nothing_to_settle
from stanch.workspace.keyring import SIGNERS
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref

ROTATED = ("case", "log", "pepper", "publisher")
"""What may get a new version. The keys of data sets and of the index are part of what was made with them."""


def rotate_key(workspace: Workspace, name: str) -> int:
    """Make the next version of a key, which is used from now on, and return its number.

    What earlier versions signed or made stays valid; their files stay. The log's earlier key goes on signing beside the
    new one for thirty days: until then whoever verifies the log must learn of the new one.

    A new key that signs stays, also where the log could not take the outcome: something may bear its signature already.
    The log's own is used only once the rotation is recorded.

    Raises:
        InvalidInput: This key is not rotated.
    """
    if name not in ROTATED:
        raise InvalidInput(
            f"key {name[:64]!r} is not rotated", why=_why(name), next_step=f"keys that are: {', '.join(ROTATED)}"
        )

    keys, ledger = workspace.keys, workspace.ledger

    def run(_ref: EntryRef) -> Done[int]:
        kinds = workspace.config.chosen_algorithms()
        if name not in SIGNERS:
            version = keys.add_secret(name)
            return Done(version, {"version": version}, undo=lambda: keys.drop_secret(name, version), stays=True)
        chosen = {"case": kinds.case_key, "log": kinds.log_key, "publisher": kinds.publisher_key}
        version = keys.add_signer(name, chosen[name])
        payload: dict[str, JsonValue] = {"version": version, "key_id": keys.public(name).key_id}
        settle = partial(ledger.replace_key, keys.signer(name)) if name == "log" else nothing_to_settle
        return Done(version, payload, settle=settle)

    request = Request("key.rotate", "access:grant", workspace_ref(workspace), {"name": name})
    version = workspace.door.act(request, run)
    if name == "log":
        ledger.use_keys(keys.signers(name))
    return version


def _why(name: str) -> str:
    if name in {"dataset", "index"}:
        return "record ids, splits and the index would no longer match what was made with it"
    return ""
