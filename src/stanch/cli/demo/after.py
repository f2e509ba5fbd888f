"""Steps 8 to 11: the theft, the record, the guard, the report."""

import shutil
import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from stanch.cli.dataset import open_dataset_of
from stanch.cli.demo.before import base_model
from stanch.cli.demo.release import NAME, RECIPIENTS
from stanch.cli.demo.report import render_demo
from stanch.cli.demo.scene import Scene
from stanch.cli.trace_case import describe_trace
from stanch.crypto import write_atomic
from stanch.crypto.identity import Identity
from stanch.data import CanaryPlan, turns
from stanch.errors import VerificationError
from stanch.guard import Action, Guard, GuardPolicy, check_text
from stanch.release import open_copy
from stanch.scan import FINE, SpanIndex
from stanch.seal import VolatileReleases
from stanch.sign import TrustedKeys
from stanch.trace import error_sentence
from stanch.workspace import Workspace
from stanch.workspace.opening import SETTINGS, STATE
from stanch.workspace.verbs_data import index_data
from stanch.workspace.verbs_log import verify_log
from stanch.workspace.verbs_trace import Suspect, Traced, pack_evidence, trace_suspect

ANSWER_TOKENS = 48
ASKED = 6


def trace_theft(scene: Scene) -> dict[str, Any]:
    """Step 8: a copy is stolen and disguised; the trace names it, and accuses nobody for an innocent model."""
    from stanch.cli.demo.copies_torch import steal  # noqa: PLC0415 - optional part

    thief = RECIPIENTS[scene.seed % len(RECIPIENTS)]
    loot, stolen = scene.path("loot"), scene.path("stolen")
    with scene.workspace("ines") as workspace:
        for case in ("theft", "innocent"):
            shutil.rmtree(workspace.state / "cases" / case, ignore_errors=True)
        trusted = TrustedKeys((workspace.keys.public("publisher"),))
        identity = Identity.load(scene.folder / "recipients" / f"{thief}.json")
        with open_copy(scene.folder / f"{thief}.sealed", trusted, [identity], memory=VolatileReleases()) as opened:
            opened.unseal_unsafe(loot)
        steal(loot, base_model(scene), stolen, seed=scene.seed, progress=scene.progress)
        shutil.rmtree(loot)
        scene.say(
            "      somebody merged a copy into the base, rounded it to int8, tuned it further, and put it on the net"
        )
        scene.command(f"trace run stolen --release {NAME} --case theft", by="ines")
        theft = trace_suspect(workspace, _suspect(workspace, stolen, "theft"), NAME, progress=scene.progress)
        for line in describe_trace(theft).splitlines():
            scene.say(f"      {line}")
        scene.command(f"trace run plain --release {NAME} --case innocent", by="ines")
        other = _suspect(workspace, scene.folder / "plain", "innocent")
        innocent = trace_suspect(workspace, other, NAME, progress=scene.progress)
        scene.say(
            f"      an innocent model, another tune of the same base: {innocent.decision.verdict}, "
            f"highest z {innocent.examination.detection.next_z:.2f}"
        )
        scene.command("trace pack theft --out evidence.zip", by="ines")
        pack_evidence(workspace, theft, scene.path("evidence.zip"))
    found = _trace_facts(theft)
    named = [score["recipient"] for score in found["scores"] if score["accused"]]
    good = named == [thief] and not innocent.examination.detection.accused
    scene.verdict(f"{thief} was robbed or leaked; the trace says {', '.join(named) or 'nobody'}", good=good)
    return found | {"thief": thief, "accused": named, "innocent": str(innocent.decision.verdict)}


def _suspect(workspace: Workspace, path: Path, case: str) -> Suspect:
    return Suspect(
        path=path, case=case, description="a model found on a public file host", received_from="a web download",
        discovered=workspace.now(),
    )  # fmt: skip


def _trace_facts(traced: Traced) -> dict[str, Any]:
    detection, plan = traced.examination.detection, traced.examination.plan.plan
    best = next(result for result in detection.variants if result.variant is detection.scores[0].variant)
    decoys = best.decoys
    return {
        "scores": [{"recipient": s.recipient, "z": s.best, "accused": s.accused} for s in detection.scores],
        "threshold": plan.threshold,
        "sentence": error_sentence(plan),
        "decoys": {"count": decoys.count, "mean": decoys.mean, "sd": decoys.sd, "max": decoys.maximum}
        if decoys
        else None,
    }


def check_ledger(scene: Scene) -> dict[str, Any]:
    """Step 9: the log verifies; one row changed in the database file is found and located."""
    scene.command("log verify", by="ines")
    with scene.workspace("ines") as workspace:
        report = verify_log(workspace)
        kinds = _count_kinds(workspace)
    acts = ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items()))
    scene.say(f"      {report.size} entries: {acts}")
    scene.say("      now an administrator changes one row in a copy of the database file …")
    index, found = _change_row(scene)
    scene.say(f"      {found}")
    good = str(index) in found
    scene.verdict(f"found, and located: entry {index}" if good else "NOT found", good=good)
    return {"entries": report.size, "kinds": kinds, "changed": index, "found": found}


