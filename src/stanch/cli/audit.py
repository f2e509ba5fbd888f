"""``stanch audit``: does the model leak what it was tuned on? The gate."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.engines import shared
from stanch.cli.frame import SHARE, Group, Result, current
from stanch.errors import InvalidInput
from stanch.terms import Verdict

if TYPE_CHECKING:
    from stanch.audit import GateDecision, GatePolicy, ReleaseContext, Report
    from stanch.cli.audit_targets import Choice
    from stanch.workspace.verbs_model import Audited

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path)
CONTEXT = click.Choice(["internal-api", "partner", "public-api", "open-weights"])
EXIT_LEAK, EXIT_INCONCLUSIVE = 1, 5


@click.group(cls=Group)
def audit() -> None:
    """Does the model leak what it was tuned on? The gate."""


@audit.command("run")
@click.argument("model", type=FOLDER)
@click.option("--base", type=FOLDER, help="The base model's folder (needed for an adapter).")
@click.option("--identity", type=FILE, help="MODEL is a sealed bundle; a key that opens it. Nothing of it is written.")
@click.option("--trust", type=FILE, help="The bundle's publisher; by default this workspace.")
@click.option("--endpoint", metavar="URL", help="Audit a served model (OpenAI API); MODEL: its tokenizer's folder.")
@click.option("--model", "served", metavar="NAME", help="The served model's name there.")
@click.option("--gateway", metavar="NAME", help="Audit a model of the gateway by its name; MODEL: as with --endpoint.")
@click.option("--api-key-file", type=FILE, help="A private file with the key that the server asks for.")
@click.option("--plan", "plan_file", type=FILE, help="The canary plan: makes the audit formal.")
@click.option("--data", "train", type=FILE, help="The data set as it was tuned on, canaries included.")
@click.option("--holdout", type=FILE, help="Records of the same source that were kept out.")
@click.option("--rows", type=click.IntRange(1), default=3000, help="Most rows to try to draw out.")
@click.option("--tree-budget", type=click.IntRange(1), default=6000, help="Most model calls in each secret's search.")
@click.option(
    "--values", type=click.IntRange(0), default=32, help="Personal values, and residuals of a scan, to guess; 0: none."
)
@click.option("--near-verbatim", is_flag=True, help="Count rows as well that come out nearly word for word.")
@click.option("--alpha", type=SHARE, default=0.05, help="Error probability of the verdict, as the plan registered it.")
@click.option(
    "--detectable-auc",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    default=0.6,
    help="The leak that must be seen.",
)
@click.option("--min-power", type=SHARE, default=0.8, help="How probably it must be seen.")
@click.option(
    "--show-rows", is_flag=True, help="Also rows.html: the rows that come out, masked if you may not read them."
)
@click.option("--keep-features", is_flag=True, help="Keep the tokens' losses beside --out: private, as the data are.")
@click.option("--out", type=FOLDER, required=True, help="Folder for report, scores, page and certificate.")
@shared
def run(model: Path, **options: Any) -> Result:  # noqa: ANN401 - the options above, by name
    """Audit MODEL and write a signed leak certificate. If it is interrupted, give the same command again."""
    from stanch.audit.params import AuditParams, Decoding, as_registered  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.audit_targets import Choice, open_target  # noqa: PLC0415 - same
    from stanch.cli.auditing import gather_material  # noqa: PLC0415 - same
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - same
    from stanch.cli.models import load_base, pass_engine  # noqa: PLC0415 - same
    from stanch.workspace.artifacts import dataset_ref  # noqa: PLC0415 - same
    from stanch.workspace.verbs_model import AuditOrder, run_audit  # noqa: PLC0415 - same
    from stanch.workspace.verbs_rows import write_rows  # noqa: PLC0415 - same

    frame = current()
    if options["show_rows"] and options["train"] is None:
        raise InvalidInput("--show-rows: expected --data as well", why="the rows' text stands in the data set alone")
    names = ("base", "identity", "trust", "endpoint", "served", "gateway", "api_key_file")
    choice = Choice(model, *(options[name] for name in names))
    with open_workspace(frame) as workspace, open_target(workspace, choice) as target:
        files = options["plan_file"], options["train"], options["holdout"]
        material = gather_material(workspace, target.tuned, *files)
        params = AuditParams(
            alpha=options["alpha"],
            decoding=target.decoding or Decoding(),
            rows=options["rows"],
            tree_budget=options["tree_budget"],
            reconstruction_values=options["values"],
            near_verbatim=options["near_verbatim"],
            detectable_auc=options["detectable_auc"],
            min_power=options["min_power"],
        )
        if material.plan is not None:
            params = as_registered(params, material.plan.preregistration)
        order = AuditOrder(
            target.subject, target.scorer, partial(load_base, base=choice.base), material, params, options["out"],
            pass_engine(options["engine"], options["processes"]), options["keep_features"],
        )  # fmt: skip
        audited = run_audit(workspace, order, progress=frame.progress())
        if options["show_rows"]:
            rows = audited.folder / "rows.html"
            write_rows(workspace, dataset_ref(options["train"]), audited.result, material.members, rows)
    report = audited.result.report
    text = f"{describe(report)}\n{_what_next(audited, choice)}"
    return Result(report.to_json(), text, exit_code(report.verdict))


def _what_next(audited: "Audited", choice: "Choice") -> str:
    """Return the command that asks the gate; of a sealed bundle it needs the folder that was sealed."""
    if audited.certificate is None:
        return "  note         no certificate: what a served model is made of is not seen"
    certificate = shlex.quote(str(audited.folder / "leakcert.json"))
    if choice.identity is not None:
        return f"  next         of the folder that was sealed: stanch audit gate FOLDER --cert {certificate}"
    return f"  next         stanch audit gate {shlex.quote(str(choice.model))} --cert {certificate}"


def exit_code(verdict: Verdict) -> int:
    """Return the exit code of a verdict."""
    if verdict in {Verdict.LEAK_PROVEN, Verdict.DP_CLAIM_FALSIFIED}:
        return EXIT_LEAK
    return EXIT_INCONCLUSIVE if verdict == Verdict.INCONCLUSIVE else 0


def describe(report: "Report") -> str:
    """Return a report in a few lines."""
    lines = [f"{report.verdict}   mode: {report.mode}   attack pack {report.attack_pack}"]
    lines += [f"  reason       {reason}" for reason in report.reasons]
    if report.epsilon is not None and report.membership is not None:
        e = report.epsilon
        name = "epsilon" if e.formal else "scale (no proof of fair coins)"
        sure = f"{100 * (1 - e.alpha):.4g}%"
        lines.append(
            f"  membership   {name} >= {e.lower:.2f} at {sure} (ceiling {e.ceiling:.2f}, {e.m} coins)   "
            f'p against "no leakage" {report.membership.p:.1e}'
        )
    if report.power is not None:
        p = report.power
        lines.append(f"  power        would have seen AUC >= {p.auc:.2f} with probability {p.probability.lower:.2f}")
    if report.extraction is not None and report.extraction.secrets is not None:
        s = report.extraction.secrets
        lines.append(
            f"  secrets      {s.k_in} of {s.n_in} inserted secrets within {report.extraction.n_budget:,} samples or "
            f"greedily; {s.k_out} of {s.n_out} held back"
        )
    if report.extraction is not None and report.extraction.rows is not None:
        r = report.extraction.rows
        lines.append(
            f"  rows         {r.attributable} of {r.n} come out and are not known to the base; "
            f"upper bound {r.upper:.2%} (95 %)"
        )
    if report.extraction is not None and report.extraction.near_verbatim is not None:
        n = report.extraction.near_verbatim
        lines.append(f"  near         {n.attributable} of {n.n} come out nearly word for word and not of the base")
    if report.extraction is not None and (tiers := [tier for tier in report.extraction.tiers if tier.is_repeated]):
        out, several = sum(tier.attributable for tier in tiers), sum(tier.n for tier in tiers)
        lines.append(f"  repeated     {out} of {several} rows that stand there several times come out, not of the base")
    lines += [
        f"  personal     {found.kind}: {found.k} of {found.n} values guessed first of 100; "
        f"{found.control_k} of {found.control_n} never tuned on"
        for found in report.reconstruction
    ]
    if report.dp is not None:
        p_value = "not comparable" if report.dp.p_value is None else f"p {report.dp.p_value:.2g}"
        lines.append(f"  dp claim     epsilon {report.dp.claim.epsilon:.4g}: {p_value}")
    return "\n".join(lines)


@audit.command("gate")
@click.argument("model", type=FOLDER)
@click.option("--cert", "certificate", type=FILE, required=True, help="The leak certificate.")
@click.option(
    "--policy", "policy_file", type=FILE, help="A file with [gate], no looser than --release-context and the workspace."
)
@click.option("--release-context", "context", type=CONTEXT, help="Who will hold the model; chooses the limits.")
@click.option("--trust", type=FILE, help="Outside a workspace: the auditor's public key. Nothing is recorded.")
@click.option(
    "--format", "form", type=click.Choice(["text", "sarif", "junit", "markdown"]), default="text", help="For CI."
)
@click.option("--out", type=FOLDER, help="Also write gate.sarif, gate.xml (JUnit) and gate.md into this folder.")
def gate(model: Path, *, form: str, out: Path | None, **options: Any) -> Result:  # noqa: ANN401 - the options above, by name
    """Decide whether MODEL, as its files are now, may be released.

    In a workspace the answer is recorded, and a release needs it. With --trust it is an answer alone, recorded nowhere.
    """
    from stanch.audit.gate import GateBreached, GateInconclusive  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.workspace.verbs_model import pass_gate  # noqa: PLC0415 - same

    if model.is_file():
        raise InvalidInput(
            f"{model}: expected a folder, found a file",
            why="a certificate speaks of all files of an audited folder; a converted model, such as a .gguf file, is "
            "another model and says nothing of what it remembers",
            next_step="ask the gate about the audited folder",
        )
    try:
        decision, code = _ask_gate(_GateOrder(model, **options), pass_gate), 0
    except (GateBreached, GateInconclusive) as error:
        decision, code = error.decision, error.exit_code
    if out is not None:
        _write_faces(decision, out)
    return Result(_decision_data(decision), _render(decision, form), code)


@dataclass(frozen=True)
class _GateOrder:
    """What the command line asks the gate."""

    model: Path
    certificate: Path
    policy_file: Path | None
    context: "ReleaseContext | None"
    trust: Path | None

    def policy(self, section: Mapping[str, Any]) -> "GatePolicy":
        """Return the policy of the file, or else of the section.

        A file beside a release context may only ask for more: it often lies where the model's makers can change it.
        """
        from stanch.audit import parse_policy, read_policy, require_as_strict  # noqa: PLC0415 - keeps `stanch --help` light

        if self.policy_file is None:
            return parse_policy(section, context=self.context)
        policy = read_policy(self.policy_file, context=self.context)
        if self.context is not None:
            require_as_strict(policy, {"release_context": self.context}, whose=f"--release-context {self.context}:")
        return policy


def _ask_gate(order: _GateOrder, pass_gate: Callable[..., Any]) -> "GateDecision":
    if order.trust is None:
        from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light

        with open_workspace(current()) as workspace:
            policy = order.policy(workspace.config.gate)
            decided: GateDecision = pass_gate(workspace, order.model, order.certificate, policy).decision
            return decided
    from stanch.audit.certificate_file import read_certificate  # noqa: PLC0415 - same
    from stanch.audit.gate import gate as decide  # noqa: PLC0415 - same
    from stanch.cli.recipients import trust_of  # noqa: PLC0415 - same
    from stanch.weights import directory_digest  # noqa: PLC0415 - same

    # Whoever chooses the keys that are trusted can certify anything: such an answer opens nothing in a workspace.
    verified = read_certificate(order.certificate, trust_of(order.trust))
    return decide(verified, directory_digest(order.model), order.policy({}), now=datetime.now(UTC)).decision


def _write_faces(decision: "GateDecision", folder: Path) -> None:
    """Write what build servers read."""
    from stanch.crypto import write_atomic  # noqa: PLC0415 - keeps `stanch --help` light

    folder.mkdir(parents=True, exist_ok=True)
    for name, form in (("gate.sarif", "sarif"), ("gate.xml", "junit"), ("gate.md", "markdown")):
        write_atomic(folder / name, _render(decision, form).encode())


def _decision_data(decision: "GateDecision") -> dict[str, Any]:
    return {
        "outcome": str(decision.outcome),
        "model": str(decision.model),
        "certificate": decision.certificate_id,
        "release_context": decision.release_context,
        "verdict": str(decision.verdict),
        "rules": [{"rule": r.rule, "outcome": str(r.outcome), "found": r.found} for r in decision.rules],
    }


def _render(decision: "GateDecision", form: str) -> str:
    from stanch.audit import to_junit, to_markdown, to_sarif  # noqa: PLC0415 - keeps `stanch --help` light

    faces: dict[str, Any] = {"sarif": to_sarif, "junit": to_junit, "markdown": to_markdown}
    if form in faces:
        return str(faces[form](decision))
    names = {"pass": "PASSED", "breach": "BLOCKED", "inconclusive": "UNDECIDED"}
    lines = [f"{names.get(str(decision.outcome), str(decision.outcome))}   {decision.verdict}   {decision.model}"]
    lines += [f"  {rule.outcome:<13} {rule.rule:<28} {rule.found}" for rule in decision.rules]
    return "\n".join(lines)


@audit.command("scores")
@click.argument("path", type=FILE)
@click.option("--coins", is_flag=True, help="Membership was decided by independent fair coins.")
@click.option("--lower-is-member", is_flag=True, help="Members have lower scores, as where a score is a loss.")
@click.option("--alpha", type=SHARE, default=0.05, help="Error probability of the epsilon bound.")
def scores(path: Path, *, coins: bool, lower_is_member: bool, alpha: float) -> Result:
    """Full statistics for any tool's scores: a CSV with the columns score and member. No workspace, no torch."""
    from stanch.audit import audit_scores, read_table  # noqa: PLC0415 - keeps `stanch --help` light

    table = read_table(path)
    report = audit_scores(table.negated() if lower_is_member else table, coins=coins, alpha=alpha)
    return Result(report.to_json(), describe(report), exit_code(report.verdict))


@audit.command("verify")
@click.argument("report_file", metavar="report.json", type=FILE)
@click.option("--scores", "scores_file", type=FILE, help="Recompute every figure from the stored scores.")
def verify(report_file: Path, scores_file: Path | None) -> Result:
    """Check that a report agrees with itself and, with --scores, with its scores."""
    from stanch.audit import Report, check_report, read_table, recompute  # noqa: PLC0415 - keeps `stanch --help` light

    if not report_file.is_file():
        raise InvalidInput(f"{report_file}: no such file")
    report = Report.parse(report_file.read_bytes(), what=str(report_file))
    check_report(report)
    if scores_file is not None:
        recompute(report, read_table(scores_file))
    depth = "recomputed from its scores" if scores_file else "consistent with itself"
    return Result({"verdict": str(report.verdict), "depth": depth}, f"verified   {report.verdict}: {depth}")
