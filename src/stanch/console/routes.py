"""The table of all addresses: method, path, handler, Cedar action, and the structures that come in and go out."""

from stanch.console import login, static_files
from stanch.console.pages import overview
from stanch.console.route import Route

_SIGN_IN = "whoever signs in is nobody yet"
_FILES = "the files of the pages are public"

OPEN: tuple[Route, ...] = (
    Route(name="login", method="GET", path="/login", handler=login.show_login, why_none=_SIGN_IN, how="open"),
    Route(name="login.begin", method="POST", path="/login", handler=login.begin_login, why_none=_SIGN_IN, how="open"),
    Route(name="callback", method="GET", path="/callback", handler=login.finish_login, why_none=_SIGN_IN, how="open"),
    Route(
        name="login.link", method="POST", path="/login/link", handler=login.redeem_link, why_none=_SIGN_IN, how="open"
    ),
    Route(
        name="logout", method="POST", path="/logout", handler=login.log_out, why_none="one's own session", how="open"
    ),
    Route(
        name="style", method="GET", path="/static/console.css", handler=static_files.serve_style, why_none=_FILES,
        how="open",
    ),
    Route(
        name="script", method="GET", path="/static/console.js", handler=static_files.serve_script, why_none=_FILES,
        how="open",
    ),
    Route(
        name="icon", method="GET", path="/static/icon.svg", handler=static_files.serve_icon, why_none=_FILES,
        how="open",
    ),
)  # fmt: skip

PAGES: tuple[Route, ...] = (
    Route(
        name="overview", method="GET", path="/", handler=overview.show_overview, answers=overview.Overview,
        why_none="each of its sections asks for its own action", title="Overview", template="overview.html",
    ),
)  # fmt: skip

ROUTES: tuple[Route, ...] = (*OPEN, *PAGES)

MENU: tuple[tuple[str, str, tuple[str, ...]], ...] = (("/", "Overview", ()),)
"""The navigation: path, title, and the actions of which one suffices to see it."""
