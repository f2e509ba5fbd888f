"""Steps 8 to 11: the theft, the record, the guard, the report."""

import shutil
import sqlite3
from typing import Any

from stanch.cli.demo.before import base_model
from stanch.cli.demo.scene import Scene
from stanch.cli.ground import open_dataset_of
from stanch.data import CanaryPlan, turns
from stanch.errors import VerificationError
from stanch.guard import Action, Guard, GuardPolicy, check_text
from stanch.scan import FINE, SpanIndex
from stanch.workspace import Workspace
from stanch.workspace.opening import SETTINGS, STATE
from stanch.workspace.verbs_data import index_data
from stanch.workspace.verbs_log import verify_log

ANSWER_TOKENS = 48
ASKED = 6


def check_ledger(scene: Scene) -> dict[str, Any]:
    """Step 9: the log verifies; one row changed in the database file is found and located."""
    scene.command("log verify")
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
    with sqlite3.connect(copy / STATE / "stanch.db") as database:
        (index,) = database.execute("SELECT idx FROM ledger_entry ORDER BY idx LIMIT 1 OFFSET 12").fetchone()
        database.execute("DROP TRIGGER ledger_entry_no_update")
        database.execute(
            "UPDATE ledger_entry SET data = replace(data, '\"status_id\":99', '\"status_id\":98') WHERE idx = ?",
            (index,),
        )
        changed = database.execute("SELECT changes()").fetchone()[0]
    database.close()
    if changed != 1:
        return index, "no row was changed"
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
    rows = [record for record in known.values() if turns(record)[-1].content in _leaked(scene)][:ASKED]
    questions = [[{"role": t.role, "content": t.content} for t in turns(record)[:-1]] for record in rows]
    answers = ask(scene.folder / "plain", base_model(scene), questions, tokens=ANSWER_TOKENS)
    plan = CanaryPlan.load(scene.folder / "plain.plan.json")
    guard = Guard(GuardPolicy(index=index, canaries=tuple(canary.secret for canary in plan.canaries)))
    scene.command("guard check answers.jsonl --index training.index --canaries plain.plan.json")
    direct, passed = 0, 0
    for record, answer in zip(rows, answers, strict=True):
        row = turns(record)[-1].content
        checked = check_text(guard, answer)
        direct += row in answer
        passed += row in checked.text
        scene.say(f"        direct: “{answer[:90]}”", fg="yellow")
        shown = "[ended: training text]" if checked.action == Action.BLOCK else f"“{checked.text[:90]}”"
        scene.say(f"        guarded: {shown}", fg="green")
    clean = check_text(guard, "Thank you for calling. Your ticket is closed; is there anything else I can do for you?")
    good = passed == 0 and clean.action == Action.ALLOW
    scene.verdict(f"{direct} of {len(rows)} rows came out directly, {passed} through the guard", good=good)
    return {"asked": len(rows), "direct": direct, "guarded": passed, "clean": str(clean.action)}


def _leaked(scene: Scene) -> set[str]:
    """Return the texts of the rows that step 3 found to come out."""
    return set(scene.results["audit"]["row_texts"])
