"""``stanch release deliver``, ``fetch`` and ``revoke``: bundles and stores. No workspace is needed."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.release import RevocationList
    from stanch.sign import TrustedKeys
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
_KEY_ID = re.compile(r"[a-z0-9-]+:[0-9a-f]{32}")


def read_revocation_list(path: Path | None, trusted: "TrustedKeys") -> "RevocationList":
    """Return a publisher's revocation list from a file; the empty one where no file is named.

    Raises:
        InvalidInput: There is no such file, or it is malformed.
        VerificationError: No trusted key signed it.
    """
    from stanch.release import NO_REVOCATIONS, RevocationList  # noqa: PLC0415 - keeps `stanch --help` light

    if path is None:
        return NO_REVOCATIONS
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file", next_step="ask the publisher for revocations.json")
    return RevocationList.verify(path.read_bytes(), trusted)


@click.command("deliver", cls=Leaf)
@click.argument("bundle", type=FOLDER)
@click.argument("uri")
@click.option("--trust", type=FILE, required=True, help="The publisher's public key; the bundle is checked first.")
def deliver(bundle: Path, uri: str, trust: Path) -> Result:
    """Put BUNDLE into the store at URI (file:, s3:, gs:, az:), whole or not at all. Repeat it to go on."""
    from stanch.cli.recipients import trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.release import deliver as deliver_bundle  # noqa: PLC0415 - same
    from stanch.release import read_publisher  # noqa: PLC0415 - same
    from stanch.store import open_blobs  # noqa: PLC0415 - same

    trusted = trust_of(trust)
    read_publisher(bundle, trusted)  # a `file:` store is made when it is opened; not for nothing
    report = deliver_bundle(bundle, open_blobs(uri), trusted, progress=current().progress())
    place = f"{uri.rstrip('/')}/{report.bundle_id}"
    text = (
        f"delivered  {place}: {report.sent} objects sent, {report.skipped} were there\n"
        f"next       the recipient: stanch release fetch {place} --trust {trust.name} --out DIR"
    )
    return Result({"uri": place, "sent": report.sent, "skipped": report.skipped}, text)


@click.command("fetch", cls=Leaf)
@click.argument("uri")
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--out", type=FOLDER, required=True, help="The new bundle; what was begun before is taken up.")
@click.option("--min-release", type=click.IntRange(1), default=1, help="Least release number accepted.")
@click.option("--revocations", type=FILE, help="A revocation list that came another way.")
@click.option("--memory", type=FILE, help="Where the highest release seen is remembered; default beside the key.")
def fetch(
    uri: str, *, trust: Path, out: Path, min_release: int, revocations: Path | None, memory: Path | None
) -> Result:
    """Get the bundle at URI; each piece is checked against the publisher's signature before it is kept."""
    from stanch.cli.recipients import trust_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.release import FetchParams, RemoteBundle  # noqa: PLC0415 - same
    from stanch.release import fetch as fetch_bundle  # noqa: PLC0415 - same
    from stanch.seal import FileReleases  # noqa: PLC0415 - same

    trusted = trust_of(trust)
    params = FetchParams(
        min_release=min_release,
        revocations=read_revocation_list(revocations, trusted),
        progress=current().progress(),
    )
    seen = FileReleases(memory or trust.with_suffix(".releases"))
    fetched = fetch_bundle(RemoteBundle.open(uri), out, trusted, memory=seen, params=params)
    manifest = fetched.manifest
    text = (
        f"fetched    {out}: {manifest.lineage} release {manifest.release_number}, every segment matches; "
        f"{fetched.received / 1e6:.1f} MB received\n"
        f"next       stanch release open {out} --identity KEY --trust {trust.name}"
    )
    data: dict[str, JsonValue] = {
        "path": str(out), "lineage": manifest.lineage, "release_number": manifest.release_number,
        "received": fetched.received,
    }  # fmt: skip
    return Result(data, text)


@click.command("revoke", cls=Leaf)
@click.argument("uri")
@click.argument("recipient")
@click.option("--sign-key", type=FILE, required=True, help="The publisher's private signing key.")
@click.option("--reason", required=True, help="What the list says; everybody can read it.")
@click.option("--trust", type=FILE, multiple=True, help="An older public key of the publisher; may be repeated.")
def revoke(uri: str, recipient: str, sign_key: Path, reason: str, trust: tuple[Path, ...]) -> Result:
    """Take the bundle at URI back from RECIPIENT (its text or key id): remove its stanza, sign the list."""
    from stanch.cli.recipients import public_key_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import SigningKey  # noqa: PLC0415 - same
    from stanch.crypto.recipient import parse_recipient  # noqa: PLC0415 - same
    from stanch.release import RemoteBundle, RevokeOrder  # noqa: PLC0415 - same
    from stanch.release import revoke as revoke_recipient  # noqa: PLC0415 - same
    from stanch.sign import TrustedKeys  # noqa: PLC0415 - same

    signer = SigningKey.load(sign_key)
    trusted = TrustedKeys((signer.public, *map(public_key_of, trust)))
    named = recipient if _KEY_ID.fullmatch(recipient) else parse_recipient(recipient).describe().key_id
    order = RevokeOrder(named or recipient, reason, signer, datetime.now(UTC))
    made = revoke_recipient(RemoteBundle.open(uri), order, trusted)
    text = (
        f"revoked    {order.key_id}: it stands in revocations.json (number {made.number}), its stanza is gone\n"
        "note       revoking does not un-share: a copy fetched before still opens, and who opened it may have kept "
        "its content"
    )
    return Result({"key_id": order.key_id, "number": made.number, "entries": len(made.entries)}, text)
