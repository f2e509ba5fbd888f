"""Bundles that open by quorum: the stanza that points to the quorum record, and the one that a redemption leaves.

At sealing such a bundle gets one stanza of type ``quorum``, which opens nothing: the root key exists only as shares in
the quorum record, which ``stanch.release`` makes. Who redeemed enough approvals wraps the root to the own key as a
stanza of type ``quorum-share``, bound to the request and the approvals that gave it; no other opens the bundle.
"""

from collections.abc import Sequence
from typing import Final

from stanch.crypto.stanza import (
    BoundContext,
    KeyProvider,
    Stanza,
    WrapContext,
    encode_base64url,
)
from stanch.errors import InvalidInput
from stanch.seal.keys import ReleaseRoot
from stanch.seal.manifest import Quorum
from stanch.terms import Digest

QUORUM_STANZA: Final = "quorum"
QUORUM_SHARE_STANZA: Final = "quorum-share"
_LABEL = b"stanch/quorum/v1/redeemed"
_OWN = {"kind", "request", "approvals"}
_DIGEST_SIZE = 32


def check_recipients(recipients: Sequence[KeyProvider], quorum: Quorum | None) -> None:
    """Check whom a bundle is sealed for: with a quorum the split of its root alone, else at least one recipient.

    Raises:
        InvalidInput: Nobody is named, somebody is named twice, or a quorum and a direct recipient would both open it.
    """
    if not recipients:
        raise InvalidInput("sealing needs at least one recipient", next_step="name one with --to")
    described = [recipient.describe() for recipient in recipients]
    if len({(one.type, one.key_id) for one in described}) != len(described):
        raise InvalidInput(
            "a recipient is named twice", why="one stanza a key and one passphrase a bundle", next_step="name each once"
        )
    kinds = [one.type for one in described]
    if (kinds == [QUORUM_STANZA]) if quorum is not None else (QUORUM_STANZA not in kinds):
        return
    raise InvalidInput(
        "a bundle that opens by quorum is sealed for one quorum split and nobody else",
        why="another recipient could open it without the approvers",
    )


def wrap_redeemed(
    root: ReleaseRoot, context: WrapContext, identity: KeyProvider, *, request: Digest, approvals: Digest
) -> Stanza:
    """Wrap a root that approvers released to the recipient's own key.

    Args:
        root: The root, checked against the signed commitment.
        context: Bundle, manifest and end of the grant.
        identity: The recipient's key.
        request: Digest of the request that was approved.
        approvals: Digest of the approvals.
    """
    inner = identity.wrap(root.reveal(), _bind(context, request.value, approvals.value))
    fields = {
        **inner.fields,
        "kind": inner.type,
        "request": encode_base64url(request.value),
        "approvals": encode_base64url(approvals.value),
    }
    return Stanza(QUORUM_SHARE_STANZA, inner.key_id, inner.not_after, fields)


def unfold_redeemed(stanza: Stanza, context: WrapContext) -> tuple[Stanza, WrapContext]:
    """Return the stanza inside one of type ``quorum-share``, as the recipient's key reads it, and its context.

    Raises:
        InvalidInput: The stanza is malformed.
    """
    if not stanza.fields.keys() >= _OWN:
        raise InvalidInput(f"stanza: expected type {QUORUM_SHARE_STANZA} with the fields {', '.join(sorted(_OWN))}")
    rest = {name: value for name, value in stanza.fields.items() if name not in _OWN}
    inner = Stanza(str(stanza.fields["kind"]), stanza.key_id, stanza.not_after, rest)
    return inner, _bind(context, stanza.binary("request", _DIGEST_SIZE), stanza.binary("approvals", _DIGEST_SIZE))


def _bind(context: WrapContext, request: bytes, approvals: bytes) -> BoundContext:
    return BoundContext(context.bundle_id, context.manifest_sha256, context.not_after, _LABEL, (request, approvals))
