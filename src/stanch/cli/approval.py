"""``stanch release approve``, ``approve-offline`` and ``redeem``: releasing a copy together, and opening it then."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.crypto import SigningKey
    from stanch.release import QuorumRequest
    from stanch.terms import Digest, JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
_REQUEST = "sha256:HEX of exactly what you approve; without it the request is shown and nothing is approved."


def require_consent(request: "QuorumRequest", given: str | None) -> "Digest":
    """Return the digest that was given, or refuse and show the request: nobody approves what was not seen.

    Raises:
        InvalidInput: None was given, or it is malformed.
    """
    from stanch.terms import Digest  # noqa: PLC0415 - keeps `stanch --help` light

    if given is not None:
        return Digest.parse(given)
    asked = request.release
    people = ", ".join(approver.principal for approver in request.approvers)
    raise InvalidInput(
        f"approve: expected --request {request.digest}",
        why=f"it releases model {asked.model}, {asked.lineage} release {asked.release_number}, as the copy with "
        f"manifest {request.manifest_sha256}, by certificate {asked.certificate_sha256}, to {asked.recipient_name} "
        f"with key {asked.recipient_key}, until {asked.not_after}, once {request.m} of {people} approve",
        next_step="compare this with what was agreed, and repeat the command with that --request",
    )


@click.command("approve", cls=Leaf)
@click.argument("name")
@click.option("--to", "recipient", required=True, metavar="NAME", help="Whose copy.")
@click.option("--identity", type=FILE, required=True, help="The private half of the key that you registered.")
@click.option("--request", metavar="DIGEST", help=_REQUEST)
@click.option("--out", type=FILE, help="Write the approval to this new file too.")
def approve(name: str, *, recipient: str, identity: Path, request: str | None, out: Path | None) -> Result:
    """Release your share of the key of a copy of release NAME, signed with your own key."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.recipients import identity_of  # noqa: PLC0415 - same
    from stanch.workspace.verbs_approve import approve_release, load_record  # noqa: PLC0415 - same

    _check_free(out)
    with open_workspace(current()) as workspace:
        digest = require_consent(load_record(workspace, name, recipient).request, request)
        made = approve_release(workspace, name, recipient, identity_of(identity), request=digest)
    _write(out, made.approval)
    text = f"approved   {name} for {recipient}: {made.count} of {made.needed} people so far"
    if made.count >= made.needed:
        text += "\nnext       stanch release deliver COPY URI"
    data: dict[str, JsonValue] = {
        "name": name, "recipient": recipient, "request": str(digest), "approvals": made.count, "needed": made.needed,
    }  # fmt: skip
    return Result(data, text)


@click.command("approve-offline", cls=Leaf)
@click.argument("record", type=FILE)
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--identity", type=FILE, required=True, help="The private half of the key that you registered.")
@click.option("--key", type=FILE, required=True, help="Your own signing key: a file of the workspace's people.")
@click.option("--request", metavar="DIGEST", help=_REQUEST)
@click.option("--origin", help="The workspace's log: then OUT is for the console, where the approval is handed in.")
@click.option("--out", type=FILE, required=True, help="The new approval, for the recipient.")
def approve_offline(
    record: Path, *, trust: Path, identity: Path, key: Path, request: str | None, origin: str | None, out: Path
) -> Result:
    """Release your share by the file RECORD (quorum.json) alone, where the workspace is out of reach."""
    from stanch.cli.recipients import identity_of, trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.secrets import ask_passphrase  # noqa: PLC0415 - same
    from stanch.crypto.localkey import load_local_key  # noqa: PLC0415 - same
    from stanch.errors import PolicyViolation  # noqa: PLC0415 - same
    from stanch.release import approve as approve_share  # noqa: PLC0415 - same
    from stanch.release import read_record  # noqa: PLC0415 - same

    _check_free(out)
    signed = read_record(_bytes(record), trust_of(trust), what=str(record))
    digest = require_consent(signed.request, request)
    if digest != signed.request.digest:
        raise PolicyViolation(f"{record}: another request: expected {digest}, found {signed.request.digest}")
    local = load_local_key(key, passphrase=lambda: ask_passphrase(current().passphrase_file))
    made = approve_share(signed, identity_of(identity), local.key, now=datetime.now(UTC))
    if origin is not None:
        _write(out, _for_console(signed.request, local.key, made, origin))
        text = f"approved   {digest}\nnext       hand {out} in on the release's page of the console"
        return Result({"request": str(digest), "path": str(out)}, text)
    _write(out, made)
    text = f"approved   {digest}\nnext       give {out} to {signed.request.release.recipient_name}"
    return Result({"request": str(digest), "path": str(out)}, text)


