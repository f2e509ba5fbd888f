"""Dated profiles of algorithms: a profile is chosen as a whole, so that no combination nobody reviewed can arise."""

from dataclasses import dataclass
from typing import Literal

KeyKind = Literal["ed25519", "p256"]


@dataclass(frozen=True, slots=True)
class Algorithms:
    """What one profile uses for new keys and files; what older profiles wrote is still read.

    Attributes:
        log_key: Signs checkpoints.
        publisher_key: Signs bundles and certificates.
        case_key: Signs evidence packs.
    """

    profile: str
    log_key: KeyKind
    publisher_key: KeyKind
    case_key: KeyKind


_PROFILES = {
    "2026": Algorithms("2026", log_key="ed25519", publisher_key="p256", case_key="ed25519"),
}


def algorithms(profile: str) -> Algorithms:
    """Return the algorithms of a dated profile that the settings accept."""
    return _PROFILES[profile]
