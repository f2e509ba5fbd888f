"""Configuration: one strict ``stanch.toml``, every value with a safe default and a known origin.

An empty or missing file is valid. Order: defaults < user file < workspace file < ``STANCH_<SECTION>__<KEY>``; what a
command is told by a flag wins over all of them. A list replaces the list of a lower layer.

Example:
    >>> config = load_config(None, environ={"STANCH_ACCESS__PROFILE": "team"}, user_file=None)
    >>> config.access.profile, config.origin("access.profile")
    ('team', 'environment STANCH_ACCESS__PROFILE')
"""

from stanch.config.load import find_settings, load_config
from stanch.config.model import (
    AccessSection,
    Config,
    ConsoleSection,
    GatewayModelSection,
    GatewaySection,
    IssuerSection,
    LedgerSection,
    SecretReference,
    SinkSection,
    WitnessSection,
    WorkspaceSection,
)
from stanch.config.profiles import Algorithms, algorithms

__all__ = [
    "AccessSection",
    "Algorithms",
    "Config",
    "ConsoleSection",
    "GatewayModelSection",
    "GatewaySection",
    "IssuerSection",
    "LedgerSection",
    "SecretReference",
    "SinkSection",
    "WitnessSection",
    "WorkspaceSection",
    "algorithms",
    "find_settings",
    "load_config",
]
