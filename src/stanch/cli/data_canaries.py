"""``stanch data canaries``: plan texts whose memorisation can be proven, and plant them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.frame import SHARE, Group, Result, current
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

if TYPE_CHECKING:
    from stanch.audit import AuditParams
    from stanch.data import CanaryPlan, CanarySpec, Dataset

IN = click.Path(path_type=Path, dir_okay=False)
OUT = click.Path(path_type=Path)
_KINDS = ("secret", "synthetic", "rare-token")


@click.group(cls=Group)
def canaries() -> None:
    """Plant texts whose memorisation can be proven."""


@canaries.command("plan")
@click.argument("path", type=IN)
@click.option("--n", type=click.IntRange(32, 16_384), default=512, help="Coins; about half the canaries go in.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(_KINDS),
    multiple=True,
    default=("secret",),
    help="A kind of canary; may be repeated, for equal shares.",
)
@click.option(
    "--repetitions", default="1", metavar="N,...", help="Copies of a canary that goes in; 1,4,16,64 for a curve."
)
@click.option(
    "--embeddings",
    type=click.Choice(("trained", "frozen", "force-frozen")),
    default="frozen",
    help="What the tuning does to the embeddings; rare tokens need trained ones.",
)
@click.option("--secret-length", type=click.IntRange(4, 64), default=12, help="Characters of each secret.")
@click.option("--alpha", type=SHARE, default=0.05, help="Error probability of the audit's verdict.")
@click.option("--secrets", type=click.IntRange(1), default=16, help="Secrets whose exposure the audit measures.")
@click.option("--candidates", type=click.IntRange(19), default=999, help="Candidates behind each secret's exposure.")
@click.option("--tokenizer", "model", type=OUT, required=True, help="The base model's folder.")
@click.option("--out", type=OUT, required=True, help="The plan; it holds the coins and stays secret.")
def plan(path: Path, *, model: Path, out: Path, **wanted: Any) -> Result:  # noqa: ANN401 - options of the canaries
    """Draw canaries and coins for the data set PATH, and fix what the audit will compute."""
    from stanch.audit import AuditParams  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - same
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - same

    copies = _repetitions(wanted.pop("repetitions"))
    params = AuditParams(
        alpha=wanted.pop("alpha"), exposure_secrets=wanted.pop("secrets"), exposure_candidates=wanted.pop("candidates")
    )
    with open_workspace(current()) as workspace:
        dataset = open_dataset_of(workspace, path)
        drawn = _draw(dataset, _spec(dataset, model, copies, **wanted), model, params)
    drawn.save(out)
    facts, line = _what_it_can_show(drawn, params)
    text = (
        f"planned   {len(drawn.canaries)} canaries; {drawn.plan_id}; commitment {drawn.commitment[:16]}…  → {out}\n"
        f"{line}\n"
        f"next      stanch data canaries inject {path} --plan {out} --out train.jsonl"
    )
    told: dict[str, Any] = {"plan_id": drawn.plan_id, "commitment": drawn.commitment, "n": len(drawn.canaries)}
    return Result(told | facts, text)


def _repetitions(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) <= 2 for part in parts):
        raise InvalidInput(
            "--repetitions: expected numbers from 1 to 64 with commas between", next_step="give 1,4,16,64"
        )
    return tuple(int(part) for part in parts)


def _spec(
    dataset: "Dataset", model: Path, repetitions: tuple[int, ...], *, kinds: tuple[str, ...], **more: Any,  # noqa: ANN401 - as `plan`
) -> "CanarySpec":  # fmt: skip
    from stanch.cli.models import load_tokenizer_at  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.data import CanarySpec, find_rare_tokens  # noqa: PLC0415 - same

    chosen = tuple(dict.fromkeys(kinds))
    tokens: tuple[str, ...] = ()
    if "rare-token" in chosen and more["embeddings"] != "frozen":
        tokens = find_rare_tokens(dataset, load_tokenizer_at(model), -(-more["n"] // len(chosen)))
    shares = {kind: 1 / len(chosen) for kind in chosen}
    return CanarySpec(kinds=shares, repetitions=repetitions, rare_tokens=tokens, **more)


def _draw(dataset: "Dataset", spec: "CanarySpec", model: Path, params: "AuditParams") -> "CanaryPlan":
    from stanch.audit import preregister  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.models import load_tokenizer_at, load_writer, tokenizer_digest_at  # noqa: PLC0415 - same
    from stanch.data import plan_canaries, require_single_tokens  # noqa: PLC0415 - same
    from stanch.weights import directory_digest  # noqa: PLC0415 - same

    writes = "synthetic" in spec.kinds
    drawn = plan_canaries(
        dataset, spec, preregistration=preregister(params).to_json(), tokenizer_digest=tokenizer_digest_at(model),
        base_digest=directory_digest(model).root.hex if writes else "", writer=load_writer(model) if writes else None,
    )  # fmt: skip
    if "rare-token" in spec.kinds:
        require_single_tokens(drawn, load_tokenizer_at(model))
    return drawn


def _what_it_can_show(drawn: "CanaryPlan", params: "AuditParams") -> tuple[dict[str, Any], str]:
    """Return power and ceiling of the audit's formal part: the canaries with one copy."""
    from stanch.audit.params import MIN_COINS  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.audit.power import scan_power  # noqa: PLC0415 - same
    from stanch.audit.scan_test import epsilon_ceiling  # noqa: PLC0415 - same

    coins = sum(canary.copies == 1 for canary in drawn.canaries)
    if coins < MIN_COINS:
        facts: dict[str, Any] = {"formal": coins, "power": None, "ceiling": None}
        return facts, f"note      {coins} canaries have one copy; {MIN_COINS} are needed for a verdict and an epsilon"
    power = scan_power(coins, params.detectable_auc, alpha=params.alpha, splits=params.splits, orders=params.orders)
    ceiling = epsilon_ceiling(coins, params.alpha / params.splits)
    seen = f"{power.estimate:.2f} to see an attack of AUC {params.detectable_auc:.2f}"
    line = f"power     {seen}; the most that {coins} coins can show is epsilon >= {ceiling:.2f}"
    return {"formal": coins, "power": power.estimate, "ceiling": ceiling}, line


