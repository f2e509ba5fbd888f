"""``stanch seal``: encrypt a model or data set for named recipients. No workspace is needed."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Group, Result, current
from stanch.cli.recipients import TIMESTAMP_ROOTS, identity_of, publisher_of, recipient_of, trust_of
from stanch.cli.seal_make import create, reseal
from stanch.cli.seal_shred import doctor, shred
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.seal import OpenBundle
    from stanch.sign import Timestamped, TrustedKeys
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
TRUST = "The publisher's public key, or a TOML file of trusted keys."


@click.group(cls=Group)
def seal() -> None:
    """Encrypt a model or data set for named recipients."""


seal.add_command(create)
seal.add_command(doctor)
seal.add_command(reseal)
seal.add_command(shred)


@seal.command("verify")
@click.argument("bundle", type=FOLDER)
@click.option("--trust", type=FILE, required=True, help=TRUST)
@click.option("--identity", type=FILE, help="With --signature-out: a key that can open the bundle.")
@click.option("--signature-out", type=FILE, help="Write the publisher's signature over the plain files to this file.")
@TIMESTAMP_ROOTS
def verify(
    bundle: Path, *, trust: Path, identity: Path | None, signature_out: Path | None, timestamp_roots: Path | None
) -> Result:
    """Compare every byte of BUNDLE with what the publisher signed; no private key is needed."""
    from stanch.release import read_publisher  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.seal import verify_sealed  # noqa: PLC0415 - same

    if (identity is None) != (signature_out is None):
        raise InvalidInput("--signature-out and --identity go together", why="the signature is sealed with the files")
    policy = publisher_of(trust, timestamp_roots)
    manifest, publisher = read_publisher(bundle, policy)
    verified = verify_sealed(bundle, publisher, progress=current().progress())
    text = (
        f"ok         publisher {', '.join(publisher.signer_key_ids)} · lineage {manifest.lineage} · "
        f"release {manifest.release_number} · {len(manifest.streams)} streams · {verified.stored / 1e6:.1f} MB · "
        "every segment matches"
    )
    data: dict[str, JsonValue] = {
        "publisher": publisher.signer_key_ids[0], "lineage": manifest.lineage,
        "release_number": manifest.release_number, "stored": verified.stored,
    }  # fmt: skip
    if publisher.signed_at is not None:
        text += f"\ntime       signed not after {publisher.signed_at:%Y-%m-%d %H:%M:%S} UTC"
        data["signed_at"] = publisher.signed_at.isoformat()
    if identity is not None and signature_out is not None:
        with _open(bundle, policy, identity) as opened:
            if opened.plaintext_signature is None:
                raise InvalidInput(f"{bundle}: its publisher signed the sealed bundle alone, not the plain files")
            _write_signature(opened, signature_out)
        text += f"\nsignature  {signature_out}: over the plain files, for: stanch sign verify DIR --signature FILE"
        data["signature"] = str(signature_out)
    return Result(data, text)


def _open(bundle: Path, policy: "TrustedKeys | Timestamped", identity: Path) -> "OpenBundle":
    from stanch.release import open_copy  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.seal import FileReleases  # noqa: PLC0415 - same

    key, memory = identity_of(identity), FileReleases(identity.with_suffix(".releases"))
    return open_copy(bundle, policy, [key], memory=memory)


def _write_signature(opened: "OpenBundle", target: Path) -> None:
    from stanch.crypto import canonical_json, write_private  # noqa: PLC0415 - keeps `stanch --help` light

    write_private(target, canonical_json(opened.plaintext_signature))  # it names every file


@seal.command("ls")
@click.argument("bundle", type=FOLDER)
def show(bundle: Path) -> Result:
    """Show what anybody can see of BUNDLE, without checking it."""
    from stanch.seal import read_manifest  # noqa: PLC0415 - keeps `stanch --help` light

    manifest = read_manifest(bundle)
    size = sum(stream.size for stream in manifest.streams)
    data: dict[str, JsonValue] = {
        "kind": manifest.kind, "lineage": manifest.lineage, "release_number": manifest.release_number,
        "created": manifest.created, "not_after": manifest.not_after, "size": size,
    }  # fmt: skip
    lines = [f"{name:<15} {value}" for name, value in data.items()]
    return Result(data, "\n".join([*lines, "unchecked       next: stanch seal verify BUNDLE --trust KEY"]))


@seal.command("rekey")
@click.argument("bundle", type=FOLDER)
@click.option("--trust", type=FILE, required=True, help=TRUST)
@click.option("--identity", type=FILE, required=True, help="A key that can open the bundle now.")
@click.option("--add", multiple=True, metavar="RECIPIENT", help="Who can open it from now on; may be repeated.")
@click.option("--remove", multiple=True, metavar="KEY_ID", help="Whose stanza goes; may be repeated.")
def rekey(bundle: Path, trust: Path, identity: Path, add: tuple[str, ...], remove: tuple[str, ...]) -> Result:
    """Add and remove recipients; the encrypted files are not touched."""
    from stanch.release import read_publisher  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.seal import rekey as rekey_bundle  # noqa: PLC0415 - same

    _, publisher = read_publisher(bundle, trust_of(trust))
    key = identity_of(identity)
    made = rekey_bundle(bundle, publisher, key, [recipient_of(recipient) for recipient in add], remove)
    text = (
        f"rekeyed    {bundle}: {len(made.stanzas)} recipients, epoch {made.epoch}\n"
        "note       removing does not un-share: who could open it may have kept its content\n"
        f"next       for a new root key: stanch seal reseal {bundle}"
    )
    return Result({"recipients": len(made.stanzas), "epoch": made.epoch}, text)


@seal.command("unseal-unsafe")
@click.argument("bundle", type=FOLDER)
@click.option("--trust", type=FILE, required=True, help=TRUST)
@click.option("--identity", type=FILE, required=True, help="A key that can open the bundle.")
@click.option("--out", type=FOLDER, required=True, help="From then on nothing protects what lies here.")
@TIMESTAMP_ROOTS
def unseal(bundle: Path, *, trust: Path, identity: Path, out: Path, timestamp_roots: Path | None) -> Result:
    """Write the plaintext of BUNDLE to a folder: it leaves all protection.

    The publisher's signature over these files becomes model.sig among them.
    """
    from stanch.sign import SIGNATURE_NAME  # noqa: PLC0415 - keeps `stanch --help` light

    with _open(bundle, publisher_of(trust, timestamp_roots), identity) as opened:
        opened.unseal_unsafe(out)
        signed = opened.plaintext_signature is not None and not (out / SIGNATURE_NAME).exists()
        if signed:
            _write_signature(opened, out / SIGNATURE_NAME)
    text = f"unsealed   {out}: plaintext, unprotected"
    if signed:
        text += f"\nnext       stanch sign verify {out} --trust {trust}"
    return Result({"path": str(out), "signed": signed}, text)