def _for_console(request: "QuorumRequest", key: "SigningKey", share: bytes, origin: str) -> bytes:
    """Return an approval with the statement that counts it, as the console takes it."""
    import base64  # noqa: PLC0415 - of this command alone
    import time  # noqa: PLC0415 - same

    from stanch.access import ApprovalStatement, sign_approval  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import canonical_json  # noqa: PLC0415 - same

    statement = ApprovalStatement(
        request=request.digest, approver=request.approvers[request.share_of(key.key_id) - 1].principal, origin=origin,
        created_ms=int(time.time() * 1000), expires_ms=int(request.release.expires.timestamp() * 1000),
    )  # fmt: skip
    signed = sign_approval(key, statement)
    return canonical_json(
        {
            "type": "urn:stanch:handed-approval:v1",
            "share": base64.b64encode(share).decode(),
            "statement": base64.b64encode(signed.statement).decode(),
            "key_id": signed.key_id,
            "signature": base64.b64encode(signed.signature).decode(),
        }
    )


@click.command("redeem", cls=Leaf)
@click.argument("bundle", type=FOLDER)
@click.option("--identity", type=FILE, required=True, help="Your private key.")
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--quorum", type=FOLDER, help="Folder with quorum.json and approvals; by default COPY.quorum beside it.")
@click.option("--approval", "files", type=FILE, multiple=True, help="A further approval; may be repeated.")
def redeem(bundle: Path, *, identity: Path, trust: Path, quorum: Path | None, files: tuple[Path, ...]) -> Result:
    """Join the shares that the approvers released, so that your key opens BUNDLE from now on."""
    from stanch.cli.recipients import identity_of, trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.release import QuorumFiles, quorum_folder, redeem_copy  # noqa: PLC0415 - same

    trusted, key = trust_of(trust), identity_of(identity)
    found = QuorumFiles.read(quorum or quorum_folder(bundle))
    approvals = [*found.approvals.values(), *map(_bytes, files)]
    made = redeem_copy(bundle, trusted, found.record, approvals, key, now=datetime.now(UTC))
    text = (
        f"redeemed   {bundle}: released by {', '.join(made.approvers)}\n"
        f"next       stanch release open {bundle} --identity {identity.name} --trust {trust.name}"
    )
    return Result({"path": str(bundle), "approvers": list(made.approvers)}, text, warnings=made.left_out)


def _bytes(path: Path) -> bytes:
    from stanch.release.quorum import MAX_RECORD  # noqa: PLC0415 - keeps `stanch --help` light

    if not path.is_file():
        raise InvalidInput(f"{path}: no such file")
    with path.open("rb") as file:
        return file.read(MAX_RECORD + 1)  # who reads the content refuses what is too long


def _check_free(out: Path | None) -> None:
    if out is not None and out.exists():
        raise InvalidInput(f"{out}: exists already", next_step="choose another --out")


def _write(out: Path | None, data: bytes) -> None:
    from stanch.crypto import write_atomic  # noqa: PLC0415 - keeps `stanch --help` light

    if out is not None:
        write_atomic(out, data)
