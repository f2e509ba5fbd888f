"""``stanch seal doctor | shred``: who can still open a bundle, and making sure that nobody can."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.crypto import SigningKey
    from stanch.crypto.stanza import DestroyableKey
    from stanch.seal import Destruction
    from stanch.sign import Bundle
    from stanch.terms import JsonValue, VerifiedDigest

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
DESTRUCTION_TYPE = "urn:stanch:destruction:v1"


@click.command("doctor", cls=Leaf)
@click.argument("bundle", type=FOLDER)
def doctor(bundle: Path) -> Result:
    """Say who can still open BUNDLE, what defeats shredding it, and what of this host bears on opening it.

    No signature is checked and no service asked.
    """
    from stanch.seal import diagnose, examine_host  # noqa: PLC0415 - keeps `stanch --help` light

    found, host = diagnose(bundle), examine_host()
    lines = [
        f"{'ended' if opener.ended else 'opens':<10} {opener.key_id}: {opener.kept_by} ({opener.type})"
        for opener in found.openers
    ]
    if found.quorum is not None:
        lines.append(f"opens      when {found.quorum.m} of {found.quorum.n} approvers release it")
    lines += [f"against    {reason}" for reason in found.defeats]
    for check in host:
        lines.append(f"{'host' if check.fine else 'host: weak':<10} {check.found}")
        if check.next_step:
            lines.append(f"{'':<10} {check.next_step}")
    lines.append(
        f"next       stanch seal shred {bundle} --trust KEY --key FILE --out RECORD"
        if found.shreddable
        else "next       to be able to shred, seal only to keys of a token or of KMS"
    )
    openers: list[JsonValue] = [
        {
            "type": opener.type, "key_id": opener.key_id, "not_after": opener.not_after, "ended": opener.ended,
            "shreddable": opener.shreddable,
        }
        for opener in found.openers
    ]  # fmt: skip
    data: dict[str, JsonValue] = {
        "openers": openers, "quorum": found.quorum is not None, "changes": found.epoch,
        "shreddable": found.shreddable, "against": [*found.defeats],
        "host": [{"name": check.name, "fine": check.fine, "next": check.next_step} for check in host],
    }  # fmt: skip
    return Result(data, "\n".join(lines))


@click.command("shred", cls=Leaf)
@click.argument("bundle", type=FOLDER)
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--key", "keys", type=FILE, multiple=True, required=True, help="The file of a key to destroy; each one.")
@click.option("--sign-key", type=FILE, help="The publisher's private signing key, to sign the record.")
@click.option("--out", type=FILE, required=True, help="The destruction record.")
@click.option(
    "--keys-open-nothing-else", "alone", is_flag=True,
    help="You say so: whatever else was encrypted with these keys is lost too.",
)  # fmt: skip
def shred(
    bundle: Path, *, trust: Path, keys: tuple[Path, ...], sign_key: Path | None, out: Path, alone: bool
) -> Result:
    """Destroy the keys of BUNDLE, so that no copy of it opens again. It cannot be undone.

    The list of recipients is not signed: a key that was taken off it before still opens the copies made before. Inside
    a workspace the list is compared with what the log says, if the copy was made there.
    """
    from stanch.cli.recipients import trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import SigningKey, canonical_json, write_atomic  # noqa: PLC0415 - same
    from stanch.release import read_publisher  # noqa: PLC0415 - same
    from stanch.seal import shred as shred_bundle  # noqa: PLC0415 - same

    if not alone:
        raise InvalidInput(
            "shredding destroys keys for everything that they opened", next_step="say --keys-open-nothing-else"
        )
    signature = out.with_name(f"{out.name}.sigstore.json")
    for path in (out, signature):
        if path.exists() or not path.parent.is_dir():
            raise InvalidInput(f"{path}: cannot be made", next_step="choose a new file in a folder that exists")
    signer = None if sign_key is None else SigningKey.load(sign_key)
    _, publisher = read_publisher(bundle, trust_of(trust))
    _require_publisher(signer, publisher)
    made_for = _made_for(publisher)
    done = shred_bundle(bundle, publisher, [_destroyable(path) for path in keys], sealed_for=made_for)
    write_atomic(out, canonical_json(done.to_json()))
    if signer is not None:
        write_atomic(signature, _sign(done, publisher, signer).to_bytes())
    lines = [
        f"{key.state:<10} {key.recipient}: cannot be brought back from {key.gone_at:%Y-%m-%d %H:%M} UTC on"
        for key in done.keys
    ]
    lines.append(f"record     {out}{f', signed in {signature}' if signer else ', not signed'}")
    compared = "; it names whom the log says" if made_for else ""
    lines += [
        "note       whoever opened the bundle may have kept its contents; see stanch seal doctor",
        f"note       the list of recipients is not signed{compared}: an earlier copy of it may name keys that live on",
    ]
    warnings = tuple(
        f"{key.recipient}: was absent; if that was not its token, the key lives on" for key in done.keys
        if key.state == "absent"
    )  # fmt: skip
    data: dict[str, JsonValue] = {"record": str(out), "signed": signer is not None, **done.to_json()}
    return Result(data, "\n".join(lines), warnings=warnings)


def _made_for(publisher: "VerifiedDigest") -> frozenset[str]:
    """Return the key ids that the log of the workspace here, if there is one, knows a copy was made for."""
    from stanch.cli.ground import open_workspace_if_any  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.terms import Digest  # noqa: PLC0415 - same
    from stanch.workspace.verbs_release import recall_recipients  # noqa: PLC0415 - same

    workspace = open_workspace_if_any(current())
    if workspace is None:
        return frozenset()
    with workspace:
        return recall_recipients(workspace, Digest("sha256", publisher.sha256))


def _require_publisher(signer: "SigningKey | None", publisher: "VerifiedDigest") -> None:
    if signer is not None and signer.key_id not in publisher.signer_key_ids:
        raise InvalidInput(
            "--sign-key: not the key that signed the bundle", why="its publisher is who can say that it is gone"
        )


def _destroyable(path: Path) -> "DestroyableKey":
    from stanch.cli.recipients import identity_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto.stanza import DestroyableKey  # noqa: PLC0415 - same

    key = identity_of(path)
    if not isinstance(key, DestroyableKey):
        raise InvalidInput(
            f"{path}: cannot be destroyed by us, being no key of a token or of KMS",
            why="there may be copies of it that nobody knows of",
            next_step="seal anew, only to keys of a token or of KMS",
        )
    return key


def _sign(done: "Destruction", publisher: "VerifiedDigest", signer: "SigningKey") -> "Bundle":
    from stanch.sign import Statement, Subject, sign_statement  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.terms import Digest  # noqa: PLC0415 - same

    subject = Subject("manifest.json", Digest("sha256", publisher.sha256))
    return sign_statement(Statement((subject,), DESTRUCTION_TYPE, done.to_json()), signer)
