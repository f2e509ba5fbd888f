"""``stanch release receive``, ``receipt`` and ``fetch-key``: sign for a copy, take that in, get its key then."""

from datetime import UTC, datetime
from pathlib import Path

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
_MAX_RECEIPT = 1 << 16


@click.command("receive", cls=Leaf)
@click.argument("bundle", type=FOLDER)
@click.option("--name", "recipient", required=True, metavar="NAME", help="Your name in the release.")
@click.option("--leaf", type=click.IntRange(0), required=True, help="The number that the publisher told you.")
@click.option("--sign-key", type=FILE, required=True, help="Your private signing key, Ed25519.")
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--out", type=FILE, required=True, help="The receipt, a new file for the publisher.")
def receive(bundle: Path, *, recipient: str, leaf: int, sign_key: Path, trust: Path, out: Path) -> Result:
    """Sign that BUNDLE arrived whole: every byte is compared with what the publisher signed; nothing is opened."""
    from stanch.cli.recipients import trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import SigningKey, write_atomic  # noqa: PLC0415 - same
    from stanch.release import read_publisher  # noqa: PLC0415 - same
    from stanch.seal import verify_sealed  # noqa: PLC0415 - same
    from stanch.terms import Digest  # noqa: PLC0415 - same
    from stanch.trace import Receipt, sign_receipt  # noqa: PLC0415 - same

    if out.exists():
        raise InvalidInput(f"{out}: exists already", next_step="choose another --out")
    signer = SigningKey.load(sign_key)
    manifest, publisher = read_publisher(bundle, trust_of(trust))
    verify_sealed(bundle, publisher, progress=current().progress())
    if manifest.commitments.mark is None:
        raise InvalidInput(f"{bundle}: a copy without a mark needs no receipt", why="its manifest names no batch")
    digest = Digest("sha256", publisher.sha256)
    made = Receipt(manifest.commitments.mark, leaf, digest, recipient)
    write_atomic(out, sign_receipt(made, signer, received=datetime.now(UTC)))
    text = (
        f"signed     {out}: {recipient} has {bundle}, manifest {digest}\n"
        f"next       send {out} and your public key to the publisher; the key then comes by: "
        f"stanch release fetch-key URI {bundle} --trust {trust.name}"
    )
    return Result({"path": str(out), "manifest": str(digest), "leaf": leaf}, text)


@click.command("receipt", cls=Leaf)
@click.argument("name")
@click.argument("receipt", type=FILE)
@click.option("--to", "recipient", required=True, metavar="NAME", help="Whose copy.")
@click.option("--trust", type=FILE, required=True, help="The recipient's public signing key, from the recipient.")
def receipt(name: str, receipt: Path, *, recipient: str, trust: Path) -> Result:
    """Take in the RECEIPT that a recipient of release NAME signed; its key is delivered from then on."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import VerifyKey  # noqa: PLC0415 - same
    from stanch.workspace.verbs_receipt import receive as take_in  # noqa: PLC0415 - same

    for file in (receipt, trust):
        if not file.is_file():
            raise InvalidInput(f"{file}: no such file")
    key = VerifyKey.from_pem(trust.read_bytes(), what=str(trust))
    with receipt.open("rb") as stream:
        data = stream.read(_MAX_RECEIPT + 1)
    if len(data) > _MAX_RECEIPT:
        raise InvalidInput(f"{receipt}: expected at most {_MAX_RECEIPT} bytes")
    with open_workspace(current()) as workspace:
        made = take_in(workspace, name, recipient, data, key)
    text = (
        f"received   {recipient} has its copy of {name} since {made.at}, manifest {made.manifest}\n"
        "next       stanch release deliver COPY URI, which now sends the key"
    )
    return Result({"name": name, "recipient": recipient, "manifest": str(made.manifest), "at": made.at}, text)


@click.command("fetch-key", cls=Leaf)
@click.argument("uri")
@click.argument("bundle", type=FOLDER)
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--revocations", type=FILE, help="A revocation list that came another way.")
@click.option("--memory", type=FILE, help="Where the newest revocation list is remembered; default beside the key.")
def get_key(uri: str, bundle: Path, *, trust: Path, revocations: Path | None, memory: Path | None) -> Result:
    """Complete BUNDLE, fetched from URI before its key was delivered, with that key."""
    from stanch.cli.delivery import read_revocation_list  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.recipients import trust_of  # noqa: PLC0415 - same
    from stanch.release import RemoteBundle, fetch_key  # noqa: PLC0415 - same
    from stanch.seal import FileReleases, read_manifest  # noqa: PLC0415 - same

    trusted, seen = trust_of(trust), FileReleases(memory or trust.with_suffix(".releases"))
    listed = read_revocation_list(revocations, trusted, lambda: read_manifest(bundle))
    beside = fetch_key(RemoteBundle.open(uri), bundle, trusted, memory=seen, revocations=listed)
    step = "open" if beside is None else "redeem"
    text = (
        f"fetched    the key of {bundle}\nnext       stanch release {step} {bundle} --identity KEY --trust {trust.name}"
    )
    return Result({"path": str(bundle), "quorum": str(beside) if beside is not None else None}, text)
