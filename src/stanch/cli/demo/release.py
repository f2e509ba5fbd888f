"""Steps 6 and 7: three sealed copies that two people release, and what recipients can and cannot do with them."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from stanch.audit import read_policy
from stanch.cli.demo.before import base_model
from stanch.cli.demo.scene import Scene
from stanch.crypto.identity import Identity, generate_identity
from stanch.errors import NotPermitted, QuorumNotMet, StanchError, VerificationError
from stanch.mark import embed
from stanch.release import QuorumFiles, open_copy, quorum_folder, redeem_copy
from stanch.seal import VolatileReleases
from stanch.sign import TrustedKeys
from stanch.workspace import Workspace
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_approve import approve_release, load_record, register_key
from stanch.workspace.verbs_model import CERTIFICATE_NAME
from stanch.workspace.verbs_release import CopyTerms, Proposal, create_release, propose_release, release_folder

NAME, LINEAGE = "support-bot", "acme/support-bot"
RECIPIENTS = ("acme", "globex", "initech")
APPROVERS = ("mia", "noor")
GRANT = timedelta(days=90)


def release_copies(scene: Scene) -> dict[str, Any]:
    """Step 6: propose, make three copies, and let two people release them."""
    keys = _make_identities(scene)
    _forget_release(scene)
    _register_approvers(scene)
    model, certificate = scene.folder / "private", scene.folder / "private.report" / CERTIFICATE_NAME
    targets = " ".join(f"--to {name}={str(key)[:18]}…" for name, key in keys.items())
    scene.command(
        f"release propose private --name {NAME} --lineage {LINEAGE} --base BASE "
        f"--cert private.report/{CERTIFICATE_NAME} {targets}"
    )
    with scene.workspace("dana") as workspace:
        state = propose_release(workspace, Proposal(
            name=NAME, model=model, base=base_model(scene), certificate=certificate, recipients=keys,
            not_after=(workspace.now() + GRANT).replace(microsecond=0), lineage=LINEAGE,
        ))  # fmt: skip
    scene.say(f"      keys for {len(keys)} recipients and 1,024 decoys are committed as log entry {state.facts.entry}")
    terms = CopyTerms(policy=read_policy(scene.folder / "gate.toml"), approvers=APPROVERS)
    sizes = {}
    for recipient in RECIPIENTS:
        out = scene.path(f"{recipient}.sealed")
        shutil.rmtree(quorum_folder(out), ignore_errors=True)
        scene.command(
            f"release create {NAME} --to {recipient} --approver mia --approver noor --policy gate.toml "
            f"--out {out.name}",
            by="mia",
        )
        with scene.workspace("mia") as workspace:
            sizes[recipient] = create_release(workspace, NAME, recipient, out, terms, progress=scene.progress).size
    scene.say("      each key is split between mia and noor: so far nobody can open a copy")
    approvals: dict[str, list[bytes]] = {recipient: [] for recipient in RECIPIENTS}
    refused = False
    for person in APPROVERS:
        for recipient in RECIPIENTS:
            approvals[recipient].append(_approve(scene, person, recipient))
        scene.say(f"      {person} released {len(approvals)} shares")
        if person == APPROVERS[0]:
            refused = _try_alone(scene, approvals[RECIPIENTS[0]])
    for recipient in RECIPIENTS:
        _redeem(scene, recipient, approvals[recipient])
    scene.verdict(
        "three copies: each marked, sealed, signed, and opened to its recipient by two people together; none ever lay "
        "open on disk", good=refused,
    )  # fmt: skip
    return {"refused_alone": refused, "sizes": sizes, "entry": state.facts.entry}


def _register_approvers(scene: Scene) -> None:
    """Give each approver a key to which shares are wrapped."""
    folder = scene.path("approvers")
    folder.mkdir(mode=0o700)
    for person in APPROVERS:
        identity = generate_identity()
        identity.save(folder / f"{person}.json")
        scene.command(f"access key register {str(identity.recipient)[:18]}…", by=person)
        with scene.workspace(person) as workspace:
            register_key(workspace, str(identity.recipient))


def _approve(scene: Scene, person: str, recipient: str) -> bytes:
    scene.command(f"release approve {NAME} --to {recipient} --identity approvers/{person}.json --request …", by=person)
    identity = Identity.load(scene.folder / "approvers" / f"{person}.json")
    with scene.workspace(person) as workspace:
        request = load_record(workspace, NAME, recipient).request.digest
        return approve_release(workspace, NAME, recipient, identity, request=request).approval


def _redeem(scene: Scene, recipient: str, approvals: list[bytes]) -> None:
    bundle = scene.folder / f"{recipient}.sealed"
    with scene.workspace("dana") as workspace:
        trusted, now = TrustedKeys((workspace.keys.public("publisher"),)), workspace.now()
    identity = Identity.load(scene.folder / "recipients" / f"{recipient}.json")
    redeem_copy(bundle, trusted, QuorumFiles.read(quorum_folder(bundle)).record, approvals, identity, now=now)


def _make_identities(scene: Scene) -> dict[str, str]:
    """Return each recipient's public key; the private one stays with the recipient."""
    folder = scene.path("recipients")
    folder.mkdir(mode=0o700)
    recipients = {}
    for name in RECIPIENTS:
        identity = generate_identity()
        identity.save(folder / f"{name}.json")
        recipients[name] = str(identity.recipient)
    return recipients


