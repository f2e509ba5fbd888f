"""``stanch rules``: packs of recognisers: what is in them, and whether they keep what they promise."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from stanch.cli.frame import Group, Result
from stanch.errors import InvalidInput

if TYPE_CHECKING:
    from stanch.scan import PackError
    from stanch.terms import JsonValue

PACK = click.Path(path_type=Path, dir_okay=False)
_ENGINES = ("hyperscan", "re2")


@click.group(cls=Group)
def rules() -> None:
    """The rules that a scan looks for, and packs of your own."""


@rules.command("list")
@click.argument("pack", type=PACK, required=False)
def list_(pack: Path | None) -> Result:
    """List the rules of PACK, or of the packs that stanch ships."""
    from stanch.scan import load_pack, pack_digest  # noqa: PLC0415 - keeps `stanch --help` light

    found = load_pack(pack)
    rows: list[JsonValue] = [
        {
            "rule": rule.id,
            "kind": rule.kind,
            "version": rule.version,
            "family": rule.family,
            "severity": rule.severity.value,
            "score": rule.score,
            "validator": rule.validator,
            "source": {"title": rule.source.title, "url": rule.source.url, "read": rule.source.read},
        }
        for rule in found
    ]
    lines = [
        f"{rule.severity:<9} {rule.score:<5} {rule.family:<9} {rule.kind:<24} {rule.id:<28} {rule.source.url}"
        for rule in found
    ]
    kinds = len({rule.kind for rule in found})
    digest = str(pack_digest(found))
    lines.append(f"rules     {len(found)} of {kinds} kinds, {digest}")
    return Result({"digest": digest, "kinds": kinds, "rules": rows}, "\n".join(lines))


@rules.command("lint")
@click.argument("pack", type=PACK)
def lint(pack: Path) -> Result:
    """Say what is wrong with PACK: its form, its sources, its examples; exit 1 if anything is."""
    from stanch.scan import lint_pack  # noqa: PLC0415 - keeps `stanch --help` light

    errors = lint_pack(pack)
    if len(errors) == 1 and not errors[0].rule:
        raise InvalidInput(errors[0].message, next_step=errors[0].next_step)
    lines = [line for error in errors for line in _lines(error)]
    lines.append(f"FAIL      {pack}: {len(errors)} errors" if errors else f"PASS      {pack}: nothing is wrong")
    return Result({"errors": [_to_json(error) for error in errors]}, "\n".join(lines), 1 if errors else 0)


@rules.command("test")
@click.argument("pack", type=PACK)
def test(pack: Path) -> Result:
    """Try the examples and counter-examples of PACK with each engine that is at hand; exit 1 if one fails."""
    from stanch.scan import load_pack  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.scan.lint import try_rule  # noqa: PLC0415 - same

    found, engines = load_pack(pack), _engines()
    rows: list[JsonValue] = []
    lines: list[str] = []
    failed = 0
    for rule in found:
        for engine in engines:
            trial = try_rule(rule, engine=engine)
            failed += bool(trial.errors)
            lines.append(
                f"{'FAIL' if trial.errors else 'ok':<9} {rule.id:<28} {engine:<10} "
                f"examples {trial.examples}  counter-examples {trial.counterexamples}"
            )
            lines += [line for error in trial.errors for line in _lines(error)]
            rows.append(
                {
                    "rule": rule.id,
                    "engine": engine,
                    "examples": trial.examples,
                    "counterexamples": trial.counterexamples,
                    "errors": [_to_json(error) for error in trial.errors],
                }
            )
    lines.append(f"{'FAIL' if failed else 'PASS':<9} {pack}: {len(found)} rules, engines {', '.join(engines)}")
    missing = [f"{name} is not at hand and was not tried" for name in _ENGINES if name not in engines]
    return Result({"trials": rows}, "\n".join(lines), 1 if failed else 0, tuple(missing))


def _engines() -> list[Literal["hyperscan", "re2"]]:
    """Return the engines that can be loaded here."""
    try:
        import stanch.scan.engine_hyperscan  # noqa: F401, PLC0415 - not there for every processor
    except ImportError:
        return ["re2"]
    return ["hyperscan", "re2"]


def _lines(error: "PackError") -> list[str]:
    where = f"{error.rule}: " if error.rule else ""
    return [f"  error   {where}{error.message}"] + ([f"  instead {error.next_step}"] if error.next_step else [])


def _to_json(error: "PackError") -> "JsonValue":
    return {"rule": error.rule, "what": error.message, "next": error.next_step}
