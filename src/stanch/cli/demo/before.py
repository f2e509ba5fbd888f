"""Steps 1 to 5: the data, the leaking model, and the private one."""

from pathlib import Path
from typing import Any

from stanch.audit import AuditInput, AuditParams, parse_policy, preregister, read_policy
from stanch.audit.gate import GateBreached, GateDecision, GateInconclusive
from stanch.cli.audit import describe
from stanch.cli.auditing import gather_material, tuned_at
from stanch.cli.dataset import open_dataset_of
from stanch.cli.demo.records import SYSTEM, export_lines, make_conversations
from stanch.cli.demo.scene import Scene
from stanch.cli.demo.settings import (
    ALPHA,
    DETECTABLE_AUC,
    EPSILON,
    EXPOSURE_CANDIDATES,
    EXPOSURE_SECRETS,
    GATE,
    MIN_POWER,
    SECRET_LENGTH,
    SIZES,
    TREE_BUDGET,
    tune_spec,
)
from stanch.cli.models import load_base, load_scorer, tokenizer_digest_at
from stanch.crypto import write_atomic
from stanch.data import CanarySpec, plan_canaries, turns
from stanch.errors import MissingExtraError
from stanch.scan import Policy, Scanner
from stanch.tune import TuneSpec, fetch_model
from stanch.workspace import Workspace
from stanch.workspace.verbs_data import deduplicate, plant_canaries, scan_data
from stanch.workspace.verbs_model import CERTIFICATE_NAME, Audited, AuditOrder, pass_gate, run_audit, run_tuning

SHOWN_ROWS = 5


def base_model(scene: Scene) -> Path:
    """Return the folder of the base model, made or fetched if need be."""
    if scene.model == "smollm2":
        return fetch_model("smollm2")
    try:
        from stanch.cli.demo.tiny_torch import make_tiny_model  # noqa: PLC0415 - optional part
    except ImportError as error:
        raise MissingExtraError("demo") from error
    return make_tiny_model(scene.folder / "base", seed=scene.seed, progress=scene.progress)


def audit_params() -> AuditParams:
    """Return what both audits of the demo compute."""
    return AuditParams(
        reconstruction_values=0,  # takes minutes on a processor; the demo shows canaries and rows
        alpha=ALPHA, detectable_auc=DETECTABLE_AUC, min_power=MIN_POWER, exposure_secrets=EXPOSURE_SECRETS,
        exposure_candidates=EXPOSURE_CANDIDATES, tree_budget=TREE_BUDGET,
    )  # fmt: skip


def prepare_data(scene: Scene) -> dict[str, Any]:
    """Step 1: generate the export, scan and redact it, plant canaries by committed coins."""
    sizes, base = SIZES[scene.model], base_model(scene)
    people = make_conversations(scene.seed, sizes.customers, repeated=sizes.repeated)
    others = make_conversations(scene.seed + 500_000, sizes.held_out, repeated=0)
    export, held_out = scene.path("export.jsonl"), scene.path("held-out.jsonl")
    write_atomic(export, "".join(f"{line}\n" for line in export_lines(people, scene.seed)).encode(), mode=0o600)
    write_atomic(held_out, "".join(f"{line}\n" for line in export_lines(others, scene.seed)).encode(), mode=0o600)
    write_atomic(scene.path("gate.toml"), GATE.encode())
    rows = sum(person.copies for person in people)
    scene.say(f"      BASE is {base}")
    scene.say(f"      {len(people)} customers in {rows} records: {sizes.repeated} tickets were stored several times")
    with scene.workspace("dana") as workspace:
        scene.command("scan export.jsonl --redact clean.jsonl")
        dataset, clean = open_dataset_of(workspace, export), scene.path("clean.jsonl")
        report = scan_data(workspace, dataset, Scanner(Policy()), clean, progress=scene.progress)
        for count in report.counts:
            scene.say(f"        {count.severity:<9} {count.kind:<18} {count.findings} in {count.records} records")
        scene.say("      what no recogniser knows stays: illness, divorce, debts told in plain words")
        planted = _plant(scene, workspace, export, "plain", base, scene.seed)
    return {"records": rows, "customers": len(people), "findings": len(report.findings), "planted": planted}


