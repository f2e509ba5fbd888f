"""Reading settings from files and the environment, strictest first."""

import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from stanch.config.model import Config
from stanch.errors import InvalidInput, UnknownSetting

_MAX_BYTES = 1 << 20
_PREFIX = "STANCH_"
_SECTIONS = frozenset(field.name for field in msgspec.structs.fields(Config)) - {"origins"}


def user_config_file() -> Path:
    """Return the path of the user's own settings (XDG base directories)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "stanch" / "stanch.toml"


def load_config(
    workspace_file: Path | None,
    *,
    environ: Mapping[str, str] = os.environ,
    user_file: Path | None = None,
) -> Config:
    """Read all settings.

    Args:
        workspace_file: The workspace's ``stanch.toml``; may be missing.
        environ: Variables named ``STANCH_<SECTION>__<KEY>`` override files.
        user_file: The user's own file; may be missing.

    Raises:
        UnknownSetting: A section or key does not exist.
        InvalidInput: A file is not TOML, others may write it, or a value is out of range; the setting is named.
    """
    values: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    for path in (user_file, workspace_file):
        if path is not None and path.exists():
            _merge(values, origins, _read(path), str(path))
    for name in sorted(environ):
        section, separator, key = name.removeprefix(_PREFIX).lower().partition("__")
        if name.startswith(_PREFIX) and separator:
            text = environ[name]
            value = int(text) if text.lstrip("-").isdigit() else text
            _merge(values, origins, {section: {key: value}}, f"environment {name}")
    try:
        return msgspec.convert(values | {"origins": origins}, Config)
    except msgspec.ValidationError as error:
        raise _explain(error, origins) from error


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(
            f"{path}: others may write it, so its settings cannot be trusted", next_step=f"chmod 644 {path}"
        )
    data = path.read_bytes()
    if len(data) > _MAX_BYTES:
        raise InvalidInput(f"{path}: expected at most {_MAX_BYTES} bytes, found {len(data)}")
    try:
        return tomllib.loads(data.decode())
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are both ValueErrors
        raise InvalidInput(f"{path}: not valid TOML", why=str(error)) from error


def _merge(values: dict[str, dict[str, Any]], origins: dict[str, str], layer: dict[str, Any], origin: str) -> None:
    for section, entries in layer.items():
        if section not in _SECTIONS or not isinstance(entries, dict):
            raise UnknownSetting(
                f"{origin}: there is no section [{section[:80]}]",
                next_step=f"sections are: {', '.join(sorted(_SECTIONS))}",
            )
        for key, value in entries.items():
            values.setdefault(section, {})[key] = value
            origins[f"{section}.{key}"] = origin


def _explain(error: msgspec.ValidationError, origins: Mapping[str, str]) -> InvalidInput:
    """Return an error that names the setting and its origin, but not the value."""
    reason, _, location = str(error).partition(" - at `$.")
    setting = location.rstrip("`")
    if unknown := re.search("unknown field `(.+?)`", reason):
        setting = f"{setting}.{unknown[1]}"
    where = origins.get(setting, "the settings")
    if unknown:
        return UnknownSetting(f"{where}: there is no setting {setting}")
    return InvalidInput(f"{where}: {setting} has a wrong value", why=reason)
