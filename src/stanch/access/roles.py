"""The roles, and which of them one person may not hold together."""

from collections.abc import Collection

from stanch.errors import InvalidInput, SeparationOfDuties

ROLES = frozenset(
    {
        "data_steward",
        "ml_engineer",
        "consumer",
        "release_manager",
        "platform_admin",
        "security_analyst",
        "incident_lead",
        "auditor",
        "legal_reader",
        "break_glass",
        "server",
    }
)

_APART: dict[str, frozenset[str]] = {
    "platform_admin": frozenset({"data_steward", "release_manager", "auditor"}),
    "auditor": ROLES - {"auditor", "legal_reader"},
}


def first_roles(*, team: bool) -> frozenset[str]:
    """Return what whoever makes a workspace holds with it: alone every role, but that of a server, which adds nothing.

    In a team it is one, so that others are given the rest.
    """
    return frozenset({"platform_admin"}) if team else ROLES - {"server"}


def check_role(role: str) -> None:
    """Raise :class:`stanch.errors.InvalidInput` unless ``role`` exists."""
    if role not in ROLES:
        raise InvalidInput(f"role: expected one of {', '.join(sorted(ROLES))}; found {role[:80]!r}")


def check_separation(held: Collection[str], role: str) -> None:
    """Refuse a role that may not be held beside those that are held already (static separation of duties).

    Raises:
        SeparationOfDuties: The two are to be held by different people.
    """
    for other in sorted(held):
        if other in _APART.get(role, ()) or role in _APART.get(other, ()):
            raise SeparationOfDuties(
                f"role {role}: cannot be held together with {other}",
                why="these duties are kept by different people",
                next_step=f"grant {role} to another person, or revoke {other} first",
            )