def _forget_release(scene: Scene) -> None:
    """Remove what an interrupted step left; the log keeps what it holds."""
    with scene.workspace("dana") as workspace:
        shutil.rmtree(release_folder(workspace, NAME), ignore_errors=True)


def _try_alone(scene: Scene, approvals: list[bytes]) -> bool:
    """Let a recipient try with one person's approval; return whether the copy stayed shut."""
    try:
        _redeem(scene, RECIPIENTS[0], approvals)
    except QuorumNotMet as error:
        scene.say(f"      {APPROVERS[0]} alone: {error.what}")
        return True
    return False


def open_copies(scene: Scene) -> dict[str, Any]:
    """Step 7: acme opens, verifies and loads; globex's key and a flipped bit are refused."""
    bundle = scene.folder / "acme.sealed"
    with scene.workspace("dana") as workspace:
        trusted = TrustedKeys((workspace.keys.public("publisher"),))
        scene.say(
            "      $ stanch release open acme.sealed --identity recipients/acme.json "
            "--trust .stanch/keys/publisher.pub.pem", fg="cyan",
        )  # fmt: skip
        difference = _compare_logits(scene, workspace, bundle, trusted)
    scene.say(f"      loaded into transformers from memory; largest difference to her plaintext copy: {difference}")
    stranger = _refusal(bundle, trusted, scene.folder / "recipients" / "globex.json")
    scene.say(f"      globex's key on acme's copy: {stranger}")
    flipped = _flip(scene, bundle)
    tampered = _refusal(flipped, trusted, scene.folder / "recipients" / "acme.json", read=True)
    scene.say(f"      one bit flipped: {tampered}")
    shutil.rmtree(flipped)
    good = difference == 0 and stranger != "opened" and tampered != "opened"
    scene.verdict("bit for bit the same; the others are refused" if good else "not as promised", good=good)
    return {"logit_difference": difference, "stranger": stranger, "flipped": tampered}


def _compare_logits(scene: Scene, workspace: Workspace, bundle: Path, trusted: TrustedKeys) -> float:
    """Return the largest difference between the sealed copy's logits and those of the marked plaintext copy."""
    from stanch.cli.demo.copies_torch import logits_of_folder, logits_of_sealed  # noqa: PLC0415 - optional part

    identity = Identity.load(scene.folder / "recipients" / "acme.json")
    state = ReleaseState.load(release_folder(workspace, NAME))
    plan = state.mark_plan()
    plain = scene.path("acme.plain")
    embed(state.model, plain, plan, state.copy_key(plan, "acme"))
    try:
        with open_copy(bundle, trusted, [identity], memory=VolatileReleases()) as opened:
            sealed = logits_of_sealed(opened, base_model(scene))
        return float((sealed - logits_of_folder(plain, base_model(scene))).abs().max())
    finally:
        shutil.rmtree(plain)


def _refusal(bundle: Path, trusted: TrustedKeys, identity: Path, *, read: bool = False) -> str:
    """Try to open a bundle and return the name of the refusal, or ``opened``."""
    try:
        with open_copy(bundle, trusted, [Identity.load(identity)], memory=VolatileReleases()) as opened:
            for file in opened.files() if read else ():
                opened.read(file.path)
    except (VerificationError, NotPermitted) as error:
        return f"refused ({error.slug})"
    except StanchError as error:
        return f"failed ({error.slug})"
    return "opened"


def _flip(scene: Scene, bundle: Path) -> Path:
    """Copy a bundle and flip one bit in the middle of its largest stream."""
    flipped = scene.path("acme.flipped")
    shutil.copytree(bundle, flipped)
    body = max((flipped / "body").iterdir(), key=lambda path: path.stat().st_size)
    with body.open("r+b") as file:
        file.seek(body.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    return flipped
