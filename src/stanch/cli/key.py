"""``stanch key``: keys for recipients and for signers."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from stanch.cli.frame import Group, Result, Stream, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.crypto import KeyKind
    from stanch.terms import JsonValue


@click.group(cls=Group)
def key() -> None:
    """Make and show keys."""


@key.command("new")
@click.option(
    "--kind",
    type=click.Choice(["x25519", "hybrid", "sign"]),
    default="x25519",
    help="To open sealed copies (hybrid: also safe from quantum computers), or to sign.",
)
@click.option(
    "--algorithm",
    type=click.Choice(["p256", "p384", "p521", "ed25519", "mldsa65"]),
    help="Of a key to sign, p256 by default; for whole models p256 to p521; mldsa65 is safe from quantum computers.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new private file (mode 0600).")
@click.option(
    "--new-passphrase-file",
    "passphrase_file",
    type=click.Path(path_type=Path),
    help="Lock a key that opens with this passphrase.",
)
def new(
    kind: Literal["x25519", "hybrid", "sign"], algorithm: "KeyKind | None", out: Path, passphrase_file: Path | None
) -> Result:
    """Make a key: an identity that opens sealed copies (x25519, hybrid), or a publisher's signing key (sign)."""
    from stanch.crypto import SigningKey, write_atomic  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto.identity import generate_identity  # noqa: PLC0415 - same
    from stanch.crypto.passphrase import Passphrase  # noqa: PLC0415 - same

    if kind == "sign":
        if passphrase_file is not None:
            raise InvalidInput(
                "--new-passphrase-file is of keys that open", why="a signing key is not locked",
                next_step="leave it out, and keep the key where only you can read it",
            )  # fmt: skip
        public = out.with_suffix(".pub.pem")
        if public.exists() or public.is_symlink():
            raise InvalidInput(f"{public}: exists already and is not replaced", next_step="choose another --out")
        signer = SigningKey.generate(algorithm or "p256")
        signer.save(out)
        write_atomic(public, signer.public.to_pem())
        data = {"kind": kind, "file": str(out), "public": str(public), "key_id": signer.key_id}
        return Result(
            dict(data), f"signing key  {out} (keep it)\npublic key   {public} ({signer.key_id}; give it away)"
        )
    if algorithm is not None:
        raise InvalidInput("--algorithm is of keys that sign", next_step="say --kind sign, or leave it out")
    identity = generate_identity(kind)
    identity.save(out, passphrase=Passphrase.read(passphrase_file) if passphrase_file else None)
    recipient = str(identity.recipient)
    return Result(
        {"kind": kind, "file": str(out), "recipient": recipient},
        f"identity   {out} (keep it)\nrecipient  {recipient} (give it away)",
    )


@key.command("show")
@click.argument("file", type=click.Path(path_type=Path))
def show(file: Path) -> Result:
    """Show what names a key as a recipient, or the id of a public signing key."""
    from stanch.cli.recipients import identity_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import VerifyKey  # noqa: PLC0415 - same

    if not file.is_file():
        raise InvalidInput(f"{file}: no such file", next_step="make a key with: stanch key new --out FILE")
    if file.name.endswith(".pem"):
        public = VerifyKey.from_pem(file.read_bytes(), what=str(file))
        return Result({"file": str(file), "key_id": public.key_id}, f"public key  {public.key_id}")
    recipient = identity_of(file).describe().recipient
    return Result({"file": str(file), "recipient": recipient}, f"recipient  {recipient}")


@key.command("list", cls=Stream)
def show_all() -> Result:
    """List the workspace's own keys, with their versions and public names."""
    from stanch.cli.ground import keyring_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.keyring import SECRETS, SIGNERS  # noqa: PLC0415 - same

    keys = keyring_of(current())
    rows: list[dict[str, JsonValue]] = [
        {"name": name, "version": version, "key_id": keys.public(name, version).key_id}
        for name in SIGNERS
        for version in keys.versions(name)
    ]
    rows += [{"name": name, "version": version, "key_id": ""} for name in SECRETS for version in keys.versions(name)]
    rows += [{"name": f"people/{name}", "version": 1, "key_id": ""} for name in keys.people()]
    lines = [f"{row['name']:<20} version {row['version']}  {row['key_id']}".rstrip() for row in rows]
    return Result({"keys": [*rows]}, "\n".join(lines), rows=tuple(rows))


@key.command("rotate")
@click.argument("name")
def rotate(name: str) -> Result:
    """Make a new version of the workspace's key NAME (publisher, case, log, pepper); the old one stays valid."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_key import rotate_key  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        version, vkey = rotate_key(workspace, name), workspace.ledger.verifier.vkey
        file = workspace.keys.private_path(name)
    data: dict[str, JsonValue] = {"name": name, "version": version, "file": str(file)}
    text = f"rotated    {name}: version {version} is used from now on\nfile       {file} (keep it)"
    if name == "log":
        data["vkey"] = vkey
        text += f"\nlog key    {vkey}\nnext       give it to witnesses, auditors and trust policies within 30 days"
    return Result(data, text)
