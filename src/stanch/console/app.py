"""The application: from the table of routes to answers, for browsers and for programs."""

import asyncio
import contextlib
import functools
import io
import zipfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stanch.access import Session, default_policies
from stanch.access.authenticator import Bearer
from stanch.access.directory import not_authenticated
from stanch.access.sessions import STEP_UP_MS
from stanch.console.charts import load_renderer
from stanch.console.csrf import FIELD, require_own_page
from stanch.console.desk import Call, Desk
from stanch.console.login import read_body, read_form, safe_path, session_cookie
from stanch.console.openapi import describe
from stanch.console.pages.incidents import File
from stanch.console.render import Link, Shell, load_templates, render
from stanch.console.replies import Replies
from stanch.console.route import API, Route, check_routes
from stanch.console.routes import MENU, ROUTES
from stanch.errors import InvalidInput, MissingExtraError, NotAuthenticated, NotFound, NotPermitted, StanchError, bug
from stanch.workspace import Workspace
from stanch.workspace.verbs_console import look, refuse

_HTML, _PROBLEM = "text/html; charset=utf-8", "application/problem+json"
_SAID = {
    "granted": "The role was granted.", "revoked": "It was revoked.", "registered": "The principal was registered.",
    "activated": "The policies are in force.", "approved": "The approval was taken.",
    "moved": "The alert took the step.", "suppressed": "It is kept quiet; it is recorded all the same.",
    "suspended": "It may do nothing until it is resumed.", "resumed": "It may sign in again.",
    "opened": "The incident is open; its clock runs.", "contained": "It was done, and the timeline says so.",
    "given": "The task is given.", "finished": "The task is done.", "handed": "The evidence is in their hands.",
    "notified": "The notice is noted.",
    "joined": "The alert belongs to the incident.", "stated": "It is stated.", "closed": "The incident is closed.",
}  # fmt: skip


def build_app(workspace: Workspace, *, address: str) -> "Console":
    """Return the application of an opened workspace.

    Args:
        workspace: The workspace that is shown.
        address: What a browser's address line begins with, for example ``https://stanch.example``.

    Raises:
        StanchError: A route names no action.
        InvalidInput: An issuer or an authority of the settings cannot be used.
    """
    check_routes(ROUTES, default_policies().actions)
    serving = _Serving(Desk.of(workspace, address))
    paths = [
        Path(route.path, serving.open(route) if route.how == "open" else serving.browser(route), methods=[route.method])
        for route in ROUTES
    ]
    paths += [
        Path(API + route.path, serving.program(route), methods=[route.method]) for route in ROUTES if route.for_programs
    ]
    paths.append(Path(f"{API}/openapi.json", serving.document(), methods=["GET"]))
    app = Starlette(routes=paths, exception_handlers={404: _absent, 405: _absent})
    app.router.redirect_slashes = False
    return Console(app, serving)


