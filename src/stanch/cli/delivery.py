"""``stanch release deliver``, ``fetch`` and ``revoke``: bundles and stores.

No workspace is needed. Where there is one, delivering and revoking are its acts: authorised and recorded.
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.cli.recipients import TIMESTAMP_ROOTS, publisher_of, roots_of, trust_of
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stanch.crypto import VerifyKey
    from stanch.release import DeliveryReport, RevocationList
    from stanch.seal import Manifest
    from stanch.sign import TrustedKeys
    from stanch.terms import JsonValue
    from stanch.trace import Receipt
    from stanch.workspace import Workspace

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
LISTS_SEEN = click.option(
    "--memory", type=FILE,
    help="Where the newest revocation list is remembered; default beside the key, in a workspace its log.",
)  # fmt: skip
_KEY_ID = re.compile(r"[a-z0-9-]+:[0-9a-f]{32}")


def read_revocation_list(
    path: Path | None, trusted: "TrustedKeys", manifest: "Callable[[], Manifest]"
) -> "RevocationList":
    """Return a publisher's list from a file, as it counts for one bundle; the empty one where no file is named.

    Raises:
        InvalidInput: There is no such file, or it is malformed.
        VerificationError: No trusted key signed it.
    """
    from stanch.release import NO_REVOCATIONS, RevocationList  # noqa: PLC0415 - keeps `stanch --help` light

    if path is None:
        return NO_REVOCATIONS
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file", next_step="ask the publisher for revocations.json")
    return RevocationList.verify(path.read_bytes(), trusted.for_lineage(manifest().lineage))


@click.command("deliver", cls=Leaf)
@click.argument("bundle", type=FOLDER)
@click.argument("uri")
@click.option("--trust", type=FILE, help="The publisher's public key; by default the workspace's own.")
@click.option("--before-receipt", is_flag=True, help="Send the key though no receipt is there; the log says so.")
@click.option("--check", is_flag=True, help="Compare every byte in the store, also of a bundle that is there whole.")
@LISTS_SEEN
def deliver(
    bundle: Path, uri: str, *, trust: Path | None, before_receipt: bool, check: bool, memory: Path | None
) -> Result:  # fmt: skip
    """Put BUNDLE into the store at URI (file:, s3:, gs:, az:), whole or not at all. Repeat it to go on.

    Inside a workspace this is an act of it, for copies that it made; what opens one waits for its recipient's receipt.
    Of a bundle that is there whole only the key is sent.
    """
    from stanch.cli.ground import open_workspace_if_any  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.sign import TrustedKeys  # noqa: PLC0415 - same
    from stanch.workspace.verbs_deliver import deliver_copy  # noqa: PLC0415 - same

    frame = current()
    trusted, awaited = trust_of(trust) if trust is not None else None, None
    workspace = open_workspace_if_any(frame)
    if workspace is not None:
        with workspace:
            trusted = trusted or TrustedKeys(workspace.keys.publics("publisher"))
            report = deliver_copy(
                workspace, bundle, uri, trusted, before_receipt=before_receipt, check=check, progress=frame.progress()
            )
            awaited = None if report.has_key else _awaited(workspace, bundle)
    elif trusted is not None and trust is not None:
        report = _deliver_alone(bundle, uri, trusted, memory or trust.with_suffix(".releases"), check=check)
    else:
        raise InvalidInput("release deliver: expected --trust", why="there is no workspace whose key it could be")
    place = f"{uri.rstrip('/')}/{report.bundle_id}"
    text = (
        f"delivered  {place}: {report.sent} objects sent, {report.skipped} were there\n"
        f"next       the recipient: stanch release fetch {place} --trust {trust.name if trust else 'KEY'} --out DIR"
    )
    data: dict[str, JsonValue] = {
        "uri": place, "sent": report.sent, "skipped": report.skipped, "key": report.has_key,
    }  # fmt: skip
    if awaited is not None:
        data["receipt"] = {"recipient": awaited.recipient, "leaf": awaited.leaf}
        text += (
            f"\nwaits      its key goes out once {awaited.recipient} has signed for it: stanch release receive DIR "
            f"--name {awaited.recipient} --leaf {awaited.leaf} --sign-key KEY --trust {trust.name if trust else 'KEY'} "
            "--out receipt.json\n"
            f"then       stanch release receipt RELEASE receipt.json --to {awaited.recipient} --trust THEIR-KEY, and "
            "deliver again"
        )
    return Result(data, text)


def _awaited(workspace: "Workspace", bundle: Path) -> "Receipt | None":
    from stanch.seal import read_manifest  # noqa: PLC0415 - as in the commands
    from stanch.terms import Digest  # noqa: PLC0415 - same
    from stanch.workspace.verbs_receipt import expect_receipt  # noqa: PLC0415 - same

    return expect_receipt(workspace, Digest.sha256(read_manifest(bundle).to_bytes()))


def _deliver_alone(
    bundle: Path, uri: str, trusted: "TrustedKeys", memory: Path, *, check: bool
) -> "DeliveryReport":  # fmt: skip
    from stanch.release import DeliverParams, QuorumFiles, RemoteBundle, quorum_folder, read_publisher  # noqa: PLC0415 - as in the commands  # noqa: PLC0415 - same
    from stanch.release import deliver as deliver_bundle  # noqa: PLC0415 - same
    from stanch.seal import FileReleases  # noqa: PLC0415 - same

    # Read first: a `file:` store is made when it is opened; not for nothing.
    manifest, publisher = read_publisher(bundle, trusted)
    quorum = QuorumFiles.read(quorum_folder(bundle)) if manifest.quorum is not None else None
    params = DeliverParams(decided=publisher, quorum=quorum, check=check, progress=current().progress())
    remote = RemoteBundle.at(uri, manifest.bundle_id)
    return deliver_bundle(bundle, remote, trusted, memory=FileReleases(memory), params=params)


@click.command("fetch", cls=Leaf)
@click.argument("uri")
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--out", type=FOLDER, required=True, help="The new bundle; what was begun before is taken up.")
@click.option("--min-release", type=click.IntRange(1), default=1, help="Least release number accepted.")
@click.option("--revocations", type=FILE, help="A revocation list that came another way.")
@click.option("--memory", type=FILE, help="Where the highest release seen is remembered; default beside the key.")
@TIMESTAMP_ROOTS
def fetch(
    uri: str, *, trust: Path, out: Path, min_release: int, revocations: Path | None, memory: Path | None,
    timestamp_roots: Path | None,
) -> Result:  # fmt: skip
    """Get the bundle at URI; each piece is checked against the publisher's signature before it is kept."""
    from stanch.release import FetchParams, RemoteBundle  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.release import fetch as fetch_bundle  # noqa: PLC0415 - same
    from stanch.seal import FileReleases  # noqa: PLC0415 - same

    trusted, remote = trust_of(trust), RemoteBundle.open(uri)
    policy = publisher_of(trust, timestamp_roots)
    params = FetchParams(
        min_release=min_release,
        revocations=read_revocation_list(revocations, trusted, lambda: remote.signed_manifest(policy).manifest),
        timestamp_roots=roots_of(timestamp_roots) if timestamp_roots is not None else None,
        progress=current().progress(),
    )
    remembered = memory or trust.with_suffix(".releases")
    is_new = not remembered.exists()
    fetched = fetch_bundle(remote, out, trusted, memory=FileReleases(remembered), params=params)
    manifest = fetched.manifest
    text = (
        f"fetched    {out}: {manifest.lineage} release {manifest.release_number}, every segment matches; "
        f"{fetched.received / 1e6:.1f} MB received\n"
        f"next       stanch release {'open' if fetched.quorum is None else 'redeem'} {out} --identity KEY "
        f"--trust {trust.name}"
    )
    if is_new:
        text += (
            f"\nmemory     {remembered} is new: an older release or revocation list could not be told. If you fetched "
            "from this publisher before, name the file of then: --memory FILE; or pin: --min-release N"
        )
    data: dict[str, JsonValue] = {
        "path": str(out), "lineage": manifest.lineage, "release_number": manifest.release_number,
        "received": fetched.received, "quorum": str(fetched.quorum) if fetched.quorum is not None else None,
    }  # fmt: skip
    return Result(data, text)


