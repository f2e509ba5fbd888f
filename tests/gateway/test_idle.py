"""Who connects and asks nothing is let go, and one address has so many connections: nobody needs a key to try."""

import asyncio
import contextlib
import ipaddress

import pytest

from stanch.workspace import connection

uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed: pip install 'stanch[gateway]'")
pytest.importorskip("httptools", reason="httptools is not installed: pip install 'stanch[gateway]'")

from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: E402 - after it is known to be there

from stanch.gateway.connection import connection_class  # noqa: E402 - same

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
HALF = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\nx"
KINDS = {"gateway": connection_class(), "console": type("Connection", (connection.Patient, H11Protocol), {})}


async def slow(_scope, _receive, send):
    await asyncio.sleep(0.6)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def quick(_scope, _receive, send):
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def served(kind, app):
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http=kind, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def heard(port, *pieces, every=0.0):
    """Send pieces, and return what came back until the other side closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(every)
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(reader.read(1 << 16), 10):
                got += data
        return got
    finally:
        writer.close()


WAITING = {
    "nothing": ((), 0),
    "half a head": ((b"POST /v1",), 0),
    "half the next head": ((GET, b"P"), 1),
    "a body that does not come": ((HALF, b"x"), 1),
    "two and a half": ((GET, GET, b"P"), 2),
}
"""What comes of a connection before it falls silent, and how many answers it gets."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_that_asks_nothing_is_ended(kind, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.6)

    async def main():
        async with served(KINDS[kind], quick) as port:  # all wait at the same time
            return await asyncio.gather(*(heard(port, *pieces, every=0.02) for pieces, _ in WAITING.values()))

    found = [got.count(b"HTTP/1.1 401") for got in asyncio.run(main())]
    assert dict(zip(WAITING, found, strict=True)) == {name: answers for name, (_, answers) in WAITING.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_may_take_longer_than_a_head(kind, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)

    async def main():
        async with served(KINDS[kind], slow) as port:
            return await heard(port, GET)

    assert asyncio.run(main()).endswith(b"ok")


class Transport:
    """The transport of a connection from some address."""

    def __init__(self, address):
        self.address, self.is_aborted = address, False

    def get_extra_info(self, name, default=None):
        return {"peername": (self.address, 5), "sockname": ("10.0.0.9", 1)}.get(name, default)

    def abort(self):
        self.is_aborted = True

    def close(self):
        pass


@pytest.mark.parametrize(
    ("addresses", "refused"),
    [
        (["192.0.2.7"] * 3, [False, False, True]),
        (["192.0.2.7", "192.0.2.8", "192.0.2.9"], [False] * 3),
        (["2001:db8::1", "2001:db8::2:1", "2001:db8::3:1"], [False, False, True]),
        (["127.0.0.1"] * 3, [False] * 3),
        (["10.1.2.3"] * 3, [False] * 3),
    ],
    ids=["one address", "others", "one customer's network", "this machine", "a proxy"],
)
def test_one_address_has_so_many_connections_and_gets_their_places_back(addresses, refused, monkeypatch):
    monkeypatch.setattr(connection, "MOST_OF_ONE", 2)
    kind = connection_class((ipaddress.ip_network("10.1.2.0/24"),))

    async def main():
        async with served(kind, quick):
            made = []
            config = uvicorn.Config(quick, lifespan="off", log_config=None)
            state = uvicorn.server.ServerState()
            for address in addresses:
                made.append((kind(config, state, {}), Transport(address)))
                made[-1][0].connection_made(made[-1][1])
            aborted = [transport.is_aborted for _, transport in made]
            for one, _ in made:
                one.connection_lost(None)
            return aborted

    assert asyncio.run(main()) == refused
    assert not connection.Patient._open
