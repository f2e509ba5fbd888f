"""The settings, each with the place that its value comes from; nothing is changed here."""

import re
from typing import Any

import msgspec
from msgspec import Struct

from stanch.console.desk import Call
from stanch.console.route import Nothing
from stanch.terms import redact

_LEFT_OUT = frozenset({"origins"})


class Setting(Struct, frozen=True):
    """One setting: its value as text, where it comes from, and whether that is the default."""

    name: str
    value: str
    origin: str
    default: bool


class SettingsSection(Struct, frozen=True):
    """One section of ``stanch.toml``."""

    name: str
    settings: tuple[Setting, ...]


class SettingsView(Struct, frozen=True):
    """All sections."""

    sections: tuple[SettingsSection, ...]


def show(call: Call, _asked: Nothing) -> SettingsView:
    """Show every setting. A secret is never one: settings hold places of secrets only."""
    config = call.workspace.config
    plain: dict[str, Any] = msgspec.to_builtins(config)
    sections = []
    for name, section in plain.items():
        if name in _LEFT_OUT or not isinstance(section, dict):
            continue
        rows = []
        for key, value in section.items():
            origin = config.origin(f"{name}.{key}")
            rows.append(Setting(key, _hidden(msgspec.json.encode(value).decode()), origin, origin == "default"))
        sections.append(SettingsSection(name, tuple(rows)))
    return SettingsView(tuple(sections))


def _hidden(text: str) -> str:
    """Return a value without the password that the URI of a database may hold."""
    return redact(re.sub(r"://[^/@\s\"]*@", "://…@", text))