class _Serving:
    """Answers requests by one desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._replies = Replies(desk.workspace.tables, clock=desk.workspace.door.clock)

    def open(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers people who are not signed in yet."""

        async def answer(request: Request) -> Response:
            try:
                response: Response = await route.handler(self.desk, request)
            except Exception as error:  # noqa: BLE001 - whatever it was, the page says what its family says
                return _error_page(error, Shell("Sign in"), (), status=None)
            return response

        return answer

    def browser(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers people."""

        async def answer(request: Request) -> Response:
            cookie, shell = session_cookie(self.desk, request), Shell(route.title)
            try:
                if not cookie:
                    raise not_authenticated()
                session = await asyncio.to_thread(self.desk.sessions.resume, cookie)
            except NotAuthenticated:
                return self._to_login(request)
            call = Call(self.desk, session, self.desk.acting(session), request.path_params, cookie)
            try:
                fields = await self._form(route, request, session) if route.method == "POST" else _query(request)
                if route.dangerous and not _fresh(call):
                    return self._to_login(request, step_up="1")
                shell = await asyncio.to_thread(self._shell, route, call, request.query_params.get("done", ""))
                if route.how == "live":
                    return await self._live(route, call, request)
                result = await asyncio.to_thread(_handle, route, call, fields)
                return await asyncio.to_thread(_answer, route, shell, call, result)
            except NotAuthenticated:
                return self._to_login(request)
            except Exception as error:  # noqa: BLE001 - whatever it was, the page says what its family says
                return _error_page(error, shell, route.words, status=None)

        return answer

    def program(self, route: Route) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers programs: never by a cookie, always in JSON."""

        async def answer(request: Request) -> Response:
            try:
                session = await asyncio.to_thread(self.desk.authenticator.authenticate, _bearer(request))
                call = Call(self.desk, session, self.desk.acting(session), request.path_params)
                if route.method == "GET":
                    return _json(await asyncio.to_thread(_handle, route, call, _query(request)))
                data = await read_body(request)
                fields = _json_fields(data, request)
                key = request.headers.get("idempotency-key", "")
                return await asyncio.to_thread(self._once, route, call, fields, key)
            except Exception as error:  # noqa: BLE001 - whatever it was, the answer says what its family says
                return _problem(_hidden(error, route.words))

        return answer

    def document(self) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers programs that ask what there is; what the API is like is no secret."""
        body = msgspec.json.encode(describe(ROUTES))

        async def answer(_request: Request) -> Response:
            return Response(body, media_type="application/json")

        return answer

    def _once(self, route: Route, call: Call, fields: Mapping[str, Any], key: str) -> Response:
        """Do what a program asks for; the same key again gives the same answer and does nothing."""
        if not key:
            return _json(_handle(route, call, fields))
        name = self._replies.name(call.session.principal, route.key, key)
        asked = msgspec.json.encode([dict(call.path), fields], order="deterministic")
        with self._replies.once(name, asked) as reply:
            if reply.body is None:
                result = _handle(route, call, fields)
                kept = msgspec.structs.replace(result, **{route.secret: ""}) if route.secret else result
                reply.give(msgspec.json.encode(kept))
                return _json(result)
            return Response(reply.body, 200, media_type="application/json")

    async def _form(self, route: Route, request: Request, session: Session) -> dict[str, str]:
        require_own_page(request.headers, self.desk.address)
        form = await read_form(request)
        self.desk.csrf.require(session.key_id, route.key, form.pop(FIELD, ""))
        return form

    def _shell(self, route: Route, call: Call, done: str) -> Shell:
        directory = call.workspace.people.directory
        principal = directory.facts(call.session).principal
        token: Callable[[str], str] = lambda key: self.desk.csrf.token(call.session.key_id, key)  # noqa: E731 - typed
        may = functools.cache(call.may)  # several pages ask for one right
        links = tuple(
            Link(path, title, route.path == path or route.path.startswith(f"{path}/"))
            for path, title, actions in MENU
            if not actions or any(may(action) for action in actions)
        )
        name = principal.display or principal.id
        return Shell(route.title, links, name, token("POST /logout"), token, _SAID.get(done, ""))

    def _to_login(self, request: Request, **more: str) -> Response:
        """Send the browser to sign in and then back to the page that was asked for, or that the form stood on."""
        if request.method == "GET":
            wanted = quote(request.scope["path"]) + (f"?{request.url.query}" if request.url.query else "")
        else:
            own, form = self.desk.address, request.headers.get("referer", "")
            wanted = form.removeprefix(own) if form.startswith(f"{own}/") else "/"
        return RedirectResponse("/login?" + urlencode({"next": safe_path(wanted), **more}), 303)

    async def _live(self, route: Route, call: Call, request: Request) -> Response:
        response: Response = await route.handler(call, request)
        return response


def _handle(route: Route, call: Call, fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - what the route answers
    """Let the handler answer; a look is an act, and what changes something is an act of its verb.

    Whoever could not do it in any situation is refused before anything that was sent is looked at.
    """
    if route.method == "POST" and not any(call.could(action) for action in route.actions):
        refuse(call.workspace, route.actions[0], {"page": route.name})
    try:
        asked = msgspec.convert(dict(fields), route.asks, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidInput("the request is malformed", why=str(error)[:200]) from error
    if route.method == "POST" or not route.actions:
        return route.handler(call, asked)  # its verb asks
    action = next((action for action in route.actions if call.may(action)), route.actions[0])
    return look(call.workspace, action, {"page": route.name}, lambda: route.handler(call, asked))


def _answer(route: Route, shell: Shell, call: Call, result: Any) -> Response:  # noqa: ANN401 - what the route answers
    if route.how == "image":
        return Response(result, media_type="image/svg+xml")
    if route.packed:
        return _pack(result.name, result.files)
    if not route.template:
        told = {"made": getattr(result, "id", "")}
        known = {name: quote(str(value), safe="") for name, value in {**told, **call.path}.items()}
        return RedirectResponse(route.then.format(**known), 303)
    return Response(render(route.template, shell, result), media_type=_HTML)


def _pack(name: str, files: Iterable[File]) -> Response:
    """Return files as one ZIP file; the same files give the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(f"{name}/{file.path}"), file.text)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return Response(packed.getvalue(), 200, headers, "application/zip")


