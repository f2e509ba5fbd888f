"""``stanch seal create | reseal``: making bundles."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.cli.recipients import TSA, TSA_ROOTS, authority_of
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stanch.crypto import SigningKey
    from stanch.seal import BundleKind
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
SIGN_KEY = click.option(
    "--sign-key", "sign_keys", type=FILE, multiple=True, required=True,
    help="The publisher's private signing key; may be repeated, each key adds its signature.",
)  # fmt: skip
TO = click.option("--to", "recipients", multiple=True, required=True, metavar="RECIPIENT", help="May be repeated.")
DAYS = click.option("--days", type=click.IntRange(1, 3650), help="When the grants end; without it never.")
OUT = click.option("--out", type=FOLDER, required=True, help="The new bundle.")


@click.command("create", cls=Leaf)
@click.argument("folder", type=FOLDER)
@TO
@SIGN_KEY
@click.option("--lineage", required=True, help="The line of releases, for example acme/support-bot.")
@click.option(
    "--number", type=click.IntRange(1), default=1, help="Release number; it must rise; nothing here keeps it."
)
@DAYS
@click.option(
    "--segment-hash", type=click.Choice(["blake3", "sha256"]), default="blake3",
    help="Of the encrypted segments; sha256 where only FIPS algorithms are allowed.",
)  # fmt: skip
@TSA
@TSA_ROOTS
@OUT
def create(
    folder: Path,
    *,
    recipients: tuple[str, ...],
    sign_keys: tuple[Path, ...],
    days: int | None,
    out: Path,
    **about: Any,  # noqa: ANN401 - the other options, by name
) -> Result:
    """Seal the files of FOLDER for the recipients and sign the bundle.

    The files are signed too, as `stanch sign create` does: who opens the bundle gets that signature with them.
    """
    from stanch.cli.recipients import recipient_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import SigningKey  # noqa: PLC0415 - same
    from stanch.release.plain_signature import plain_signer  # noqa: PLC0415 - same
    from stanch.seal import SealParams, seal  # noqa: PLC0415 - same

    if not folder.is_dir():
        raise InvalidInput(f"{folder}: expected a folder")
    signers = [SigningKey.load(path) for path in sign_keys]
    finish = _finisher(signers, about["tsa"], about["tsa_roots"])
    sign_files = plain_signer(folder, signers)
    params = SealParams(
        kind=_kind_of(folder),
        lineage=about["lineage"], release_number=about["number"], not_after=_end(days),
        segment_hash=about["segment_hash"], plaintext_sha256=sign_files is not None, progress=current().progress(),
    )  # fmt: skip
    providers = [recipient_of(recipient) for recipient in recipients]
    made = seal(folder, out, providers, params, finish, sign_files)
    text = (
        f"sealed     {out}: {params.lineage} release {params.release_number} for {len(providers)} recipients; "
        f"manifest {made.digest}"
    )
    data: dict[str, JsonValue] = {
        "path": str(out), "manifest": str(made.digest), "recipients": len(providers),
        "files_signed": sign_files is not None,
    }  # fmt: skip
    return Result(data, text)


def _kind_of(folder: Path) -> "BundleKind":
    from stanch.weights import is_adapter  # noqa: PLC0415 - keeps `stanch --help` light

    if is_adapter(folder):
        return "adapter"
    named = any((folder / name).is_file() for name in ("config.json", "model_index.json"))
    if named or any(any(folder.rglob(f"*.{kind}")) for kind in ("safetensors", "gguf")):
        return "model"
    return "dataset" if any(folder.rglob("*.jsonl")) else "other"


def _finisher(signers: "Sequence[SigningKey]", tsa: str | None, roots: Path | None) -> "Callable[[bytes], bytes]":
    """Return what signs a manifest and, where an authority is named, has each signature time-stamped."""
    from stanch.sign import sign_manifest  # noqa: PLC0415 - keeps `stanch --help` light

    authority = authority_of(tsa, roots)
    return lambda manifest: sign_manifest(manifest, *signers, authority=authority).to_bytes()


@click.command("reseal", cls=Leaf)
@click.argument("bundle", type=FOLDER)
@click.option("--trust", type=FILE, required=True, help="The publisher's public key, or a TOML file of trusted keys.")
@click.option("--identity", type=FILE, required=True, help="A key that can open the bundle.")
@TO
@SIGN_KEY
@click.option("--number", type=click.IntRange(1), help="Release number; it must rise. By default one above BUNDLE's.")
@click.option("--days", type=click.IntRange(1, 3650), help="When the grants end; without it as in the old release.")
@TSA
@TSA_ROOTS
@OUT
def reseal(
    bundle: Path, *, trust: Path, identity: Path, recipients: tuple[str, ...], sign_keys: tuple[Path, ...],
    out: Path, **about: Any,  # noqa: ANN401 - the other options, by name
) -> Result:  # fmt: skip
    """Seal the content of BUNDLE anew as the next release; no plaintext touches a disk.

    The root key is new and only the named recipients open it. Who could open BUNDLE still can.
    """
    from stanch.cli.recipients import identity_of, recipient_of, trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import SigningKey  # noqa: PLC0415 - same
    from stanch.release import open_copy  # noqa: PLC0415 - same
    from stanch.seal import FileReleases  # noqa: PLC0415 - same
    from stanch.seal import reseal as seal_anew  # noqa: PLC0415 - same

    finish = _finisher([SigningKey.load(path) for path in sign_keys], about["tsa"], about["tsa_roots"])
    providers = [recipient_of(recipient) for recipient in recipients]
    key, memory = identity_of(identity), FileReleases(identity.with_suffix(".releases"))
    with open_copy(bundle, trust_of(trust), [key], memory=memory) as opened:
        old = opened.manifest.release_number
        made = seal_anew(
            opened, out, providers, finish, number=about["number"], not_after=_end(about["days"]),
            progress=current().progress(),
        )  # fmt: skip
    number = made.manifest.release_number
    text = (
        f"resealed   {out}: {made.manifest.lineage} release {number} for {len(providers)} recipients; "
        f"manifest {made.digest}\n"
        f"note       who could open release {old} still can, and may have kept its content"
    )
    data: dict[str, JsonValue] = {
        "path": str(out), "manifest": str(made.digest), "recipients": len(providers), "release_number": number,
    }  # fmt: skip
    return Result(data, text)


def _end(days: int | None) -> datetime | None:
    return (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0) if days else None
