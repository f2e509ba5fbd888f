"""``stanch config``: which settings hold, and where each comes from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stanch.cli.frame import Group, Result, current

if TYPE_CHECKING:
    from stanch.terms import JsonValue


@click.group(cls=Group)
def config() -> None:
    """The settings, and where each comes from."""


@config.command("show")
@click.argument("setting", required=False)
@click.option("--origin", is_flag=True, help="Say where each value comes from: FILE:LINE, a variable, or default.")
def show(setting: str | None, origin: bool) -> Result:  # noqa: FBT001 - a flag of the command line
    """Show every setting, or only SETTING (section or section.key). Secrets are references and stay so."""
    import json  # noqa: PLC0415 - keeps `stanch --help` light

    import msgspec  # noqa: PLC0415 - same

    from stanch.config import find_settings, load_config  # noqa: PLC0415 - same
    from stanch.config.load import SETTINGS, user_config_file  # noqa: PLC0415 - same
    from stanch.errors import InvalidInput  # noqa: PLC0415 - same

    folder = current().workspace
    path = folder / SETTINGS if folder is not None else find_settings(Path.cwd())
    found = load_config(path, user_file=user_config_file())
    sections: dict[str, Any] = msgspec.to_builtins(found)
    del sections["origins"]
    rows = [(f"{section}.{key}", value) for section, keys in sections.items() for key, value in keys.items()]
    if setting is not None:
        rows = [row for row in rows if row[0] == setting or row[0].startswith(f"{setting}.")]
        if not rows:
            raise InvalidInput(f"there is no setting {setting[:80]}", next_step="stanch config show")
    width = max(len(name) for name, _ in rows)
    lines = [
        f"{name:<{width}}  {json.dumps(value, ensure_ascii=False)}" + (f"  # {found.origin(name)}" if origin else "")
        for name, value in rows
    ]
    data: list[JsonValue] = [{"setting": name, "value": value, "origin": found.origin(name)} for name, value in rows]
    return Result({"file": str(path or ""), "settings": data}, "\n".join(lines))
