"""``stanch watch simulate``, ``detectors`` and ``status``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.frame import Leaf, Result, current
from stanch.errors import InvalidInput
from stanch.terms import JsonValue

if TYPE_CHECKING:
    from stanch.watch.insider import Scenario
    from stanch.watch.simulate import Outcome, Power

NAMES = ("D1", "D2", "D3", "D4", "D5", "D6", "D7")
_EXITS = {"holds": 0, "broken": 1, "too small": 5}


@click.command("simulate", cls=Leaf)
@click.option("--detector", type=click.Choice(NAMES), default="D2", show_default=True, help="Which one.")
@click.option("--principals", type=click.IntRange(1, 100_000), help="How many; otherwise what the detector needs.")
@click.option("--hours", type=click.IntRange(1, 100_000), help="How long; otherwise what the detector needs.")
@click.option("--seasonal", is_flag=True, help="Traffic follows working hours and weekdays (D2 and D6).")
@click.option(
    "--shift", type=click.FloatRange(1, 100, min_open=True), default=2.0, show_default=True, help="An attack's factor."
)
@click.option("--threshold", type=click.FloatRange(10, 1e6), help="Of e-SR statistics, in place of 100,000.")
@click.option("--scenario", type=click.Choice(["insider30d"]), help="Play six insiders among all others instead.")
@click.option("--replay", is_flag=True, help="Say instead what all detectors would have said of the workspace's log.")
@click.option("--keep", is_flag=True, help="Keep the result in the workspace's log; the console shows it.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Write the scenario's picture (SVG).")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="The same seed, the same result."
)
def simulate(
    detector: str, principals: int | None, hours: int | None, scenario: str | None, plot: Path | None, seed: int, *,
    keep: bool, **traffic: Any,  # noqa: ANN401 - shift, seasonal, threshold and replay, as click has checked them
) -> Result:  # fmt: skip
    """Compare what a detector promises with what it does on synthetic traffic.

    Exit code 1: the interval of the observed rate contradicts the promise. 5: too little traffic to tell.
    """
    from stanch.watch.simulate import SIZES, SimulationSpec  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch.simulate import simulate as run  # noqa: PLC0415 - same

    if traffic.pop("replay"):
        return _replay()
    if scenario and keep:
        raise InvalidInput("--keep: a scenario is of no single detector", next_step="leave --keep out")
    if scenario:
        return _scenario(principals or 1000, seed, plot)
    if plot:
        raise InvalidInput("--plot: only a scenario has a picture", next_step="add: --scenario insider30d")
    usual = SIZES[detector]
    spec = SimulationSpec(principals or usual[0], hours or usual[1], **traffic)
    found = run(detector, spec, seed=seed, progress=current().progress())
    if keep:
        from stanch.cli.ground import open_workspace  # noqa: PLC0415 - most simulations open no workspace
        from stanch.workspace.verbs_alerts import keep_simulation  # noqa: PLC0415 - same

        with open_workspace(current()) as workspace:
            keep_simulation(workspace, found.to_json())
    return Result(found.to_json(), _table(found, spec.principals, spec.hours), _EXITS[found.verdict])


def _replay() -> Result:
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch import detectors as all_detectors  # noqa: PLC0415 - same
    from stanch.watch.replay import replay  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        entries, alarms = replay(workspace.ledger.reader(), all_detectors())
    rows: list[JsonValue] = [
        {
            "detector": one.detector, "signal": one.signal, "at": one.at, "severity": one.severity.value,
            "principal": one.principal, "model": one.model, "entries": list(one.entries),
        }
        for one in alarms
    ]  # fmt: skip
    lines = [f"replayed   {entries} entries, {len(alarms)} alarms; nothing was saved and nobody was told"]
    lines += [
        f"  {datetime.fromtimestamp(one.at, UTC):%Y-%m-%d %H:%MZ}  {one.detector:<7}{one.severity:<9}{one.signal}  "
        f"{one.principal or one.model or ''}"
        for one in alarms
    ]
    return Result({"entries": entries, "alarms": rows}, "\n".join(lines))


@click.command("detectors", cls=Leaf)
def detectors() -> Result:
    """Say what each detector looks at, and what it promises about false alarms."""
    from stanch.watch import detectors as all_detectors  # noqa: PLC0415 - keeps `stanch --help` light

    rows: list[JsonValue] = []
    lines = []
    for detector in all_detectors():
        promise = detector.promise
        rows.append({
            "detector": detector.name, "signals": list(detector.signals), "measure": promise.measure.value,
            "promise": promise.value, "unit": promise.unit, "needs": promise.needs,
        })  # fmt: skip
        lines += [
            f"{detector.name:<8}{', '.join(detector.signals)}",
            f"        promise  {promise.measure.value} {promise.value:g} ({promise.unit})" if promise.value else
            "        promise  none: a cap, not a statistic",
            f"        needs    {promise.needs}",
        ]  # fmt: skip
    return Result({"detectors": rows}, "\n".join(lines))


@click.command("status", cls=Leaf)
def status() -> Result:
    """Say how far each detector has read the log, and how many alarms it raised."""
    from stanch.cli.ground import open_workspace  # noqa: PLC0415 - keeps `stanch --help` light
    from stanch.watch import detectors as all_detectors  # noqa: PLC0415 - same
    from stanch.watch.runner import progress  # noqa: PLC0415 - same

    with open_workspace(current()) as workspace:
        reader = workspace.ledger.reader()
        size, found = reader.size(), progress(reader.tables, reader.origin, all_detectors())
    rows: list[JsonValue] = [
        {
            "detector": p.detector, "next_entry": p.next_index, "behind": size - p.next_index, "alarms": p.alarms,
            "last_alarm_at": p.last_at, "state_bytes": p.state_bytes,
        }
        for p in found
    ]  # fmt: skip
    lines = [
        f"{p.detector:<8}entry {p.next_index} of {size}  {p.alarms} alarms"
        + (f", the last at {datetime.fromtimestamp(p.last_at, UTC):%Y-%m-%d %H:%MZ}" if p.last_at is not None else "")
        for p in found
    ]
    return Result({"entries": size, "detectors": rows}, "\n".join(lines))


def _scenario(principals: int, seed: int, plot: Path | None) -> Result:
    from stanch.watch.insider import play_insiders  # noqa: PLC0415 - keeps `stanch --help` light

    found = play_insiders(principals, seed=seed, progress=current().progress())
    if plot:
        from stanch.cli.watch_plot import draw  # noqa: PLC0415 - only where a picture is wanted

        try:
            plot.write_text(draw(found))
        except OSError as error:
            raise InvalidInput(f"{plot}: cannot be written", why=error.strerror or "") from error
    return Result(found.to_json(), _traces(found), 0 if all(trace.is_found for trace in found.traces) else 1)


def _traces(found: "Scenario") -> str:
    lines = [f"insider30d  {found.principals} principals, {found.days} days, attacks from day 60 on"]
    for trace in found.traces:
        also = f"; then {', '.join(trace.others)}" if trace.others else ""
        seen = f"{trace.detector} after {trace.hours:.0f} h{also}" if trace.is_found else "not found"
        lines.append(f"  {trace.name:<27}{seen}")
    rates = ", ".join(f"{name} {rate:.2f}" for name, rate in found.false_a_day.items())
    return "\n".join([*lines, f"false alarms a day  {rates}"])


def _table(found: "Outcome", principals: int, hours: int) -> str:
    lines = [
        f"{found.detector}  {found.measure}, {principals} principals, {hours} hours",
        f"promised   at most {found.promised:.3g} false alarms a unit ({found.unit})",
        f"observed   {found.observed:.3g}, 95 % interval {found.lower:.3g} to {found.upper:.3g}",
        f"           {found.alarms:.4g} in {found.exposure:.0f}",
    ]
    for name, power in (("power      ", found.power), ("z-score    ", found.z_power)):
        lines += [f"{name}{_power(power)}"] if power else []
    return "\n".join([*lines, {
        "holds": "HOLDS", "broken": "BROKEN: the interval lies above the promise",
        "too small": "TOO SMALL to tell: more principals or hours are needed",
    }[found.verdict]])  # fmt: skip


def _power(power: "Power") -> str:
    median = power.to_json()["median_hours"]
    after = f", after {median} h at the median" if median is not None else ""
    return f"{power.found:.1%} of attacks found within 96 h{after}"


COMMANDS = (simulate, detectors, status)
