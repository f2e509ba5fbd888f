from .load import find_settings, load_config
from .model import (
    AccessSection,
    Config,
    ConsoleSection,
    GatewayModelSection,
    GatewaySection,
    GuardSettings,
    IssuerSection,
    LedgerSection,
    SecretReference,
    SinkSection,
    WitnessSection,
    WorkspaceSection,
)
from .profiles import Algorithms, algorithms

__all__ = [
    "AccessSection",
    "Algorithms",
    "Config",
    "ConsoleSection",
    "GatewayModelSection",
    "GatewaySection",
    "GuardSettings",
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