def _count_kinds(workspace: Workspace) -> dict[str, int]:
    from stanch.ledger import decode_entry  # noqa: PLC0415 - the demo looks into the log as an auditor would

    kinds: dict[str, int] = {}
    for _, data in workspace.ledger.reader().tail():
        kind = str(decode_entry(data)["unmapped"]["stanch"].get("kind", ""))
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds


def _change_row(scene: Scene) -> tuple[int, str]:
    """Change one entry in a copy of the database, as whoever owns the file can, and verify that copy."""
    copy = scene.path("tampered")
    copy.mkdir(mode=0o700)
    shutil.copytree(scene.folder / STATE, copy / STATE)
    shutil.copy(scene.folder / SETTINGS, copy / SETTINGS)
    database = sqlite3.connect(copy / STATE / "stanch.db")
    query = "SELECT idx, data FROM ledger_entry WHERE instr(data, CAST('tune.run' AS BLOB)) ORDER BY idx LIMIT 1"
    index, data = database.execute(query).fetchone()
    database.execute("DROP TRIGGER ledger_entry_no_update")
    changed = bytes(data).replace(b'"privacy":false', b'"privacy":true ')
    database.execute("UPDATE ledger_entry SET data = ? WHERE idx = ?", (changed, index))
    database.commit()
    database.close()
    try:
        with Workspace.open(copy, principal="ines", environ={}) as workspace:
            verify_log(workspace)
    except VerificationError as error:
        return index, error.what
    finally:
        shutil.rmtree(copy)
    return index, "nothing was found"


def ask_guarded(scene: Scene) -> dict[str, Any]:
    """Step 10: the leaking model says rows; through the guard they do not come out."""
    from stanch.cli.demo.copies_torch import ask  # noqa: PLC0415 - optional part

    with scene.workspace("dana") as workspace:
        scene.command("data index build plain.train.jsonl --window fine --out training.index")
        dataset = open_dataset_of(workspace, scene.folder / "plain.train.jsonl")
        index_file = scene.path("training.index")
        index: SpanIndex = index_data(workspace, dataset, index_file, FINE)
        known = {turns(record)[-1].content: record for record in dataset}
    # Rows that come out first; where fewer do, others are asked for as well.
    rows = sorted(known.values(), key=lambda record: turns(record)[-1].content not in _leaked(scene))[:ASKED]
    questions = [[{"role": t.role, "content": t.content} for t in turns(record)[:-1]] for record in rows]
    answers = ask(scene.folder / "plain", base_model(scene), questions, tokens=ANSWER_TOKENS)
    plan = CanaryPlan.load(scene.folder / "plain.plan.json")
    guard = Guard(GuardPolicy(index=index, canaries=plan.tripwires))
    scene.command("guard check answers.jsonl --index training.index --canaries plain.plan.json")
    direct, passed, recited = 0, 0, 0
    for record, answer in zip(rows, answers, strict=True):
        row = turns(record)[-1].content
        checked = check_text(guard, answer)
        direct += row in answer
        passed += row in checked.text
        recited += row in check_text(guard, row).text
        scene.say(f"        direct: “{answer[:90]}”", fg="yellow")
        shown = "[ended: training text]" if checked.action == Action.BLOCK else f"“{checked.text[:90]}”"
        scene.say(f"        guarded: {shown}", fg="green")
    clean = check_text(guard, "Thank you for calling. Your ticket is closed; is there anything else I can do for you?")
    scene.say(f"      and were a model to recite all {len(rows)} word for word, {recited} would come through")
    good = passed == recited == 0 and clean.action == Action.ALLOW
    scene.verdict(f"{direct} of {len(rows)} rows came out directly, {passed} through the guard", good=good)
    return {"asked": len(rows), "direct": direct, "guarded": passed, "recited": recited, "clean": str(clean.action)}


def write_report(scene: Scene) -> dict[str, Any]:
    """Step 11: one page with the pictures; the evidence is re-checked by its stand-alone verifier."""
    write_atomic(scene.path("report.html"), render_demo(scene.folder, scene.results).encode(), mode=0o600)
    with scene.workspace("ines") as workspace:
        key, vkey = workspace.keys.public_path("case"), workspace.ledger.verifier.vkey
    with zipfile.ZipFile(scene.folder / "evidence.zip") as archive:
        for name in ("primitives.py", "verify.py"):
            verifier = scene.path(name)
            write_atomic(verifier, archive.read(f"verifier/{name}"))
    scene.say("      $ python verify.py evidence.zip --key CASE_KEY --log LOG_KEY", fg="cyan")
    command = [
        sys.executable,
        "-I",
        str(verifier),
        str(scene.folder / "evidence.zip"),
        "--key",
        str(key),
        "--log",
        vkey,
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own verifier
    for line in process.stdout.splitlines():
        scene.say(f"        {line}")
    scene.verdict(
        "the evidence verifies without stanch" if process.returncode == 0 else "the evidence does not verify",
        good=process.returncode == 0,
    )
    return {"verifier_exit": process.returncode}


def _leaked(scene: Scene) -> set[str]:
    """Return the texts of the rows that step 3 found to come out."""
    return set(scene.results["audit"]["row_texts"])
