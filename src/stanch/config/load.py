"""Reading settings from files and the environment, strictest first."""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from stanch.config.model import Config
from stanch.config.origin import statement_lines
from stanch.config.toml import load_toml
from stanch.errors import InvalidInput, UnknownSetting

SETTINGS = "stanch.toml"

_MAX_BYTES = 1 << 16
_PREFIX = "STANCH_"
_SECTIONS = frozenset(field.name for field in msgspec.structs.fields(Config)) - {"origins"}
_OWN = frozenset({"access", "ledger", "gate"})
"""Who may, what is recorded, what blocks: set by the workspace's own file alone, never by whoever runs a command."""

_RETIRED = {"workspace.engine": "local"}
"""Settings that are gone, with the one value that they had: whoever wrote it still opens the workspace."""


def user_config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the path of the user's own settings (XDG base directories)."""
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "stanch" / SETTINGS


def find_settings(folder: Path) -> Path | None:
    """Return the settings of the nearest workspace: in ``folder`` or the nearest folder above it that has some."""
    folder = folder.absolute()
    return next((place / SETTINGS for place in (folder, *folder.parents) if (place / SETTINGS).is_file()), None)


def load_config(
    workspace_file: Path | None,
    *,
    environ: Mapping[str, str] = os.environ,
    user_file: Path | None = None,
) -> Config:
    """Read all settings.

    Args:
        workspace_file: The workspace's ``stanch.toml``; may be missing.
        environ: Variables named ``STANCH_<SECTION>__<KEY>`` override files. A value is read as a TOML value where it is
            one (numbers, lists, quoted text), and as text otherwise.
        user_file: The user's own file; may be missing.

    Raises:
        UnknownSetting: A section or key does not exist.
        InvalidInput: A file is not TOML, others may write it, a value is out of range, or the user's file or a variable
            sets what only the workspace's file may; the setting is named, its value is not shown.
    """
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for path in (user_file, workspace_file):
        if path is not None and path.exists():
            text = _read(path)
            places = {setting: f"{path}:{line}" for setting, line in statement_lines(text).items()}
            layer = load_toml(text)
            if path is user_file:
                _refuse_own(layer, places)
            _merge(values, origins, layer, places)
    for name in sorted(environ):
        section, separator, key = name.removeprefix(_PREFIX).lower().partition("__")
        if name.startswith(_PREFIX) and separator:
            places = dict.fromkeys((section, f"{section}.{key}"), f"environment {name}")
            _refuse_own({section}, places)
            _merge(values, origins, {section: {key: _value(environ[name])}}, places)
    try:
        return msgspec.convert(values | {"origins": origins}, Config)
    except msgspec.ValidationError as error:
        raise _explain(error, origins) from error
    except UnicodeEncodeError as error:
        raise InvalidInput("the environment: a setting is not UTF-8") from error


def _refuse_own(sections: Iterable[str], places: Mapping[str, str]) -> None:
    for section in _OWN.intersection(sections):
        raise InvalidInput(
            f"{places[section]}: [{section}] is set by the workspace's own {SETTINGS} alone",
            why="whoever runs a command could switch its rules off",
            next_step=f"remove it here; who may change the rules writes it into the workspace's {SETTINGS}",
        )


def _value(text: str) -> Any:  # noqa: ANN401 - any TOML value
    try:
        return load_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def _read(path: Path) -> str:
    """Return the text of a settings file that is TOML and that only its owner may write."""
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(
            f"{path}: others may write it, so its settings cannot be trusted", next_step=f"chmod 644 {path}"
        )
    data = path.read_bytes()
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{path}: expected at most {_MAX_BYTES} bytes, found {len(data)}")
    try:
        text = data.decode()
        load_toml(text)
    except ValueError as error:
        raise InvalidInput(f"{path}: not valid TOML", why=str(error)) from error
    return text


def _merge(
    values: dict[str, dict[str, Any]], origins: dict[str, str], layer: dict[str, Any], places: Mapping[str, str]
) -> None:
    for section, entries in layer.items():
        if section not in _SECTIONS or not isinstance(entries, dict):
            raise UnknownSetting(
                f"{places.get(section, 'the settings')}: there is no section [{section[:80]}]",
                next_step=f"sections are: {', '.join(sorted(_SECTIONS))}",
            )
        for key, value in entries.items():
            if _RETIRED.get(f"{section}.{key}") == value:
                continue
            values.setdefault(section, {})[key] = value
            origins[f"{section}.{key}"] = places.get(f"{section}.{key}", "the settings")


def _explain(error: msgspec.ValidationError, origins: Mapping[str, str]) -> InvalidInput:
    """Return an error that names the setting and its origin, but not the value."""
    reason, _, location = str(error).partition(" - at `$.")
    place = location.rstrip("`")
    unknown = re.search("unknown field `(.+?)`", reason)
    name = f"{place}.{unknown[1]}" if unknown else place
    setting = ".".join(re.sub(r"\[.*?\]", "", name).split(".")[:2])
    where = origins.get(setting, "the settings")
    if unknown:
        return UnknownSetting(f"{where}: there is no setting {name}")
    if "secret" in name:
        return InvalidInput(
            f"{where}: {name} is not a reference to a secret",
            why="a secret never stands in the settings themselves",
            next_step="write file:PATH or env:NAME",
        )
    return InvalidInput(f"{where}: {name} has a wrong value", why=re.sub("(value) .*", r"\1", reason))
