"""Gateways in processes of their own, forked from one that has everything loaded, and many clients before them."""

import asyncio
import contextlib
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass, field
from multiprocessing import forkserver
from pathlib import Path

import pytest
from answers import CANARY, chunk, sse
from serving import http

from stanch.crypto import passphrase
from stanch.gateway import serve
from stanch.gateway.rederive import Book
from stanch.guard import Guard, GuardPolicy
from stanch.ledger import decode_entry
from stanch.workspace import Workspace

GUARD = Guard(GuardPolicy(canaries=(CANARY,)))  # compiled once, before the forks
USED = {"prompt_tokens": 25, "completion_tokens": 7}
EACH = sum(USED.values())
ANSWER = http(sse(chunk({"content": "Some words, and "}), chunk({"content": "more."}), chunk({}, "stop"),
                  {"choices": [], "usage": USED}))  # fmt: skip
ASK = {"model": "bot", "messages": [{"role": "user", "content": "Well?"}], "stream": True, "max_tokens": 10}


def run(folder, told, opening):
    """Serve a workspace until killed; runs in a process of its own."""
    serve._guard = lambda _workspace, _section: (GUARD, "sha256:" + "a" * 64)
    with Workspace.open(folder, **opening()) as workspace:
        gateway = serve.build_gateway(workspace)
        gateway.intent_seconds = 60.0  # these tests are about counts, on however slow a machine
        serve.run_server(workspace, gateway, ready=told.send)


def as_owner():
    """Open a workspace of one person."""
    return {}


def as_olga():
    """Open a team's workspace; Argon2id takes little in the tests."""
    passphrase._COSTS = {"t": (1, 16), "m_kib": (1024, 1 << 20), "p": (1, 16)}
    return {"principal": "olga", "unlock": lambda: passphrase.Passphrase("only for a test")}


@dataclass
class Host:
    """One gateway's process."""

    process: multiprocessing.Process
    url: str

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def end(self):
        self.process.terminate()
        self.process.join(60)
        assert self.process.exitcode == 0


@contextlib.contextmanager
def forking():
    """Yield a function that starts a gateway on a folder."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hosts", "uvicorn.protocols.http.h11_impl", "uvicorn.lifespan.on"])
    with pytest.MonkeyPatch.context() as patch:  # the server of forks looks for modules here alone
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        forkserver.ensure_running()
    hosts = []

    def begin(folder, opening=as_owner):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=run, args=(folder, there, opening))
        process.start()
        there.close()
        try:
            url = here.recv() if here.poll(60) else ""
        except EOFError:
            url = ""
        assert url, "the gateway did not start"
        hosts.append(Host(process, url))
        return hosts[-1]

    try:
        yield begin
    finally:
        for host in hosts:
            if host.process.is_alive():
                host.kill()


async def answer_all(reader, writer):
    """Answer every request with the same stream, as a model's server."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0]))
        writer.write(ANSWER)
        await writer.drain()
    writer.close()


@dataclass
class Seen:
    """What clients were answered: ids of all that got a head, and of those that got their end."""

    begun: set = field(default_factory=set)
    whole: set = field(default_factory=set)
    statuses: list = field(default_factory=list)

    async def ask(self, session, url, key):
        async with session.post(
            f"{url}/v1/chat/completions", json=ASK, headers={"authorization": f"Bearer {key}"}
        ) as got:
            self.statuses.append(got.status)
            name = got.headers["x-stanch-request"]
            if got.status == 200:
                self.begun.add(name)
            if (await got.read()).endswith(b"data: [DONE]\n\n") and got.status == 200:
                self.whole.add(name)


def book(workspace):
    """Return what the log says was used, and the request ids of its intents and of its good outcomes."""
    reader, found, intents, outcomes = workspace.ledger.reader(), Book(), set(), set()
    for _, data in reader.tail():
        found.read(data)
        ours = decode_entry(data)["unmapped"]["stanch"]
        if ours["kind"] == "gateway.infer" and "request" in ours.get("payload", {}):
            if ours["phase"] == "intent":
                intents.add(ours["payload"]["request"])
            elif ours.get("result") == "done":
                outcomes.add(ours["payload"]["request"])
    return found.used, intents, outcomes
