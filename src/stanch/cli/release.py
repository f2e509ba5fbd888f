"""``stanch release``: mark, seal and sign a copy for one recipient."""

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.approval import approve, approve_offline, redeem
from stanch.cli.delivery import deliver, fetch, read_revocation_list, revoke
from stanch.cli.frame import Group, Result, current
from stanch.cli.receipt import get_key, receipt, receive
from stanch.cli.recipients import TIMESTAMP_ROOTS, TSA, TSA_ROOTS, authority_of, identity_of, publisher_of, trust_of
from stanch.cli.strength import show_strength, show_utility
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.seal import Manifest
    from stanch.terms import JsonValue

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
_URI = re.compile(r"[a-z][a-z0-9+.-]+:")


@click.group(cls=Group)
def release() -> None:
    """Mark, seal and sign a copy for one recipient."""


for _command in (approve, approve_offline, redeem, deliver, fetch, receive, receipt, get_key, revoke):
    release.add_command(_command)


@release.command("propose")
@click.argument("model", type=FOLDER)
@click.option("--name", required=True, help="Name of the release.")
@click.option("--base", type=FOLDER, help="The base model's folder, for an adapter.")
@click.option("--cert", "certificate", type=FILE, required=True, help="Its leak certificate.")
@click.option("--to", "recipients", multiple=True, required=True, metavar="NAME=RECIPIENT", help="May be repeated.")
@click.option("--days", type=click.IntRange(1, 3650), default=90, help="How long the grants last.")
@click.option("--number", type=click.IntRange(1), help="Release number; by default the next one of its lineage.")
@click.option("--lineage", help="The line of releases; by default the name of the model's folder.")
@click.option("--alpha", type=click.FloatRange(1e-4, 3e-2), help="Strength of the marks; by default what fits MODEL.")
def propose(
    model: Path,
    name: str,
    base: Path | None,
    certificate: Path,
    recipients: tuple[str, ...],
    **about: Any,  # noqa: ANN401 - the other options, by name
) -> Result:
    """Propose a release of MODEL: commit to the marks and write one request a copy."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_release import Proposal, propose_release  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        proposal = Proposal(
            name=name, model=model, base=base, certificate=certificate, recipients=_recipients(recipients),
            not_after=(workspace.now() + timedelta(days=about["days"])).replace(microsecond=0),
            lineage=about["lineage"], release_number=about["number"], alpha=about["alpha"],
        )  # fmt: skip
        state = propose_release(workspace, proposal)
        approvers = " --approver NAME" * workspace.config.access.release_approvals if workspace.people.team else ""
    requests = {name: str(request.digest) for name, request in state.facts.requests.items()}
    first, strength = next(iter(state.facts.requests.values())), state.facts.strength
    lines = [
        f"proposed   release {name} for {len(requests)} recipients; marks committed as log entry {state.facts.entry}",
        f"line       {first.lineage}, number {first.release_number}",
        *(show_strength(strength) if strength is not None else ()),
        *(f"request    {recipient:<20} {digest}" for recipient, digest in requests.items()),
        f"next       stanch release create {name} --to RECIPIENT{approvers} --out COPY",
    ]
    data: dict[str, JsonValue] = {
        "name": name, "entry": state.facts.entry, "requests": dict(requests), "lineage": first.lineage,
        "release_number": first.release_number, "strength": None if strength is None else strength.to_json(),
    }  # fmt: skip
    return Result(data, "\n".join(lines))


def _recipients(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = [_recipient(text) for text in texts]
    if len(dict(pairs)) != len(pairs):
        raise InvalidInput("--to: each recipient's name stands once", why="one name is given two keys")
    return dict(pairs)


def _recipient(text: str) -> tuple[str, str]:
    name, separator, key = text.partition("=")
    if not separator or not name:
        raise InvalidInput(
            f"--to {text[:40]}: expected NAME=RECIPIENT", next_step="RECIPIENT is what stanch key new shows"
        )
    return name, key


@release.command("create")
@click.argument("name")
@click.option("--to", "recipient", required=True, metavar="NAME", help="Whose copy.")
@click.option(
    "--approver",
    "approvers",
    multiple=True,
    metavar="PERSON[=KEY-ID]",
    help="In a team; may be repeated. KEY-ID: the local key that the person registered with.",
)
@click.option("--policy", "policy_file", type=FILE, help="A file with [gate], no looser than the workspace's own.")
@click.option("--holdout", type=FILE, help="Records that were kept out: a mark that costs too much on them is refused.")
@TSA
@TSA_ROOTS
@click.option("--out", type=FOLDER, required=True, help="The sealed copy.")
def create(
    name: str, *, recipient: str, approvers: tuple[str, ...], policy_file: Path | None, holdout: Path | None,
    out: Path, **stamp: Any,  # noqa: ANN401 - the options of a time-stamping authority
) -> Result:  # fmt: skip
    """Make one recipient's copy: gate, mark, seal and sign in one pass; no plaintext of it touches a disk.

    With --holdout the loss of the original and of the marked copy is measured first, in memory; without, it is not.
    In profile team the key is split among the approvers: nobody opens the copy before enough of them approved it.
    """
    from stanch.audit import parse_policy, read_policy  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - same
    from stanch.workspace.verbs_approve import load_record  # noqa: PLC0415 - same
    from stanch.workspace.verbs_release import CopyTerms, create_release  # noqa: PLC0415 - same

    frame, authority = current(), authority_of(stamp["tsa"], stamp["tsa_roots"])
    with open_workspace(frame) as workspace:
        policy = read_policy(policy_file) if policy_file else parse_policy(workspace.config.gate)
        terms = CopyTerms(policy=policy, approvers=approvers, authority=authority, holdout=holdout)
        copy = create_release(workspace, name, recipient, out, terms, progress=frame.progress())
        publisher = workspace.keys.public_path("publisher")
        quorum = load_record(workspace, name, recipient).request if copy.record is not None else None
    data: dict[str, JsonValue] = {"path": str(copy.path), "recipient": recipient, "manifest": str(copy.manifest)}
    data |= {"strength": copy.strength.to_json(), "utility": None if copy.utility is None else copy.utility.to_json()}
    lines = [
        f"released   {copy.path} for {recipient}: {copy.size / 1e6:.1f} MB, manifest {copy.manifest}",
        *show_strength(copy.strength), show_utility(copy.utility),
    ]  # fmt: skip
    if quorum is None:
        lines.append(
            f"next       hand over {copy.path} and {publisher}; the recipient: stanch release open COPY --identity KEY "
            f"--trust {publisher.name}"
        )
    else:
        data |= {"request": str(quorum.digest), "needed": quorum.m}
        data["approvers"] = [{"principal": one.principal, "key": one.recipient} for one in quorum.approvers]
        lines += [
            f"sealed     for nobody yet: {quorum.m} of {len(quorum.approvers)} approvers must release it",
            *(
                f"approver   {person} ({one.principal}) with key {one.recipient}"
                for person, one in zip([given.partition("=")[0] for given in approvers], quorum.approvers, strict=True)
            ),
            f"request    {quorum.digest}",
            f"next       each approver compares: stanch release approve {name} --to {recipient} --identity KEY",
        ]
    return Result(data, "\n".join(lines))


@release.command("open")
@click.argument("bundle", metavar="BUNDLE|URI")
@click.option("--identity", type=FILE, required=True, help="Your private key.")
@click.option("--trust", type=FILE, required=True, help="The publisher's public key.")
@click.option("--memory", type=FILE, help="Where the highest release seen is remembered; default beside the identity.")
@click.option("--revocations", type=FILE, help="The publisher's revocation list; what it names does not open.")
@TIMESTAMP_ROOTS
def open_(
    bundle: str, *, identity: Path, trust: Path, memory: Path | None, revocations: Path | None,
    timestamp_roots: Path | None,
) -> Result:  # fmt: skip
    """Open a copy as its recipient: check signature, release number and every segment. Nothing is written in plain.

    A delivered bundle (file:, s3:, gs:, az:, https:) is read where it lies, by ranges, and not even its encrypted
    bytes are written here; its store's revocation list holds.
    """
    from stanch.release import RemoteBundle, open_copy, open_remote  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.seal import FileReleases, read_manifest  # noqa: PLC0415 - same

    key, policy = identity_of(identity), publisher_of(trust, timestamp_roots)
    remote = RemoteBundle.open(bundle) if _URI.match(bundle) else None

    def find_manifest() -> "Manifest":
        return read_manifest(Path(bundle)) if remote is None else remote.signed_manifest(policy).manifest

    listed = read_revocation_list(revocations, trust_of(trust), find_manifest)
    seen = FileReleases(memory or identity.with_suffix(".releases"))
    with (
        open_copy(Path(bundle), policy, [key], memory=seen, revocations=listed)
        if remote is None
        else open_remote(remote, policy, [key], memory=seen, revocations=listed)
    ) as opened:
        files: list[JsonValue] = []
        lines = []
        for file in opened.files():
            for _ in opened.pieces(file.path):
                pass  # each piece is checked as it is made, and then forgotten
            files.append({"path": file.path, "size": file.size})
            lines.append(f"  {file.size:>12,}  {file.path}")
        manifest = opened.manifest
    head = f"opened     {manifest.lineage} release {manifest.release_number}: every segment matches the signed digests"
    data: dict[str, JsonValue] = {
        "lineage": manifest.lineage, "release_number": manifest.release_number, "files": files,
    }  # fmt: skip
    return Result(data, "\n".join([head, *lines]))
