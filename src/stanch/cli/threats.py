"""``stanch threats``: what is defended, how to switch it on, what proves it, and where it ends."""

from typing import TYPE_CHECKING

import click

from stanch.cli.frame import Leaf, Result

if TYPE_CHECKING:
    from stanch.terms import JsonValue


@click.command(cls=Leaf)
def threats() -> Result:
    """List the threats: what stops each, how to switch that on, the command that proves it, and where it ends."""
    from stanch.cli.threat_table import NOT_DEFENDED, RAND_LEVEL, THREATS  # noqa: PLC0415 - keeps `--help` light
    from stanch.watch.frameworks import FRAMEWORKS  # noqa: PLC0415 - same

    lines: list[str] = []
    for threat in THREATS:
        lines += [f"{threat.name.upper()}: {threat.who} {threat.tries}"]
        for control in threat.controls:
            lines += [f"  {control.what}", f"      on: {control.switch_on}    proof: {control.prove}"]
        lines += [f"  ends     {threat.ends}", f"  maps to  {', '.join(threat.maps)}", ""]
    lines += ["NOT DEFENDED: " + "; ".join(NOT_DEFENDED), "", RAND_LEVEL]
    data: list[JsonValue] = [
        {
            "name": threat.name,
            "who": threat.who,
            "tries": threat.tries,
            "controls": [{"what": c.what, "switch_on": c.switch_on, "prove": c.prove} for c in threat.controls],
            "ends": threat.ends,
            "maps": {name: FRAMEWORKS[name] for name in threat.maps},
        }
        for threat in THREATS
    ]
    return Result({"threats": data, "not_defended": [*NOT_DEFENDED], "level": RAND_LEVEL}, "\n".join(lines))
