"""``stanch key``: keys for recipients and for signers."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from stanch.cli.frame import Group, Result, Stream, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.crypto import KeyKind
    from stanch.crypto.passphrase import Passphrase
    from stanch.terms import JsonValue


_Kind = Literal["x25519", "hybrid", "sign", "person"]


@click.group(cls=Group)
def key() -> None:
    """Make and show keys."""


@key.command("new")
@click.option(
    "--kind",
    type=click.Choice(["x25519", "hybrid", "sign", "person"]),
    default="x25519",
    help="To open sealed copies (hybrid: also safe from quantum computers), to sign, or to act yourself (person).",
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
    help="Lock a key that opens, or a person's, with this passphrase.",
)
def new(kind: _Kind, algorithm: "KeyKind | None", out: Path, passphrase_file: Path | None) -> Result:
    """Make a key: an identity that opens sealed copies, a publisher's key that signs, or your own to act with."""
    from stanch.crypto.identity import generate_identity  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto.passphrase import Passphrase  # noqa: PLC0415 - same

    if kind == "sign" and passphrase_file is not None:
        raise InvalidInput(
            "--new-passphrase-file is of keys that open", why="a signing key is not locked",
            next_step="leave it out, and keep the key where only you can read it",
        )  # fmt: skip
    if kind != "sign" and algorithm is not None:
        raise InvalidInput("--algorithm is of keys that sign", next_step="say --kind sign, or leave it out")
    passphrase = Passphrase.read(passphrase_file) if passphrase_file else None
    match kind:
        case "sign" | "person":
            return _new_pair(kind, algorithm, out, passphrase)
        case "x25519" | "hybrid":
            identity = generate_identity(kind)
    identity.save(out, passphrase=passphrase)
    recipient = str(identity.recipient)
    return Result(
        {"kind": kind, "file": str(out), "recipient": recipient},
        f"identity   {out} (keep it)\nrecipient  {recipient} (give it away)",
    )


def _new_pair(kind: str, algorithm: "KeyKind | None", out: Path, passphrase: "Passphrase | None") -> Result:
    """Make a key whose public half lies beside it."""
    from stanch.crypto import SigningKey, write_atomic  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto.localkey import save_local_key  # noqa: PLC0415 - same

    public = out.with_suffix(".pub.pem")
    if public.exists() or public.is_symlink():
        raise InvalidInput(f"{public}: exists already and is not replaced", next_step="choose another --out")
    if kind == "person":
        signer, name = SigningKey.generate("ed25519"), "your key"
        save_local_key(out, signer, passphrase=passphrase)
    else:
        signer, name = SigningKey.generate(algorithm or "p256"), "signing key"
        signer.save(out)
    write_atomic(public, signer.public.to_pem())
    return Result(
        {"kind": kind, "file": str(out), "public": str(public), "key_id": signer.key_id},
        f"{name:<11}  {out} (keep it)\npublic key   {public} ({signer.key_id}; give it away)",
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
    """List the workspace's own keys: their versions, public files, and what the log's are called by others."""
    from stanch.cli.ground import keyring_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.config import load_config  # noqa: PLC0415 - same
    from stanch.config.load import SETTINGS, user_config_file  # noqa: PLC0415 - same
    from stanch.ledger.note import ED25519, NoteVerifier  # noqa: PLC0415 - same
    from stanch.workspace.keyring import SECRETS, SIGNERS  # noqa: PLC0415 - same
    from stanch.workspace.opening import find_workspace  # noqa: PLC0415 - same

    folder, keys = find_workspace(current().workspace), keyring_of(current())
    origin = load_config(folder / SETTINGS, user_file=user_config_file()).ledger.origin
    rows: list[dict[str, JsonValue]] = []
    for name in SIGNERS:
        for version, public in ((version, keys.public(name, version)) for version in keys.versions(name)):
            vkey = NoteVerifier(origin, ED25519, public).vkey if name == "log" else ""
            file = str(keys.public_path(name, version))
            rows.append({"name": name, "version": version, "key_id": public.key_id, "public": file, "vkey": vkey})
    secret = [(name, version, "") for name in SECRETS for version in keys.versions(name)]
    people = [(f"people/{name}", 1, keys.person_id(name)) for name in keys.people()]
    rows += [
        {"name": name, "version": version, "key_id": key_id, "public": "", "vkey": ""}
        for name, version, key_id in (*secret, *people)
    ]
    lines = []
    for row in rows:
        lines.append(f"{row['name']:<20} version {row['version']}  {row['key_id']}".rstrip())
        lines += [f"    {row[shown]}" for shown in ("public", "vkey") if row[shown]]
    return Result({"keys": [*rows]}, "\n".join(lines), rows=tuple(rows))


@key.command("rotate")
@click.argument("name")
def rotate(name: str) -> Result:
    """Make a new version of the workspace's key NAME (publisher, case, log, pepper); the old one stays valid."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_key import rotate_key  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        version, vkey = rotate_key(workspace, name), workspace.ledger.verifier.vkey
        keys, shared = workspace.keys, workspace.tables.dialect != "sqlite"
    data: dict[str, JsonValue] = {"name": name, "version": version, "file": str(keys.private_path(name))}
    lines = [f"rotated    {name}: version {version} is used from now on", f"file       {data['file']} (keep it)"]
    if name == "log":
        data["vkey"] = vkey
        lines.append(f"log key    {vkey}")
    elif name in _GIVEN_TO:
        data["public"] = str(keys.public_path(name))
        lines.append(f"public     {data['public']}")
    following = [*([_GIVEN_TO[name]] if name in _GIVEN_TO else ()),
                 *(["copy .stanch/keys to its other hosts"] if shared else ())]  # fmt: skip
    if following:
        lines.append(f"next       {'; '.join(following)}")
    return Result(data, "\n".join(lines))


_GIVEN_TO = {
    "publisher": "give the public key to recipients, and to CI and whatever else says --trust",
    "case": "give the public key to whoever checks evidence packs",
    "log": "give the log key to witnesses, auditors and trust policies within 30 days",
}
"""Who trusts the public half of a key that signs."""