@click.command("revoke", cls=Leaf)
@click.argument("uri")
@click.argument("recipient")
@click.option(
    "--sign-key", "sign_keys", type=FILE, multiple=True,
    help="The publisher's private signing key; by default the workspace's own. May be repeated: each key signs.",
)  # fmt: skip
@click.option("--reason", required=True, help="What the list says; everybody can read it.")
@click.option(
    "--trust", type=FILE, multiple=True,
    help="An older public key of the publisher; or the TOML file of those who read, if they demand several signatures.",
)  # fmt: skip
@LISTS_SEEN
def revoke(
    uri: str, recipient: str, *, sign_keys: tuple[Path, ...], reason: str, trust: tuple[Path, ...],
    memory: Path | None,
) -> Result:  # fmt: skip
    """Take the bundle at URI back from RECIPIENT (its text or key id): remove its stanza, sign the list.

    Inside a workspace this is an act of it.
    """
    from stanch.cli.ground import open_workspace_if_any  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.crypto import SigningKey  # noqa: PLC0415 - same
    from stanch.crypto.recipient import parse_recipient  # noqa: PLC0415 - same
    from stanch.release import RemoteBundle, RevokeOrder  # noqa: PLC0415 - same
    from stanch.release import revoke as revoke_recipient  # noqa: PLC0415 - same
    from stanch.seal import FileReleases  # noqa: PLC0415 - same
    from stanch.workspace.verbs_deliver import revoke_copy  # noqa: PLC0415 - same

    signers = [SigningKey.load(path) for path in sign_keys]
    named_keys = [trust_of(path) for path in trust]
    named = recipient if _KEY_ID.fullmatch(recipient) else parse_recipient(recipient).describe().key_id
    remote, now = RemoteBundle.open(uri), datetime.now(UTC)
    workspace = open_workspace_if_any(current())
    if workspace is not None:
        with workspace:
            first, *others = signers or [workspace.keys.signer("publisher")]
            order = RevokeOrder(named or recipient, reason, first, now, tuple(others))
            own = [key.public for key in (first, *others)]
            trusted = _join_trust([*own, *workspace.keys.publics("publisher")], named_keys)
            _, made = revoke_copy(workspace, remote, order, trusted)
    elif signers:
        first, *others = signers
        order = RevokeOrder(named or recipient, reason, first, now, tuple(others))
        seen = FileReleases(memory or sign_keys[0].with_suffix(".releases"))
        own = [key.public for key in signers]
        made = revoke_recipient(remote, order, _join_trust(own, named_keys), memory=seen)
    else:
        raise InvalidInput("release revoke: expected --sign-key", why="there is no workspace whose key it could be")
    text = (
        f"revoked    {order.key_id}: it stands in revocations.json (number {made.number}), its stanza is gone\n"
        "note       revoking does not un-share: a copy fetched before still opens, and who opened it may have kept "
        "its content"
    )
    return Result({"key_id": order.key_id, "number": made.number, "entries": len(made.entries)}, text)


def _join_trust(own: "Sequence[VerifyKey]", named: "Sequence[TrustedKeys]") -> "TrustedKeys":
    """Return whom to believe at a store: the own keys and the named; where several must sign, the named alone.

    Then the list is refused here as readers would refuse it, who do not know of the own keys.
    """
    from stanch.sign import TrustedKeys  # noqa: PLC0415 - as in the commands

    threshold = max((trusted.threshold for trusted in named), default=1)
    keys = [*(own if threshold == 1 else ()), *(key for trusted in named for key in trusted.keys)]
    scopes = {key: scope for trusted in named for key, scope in trusted.scopes.items()}
    return TrustedKeys(tuple({key.key_id: key for key in keys}.values()), threshold, scopes)