def _plant(scene: Scene, workspace: Workspace, source: Path, name: str, base: Path, number: int) -> int:
    """Plan canaries for ``source`` and plant them; returns how many went in."""
    sizes = SIZES[scene.model]
    plan_file, out = scene.path(f"{name}.plan.json"), scene.path(f"{name}.train.jsonl")
    scene.command(
        f"data canaries plan {source.name} --n {sizes.coins} --secret-length {SECRET_LENGTH} --alpha {ALPHA} "
        f"--secrets {EXPOSURE_SECRETS} --candidates {EXPOSURE_CANDIDATES} "
        f"--tokenizer BASE --out {plan_file.name}"
    )
    dataset = open_dataset_of(workspace, source)
    plan = plan_canaries(
        dataset, CanarySpec(n=sizes.coins, secret_length=SECRET_LENGTH, system=SYSTEM),
        preregistration=preregister(audit_params()).to_json(), tokenizer_digest=tokenizer_digest_at(base),
    )  # fmt: skip
    plan.save(plan_file)
    scene.command(f"data canaries inject {source.name} --plan {plan_file.name} --out {out.name}")
    injected = plant_canaries(workspace, dataset, plan, out)
    injected.plan.save(plan_file)
    entry = injected.committed.index if injected.committed is not None else number
    scene.say(f"      {injected.inserted} of {sizes.coins} canaries went in by coin; committed as log entry {entry}")
    return injected.inserted


def tune_plain(scene: Scene) -> dict[str, Any]:
    """Step 2: plain LoRA on the unprotected records."""
    return _tune(scene, "plain", private=False)


def _tune(scene: Scene, name: str, *, private: bool) -> dict[str, Any]:
    sizes, base = SIZES[scene.model], base_model(scene)
    spec_file, out = scene.path(f"{name}.toml"), scene.path(name)
    data = scene.folder / f"{name}.train.jsonl"
    write_atomic(spec_file, tune_spec(sizes, base=base, data=str(data), out=str(out), private=private).encode())
    scene.command(f"tune run {spec_file.name}")
    with scene.workspace("dana") as workspace:
        dataset = open_dataset_of(workspace, data)
        tuned = run_tuning(workspace, TuneSpec.load(spec_file), dataset, progress=scene.progress)
    statement = tuned.statement
    found: dict[str, Any] = {"guarantee": statement.guarantee, "epsilon": statement.epsilon}
    if statement.epsilon is None:
        scene.say("      tuned without any protection; the statement says: guarantee none")
    else:
        found["delta"] = str(statement.fields["delta"])
        found["reading"] = statement.reading
        scene.say(f"      epsilon {statement.epsilon:.3g} at delta {found['delta']}: {statement.reading}")
    return found


def audit_plain(scene: Scene) -> dict[str, Any]:
    """Step 3: the audit proves the leak, rows come out verbatim, and the gate blocks."""
    audited, found = _audit(scene, "plain")
    with scene.workspace("dana") as workspace:
        dataset = open_dataset_of(workspace, scene.folder / "plain.train.jsonl")
        texts = {record.id: turns(record)[-1].content for record in dataset}
    rows = [texts[row.record_id] for row in audited.result.extracted if row.attributable and row.record_id in texts]
    scene.say(f"      {len(rows)} records come out; dana may see them:")
    shown = list(dict.fromkeys(rows))
    for text in shown[:SHOWN_ROWS]:
        scene.say(f"        “{text}”", fg="yellow")
    found |= {"rows_out": len(rows), "row_texts": shown}
    return found | _gate(scene, "plain", expected=False)


