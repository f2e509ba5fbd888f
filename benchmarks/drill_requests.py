"""Very many requests of one gateway: what it keeps in memory does not grow with them.

Run with::

    python benchmarks/drill_requests.py [COUNT]

COUNT streams, 1,000,000 by default, are asked for, eight at a time. Every question and every answer has other words,
and one answer in sixteen an e-mail address that the guard replaces, so that nothing that is remembered of texts comes
again. The gateway is that of drill_connections.py, a process of its own. Writes benchmarks/results/gateway-memory.json:
its resident memory a hundred times along the way, and by how much the last tenth of these exceeds the second.
"""

import asyncio
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson
from bench_gateway import free_ports, resident, wait

from stanch.workspace import Workspace

OUT = Path(__file__).parent / "results" / "gateway-memory.json"
GATEWAY = Path(__file__).parent / "drill_connections.py"
TOGETHER, TOKENS, SAMPLES = 8, 16, 100
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def words(rng: random.Random, count: int) -> list[str]:
    """Return words that nobody has said before, and now and then an address."""
    made = ["".join(rng.choices(LETTERS, k=rng.randint(2, 9))) for _ in range(count)]
    if rng.random() < 1 / 16:
        made[-2] = f"{made[-2]}@mail-{made[-1]}.com"
    return made


async def talk(port: int) -> None:
    """Answer every request with a stream of other words."""
    rng = random.Random(7)  # noqa: S311 - seeded text

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0] or 0))
                deltas: list[dict[str, object]] = [{"content": f"{word} "} for word in words(rng, TOKENS)]
                choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
                choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
                frames = [b"data: %b\n\n" % orjson.dumps({"choices": [choice]}) for choice in choices]
                body = b"".join([*frames, b"data: [DONE]\n\n"])
                begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(body)
                writer.write(begin + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


async def ask(port: int, key: str, rng: random.Random, count: int) -> None:
    """Ask for so many streams, some at a time, each on a connection that is kept."""
    left = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            asked = [{"role": "user", "content": " ".join(words(rng, 12))}]
            body = orjson.dumps({"model": "bot", "stream": True, "messages": asked})
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {key}\r\n"
            writer.write(f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n0\r\n\r\n")
            if b"[DONE]" not in answer or not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"an answer is not whole: {answer[:300]!r}")
        writer.close()

    await asyncio.gather(*(client() for _ in range(TOGETHER)))


def drill(count: int) -> dict[str, object]:
    """Ask for everything and return what the gateway's memory was."""
    rng = random.Random(8)  # noqa: S311 - seeded text
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder, (port,) = Path(name) / "w", free_ports(1)
        Workspace.init(folder).close()
        path = folder / "stanch.toml"
        path.write_text(path.read_text() + '\n[gateway]\nlisten = "127.0.0.1:0"\n')
        talker = stack.enter_context(subprocess.Popen([sys.executable, __file__, "talk", str(port)]))
        stack.callback(talker.kill)
        wait(port, talker)
        serving = [sys.executable, str(GATEWAY), "gateway", str(folder), str(port)]
        gateway = stack.enter_context(subprocess.Popen(serving, stdin=-1, stdout=-1, text=True))
        stack.callback(gateway.kill)
        url, key, _ = gateway.stdout.readline().split() if gateway.stdout else ("", "", "")
        samples = [resident(gateway.pid)]
        for number in range(SAMPLES):
            asyncio.run(ask(int(url.rpartition(":")[2]), key, rng, count // SAMPLES))
            samples.append(resident(gateway.pid))
            print(f"{(number + 1) * (count // SAMPLES):>9,} {samples[-1]:6.1f} MB", file=sys.stderr, flush=True)
        gateway.communicate("", timeout=60)
    tenth = SAMPLES // 10
    early, late = (statistics.median(samples[at : at + tenth]) for at in (1 + tenth, 1 + SAMPLES - tenth))
    return {"requests": count, "early_mb": early, "late_mb": late, "growth_mb": late - early, "samples_mb": samples}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["talk", at]:
            asyncio.run(talk(int(at)))
        case [*more]:
            result = drill(int(more[0]) if more else 1_000_000)
            machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
            OUT.write_text(json.dumps({"machine": machine} | result, indent=1) + "\n")
            print({name: value for name, value in result.items() if name != "samples_mb"})
