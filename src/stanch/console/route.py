"""What one line of the table of routes says, and the rule that each names the Cedar action that permits it."""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import Struct

from stanch.errors import StanchError

API = "/api/v1"
How = Literal["page", "image", "live", "open"]


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """Asks for nothing, or says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One address.

    Attributes:
        name: A word for it; the record of a look holds it.
        method: ``GET`` shows, ``POST`` does.
        path: The address; ``{word}`` stands for a part that changes.
        handler: Answers. For ``open`` it takes the request itself, otherwise a ``Call`` and an ``asks``.
        actions: Cedar actions in the workspace. For ``GET`` any one suffices, and the look is an act; for ``POST`` the
            handler's verb asks for it, here or on the artifact that it is about.
        why_none: Why no action is named.
        asks: What is read from the query, the form or the JSON body.
        answers: What the handler returns; programs get it as JSON.
        title: Heading of its page.
        template: File of its page; a ``POST`` without one leads to ``then``.
        then: Where a browser goes after a ``POST``; fields of path and answer may stand in it.
        dangerous: Needs a sign-in of the last ten minutes.
        secret: Field of the answer that is shown once and kept nowhere.
        packed: Whether a browser gets the files of the answer as one ZIP file.
        how: A page, an image, a stream of events, or open to people who are not signed in.
    """

    name: str
    method: Literal["GET", "POST"]
    path: str
    handler: Callable[..., Any]
    actions: tuple[str, ...] = ()
    why_none: str = ""
    asks: type[Struct] = Nothing
    answers: type[Struct] = Nothing
    title: str = ""
    template: str = ""
    then: str = ""
    dangerous: bool = False
    secret: str = ""
    packed: bool = False
    how: How = "page"

    @property
    def key(self) -> str:
        """Method and path: what tokens of forms are bound to."""
        return f"{self.method} {self.path}"

    @property
    def words(self) -> tuple[str, ...]:
        """Names of the parts of the address that change."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))

    @property
    def for_programs(self) -> bool:
        """Whether the control API has it, too."""
        return self.how == "page"


def check_routes(routes: Iterable[Route], known: Collection[str]) -> None:
    """Refuse a table in which a route names no Cedar action and no reason, an unknown one, or stands twice.

    Raises:
        StanchError: It must not be served; a bug of ours.
    """
    seen: set[str] = set()
    for route in routes:
        unknown = set(route.actions) - set(known)
        if bool(route.actions) == bool(route.why_none) or unknown:
            raise StanchError(
                f"route {route.key}: expected a Cedar action or a reason for none",
                why=f"unknown: {', '.join(sorted(unknown))}" if unknown else "",
                next_step="report this bug",
            )
        if route.key in seen:
            raise StanchError(f"route {route.key}: stands in the table twice", next_step="report this bug")
        seen.add(route.key)
