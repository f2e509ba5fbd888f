"""What a model's server may send as HTTP: taken in any pieces, and anything else is an error of a known kind."""

import asyncio
import contextlib
import socket
import ssl
import threading
from ipaddress import ip_address

import pytest
import uvloop
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from test_serve import Authority

from stanch.gateway.problem import UpstreamFailed, UpstreamProtocol, UpstreamTimeout
from stanch.gateway.upstream import Patience, Upstream, _tls, read_whole

JSON = "application/json"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
BODY = b'{"a": "text that arrives in pieces"}'
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\n%b\r\n1b\r\n%b\r\n0\r\nx-more: y\r\n\r\n" % (
    BODY[:9],
    BODY[9:],
)
LONG = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
OPEN = HEAD + b"\r\n" + BODY


def asking(serve, patience=None, take=read_whole):
    """Ask a server for JSON, and return what was taken of its answer, and what it was asked."""
    asked = []

    async def main():
        async def accept(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head + await reader.readexactly(2))
            try:
                with contextlib.suppress(ConnectionError):
                    await serve(reader, writer)
            finally:
                writer.close()

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"
            async with Upstream(patience or Patience(5, 5, 20)).ask(url, b"{}", media=JSON) as pieces:
                return await take(pieces)

    return asyncio.run(main()), asked


def sends(data, size=1 << 20):
    """Return a server that sends bytes, cut into pieces."""

    async def serve(_reader, writer):
        for at in range(0, len(data), size):
            writer.write(data[at : at + size])
            await writer.drain()

    return serve


@pytest.mark.parametrize("answer", [CHUNKED, LONG, OPEN])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_an_answer_is_the_same_however_it_is_framed_and_cut(answer, size):
    text, (asked,) = asking(sends(answer, size))
    assert text == BODY.decode()
    head, _, body = asked.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert (lines[0], body) == ("POST /v1/x HTTP/1.1", b"{}")
    assert {"accept-encoding: identity", "content-length: 2", f"accept: {JSON}"} <= {*lines}


@pytest.mark.parametrize("more", [LONG, LONG.replace(b"200 OK", b"500 No"), b"garbage"])
@pytest.mark.parametrize("answer", [CHUNKED, LONG])
def test_what_comes_after_an_answer_is_not_part_of_it(answer, more):
    assert asking(sends(answer + more))[0] == BODY.decode()


