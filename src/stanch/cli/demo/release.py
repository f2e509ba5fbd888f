"""Steps 6 and 7: three sealed copies, and what their recipients can and cannot do with them."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from stanch.audit import read_policy
from stanch.cli.demo.before import base_model
from stanch.cli.demo.scene import Scene
from stanch.crypto.identity import Identity, generate_identity
from stanch.errors import ApprovalsMissing, StanchError, VerificationError
from stanch.mark import embed
from stanch.release import open_copy
from stanch.seal import VolatileReleases
from stanch.sign import TrustedKeys
from stanch.workspace import Workspace
from stanch.workspace.release_state import ReleaseState
from stanch.workspace.verbs_model import CERTIFICATE_NAME
from stanch.workspace.verbs_release import (
    Proposal,
    approve_release,
    create_release,
    propose_release,
    release_folder,
)

NAME = "support-bot"
RECIPIENTS = ("acme", "globex", "initech")
GRANT = timedelta(days=90)


def release_copies(scene: Scene) -> dict[str, Any]:
    """Step 6: propose, approve by two people, and make three copies."""
    keys = _make_identities(scene)
    _forget_release(scene)
    model, certificate = scene.folder / "private", scene.folder / "private.report" / CERTIFICATE_NAME
    targets = " ".join(f"--to {name}={str(key)[:18]}…" for name, key in keys.items())
    scene.command(
        f"release propose private --name {NAME} --base BASE --cert private.report/{CERTIFICATE_NAME} {targets}"
    )
    with scene.workspace("dana") as workspace:
        state = propose_release(workspace, Proposal(
            name=NAME, model=model, base=base_model(scene), certificate=certificate, recipients=keys,
            not_after=(workspace.now() + GRANT).replace(microsecond=0), lineage="acme/support-bot", release_number=1,
        ))  # fmt: skip
    scene.say(f"      keys for {len(keys)} recipients and 1,024 decoys are committed as log entry {state.facts.entry}")
    policy = read_policy(scene.folder / "gate.toml")
    refused = _try_alone(scene, policy)
    for person in ("mia", "noor"):
        scene.command(f"release approve {NAME} {' '.join(f'--to {name}' for name in RECIPIENTS)}", by=person)
        with scene.workspace(person) as workspace:
            counts = [approve_release(workspace, NAME, recipient) for recipient in RECIPIENTS]
        scene.say(f"      {person} signed {len(counts)} approvals")
    sizes = {}
    for recipient in RECIPIENTS:
        out = scene.path(f"{recipient}.sealed")
        scene.command(f"release create {NAME} --to {recipient} --policy gate.toml --out {out.name}", by="mia")
        with scene.workspace("mia") as workspace:
            sizes[recipient] = create_release(workspace, NAME, recipient, out, policy, progress=scene.progress).size
    scene.verdict(
        "three copies: each marked, sealed to its recipient's key, signed; none ever lay open on disk", good=True
    )
    return {"refused_alone": refused, "sizes": sizes, "entry": state.facts.entry}


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


def _try_alone(scene: Scene, policy: Any) -> bool:  # noqa: ANN401 - the gate's policy
    """Let one person try without approvals; return whether she was refused."""
    with scene.workspace("mia") as workspace:
        try:
            create_release(workspace, NAME, RECIPIENTS[0], scene.path(f"{RECIPIENTS[0]}.sealed"), policy)
        except ApprovalsMissing as error:
            scene.say(f"      mia alone: {error.what}; {error.why}")
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
    except VerificationError as error:
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
