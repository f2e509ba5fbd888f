"""``stanch sign``: sign and verify models, and inspect them before use. No workspace is needed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Group, Result, Stream
from stanch.cli.recipients import TIMESTAMP_ROOTS, publisher_of, roots_of
from stanch.errors import InvalidInput, SignatureMissing

if TYPE_CHECKING:
    from stanch.crypto import FileHashName
    from stanch.sign import Bundle
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
_MAX_SIGNATURE = 16 << 20


@click.group(cls=Group)
def sign() -> None:
    """Sign and verify models; inspect one before use."""


@sign.command("create")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--key", type=FILE, required=True, help="The private signing key (P-256, P-384 or P-521).")
@click.option(
    "--hash", "algorithm", type=click.Choice(["blake3", "sha256", "blake2b"]), default="blake3",
    help="Of the files; the command line of model-signing reads sha256 alone.",
)  # fmt: skip
@click.option("--out", type=FILE, help="The signature, outside of DIR; otherwise DIR/model.sig.")
def create(folder: Path, key: Path, algorithm: "FileHashName", out: Path | None) -> Result:
    """Sign every file of DIR, as OpenSSF model signing does."""
    from stanch.crypto import SigningKey, write_atomic  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.sign import SIGNATURE_NAME, sign_directory  # noqa: PLC0415 - same

    target = out if out is not None else folder / SIGNATURE_NAME
    if target.exists() or target.is_symlink():
        raise InvalidInput(f"{target}: exists already and is not replaced", next_step="remove the old signature first")
    if out is not None and folder.resolve() in out.resolve().parents:
        raise InvalidInput(
            f"{out}: lies in the folder that is signed",
            why=f"there a verifier leaves out {SIGNATURE_NAME} alone",
            next_step="leave out --out, or name a file elsewhere",
        )
    signer = SigningKey.load(key)
    write_atomic(target, sign_directory(folder, signer, hash=algorithm).to_bytes())
    lines = [f"signed     {folder} → {target}", f"publisher  {signer.key_id}"]
    lines.append(f"next       stanch sign verify {folder} --trust KEY")
    return Result({"signature": str(target), "key_id": signer.key_id, "hash": algorithm}, "\n".join(lines))


def _read_bundle(path: Path) -> "Bundle":
    from stanch.sign import Bundle  # noqa: PLC0415 - keeps `stanch --help` light

    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_SIGNATURE + 1)
    except OSError as error:
        raise SignatureMissing(
            f"{path}: cannot be read", why=error.strerror or "", next_step="name the signature with --signature FILE"
        ) from error
    return Bundle.parse(data, what=str(path))


@sign.command("verify")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--trust", type=FILE, required=True, help="A public key, or a TOML file of trusted keys.")
@click.option(
    "--signature", "signatures", type=FILE, multiple=True,
    help="Where the signature is, otherwise DIR/model.sig; repeat it for several signers.",
)  # fmt: skip
@TIMESTAMP_ROOTS
def verify(folder: Path, trust: Path, signatures: tuple[Path, ...], timestamp_roots: Path | None) -> Result:
    """Compare every file of DIR with what a trusted key signed; name all that differ."""
    from stanch.sign import SIGNATURE_NAME, verify_directory  # noqa: PLC0415 - keeps `stanch --help` light

    if not folder.is_dir():
        raise InvalidInput(f"{folder}: expected a folder")
    policy = publisher_of(trust, timestamp_roots)
    inside = folder / SIGNATURE_NAME
    bundle, *beside = (_read_bundle(path) for path in signatures or (inside,))
    names = [path.name for path in signatures if path.parent.resolve() == folder.resolve()]
    verified = verify_directory(
        folder, bundle, policy, beside=beside, signature_name=names[0] if names else SIGNATURE_NAME
    )
    data: dict[str, JsonValue] = {
        "digest": str(verified.digest), "name": verified.name, "hash": verified.hash, "files": len(verified.files),
        "key_ids": list(verified.signer_key_ids),
    }  # fmt: skip
    signers = ", ".join(verified.signer_key_ids)
    text = f"ok         publisher {signers} · {len(verified.files)} files, no others · {verified.digest}"
    return Result(data, text)


@sign.command("timestamp")
@click.argument("signature", metavar="SIGNATURE", type=FILE)
@click.option("--tsa", "url", required=True, metavar="URL", help="The time-stamping authority; the only one asked.")
@click.option("--roots", type=FILE, required=True, help="PEM certificates that the authority must descend from.")
def timestamp(signature: Path, url: str, roots: Path) -> Result:
    """Let an authority confirm when SIGNATURE existed (RFC 3161), and add its answer to the file.

    The authority learns a hash of the signature and who asks, nothing of what was signed.
    """
    from stanch.crypto import write_atomic  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.sign import TimestampAuthority, stamp_bundle  # noqa: PLC0415 - same

    vouched = roots_of(roots)
    stamped = stamp_bundle(_read_bundle(signature), TimestampAuthority(url, vouched))
    moment = vouched.verify(stamped.timestamps[-1], (stamped.signature, *stamped.further)[-1])
    write_atomic(signature, stamped.to_bytes())
    text = f"timestamp  {signature}: signed not after {moment:%Y-%m-%d %H:%M:%S} UTC"
    return Result({"signature": str(signature), "time": moment.isoformat()}, text)


@sign.command("intake", cls=Stream)
@click.argument("folder", metavar="DIR", type=FOLDER)
def intake(folder: Path) -> Result:
    """Look for anything in DIR that could run code when it is loaded; nothing is loaded or unpacked to look."""
    from stanch.sign import IntakePolicy, inspect_model  # noqa: PLC0415 - keeps `stanch --help` light

    report = inspect_model(folder, IntakePolicy.REPORT)
    rows: tuple[dict[str, JsonValue], ...] = tuple(
        {
            # A name that is no text is shown, and could not be written as JSON.
            "path": os.fsencode(found.path).decode(errors="backslashreplace"),
            "kind": found.kind,
            "reason": found.reason,
            "convert": found.convert,
        }
        for found in report.findings
    )
    lines = [
        f"refused    {ascii(found.path)[1:-1]} {found.reason}\n  instead  {found.convert}" for found in report.findings
    ]
    if not lines:
        lines = [f"ok         {report.files} files; none runs code by its content or name"]
    return Result(
        {"files": report.files, "findings": list(rows)}, "\n".join(lines), exit_code=1 if rows else 0, rows=rows
    )


@sign.command("provenance")
@click.argument("folder", metavar="RUN", type=FOLDER)
@click.option("--key", type=FILE, required=True, help="The private signing key.")
@click.option("--out", type=FILE, required=True, help="The signed statement.")
def provenance(folder: Path, key: Path, out: Path) -> Result:
    """Verify the tuning run in RUN and sign where its model comes from (SLSA provenance)."""
    from stanch.crypto import SigningKey, write_atomic  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.sign import sign_statement, state_provenance  # noqa: PLC0415 - same
    from stanch.tune import describe_run, verify_run  # noqa: PLC0415 - same

    if out.exists() or out.is_symlink():
        raise InvalidInput(f"{out}: exists already and is not replaced", next_step="choose another file name")
    signer = SigningKey.load(key)
    run = describe_run(verify_run(folder))
    write_atomic(out, sign_statement(state_provenance(run), signer).to_bytes())
    guarantee = f"epsilon {run.privacy.epsilon:.4g}" if run.privacy is not None else "no differential privacy"
    data: dict[str, JsonValue] = {
        "statement": str(out), "key_id": signer.key_id, "files": len(run.model), "invocation": run.invocation,
    }  # fmt: skip
    return Result(
        data, f"signed     {out}: {len(run.model)} files, {run.method}, {guarantee}\npublisher  {signer.key_id}"
    )