@pytest.mark.parametrize("before", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nx-y: z\r\n\r\n"])
@pytest.mark.parametrize("answer", [CHUNKED, LONG, OPEN])
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_an_answer_may_be_announced(before, answer, size):
    assert asking(sends(2 * before + answer, size))[0] == BODY.decode()


@pytest.mark.parametrize(
    "kind", [b"application/json; charset=UTF-8", b'Application/JSON;charset="utf-8"', b"application/json ;x=y"]
)
def test_utf_8_is_told_in_many_ways(kind):
    text, _ = asking(sends(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n\r\n{}" % kind))
    assert text == "{}"


BROKEN = {
    "is cut in its head": (HEAD, UpstreamFailed),
    "is cut in its length": (LONG[:-1], UpstreamFailed),
    "is cut in a chunk": (CHUNKED[:-30], UpstreamFailed),
    "lacks its last chunk": (CHUNKED[: CHUNKED.index(b"0\r\nx-more")], UpstreamFailed),
    "is another status": (LONG.replace(b"200 OK", b"500 No"), UpstreamFailed),
    "is no status": (LONG.replace(b"200 OK", b"000 OK"), UpstreamFailed),
    "is only announced": (b"HTTP/1.1 100 Continue\r\n\r\n", UpstreamFailed),
    "is announced without an end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000, UpstreamProtocol),
    "is a redirect": (LONG.replace(b"200 OK", b"307 There\r\nlocation: /v1/y"), UpstreamFailed),
    "is no HTTP": (b"SSH-2.0-x\r\n\r\n", UpstreamProtocol),
    "has two lengths": (LONG.replace(b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\n"), UpstreamProtocol),
    "has a length and chunks": (CHUNKED.replace(b"\r\n\r\n", b"\r\ncontent-length: 9\r\n\r\n", 1), UpstreamProtocol),
    "has a chunk of no length": (CHUNKED.replace(b"\r\n9\r\n", b"\r\nq\r\n"), UpstreamProtocol),
    "is wrapped": (LONG.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n", 1), UpstreamProtocol),
    "is of another type": (LONG.replace(b"application/json", b"text/html"), UpstreamProtocol),
    "is of no type": (LONG.replace(b"content-type", b"content-tape"), UpstreamProtocol),
    "is of two types": (LONG.replace(b"\r\n\r\n", b"\r\ncontent-type: application/json\r\n\r\n", 1), UpstreamProtocol),
    "is of another character set": (LONG.replace(b"json\r", b"json; charset=latin-1\r"), UpstreamProtocol),
    "becomes another protocol": (
        LONG.replace(b"200 OK", b"101 Switch\r\nupgrade: x\r\nconnection: upgrade"), (UpstreamProtocol, UpstreamFailed)
    ),
    "has too long a head": (HEAD + b"x: " + b"y" * (1 << 20) + b"\r\n\r\n{}", UpstreamProtocol),
    "has a head without an end": (HEAD + b"x-y: z\r\n" * 100_000, UpstreamProtocol),
    "has trailers without an end": (CHUNKED[:-2] + b"x-y: z\r\n" * 100_000, UpstreamProtocol),
}  # fmt: skip


@pytest.mark.parametrize("how", BROKEN)
def test_an_answer_that(how):
    answer, error = BROKEN[how]
    with pytest.raises(error):
        asking(sends(answer))


async def stall(reader, writer):
    writer.write(HEAD + b"\r\n{")
    await reader.read()


async def trickle(_reader, writer):
    writer.write(HEAD + b"\r\n")
    for at in range(0, len(BODY), 4):
        writer.write(BODY[at : at + 4])
        await asyncio.sleep(0.15)


def test_a_server_that_stalls_is_not_waited_for():
    with pytest.raises(UpstreamTimeout):
        asking(stall, Patience(5, 0.2, 20))
    assert asking(trickle, Patience(5, 1, 20))[0] == BODY.decode()  # longer in all, and each piece in time


def test_a_server_that_nobody_reaches_is_told():
    async def main():
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
        async with Upstream().ask(f"http://127.0.0.1:{port}/", b"{}", media=JSON):
            raise AssertionError

    with pytest.raises(UpstreamFailed):
        asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_shows_a_certificate_for_its_name_by_a_known_authority(tmp_path, monkeypatch, host):
    made = Authority(tmp_path)
    file = made.issue("server.pem", x509.IPAddress(ip_address("127.0.0.1")), ExtendedKeyUsageOID.SERVER_AUTH)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)

    async def accept(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(LONG)
        await writer.drain()
        writer.close()

    async def main():
        async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
            url = f"https://{host}:{server.sockets[0].getsockname()[1]}/"
            async with Upstream().ask(url, b"{}", media=JSON) as pieces:
                return await read_whole(pieces)

    for authorities in (tmp_path / "ca.pem", None):
        _tls.cache_clear()
        if authorities is None:
            monkeypatch.delenv("SSL_CERT_FILE")
        else:
            monkeypatch.setenv("SSL_CERT_FILE", str(authorities))
        if host == "127.0.0.1" and authorities is not None:
            assert asyncio.run(main()) == BODY.decode()
        else:
            with pytest.raises(UpstreamFailed):
                asyncio.run(main())
    _tls.cache_clear()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("framed", [b"content-length: 300000\r\n", b""], ids=["length", "no length"])
def test_a_slow_reader_gets_all_that_a_server_sent_before_it_closed(tmp_path, monkeypatch, run, framed):
    """Over TLS: what lies read and unwanted when the server closes is not dropped."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    at_home = x509.IPAddress(ip_address("127.0.0.1"))
    context.load_cert_chain(Authority(tmp_path).issue("server.pem", at_home, ExtendedKeyUsageOID.SERVER_AUTH))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    _tls.cache_clear()

    def serve(listener):
        connection = context.wrap_socket(listener.accept()[0], server_side=True)
        while not connection.recv(1 << 16).endswith(b"{}"):
            pass
        connection.sendall(HEAD + framed + b"\r\n" + b"x" * 300_000)
        connection.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            connection.unwrap()  # says that it ends, and does not wait for an answer
        connection.close()

    async def main(port):
        size = 0
        async with Upstream().ask(f"https://127.0.0.1:{port}/", b"{}", media=JSON) as pieces:
            async for piece in pieces:
                size += len(piece)
                await asyncio.sleep(0.02)
        return size

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        assert run(main(listener.getsockname()[1])) == 300_000
        server.join(60)
    _tls.cache_clear()


def test_an_answer_that_is_not_wanted_is_not_read():
    """What is read ahead is bounded, and reading goes on when it is wanted again."""
    sent = []

    async def flood(_reader, writer):
        writer.write(HEAD + b"\r\n")
        for _ in range(1000):
            writer.write(b"x" * (1 << 16))
            await writer.drain()
            sent.append(1 << 16)

    async def take(pieces):
        size = len(await anext(pieces))
        await asyncio.sleep(0.3)
        held = sum(sent)
        async for piece in pieces:
            size += len(piece)
        return held, size

    (held, size), _ = asking(flood, take=take)
    assert held < 20 << 20 < size == 1000 << 16


def test_leaving_ends_the_connection():
    ended = []

    async def flood(_reader, writer):
        writer.write(HEAD + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.001)
        ended.append(1)

    async def main():
        async def accept(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            await flood(reader, writer)
            writer.close()

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            async with Upstream().ask(url, b"{}", media=JSON) as pieces:
                assert (await anext(pieces)).startswith(b"x")
            async with asyncio.timeout(60):
                while not ended:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def in_turn(*servings, take=read_whole, between=0.0):
    """Ask a server once for each serving; each gets the connection's streams. Return answers, and which connection."""
    upstream, used = Upstream(Patience(5, 5, 20)), []

    async def main():
        left, connections = list(servings), []

        async def accept(reader, writer):
            connections.append(writer)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while left:
                    await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(2)
                    used.append(len(connections))
                    await left.pop(0)(reader, writer)
            writer.close()

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x"
            answers = []
            while left:
                async with upstream.ask(url, b"{}", media=JSON) as pieces:
                    answers.append(await take(pieces))
                if left:
                    await asyncio.sleep(between)
            upstream.close()
            return answers

    return asyncio.run(main()), used


async def hangs_up(_reader, writer):
    writer.close()


def closing(data):
    """Return a server that sends bytes and closes the connection."""

    async def serve(_reader, writer):
        writer.write(data)
        await writer.drain()
        writer.close()

    return serve


@pytest.mark.parametrize("answer", [CHUNKED, LONG])
def test_a_connection_carries_one_call_after_the_other(answer):
    answers, used = in_turn(sends(answer), sends(answer), sends(answer))
    assert (answers, used) == ([BODY.decode()] * 3, [1, 1, 1])


@pytest.mark.parametrize(
    "answer",
    [
        OPEN.replace(b"HTTP/1.1", b"HTTP/1.0"), LONG.replace(b"HTTP/1.1", b"HTTP/1.0"), LONG + LONG, LONG + b"garbage",
        LONG.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"),
    ],
)  # fmt: skip
def test_one_with_anything_behind_its_answer_or_that_is_to_end_carries_no_other(answer):
    answers, used = in_turn(closing(answer), sends(CHUNKED))
    assert (answers, used) == ([BODY.decode()] * 2, [1, 2])


def test_what_is_said_too_late_belongs_to_nobody():
    async def late(_reader, writer):
        writer.write(LONG)
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(LONG.replace(b"pieces", b"secret"))

    answers, used = in_turn(late, sends(LONG), between=0.5)
    assert (answers, used) == ([BODY.decode()] * 2, [1, 2])


def test_an_answer_that_was_left_early_is_read_to_its_end_or_not_at_all():
    async def ends(_reader, writer):
        writer.write(CHUNKED[:-15])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(CHUNKED[-15:])

    async def goes_on(_reader, writer):
        writer.write(CHUNKED[:90])
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(CHUNKED[90:])

    assert in_turn(ends, sends(LONG), take=anext, between=0.5)[1] == [1, 1]
    assert in_turn(goes_on, sends(LONG), take=anext, between=0.5)[1] == [1, 2]


def test_a_connection_that_was_closed_meanwhile_is_made_anew_and_asked_once_more():
    answers, used = in_turn(sends(LONG), hangs_up, sends(LONG))
    assert (answers, used) == ([BODY.decode()] * 2, [1, 1, 2])
    with pytest.raises(UpstreamFailed):  # one that was never used is not
        in_turn(hangs_up, sends(LONG))
    with pytest.raises(UpstreamFailed):  # nor one of which anything came
        in_turn(sends(LONG), closing(HEAD[:9]), sends(LONG))


def test_a_connection_that_nobody_used_for_a_while_carries_no_other(monkeypatch):
    monkeypatch.setattr("stanch.gateway.upstream._FREE_SECONDS", 0.01)
    assert in_turn(sends(LONG), sends(LONG), between=0.05)[1] == [1, 2]
