"""A gateway on a real workspace, a model's server that answers with given bytes, and an ASGI client."""

import asyncio
import contextlib
import json
from dataclasses import dataclass, field

from answers import sse

from stanch.access import ApiKeyOrder
from stanch.gateway.app import Gateway
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk
from stanch.gateway.model import ServedModel
from stanch.gateway.upstream import Patience, Upstream
from stanch.ledger import decode_entry
from stanch.terms import ArtifactRef, Digest
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer

MODEL = ArtifactRef("model", "bot", Digest.sha256(b"the model"))
EVENTS = "text/event-stream"
DIALECTS = ("chat", "completions", "embeddings", "responses", "messages")


def key_of(workspace, name, *, roles=("consumer",), model=MODEL, actions=("model:infer", "model:embed")):
    """Register a service and return the text of a key for it."""
    bot = register_newcomer(workspace, Newcomer(name=name, kind="service", roles=roles))
    order = ApiKeyOrder(principal=bot, models=(str(model.digest),), networks=("127.0.0.0/8",), actions=actions)
    return issue_key(workspace, order)[1].text


@dataclass
class Server:
    """A model's server: each answer is bytes, or a coroutine function that is given the writer.

    Attributes:
        asked: The bodies of the requests.
    """

    answers: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    port: int = 0
    serving: set = field(default_factory=set)

    async def accept(self, reader, writer):
        self.serving.add(asyncio.current_task())
        try:
            await self.serve(reader, writer)
        finally:
            writer.close()

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            if head.startswith("get /health "):
                writer.write(http(b"", status="200 OK"))
                return
            length = int(head.partition("content-length:")[2].split("\r\n")[0])
            self.asked.append(json.loads(await reader.readexactly(length)))
            answer = self.answers.pop(0) if self.answers else http(sse())
            if callable(answer):
                await answer(writer)
            else:
                writer.write(answer)
                await writer.drain()


def http(body, media=EVENTS, status="200 OK", more=""):
    return f"HTTP/1.1 {status}\r\ncontent-type: {media}\r\n{more}connection: close\r\n\r\n".encode() + body


@dataclass
class Answer:
    """What a client of the application read."""

    status: int = 0
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    is_ended: bool = False

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self):
        return self.json["error"]["code"]


@dataclass
class Client:
    """Calls the application directly.

    The body comes when ``before`` is set; ``leave`` ends the connection; ``pause`` is awaited before each piece is
    taken.
    """

    app: Gateway
    key: str = ""

    async def ask(
        self, body, path="/v1/chat/completions", *, before=None, leave=None, pause=None, method="POST", **scope
    ):
        answer, sent = Answer(), []
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        leave = leave or asyncio.Event()

        async def receive():
            if not sent:
                if before is not None:
                    await before.wait()
                sent.append(1)
                return {"type": "http.request", "body": data, "more_body": False}
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                return
            if pause is not None:
                await pause(message)
            answer.body += message["body"]
            answer.is_ended = not message["more_body"]

        headers = [(b"content-type", b"application/json")]
        if self.key:
            headers.append((b"authorization", b"Bearer " + self.key.encode()))
        made = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers,
                "client": ("127.0.0.1", 5)}  # fmt: skip
        await self.app(made | scope, receive, send)
        return answer


@contextlib.asynccontextmanager
async def serving(workspace, guard, key="", *, limits=None, patience=None, **settings):
    """Yield a client of a gateway, and the server behind it."""
    server = Server()
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    model = ServedModel(
        "bot", MODEL, f"http://127.0.0.1:{server.port}", "inner", DIALECTS, guard, "sha256:" + "a" * 64, 4, 131_072
    )
    upstream = Upstream(patience or Patience(5, 5, 20))
    app = Gateway(
        Desk.of(workspace),
        {"bot": model},
        upstream,
        {"bot": limits or Limits(10_000, 10**9, 10_000, 10_000)},
        **settings,
    )
    try:
        yield Client(app, key), server
        while app._left_behind:  # noqa: ASYNC110 - its tasks come and go
            await asyncio.sleep(0.01)
    finally:
        for task in server.serving:
            task.cancel()
        await asyncio.gather(*server.serving, return_exceptions=True)
        listening.close()
        await listening.wait_closed()


def entries(workspace, kind="gateway.infer"):
    """Return phase, result and payload of every entry of a kind."""
    reader = workspace.ledger.reader()
    found = [decode_entry(reader.entry(at))["unmapped"]["stanch"] for at in range(reader.size())]
    return [(one["phase"], one.get("result", ""), one.get("payload", {})) for one in found if one["kind"] == kind]
