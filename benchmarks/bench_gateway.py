"""What a guarded stream costs a gateway, against LiteLLM's, interleaved on one stub server and one client.

Run with::

    STANCH_LITELLM=VENV/bin/litellm python benchmarks/bench_gateway.py

Each contender is a process of its own. A stream has 64 tokens of clean prose, a frame each; four run at a time. The
cost is processor time of the contender's process and children, from /proc. ``bare`` is our gateway with a guard that
looks for nothing, ``guarded`` with all shipped recognisers, an index of 50,000 windows and canaries; both decide, log
durably and charge budgets for each request. ``unsynced`` is ``guarded`` with a database that waits for no disk, so
that what it adds is all but the durable commit. ``litellm`` has no filter, ``litellm filtered`` its content filter
with 1,001 words. Of everybody the whole text must come out: the index is of words that it does not use. First-token
time is against asking the stub directly, four at a time and alone. Writes benchmarks/results/gateway.json.
"""

import asyncio
import contextlib
import json
import os
import platform
import random
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from bench_guard import salad

from stanch.access import ApiKeyOrder
from stanch.gateway.app import Gateway
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk
from stanch.gateway.model import ServedModel
from stanch.gateway.serve import run_server
from stanch.gateway.upstream import Upstream
from stanch.guard import Guard, GuardPolicy
from stanch.scan import Policy, Scanner, SpanIndex
from stanch.store import sqlite
from stanch.terms import ArtifactRef, Digest
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scan"))
from chat_corpus import ChatMaker

OUT = Path(__file__).parent / "results" / "gateway.json"
ROUNDS, TOKENS, TOGETHER, WORDS = 7, 64, 4, 1001
STREAMS = {"direct": 200, "bare": 200, "guarded": 200, "unsynced": 200, "litellm": 24, "litellm filtered": 8}
OURS = ("bare", "guarded", "unsynced")
ALONE = 24
"""Streams that are asked for one after the other."""
REF = ArtifactRef("model", "bot", Digest.sha256(b"the model"))
INDEXED = 208_000
"""Words of the indexed text: one window is kept for each 25 characters, four words."""
SAID = ChatMaker(3).prose(TOKENS * 5)[: TOKENS * 5]


@dataclass(frozen=True)
class Contender:
    """Where it listens, the key it asks for, and its process (none for the stub asked directly)."""

    port: int
    key: str = ""
    pid: int = 0


async def stub(port: int) -> None:
    """Answer every request with the same stream."""
    pieces = [SAID[at : at + 5] for at in range(0, TOKENS * 5, 5)]
    frames = [{"delta": {"role": "assistant", "content": piece}, "finish_reason": None} for piece in pieces]
    frames.append({"delta": {}, "finish_reason": "stop"})
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "bot"}
    written = [b"data: %b\n\n" % orjson.dumps(head | {"choices": [{"index": 0, **one}]}) for one in frames]
    begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(asked.partition(b"content-length:")[2].split(b"\r\n")[0] or 0))
                writer.write(begin)
                for frame in (*written, b"data: [DONE]\n\n"):
                    writer.write(b"%x\r\n%b\r\n" % (len(frame), frame))
                    await writer.drain()
                    await asyncio.sleep(0)
                writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


def gateway(kind: str, port: int, folder: Path, upstream: int) -> None:
    """Serve as our gateway until killed; the client's key goes to the file ``key``."""
    if kind == "unsynced":
        vars(sqlite)["_PRAGMAS"]["synchronous"] = 0  # no setting turns it off
    Workspace.init(folder).close()
    path = folder / "stanch.toml"
    path.write_text(path.read_text() + f'\n[gateway]\nlisten = "127.0.0.1:{port}"\n')
    policy = GuardPolicy()
    vars(policy)["scanner"] = Scanner(Policy(recognisers=()))  # no setting turns the guard off
    if kind != "bare":
        index = SpanIndex.open(folder.parent / "index", (folder.parent / "index.key").read_bytes())
        policy = GuardPolicy(index=index, canaries=("the code of the vault is 48151623",))
    with Workspace.open(folder) as workspace:
        model = ServedModel(
            "bot", REF, f"http://127.0.0.1:{upstream}", "bot", ("chat",), Guard(policy), str(REF.digest)
        )
        served = Gateway(Desk.of(workspace), {"bot": model}, Upstream(), {"bot": Limits(10**6, 10**10, 10**6)})
        tester = register_newcomer(workspace, Newcomer(name="tester", kind="service", roles=("consumer",)))
        order = ApiKeyOrder(principal=tester, models=(str(REF.digest),), networks=("127.0.0.0/8",))
        (folder / "key").write_text(issue_key(workspace, order)[1].text)
        run_server(workspace, served, ready=lambda _: None, stop=threading.Event())