def _fresh(call: Call) -> bool:
    return call.session.mfa or 0 <= call.now_ms - call.session.started_ms < STEP_UP_MS


def _query(request: Request) -> dict[str, str]:
    """Return the parameters of an address; ``done`` and empty fields of a form say nothing."""
    pairs = request.query_params.multi_items()
    if len(dict(pairs)) != len(pairs):
        raise InvalidInput("a parameter stands there twice")
    return {name: value for name, value in pairs if value and name != "done"}


def _json_fields(data: bytes, request: Request) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if data and kind != "application/json":
        raise InvalidInput("expected application/json")
    try:
        fields = msgspec.json.decode(data, type=dict[str, Any]) if data else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput("the body is no JSON object") from error
    return fields


def _bearer(request: Request) -> Bearer:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not text:
        raise not_authenticated()
    return Bearer(text, request.client.host if request.client is not None else "")


def _json(value: Any) -> Response:  # noqa: ANN401 - what a route answers
    return Response(msgspec.json.encode(value), media_type="application/json")


def _hidden(error: Exception, words: tuple[str, ...]) -> StanchError:
    """Return the error as it is told: what may not be seen and what is not there look alike."""
    if words and isinstance(error, NotPermitted | NotFound) and not isinstance(error, NotAuthenticated):
        return NotFound("there is nothing here that you may see")
    return error if isinstance(error, StanchError) else bug(error)


def _error_page(error: Exception, shell: Shell, words: tuple[str, ...], *, status: int | None) -> Response:
    told = _hidden(error, words)
    page = render("error.html", shell, told.problem())
    return Response(page, status or told.http_status, media_type=_HTML)


def _problem(error: StanchError) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, NotAuthenticated) else None
    return Response(msgspec.json.encode(error.problem()), error.http_status, headers, _PROBLEM)


async def _absent(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    told = NotFound("there is no such address")
    if request.url.path.startswith(API):
        return Response(msgspec.json.encode({**told.problem(), "status": status}), status, None, _PROBLEM)
    return _error_page(told, Shell("Not found"), (), status=status)


class Console:
    """What holds for every answer: the headers, our own host alone, and no other protocol."""

    def __init__(self, app: ASGIApp, serving: _Serving) -> None:
        self._app = app
        self.serving = serving
        self._host = urlsplit(serving.desk.address).netloc.encode()
        self._headers = _headers(serving.desk)

    @property
    def desk(self) -> Desk:
        """The desk by which requests are answered."""
        return self.serving.desk

    def prepare(self) -> None:
        """Do what the first pages would wait for: load templates and what draws charts, and read ahead in the log."""
        with contextlib.suppress(MissingExtraError):  # told by the page that shows one
            load_templates()
            load_renderer()
        self.desk.read_ahead()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI 3 says."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if hosts != [self._host]:
            # A page of another site whose name leads to this machine would otherwise count as ours (DNS rebinding).
            await Response("this is another host\n", 421, media_type="text/plain")(scope, receive, add)
            return
        await self._app(scope, receive, add)


def _headers(desk: Desk) -> list[tuple[bytes, bytes]]:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        # With no-referrer browsers send `Origin: null` with our own forms, which must be told from those of others.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
        "Cache-Control": "no-store",
    }
    if desk.secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
