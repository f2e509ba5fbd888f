"""Signing in and out: at an issuer with a browser, or once with a link that an administrator made."""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from stanch.access import Session
from stanch.access.directory import not_authenticated
from stanch.console.csrf import FIELD, require_own_page
from stanch.console.desk import Desk
from stanch.console.render import Shell, render
from stanch.errors import InvalidInput, NotAuthenticated, NotPermitted, StanchError
from stanch.store.host import is_loopback
from stanch.workspace.verbs_console import note_sign_in, require_no_administrator

MAX_FORM = 1 << 20
BODY_SECONDS = 30.0
_MOST_FIELDS = 64
_ATTEMPT = "attempt"


def cookie_name(desk: Desk, what: str = "") -> str:
    """Return the name of a cookie; the prefix makes browsers refuse one that another host or plain HTTP set."""
    return f"{'__Host-' if desk.secure else ''}stanch{f'-{what}' if what else ''}"


def session_cookie(desk: Desk, request: Request) -> str:
    """Return the session cookie of a request; empty if there is none."""
    return request.cookies.get(cookie_name(desk), "")


def safe_path(text: str) -> str:
    """Return an address of our own to go on to; anything else becomes the first page."""
    plain = text.startswith("/") and not text.startswith("//") and "\\" not in text
    return text if plain and text.isprintable() and text.isascii() and len(text) <= 512 else "/"


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a form.

    Raises:
        InvalidInput: It is another content, too long, or holds a field twice.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    data = await read_body(request)
    if data and kind != "application/x-www-form-urlencoded":
        raise InvalidInput("expected a form")
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError as error:
        raise InvalidInput("the form is malformed") from error
    if len(dict(pairs)) != len(pairs):
        raise InvalidInput("the form holds a field twice")
    return dict(pairs)


async def read_body(request: Request) -> bytes:
    """Return the body of a request, at most 1 MiB of it, which must be there in time.

    Raises:
        InvalidInput: It is longer, or late.
    """
    data = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_FORM:
                    raise InvalidInput(f"expected at most {MAX_FORM} bytes")
    except TimeoutError:
        raise InvalidInput(f"expected the whole request within {BODY_SECONDS:g} seconds") from None
    return bytes(data)


async def show_login(desk: Desk, request: Request) -> Response:
    """Show the ways in. A link's secret is not used up by looking: browsers and mail filters look ahead."""
    return await _login_page(desk, request.query_params)


async def begin_login(desk: Desk, request: Request) -> Response:
    """Send the browser to an issuer."""
    require_own_page(request.headers, desk.address)
    form = await read_form(request)
    flow = desk.flows.get(form.get("issuer", ""))
    if flow is None:
        raise InvalidInput("there is no such issuer here", next_step="see: stanch config show access.issuers")
    url, attempt = await asyncio.to_thread(flow.begin, step_up=form.get("step_up") == "1")
    # A page that goes on by itself, and no redirect: browsers hold every redirect after a form against the policy's
    # form-action, and where an issuer sends people on to is its own affair.
    view = {"url": url, "issuer": attempt.issuer}
    answer = Response(render("leave.html", Shell("Sign in"), view), media_type="text/html; charset=utf-8")
    _set(desk, answer, desk.attempts.seal(attempt, safe_path(form.get("next", "/"))), _ATTEMPT)
    return answer


async def finish_login(desk: Desk, request: Request) -> Response:
    """Take the browser back from the issuer, and open its session."""
    parameters = request.query_params
    returned = dict(parameters)
    kept = request.cookies.get(cookie_name(desk, _ATTEMPT), "")
    if len(returned) != len(parameters.multi_items()):
        raise not_authenticated()
    opened, target = await asyncio.to_thread(_finish, desk, kept, returned, session_cookie(desk, request))
    answer = RedirectResponse(safe_path(target), 303)
    if opened:
        _set(desk, answer, opened)
    answer.delete_cookie(cookie_name(desk, _ATTEMPT), secure=desk.secure, httponly=True)
    return answer


def _finish(desk: Desk, kept: str, returned: Mapping[str, str], cookie: str) -> tuple[str, str]:
    """Return the cookie of a new session, empty where the old one was only confirmed, and where to go on to."""
    attempt, target = desk.attempts.open(kept)
    if attempt.issuer not in desk.flows:
        raise not_authenticated()
    token = desk.flows[attempt.issuer].finish(attempt, returned)
    proven = desk.workspace.people.directory.vouched(token.name, token.proof)
    if attempt.step_up and cookie and proven.mfa:
        desk.sessions.step_up(cookie, proven)
        return "", target
    if attempt.step_up and cookie and desk.sessions.resume(cookie).principal != proven.principal:
        raise not_authenticated()
    return _open(desk, proven, cookie, token.auth_ms), target


async def redeem_link(desk: Desk, request: Request) -> Response:
    """Open a session with a one-time link, from this very machine alone."""
    require_own_page(request.headers, desk.address)
    form = await read_form(request)
    peer = request.client.host if request.client is not None else ""
    if not is_loopback(peer):
        raise not_authenticated()
    opened = await asyncio.to_thread(_redeem, desk, form.get("token", ""), session_cookie(desk, request))
    answer = RedirectResponse(safe_path(form.get("next", "/")), 303)
    _set(desk, answer, opened)
    return answer


def _redeem(desk: Desk, text: str, cookie: str) -> str:
    try:
        require_no_administrator(desk.workspace)
    except NotPermitted as error:
        raise not_authenticated() from error
    return _open(desk, desk.bootstrap.redeem(text), cookie)


def _open(desk: Desk, proven: Session, old: str, auth_ms: int | None = None) -> str:
    """Open a session under a new id; one that the browser had before ends, whoever it was."""
    opened = desk.sessions.open_session(proven, auth_ms)
    try:
        desk.workspace.people.directory.facts(opened.session)  # refuses whoever is suspended
        note_sign_in(desk.workspace, opened.session)
    except BaseException:
        desk.sessions.end(opened.cookie)
        raise
    _end_quietly(desk, old)
    return opened.cookie


async def log_out(desk: Desk, request: Request) -> Response:
    """End the session."""
    require_own_page(request.headers, desk.address)
    cookie, form = session_cookie(desk, request), await read_form(request)
    session = await asyncio.to_thread(desk.sessions.resume, cookie)
    desk.csrf.require(session.key_id, "POST /logout", form.get(FIELD, ""))
    await asyncio.to_thread(desk.sessions.end, cookie)
    await asyncio.to_thread(note_sign_in, desk.workspace, session, ended=True)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(cookie_name(desk), secure=desk.secure, httponly=True)
    return answer


def _end_quietly(desk: Desk, cookie: str) -> None:
    try:
        desk.sessions.end(cookie)
    except NotAuthenticated:
        return  # it was no cookie of ours


async def _login_page(desk: Desk, query: Mapping[str, str]) -> Response:
    links = True
    try:
        await asyncio.to_thread(require_no_administrator, desk.workspace)
    except StanchError:
        links = False
    view: dict[str, Any] = {
        "issuers": list(desk.flows), "token": query.get("token", "")[:64], "next": safe_path(query.get("next", "/")),
        "links": links, "step_up": query.get("step_up") == "1",
    }  # fmt: skip
    return Response(render("login.html", Shell("Sign in"), view), media_type="text/html; charset=utf-8")


def _set(desk: Desk, answer: Response, value: str, what: str = "") -> None:
    answer.set_cookie(
        cookie_name(desk, what), value, path="/", secure=desk.secure, httponly=True, samesite="lax",
        max_age=None if what != _ATTEMPT else 600,
    )  # fmt: skip
