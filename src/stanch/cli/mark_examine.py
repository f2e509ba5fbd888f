"""``stanch mark detect | lineage | rehearse``: compare a suspect with an original; try a mark before it is needed."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.mark import Detection
    from stanch.terms import JsonValue

FOLDER = click.Path(path_type=Path)


def _there(path: Path) -> Path:
    if not path.exists():
        raise InvalidInput(f"{path}: no such file or folder")
    return path


@click.command("detect", cls=Leaf)
@click.argument("original", type=FOLDER)
@click.argument("suspect", type=FOLDER)
@click.option("--keys", type=FOLDER, required=True, help="The folder of the release's keys.")
@click.option("--base", type=FOLDER, help="The base model: for merged adapters, and for models merged with it.")
@click.option("--effort", type=click.Choice(["quick", "deep"]), default="deep", show_default=True,
              help="How recipients are screened; the error bound is the same.")  # fmt: skip
def detect(original: Path, suspect: Path, keys: Path, base: Path | None, effort: Literal["quick", "deep"]) -> Result:
    """Say from whose copies of ORIGINAL the SUSPECT was made. Exit 1 if one is found, 5 if it cannot be decided.

    For evidence that others can check, with custody and a plan in the log, there is `stanch trace run`.
    """
    from stanch.mark import KeyFolder, Originals, ScorePlan, detect, plan_mark  # noqa: PLC0415 - keeps the help light

    if not original.is_dir():
        raise InvalidInput(f"{original}: no such folder")
    plan = plan_mark(original)
    found_keys = KeyFolder.load(keys, plan).mark_keys()
    default = ScorePlan.default(plan.kind, len(found_keys.copies))
    scores = ScorePlan(default.variants, default.n, effort=effort)
    found = detect(Originals(original, base), _there(suspect), found_keys, scores, progress=current().progress())
    code, reason = _outcome(found)
    lines = [
        f"compared   {found.matched:.1%} of {found.coordinates:,} marked weights",
        f"threshold  {found.threshold:.4f} (n {scores.n}, T {scores.analyses}, epsilon {scores.epsilon})",
        f"release    z {found.release_z:.1f}: the mark that all copies share",
        *(
            f"found      {who.recipient:<20} z {who.best:.1f}   log10 p <= {who.log10_p:.0f}   by {who.variant}"
            for who in found.accused
        ),
        f"others     highest z {found.next_z:.2f}",
    ]
    if reason:
        lines.append(f"inconclusive: {reason}")
    elif found.accused:
        lines.append("this says: the suspect was made from these copies. It does not say who did it.")
    else:
        lines.append("nothing was found")
    return Result(found.to_json(), "\n".join(lines), code)


def _outcome(found: "Detection") -> tuple[int, str]:
    """Return the exit code, and why nothing can be said where that is so."""
    if not found.decoys_plausible:
        return 5, "keys that were never issued do not score as they must"
    if found.accused:
        return 1, ""
    if found.too_little:
        return 5, "too few of the marked weights were recognised: it shares none with them, or they were rearranged"
    if found.unread:
        return 5, f"nobody was found, but this could be weights and was not read: {', '.join(found.unread[:5])}"
    if found.plan.effort == "quick":
        return 5, "a quick screening that finds nobody says nothing; use --effort deep"
    return 0, ""


@click.command("lineage", cls=Leaf)
@click.argument("original", type=FOLDER)
@click.argument("suspect", type=FOLDER)
@click.option("--base", type=FOLDER, help="The public model that ORIGINAL was tuned from.")
@click.option("--control", "controls", type=FOLDER, multiple=True,
              help="An unrelated model of the same family; may be repeated.")  # fmt: skip
@click.option("--sibling", "siblings", type=FOLDER, multiple=True,
              help="A model that others tuned from the same base; may be repeated.")  # fmt: skip
def lineage(
    original: Path, suspect: Path, base: Path | None, controls: tuple[Path, ...], siblings: tuple[Path, ...]
) -> Result:
    """Say whether SUSPECT descends from ORIGINAL, which needs no mark.

    Exit 1 if it holds ORIGINAL's own tuning, 0 if no relation was found, 5 if they share a base or it is not decided.
    """
    from stanch.mark import examine_lineage  # noqa: PLC0415 - keeps `stanch --help` light

    for path in (original, suspect, *controls, *siblings, *([base] if base else [])):
        _there(path)
    found = examine_lineage(original, suspect, base=base, controls=controls, siblings=siblings)
    order, match = found.order, found.match
    controls_say = f"controls at most {max(found.controls):.2%}" if found.controls else "no controls were given"
    lines = [
        f"order      {order.agreements} of {order.units} units at their place; log10 p <= {order.log10_p:.1f}",
        f"match      {match.agreements} of {match.units} units pair alike; {controls_say}",
        f"weights    cosine {found.effect.cosine:.4f}, explained {found.effect.explained:.1%}",
    ]
    if found.tuning is not None:
        beside = f"; siblings at most {max(found.siblings):.1%}" if found.siblings else ""
        lines.append(f"tuning     cosine {found.tuning.cosine:.4f}, explained {found.tuning.explained:.1%}{beside}")
    code = {"derived": 1, "shares-base": 5, "unrelated": 0, "inconclusive": 5}[found.verdict]
    return Result(found.to_json(), "\n".join([*lines, f"{found.verdict:<10} {found.sentence}"]), code)


@click.command("rehearse", cls=Leaf)
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--treatment", "names", default="bf16,int8,nf4,prune50,average:8", show_default=True,
              help="What is tried, separated by commas; steps of one treatment are joined by +.")  # fmt: skip
def rehearse(directory: Path, names: str) -> Result:
    """Mark DIR with throw-away keys, treat the copies, and measure. Exit 1 if a copy would be found too narrowly."""
    from stanch.mark import ScorePlan, Treatment, plan_mark, rehearse  # noqa: PLC0415 - keeps `stanch --help` light

    treatments = [Treatment.parse(name) for name in names.split(",")]
    if not directory.is_dir():
        raise InvalidInput(f"{directory}: no such folder")
    plan = plan_mark(directory)
    tau = ScorePlan.default(plan.kind, 10_000).threshold
    found = rehearse(directory, plan, treatments, tau, progress=current().progress())
    lines = [
        f"{'ok' if one.passed else 'WEAK':<10} {one.treatment:<24} z {one.least_z:,.1f} of {one.needed:.1f} needed"
        for one in found
    ]
    data: dict[str, JsonValue] = {
        "alpha": plan.alpha, "threshold": tau, "treatments": [one.to_json() for one in found],
    }  # fmt: skip
    return Result(data, "\n".join(lines), 0 if all(one.passed for one in found) else 1)
