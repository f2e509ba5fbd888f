"""The bypass matrix over our gateway and over LiteLLM's with its own content filter. Not a timing.

Run with::

    STANCH_LITELLM=VENV/bin/litellm python benchmarks/bench_gateway_bypass.py [CHUNK]

STANCH_LITELLM is the program of an environment with ``litellm[proxy]`` 1.106.2; without it only ours is asked. Both
stand before the same leaking server and look for the same row and the same canary: ours in an index and in a list of
canaries, theirs as blocked words, the row in pieces of five words. Places that one of them does not offer are named.
CHUNK is how many characters a frame of a stream holds, 7 by default. Writes benchmarks/results/gateway-bypass.json.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from stanch.access import ApiKeyOrder
from stanch.gateway.app import Gateway
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk
from stanch.gateway.model import ServedModel
from stanch.gateway.serve import run_server
from stanch.gateway.upstream import Upstream
from stanch.guard import Guard, GuardPolicy
from stanch.guard.conformance import Target, run_matrix
from stanch.guard.leaking import LeakingServer
from stanch.guard.matrix import ROWS, Cell, canary_phrase, cells, training_phrase
from stanch.scan import SpanIndex
from stanch.terms import ArtifactRef, Digest, JsonValue
from stanch.workspace import Workspace
from stanch.workspace.verbs_access import Newcomer, issue_key, register_newcomer

OUT = Path(__file__).parent / "results" / "gateway-bypass.json"
CANARY = "the code of the vault is 48151623"
ROW = (
    "Patient Maria Kowalczyk was admitted on the fourth of March with chest pain, was given aspirin and a beta "
    "blocker, slept badly, argued with the night nurse about the noise of the machines and went home after nine days."
)
WORDS = 5


def main() -> None:
    """Ask both and print what came out."""
    chunk = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    rows = [row for row in ROWS if row.dialect in {"chat", "completions"}]
    made = list(cells(rows, [training_phrase(ROW), canary_phrase(CANARY)], (chunk,)))
    found: dict[str, JsonValue] = {}
    with tempfile.TemporaryDirectory() as folder:
        with LeakingServer("127.0.0.1", 0) as server, ours(Path(folder), server.port) as target:
            found["stanch"] = judged(target, server, made)
        if program := os.environ.get("STANCH_LITELLM"):
            with LeakingServer("127.0.0.1", 0) as server, litellm(Path(folder), program, server.port) as target:
                found["litellm"] = judged(target, server, made)
    OUT.write_text(json.dumps(found, indent=1) + "\n")


def judged(target: Target, server: LeakingServer, made: list[Cell]) -> JsonValue:
    """Return the report without the list of single cells."""
    shown = run_matrix(target, server, made).to_json()
    return {name: value for name, value in shown.items() if name not in {"leaked", "malformed"}}


@contextlib.contextmanager
def ours(folder: Path, port: int) -> Iterator[Target]:
    """Run our gateway before the server on a port."""
    Workspace.init(folder / "w").close()
    path = folder / "w" / "stanch.toml"
    path.write_text(path.read_text() + '\n[gateway]\nlisten = "127.0.0.1:0"\n')
    ref = ArtifactRef("model", "bot", Digest.sha256(b"the model"))
    guard = Guard(GuardPolicy(index=SpanIndex.build([ROW], key=bytes(32)), canaries=(CANARY,)))
    with Workspace.open(folder / "w") as workspace:
        model = ServedModel(
            "bot", ref, f"http://127.0.0.1:{port}", "bot", ("chat", "completions"), guard, str(ref.digest)
        )
        gateway = Gateway(Desk.of(workspace), {"bot": model}, Upstream(), {"bot": Limits(10**6, 10**10, 10**6)})
        tester = register_newcomer(workspace, Newcomer(name="tester", kind="service", roles=("consumer",)))
        order = ApiKeyOrder(principal=tester, models=(str(ref.digest),), networks=("127.0.0.0/8",))
        key = issue_key(workspace, order)[1].text
        stop, known, urls = threading.Event(), threading.Event(), []

        def ready(url: str) -> None:
            urls.append(url)
            known.set()

        thread = threading.Thread(target=run_server, args=(workspace, gateway), kwargs={"ready": ready, "stop": stop})
        thread.start()
        try:
            if not known.wait(60):
                raise SystemExit("our gateway did not start")
            yield Target(urls[0], "bot", key)
        finally:
            stop.set()
            thread.join(60)


@contextlib.contextmanager
def litellm(folder: Path, program: str, port: int) -> Iterator[Target]:
    """Run LiteLLM's proxy with its content filter before the server on a port."""
    words = ROW.split()
    pieces = [" ".join(words[at : at + WORDS]) for at in range(0, len(words) - WORDS + 1, WORDS)]
    guardrail = {
        "guardrail": "litellm_content_filter", "mode": "post_call", "default_on": True,
        "blocked_words": [{"keyword": text, "action": "BLOCK"} for text in (*pieces, CANARY)],
    }  # fmt: skip
    model = {"model": "openai/bot", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"}
    key = f"sk-{secrets.token_hex(32)}"  # it does not start with a weak one
    config = {
        "general_settings": {"master_key": key},
        "model_list": [{"model_name": "bot", "litellm_params": model}],
        "guardrails": [{"guardrail_name": "words", "litellm_params": guardrail}],
        "litellm_settings": {"num_retries": 0, "telemetry": False, "drop_params": True},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at = free.getsockname()[1]
    words = [program, "--config", str(path), "--host", "127.0.0.1", "--port", str(at), "--num_workers", "1"]
    quiet = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    quiet.pop("PYTHONPATH", None)
    with (folder / "litellm.log").open("wb") as log:
        process = subprocess.Popen(words, env=quiet, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", at), 1):
                break
            if process.poll() is not None:
                raise SystemExit((folder / "litellm.log").read_text()[-2000:])
            time.sleep(0.5)
        yield Target(f"http://127.0.0.1:{at}", "bot", key)
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main()
