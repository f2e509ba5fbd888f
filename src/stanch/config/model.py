"""The settings as frozen structures; their defaults are the safe values."""

from typing import Annotated, Any, Literal

import msgspec

Days = Annotated[int, msgspec.Meta(ge=1, le=180)]
Seconds = Annotated[int, msgspec.Meta(ge=1, le=3600)]


class WorkspaceSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[workspace]``: where rows and blobs lie; relative paths start at the workspace folder."""

    tables: str = "sqlite:./.stanch/stanch.db"
    blobs: str = "file:./.stanch/blobs"


class LedgerSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[ledger]``: the log's name, how often it publishes, and where its high-water mark lies."""

    origin: str = ""
    checkpoint_seconds: Seconds = 1
    highwater: str = ""


class AccessSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[access]``: ``solo`` (one person) or ``team`` (all rules on), and how long a grant lasts."""

    profile: Literal["solo", "team"] = "solo"
    grant_days: Days = 30


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings. ``gate`` is handed to :mod:`stanch.audit`, which owns its keys."""

    workspace: WorkspaceSection = WorkspaceSection()
    ledger: LedgerSection = LedgerSection()
    access: AccessSection = AccessSection()
    gate: dict[str, Any] = msgspec.field(default_factory=dict)
    origins: dict[str, str] = msgspec.field(default_factory=dict)

    def origin(self, setting: str) -> str:
        """Return where the value of ``section.key`` comes from."""
        return self.origins.get(setting, "default")
