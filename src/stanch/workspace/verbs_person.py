"""Verbs about somebody who is registered: another clearance, another local key."""

from functools import partial

from stanch.access.principal import MAX_CLEARANCE
from stanch.crypto import VerifyKey
from stanch.crypto.passphrase import Passphrase
from stanch.errors import InvalidInput, NotFound
from stanch.terms import EntryRef, JsonValue
from stanch.workspace.act import Done, Request
from stanch.workspace.opening import Workspace
from stanch.workspace.verbs_access import workspace_ref


def clear_principal(workspace: Workspace, name: str, clearance: int) -> str:
    """Let somebody use models up to a sensitivity from now on, and return the pseudonymous id.

    Raises:
        InvalidInput: There is no such principal, or not 0 to 100.
    """
    if not 0 <= clearance <= MAX_CLEARANCE:
        raise InvalidInput(f"clearance: expected 0 to {MAX_CLEARANCE}, found {clearance}")
    people, principal = workspace.people, workspace.people.find(name)

    def run(_ref: EntryRef) -> Done[str]:
        _, settle = people.rehearse(lambda on: on.directory.clear(principal, clearance))
        return Done(principal, asked, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {"principal": principal, "clearance": clearance}
    return workspace.door.act(Request("access.clear", "access:grant", workspace_ref(workspace), asked), run)


def replace_local_key(workspace: Workspace, name: str, *, passphrase: Passphrase | None = None) -> str:
    """Make a new local key for a person of this workspace, and return its id; the earlier one is refused from then on.

    Open approvals that the earlier key signed do not count any more. The act is in the log, about that person: an
    administrator who gives himself the key of somebody who approves is seen. What opens shares is another key.

    Args:
        workspace: The workspace.
        name: The name of the key's file.
        passphrase: Locks the new key.

    Raises:
        InvalidInput: There is no passphrase for a key that was locked, or a replacement was interrupted before.
        NotFound: There is no such key here, or nobody signs in with it.
    """
    people, keys = workspace.people, workspace.keys
    if name not in keys.people():
        raise NotFound(f"there is no local key of {name[:64]!r} here", next_step="stanch access who")
    if passphrase is None and name not in keys.unlocked():
        raise InvalidInput(f"{name}: the key is locked; a new one must be", next_step="--new-passphrase-file FILE")
    earlier = keys.person_id(name)

    def run(_ref: EntryRef) -> Done[str]:
        key = keys.replace_person(name, passphrase=passphrase)
        try:
            principal, settle = people.rehearse(lambda on: on.directory.replace_key(earlier, key.public))
        except BaseException:
            keys.return_person(name)
            raise
        payload: dict[str, JsonValue] = {"principal": principal, "key": key.public.key_id, **asked}
        undo = partial(keys.return_person, name)
        return Done(key.public.key_id, payload, undo=undo, stays=True, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {"earlier": earlier}
    made = workspace.door.act(Request("access.rekey", "access:grant", workspace_ref(workspace), asked), run)
    keys.forget_earlier(name)
    return made


def take_local_key(workspace: Workspace, name: str, key: VerifyKey) -> str:
    """Let a person sign in with another local key, which the person has made, and return its id.

    The earlier key is refused from then on, as in :func:`replace_local_key`. Whoever acts says whose the new one is, so
    such a person approves only where it is named.

    Args:
        workspace: The workspace.
        name: Name or id of the person.
        key: The public half of the new key.

    Raises:
        InvalidInput: There is no such person, or the key is not Ed25519.
        NotFound: The person signs in with no local key.
        Conflict: The key is registered already.
    """
    people = workspace.people
    earlier = people.directory.local_key_of(people.find(name))

    def run(_ref: EntryRef) -> Done[str]:
        principal, settle = people.rehearse(lambda on: on.directory.replace_key(earlier, key))
        return Done(key.key_id, {"principal": principal, **asked}, about=principal, settle=settle)

    asked: dict[str, JsonValue] = {"earlier": earlier, "key": key.key_id}
    return workspace.door.act(Request("access.rekey", "access:grant", workspace_ref(workspace), asked), run)
