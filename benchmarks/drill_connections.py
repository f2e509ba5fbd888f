"""Many connections at once: each is answered with its own text or refused, nothing unrecorded is answered.

Run with::

    python benchmarks/drill_connections.py [COUNT]

COUNT connections, 10,000 by default, stand before anything is asked; then all ask at the same time, half of them with
the key of one tenant and half with another's, each for a text that only it knows. The gateway is a process of its own,
and so is the server behind it. Writes benchmarks/results/gateway-connections.json.
"""

import asyncio
import contextlib
import itertools
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import orjson

from stanch.access import ApiKeyOrder
from stanch.gateway.app import Gateway
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk
from stanch.gateway.model import ServedModel
from stanch.gateway.serve import run_server
from stanch.gateway.upstream import Upstream
from stanch.guard import Guard, GuardPolicy
from stanch.ledger import decode_entry
from stanch.terms import ArtifactRef, Digest
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer

OUT = Path(__file__).parent / "results" / "gateway-connections.json"
REF = ArtifactRef("model", "bot", Digest.sha256(b"the model"))
TENANTS, PATIENCE, CONNECTING = ("north", "south"), 240, 200
_SAID = re.compile(r"marker-\d+-[a-z]+")


async def echo(port: int) -> None:
    """Answer every request with the words that it asked with, after a while."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body = await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0))
                words = json.loads(body)["messages"][0]["content"].split(" ")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
                for word in words:
                    choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
                    writer.write(b"data: %b\n\n" % orjson.dumps({"choices": [choice]}))
                    await writer.drain()
                    await asyncio.sleep(0.05)
                end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
                writer.write(b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps(end))
                await writer.drain()
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


def gateway(folder: Path, upstream: int) -> None:
    """Serve until the standard input ends; the first line of the output holds the URL and a key for each tenant."""
    with Workspace.open(folder) as workspace:
        guard = Guard(GuardPolicy(canaries=("the code of the vault is 48151623",)))
        model = ServedModel("bot", REF, f"http://127.0.0.1:{upstream}", "bot", ("chat",), guard, str(REF.digest))
        limits = {"bot": Limits(10**6, 10**10, 10**6)}
        # A machine that others use as well may take longer than five seconds for an entry.
        served = Gateway(Desk.of(workspace), {"bot": model}, Upstream(), limits, intent_seconds=60.0)
        keys = []
        for tenant in TENANTS:
            client = register_newcomer(workspace, Newcomer(name=tenant, kind="service", roles=("consumer",)))
            order = ApiKeyOrder(principal=client, models=(str(REF.digest),), networks=("127.0.0.0/8",))
            keys.append(issue_key(workspace, order)[1].text)
        stop = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
        run_server(workspace, served, ready=lambda url: print(url, *keys, flush=True), stop=stop)


async def ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], key: str, mark: str) -> str:
    """Ask on a connection and return what became of it."""
    reader, writer = streams
    body = orjson.dumps({"model": "bot", "stream": True, "messages": [{"role": "user", "content": f"say {mark} now"}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
    try:
        writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        data = (await reader.read()).decode()
    except ConnectionError:
        return "reset"
    finally:
        writer.close()
    texts = [
        json.loads(line)["choices"][0]["delta"].get("content", "") for line in re.findall(r'data: (\{"id.*)', data)
    ]
    if set(_SAID.findall("".join(texts))) - {mark}:
        return "another's text"
    status = data.split(" ", 2)[1] if " " in data else "nothing"
    if status != "200":
        return f"refused {status}"
    return "answered" if "".join(texts).strip() == f"say {mark} now" and "[DONE]" in data else "broken"


async def crowd(port: int, keys: list[str], count: int) -> tuple[Counter[str], float]:
    """Connect, ask all at once, and return what became of each, and how long a word of life took meanwhile."""
    gate = asyncio.Semaphore(CONNECTING)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with gate:
            return await asyncio.open_connection("127.0.0.1", port)

    streams = await asyncio.gather(*(connect() for _ in range(count)))
    asking = [
        asyncio.create_task(ask(one, key, f"marker-{number}-{tenant}"))
        for number, (one, (tenant, key)) in enumerate(
            zip(streams, itertools.cycle(zip(TENANTS, keys, strict=True)), strict=False)
        )
    ]
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    alive = b"alive" in await reader.read()
    writer.close()
    waited = time.perf_counter() - start
    done = await asyncio.wait_for(asyncio.gather(*asking), PATIENCE)
    return Counter([*done, *([] if alive else ["not alive"])]), waited


def recorded(folder: Path) -> dict[str, int]:
    """Return how many requests for text the log holds, and how many of them ended."""
    with Workspace.open(folder) as workspace:
        reader = workspace.ledger.reader()
        found = [decode_entry(reader.entry(at))["unmapped"]["stanch"] for at in range(reader.size())]
    phases = Counter(one["phase"] for one in found if one["kind"] == "gateway.infer" and one["payload"].get("request"))
    return dict(phases)


def drill(count: int) -> dict[str, object]:
    """Run everything and return the figures.

    Raises:
        TimeoutError: Somebody was left without an answer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    me = [sys.executable, __file__]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name) / "w"
        Workspace.init(folder).close()
        path = folder / "stanch.toml"
        path.write_text(path.read_text() + '\n[gateway]\nlisten = "127.0.0.1:0"\n')
        port = free_port()
        words = ([*me, "echo", str(port)], [*me, "gateway", str(folder), str(port)])
        processes = [subprocess.Popen(one, stdin=-1, stdout=-1, text=True) for one in words]
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        lines = [process.stdout.readline() for process in processes if process.stdout is not None]
        url, *keys = lines[1].split()
        start = time.perf_counter()
        outcomes, waited = asyncio.run(crowd(int(url.rpartition(":")[2]), keys, count))
        took = time.perf_counter() - start
        processes[1].communicate("", timeout=PATIENCE)
        phases = recorded(folder)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return {
        "connections": count, "outcomes": dict(sorted(outcomes.items())), "recorded": phases, "seconds": took,
        "healthz seconds": waited,
    }  # fmt: skip


def free_port() -> int:
    """Return a port that nobody uses."""
    import socket  # noqa: PLC0415 - used here alone

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["echo", at]:
            asyncio.run(echo(int(at)))
        case ["gateway", place, at]:
            gateway(Path(place), int(at))
        case [*more]:
            result = drill(int(more[0]) if more else 10_000)
            machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
            OUT.write_text(json.dumps({"machine": machine} | result, indent=1) + "\n")
            print(json.dumps(result, indent=1))