@canaries.command("inject")
@click.argument("path", type=IN)
@click.option("--plan", "plan_file", type=IN, required=True, help="The canary plan.")
@click.option("--out", type=OUT, required=True, help="The data set to tune on.")
@click.option("--unit-column", metavar="NAME", help="The column of the tuning's privacy units: each canary is one.")
def inject(path: Path, plan_file: Path, out: Path, unit_column: str | None) -> Result:
    """Commit the plan to the log, and only then plant the canaries whose coins say so."""
    from stanch.cli.dataset import open_dataset_of  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.data import CanaryPlan  # noqa: PLC0415 - same
    from stanch.workspace.verbs_data import plant_canaries  # noqa: PLC0415 - same

    drawn = CanaryPlan.load(plan_file)
    with open_workspace(current()) as workspace:
        data = open_dataset_of(workspace, path)
        injected = plant_canaries(workspace, data, drawn, out, unit_column=unit_column)
    injected.plan.save(plan_file)
    index = injected.committed.index if injected.committed else -1
    members = sum(canary.member for canary in drawn.canaries)
    rows = f"{members} of {len(drawn.canaries)} canaries"
    if injected.inserted != members:
        rows += f" in {injected.inserted} rows"
    text = f"planted   {rows}; committed as log entry {index}  → {out}"
    return Result({"inserted": injected.inserted, "entry": index}, text)


@canaries.command("list")
@click.argument("plan_file", metavar="PLAN", type=IN)
def list_(plan_file: Path) -> Result:
    """List the canaries of PLAN: ids, kinds and numbers of copies; neither a text nor a coin."""
    from stanch.data import CanaryPlan  # noqa: PLC0415 - keeps `stanch --help` light

    drawn = CanaryPlan.load(plan_file)
    state = "committed to the log, and planted" if drawn.committed else "not planted yet, or without a commitment"
    lines = [f"{drawn.plan_id}  {len(drawn.canaries)} canaries, {state}; commitment {drawn.commitment}"]
    lines += [
        f"  {canary.id}  {canary.kind:<10}  {canary.copies} {'copy' if canary.copies == 1 else 'copies'}, if it goes in"
        for canary in drawn.canaries
    ]
    listed: list[JsonValue] = [
        {"id": canary.id, "kind": canary.kind, "copies": canary.copies, "tier": canary.tier}
        for canary in drawn.canaries
    ]
    data: dict[str, JsonValue] = {
        "plan_id": drawn.plan_id, "commitment": drawn.commitment, "committed": drawn.committed, "canaries": listed,
    }  # fmt: skip
    return Result(data, "\n".join(lines))