def litellm_config(upstream: int, key: str, *, filtered: bool) -> str:
    """Return the settings of LiteLLM's proxy."""
    model = {"model": "openai/bot", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}
    config: dict[str, object] = {
        "general_settings": {"master_key": key},
        "model_list": [{"model_name": "bot", "litellm_params": model}],
        "litellm_settings": {"num_retries": 0, "telemetry": False},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    if filtered:
        words = [f"keyword{number}" for number in range(WORDS)]
        guardrail = {
            "guardrail": "litellm_content_filter", "mode": "post_call", "default_on": True,
            "blocked_words": [{"keyword": word, "action": "BLOCK"} for word in words],
        }  # fmt: skip
        config["guardrails"] = [{"guardrail_name": "words", "litellm_params": guardrail}]
    return json.dumps(config)  # JSON is YAML


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, Contender]]:
    """Start everybody, and end them."""
    ports = dict(zip(STREAMS, free_ports(len(STREAMS)), strict=True))
    processes, keys, me = {}, {}, [sys.executable, __file__]
    (folder / "index.key").write_bytes(key := secrets.token_bytes(32))
    text = salad(random.Random(5), INDEXED)  # noqa: S311 - seeded text
    SpanIndex.build([text], key=key).save(folder / "index")
    processes["direct"] = subprocess.Popen([*me, "stub", str(ports["direct"])])
    for name in OURS:
        words = [*me, name, str(ports[name]), str(folder / name), str(ports["direct"])]
        processes[name] = subprocess.Popen(words)
    if program := os.environ.get("STANCH_LITELLM"):
        quiet = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        quiet.pop("PYTHONPATH", None)
        for name in ("litellm", "litellm filtered"):
            keys[name] = f"sk-{secrets.token_hex(32)}"
            path = folder / f"{name}.yaml"
            path.write_text(litellm_config(ports["direct"], keys[name], filtered="filtered" in name))
            words = [program, "--config", str(path), "--host", "127.0.0.1", "--port", str(ports[name])]
            processes[name] = subprocess.Popen(words, env=quiet, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for name, process in processes.items():
            wait(ports[name], process)
        keys |= {name: (folder / name / "key").read_text() for name in OURS}
        yield {
            name: Contender(ports[name], keys.get(name, ""), 0 if name == "direct" else process.pid)
            for name, process in processes.items()
        }
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody uses."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in made:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in made]


def wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a port is listened to."""
    for _ in range(600):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended")
        time.sleep(0.2)
    raise SystemExit(f"{process.args} does not listen")


async def ask(contender: Contender) -> float:
    """Ask for one stream and return the seconds to its first token; it must be whole."""
    body = orjson.dumps({"model": "bot", "stream": True, "messages": [{"role": "user", "content": "tell me"}]})
    reader, writer = await asyncio.open_connection("127.0.0.1", contender.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {contender.key}\r\n"
    start = time.perf_counter()
    writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    first, data = 0.0, b""
    while b"[DONE]" not in data:
        piece = await reader.read(65536)
        if not piece:
            raise SystemExit(f"a stream broke off: {data[:300]!r}")
        data += piece
        if not first and b'"content":"' in data:
            first = time.perf_counter() - start
    writer.close()
    if said(data) != SAID:
        raise SystemExit(f"not all of the text came out: {said(data)!r}")
    return first


def said(data: bytes) -> str:
    """Return the text of a stream's events."""
    lines = [line for line in data.splitlines() if line.startswith(b"data: {")]
    choices = [choice for line in lines for choice in orjson.loads(line[6:])["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def load(contender: Contender, count: int, together: int = TOGETHER) -> list[float]:
    """Ask for streams, some at a time."""
    gate = asyncio.Semaphore(together)

    async def one() -> float:
        async with gate:
            return await ask(contender)

    return await asyncio.gather(*(one() for _ in range(count)))


def family(pid: int) -> Iterator[list[str]]:
    """Yield what /proc says of a process and its children, from the state on."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(") ")[2].split()
            if pid in (int(stat.parent.name), int(fields[1])):
                yield fields


def spent(pid: int) -> float:
    """Return the processor seconds of a process and its children so far."""
    return sum(int(fields[11]) + int(fields[12]) for fields in family(pid)) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Return the resident megabytes of a process and its children."""
    return sum(int(fields[21]) for fields in family(pid)) * os.sysconf("SC_PAGE_SIZE") / 1e6


def durable_write(folder: Path) -> float:
    """Return the median seconds that a file system takes to make an appended page durable, with nobody else there."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(50):
            start = time.perf_counter()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - start)
    return statistics.median(took)


def measure(everyone: dict[str, Contender], number: int, figures: defaultdict[str, list[float]]) -> None:
    """Load everybody once."""
    names = [*everyone][number % len(everyone) :] + [*everyone][: number % len(everyone)]
    cost, first, alone = {}, {}, {}
    for name in names:
        start = spent(everyone[name].pid)
        first[name] = statistics.median(asyncio.run(load(everyone[name], STREAMS[name])))
        cost[name] = (spent(everyone[name].pid) - start) / STREAMS[name]
        alone[name] = statistics.median(asyncio.run(load(everyone[name], min(ALONE, STREAMS[name]), 1)))
    for name in sorted(everyone.keys() - {"direct"}):
        figures[f"{name}: cpu ms a stream"].append(cost[name] * 1e3)
        figures[f"{name}: first token later, ms"].append((first[name] - first["direct"]) * 1e3)
        figures[f"{name}: first token later, alone, ms"].append((alone[name] - alone["direct"]) * 1e3)
        figures[f"{name}: resident MB"].append(resident(everyone[name].pid))
    figures["durable commit, first token, ms"].append((first["guarded"] - first["unsynced"]) * 1e3)
    figures["durable commit, first token, alone, ms"].append((alone["guarded"] - alone["unsynced"]) * 1e3)
    figures["disk: 4 KiB made durable, ms"].append(durable_write(Path(tempfile.gettempdir())) * 1e3)
    figures["guarded over bare, cpu"].append(cost["guarded"] / cost["bare"])
    figures["guard, us a token"].append((cost["guarded"] - cost["bare"]) / TOKENS * 1e6)
    for peer in ("litellm", "litellm filtered"):
        if peer in cost:
            figures[f"{peer} over guarded, cpu"].append(cost[peer] / cost["guarded"])


def main() -> None:
    """Measure and write."""
    before, figures = os.getloadavg()[0], defaultdict[str, list[float]](list)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as everyone:
        for contender in everyone.values():
            asyncio.run(load(contender, 4))  # warm
        for number in range(ROUNDS):
            measure(everyone, number, figures)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    result: dict[str, object] = {"machine": machine, "load": before, "streams": STREAMS, "together": TOGETHER}
    for label, rounds in sorted(figures.items()):
        result[label] = {"median": statistics.median(rounds), "range": [min(rounds), max(rounds)], "rounds": rounds}
        print(f"{label:<40} {statistics.median(rounds):.4g} [{min(rounds):.4g}, {max(rounds):.4g}]")
    OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stub", at]:
            asyncio.run(stub(int(at)))
        case [("bare" | "guarded" | "unsynced") as kind, at, place, upstream]:
            gateway(kind, int(at), Path(place), int(upstream))
        case _:
            main()