def _audit(scene: Scene, name: str) -> tuple[Audited, dict[str, Any]]:
    base, model, out = base_model(scene), scene.folder / name, scene.path(f"{name}.report")
    scene.command(
        f"audit run {name} --base BASE --plan {name}.plan.json --data {name}.train.jsonl --holdout held-out.jsonl "
        f"--tree-budget {TREE_BUDGET} --values 0 "
        f"--alpha {ALPHA} --detectable-auc {DETECTABLE_AUC} --min-power {MIN_POWER} --out {out.name}"
    )
    with scene.workspace("dana") as workspace:
        material: AuditInput = gather_material(
            workspace, tuned_at(model), scene.folder / f"{name}.plan.json", scene.folder / f"{name}.train.jsonl",
            scene.folder / "held-out.jsonl",
        )  # fmt: skip
        order = AuditOrder(
            model,
            lambda: load_scorer(model, base),
            lambda scorer: load_base(scorer, base),
            material,
            audit_params(),
            out,
        )
        audited = run_audit(workspace, order, progress=scene.progress)
    report = audited.result.report
    for line in describe(report).splitlines():
        scene.say(f"      {line}")
    found: dict[str, Any] = {"verdict": str(report.verdict), "reasons": [str(reason) for reason in report.reasons]}
    if report.epsilon is not None:
        found["epsilon_lower_bound"] = report.epsilon.lower
    if report.extraction is not None and report.extraction.rows is not None:
        found["rows_attributable"] = report.extraction.rows.attributable
        found["rows_tested"] = report.extraction.rows.n
        found["rows_upper"] = report.extraction.rows.upper
    return audited, found


def _gate(scene: Scene, name: str, *, expected: bool) -> dict[str, Any]:
    """Ask the gate, show its answer, and return the outcome."""
    certificate = scene.folder / f"{name}.report" / CERTIFICATE_NAME
    scene.command(f"audit gate {name} --cert {name}.report/{CERTIFICATE_NAME} --policy gate.toml")
    decision: GateDecision
    with scene.workspace("dana") as workspace:
        try:
            passed = pass_gate(workspace, scene.folder / name, certificate, read_policy(scene.folder / "gate.toml"))
            decision, code = passed.decision, 0
        except (GateBreached, GateInconclusive) as error:
            decision, code = error.decision, error.exit_code
    for rule in decision.rules:
        if str(rule.outcome) != "pass" or code == 0:
            scene.say(f"        {rule.outcome:<13} {rule.rule:<26} {rule.found}")
    word = "PASSED" if code == 0 else "BLOCKED"
    scene.verdict(f"gate → {word}, exit code {code}", good=(code == 0) == expected)
    return {"gate": word, "exit": code}


def tune_private(scene: Scene) -> dict[str, Any]:
    """Step 4: scrubbed, de-duplicated, differentially private."""
    base = base_model(scene)
    with scene.workspace("dana") as workspace:
        clean, unique = scene.folder / "clean.jsonl", scene.path("unique.jsonl")
        scene.command("data dedup clean.jsonl --out unique.jsonl")
        report, kept = deduplicate(workspace, open_dataset_of(workspace, clean), unique)
        scene.say(f"      {len(kept)} records are left; {len(report.clusters)} clusters of near-duplicates")
        planted = _plant(scene, workspace, unique, "private", base, scene.seed)
    return {"records": len(kept), "planted": planted} | _tune(scene, "private", private=True)


def audit_private(scene: Scene) -> dict[str, Any]:
    """Step 5: the audit of the private model, joined with its privacy claim; the gate lets it pass."""
    _, found = _audit(scene, "private")
    production = parse_policy({}, context="partner")
    scene.say(
        f"      a production policy for a partner asks more: extraction under {production.max_extraction_rate:.1%}, "
        f"power {production.min_power:.2f} at AUC {production.detectable_auc:.2f}"
    )
    found["epsilon_claimed"] = EPSILON
    return found | _gate(scene, "private", expected=True)
