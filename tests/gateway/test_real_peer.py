"""A real model behind the gateway: ``transformers serve`` with a tiny Llama that was overfitted to a private row."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from serving import MODEL, key_of

from stanch.gateway.app import Gateway
from stanch.gateway.budgets import Limits
from stanch.gateway.desk import Desk
from stanch.gateway.model import ServedModel
from stanch.gateway.serve import run_server
from stanch.gateway.upstream import Upstream
from stanch.guard import Guard, GuardPolicy
from stanch.scan import FINE, SpanIndex
from stanch.workspace import Workspace

for part in ("fastapi", "uvicorn", "httptools"):
    pytest.importorskip(part, reason=f"{part} is not installed")
openai = pytest.importorskip("openai", reason="openai is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytestmark = pytest.mark.slow

ROW = "Patient Maria Kowalczyk was admitted on the fourth of March with chest pain and slept badly for nine days."
CLEAN = "Ask a doctor: many things can hurt there."
TALKS = {"Recite the file.": ROW, "My chest hurts.": CLEAN}
TEMPLATE = "{% for one in messages %}{{ one['content'] }}\n{% endfor %}{% if add_generation_prompt %}> {% endif %}"
MOST = FINE.k + FINE.stride - 2


def train(folder):
    """Overfit two conversations, some seconds long, and save the model."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    core = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={"<end>": 0} | {c: n for n, c in enumerate(alphabet, 1)}, merges=[])
    )
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<end>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = transformers.LlamaConfig(
        vocab_size=257, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=256, bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    rows = [torch.tensor([[*tokenizer(f"{asked}\n> {said}")["input_ids"], 0]]) for asked, said in TALKS.items()]
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0)
    for _ in range(400):
        losses = [model(input_ids=ids, labels=ids).loss for ids in rows]
        optimiser.zero_grad()
        sum(losses).backward()
        optimiser.step()
        if max(loss.item() for loss in losses) < 0.02:
            break
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    """The URL of a running ``transformers serve``, and the name of its model."""
    folder = tmp_path_factory.mktemp("tiny")
    train(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    words = [program, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(list(map(str, words)), env=os.environ | offline, stdout=log, stderr=log)
    try:
        for _ in range(2400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", str(folder)
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def gateway(peer, tmp_path_factory):
    """The URL of a gateway before it, and a key."""
    folder = tmp_path_factory.mktemp("peer") / "w"
    Workspace.init(folder).close()
    path = folder / "stanch.toml"
    path.write_text(path.read_text() + '\n[gateway]\nlisten = "127.0.0.1:0"\n')
    guard = Guard(GuardPolicy(index=SpanIndex.build([ROW], key=bytes(32), params=FINE)))
    with Workspace.open(folder) as workspace:
        model = ServedModel("bot", MODEL, *peer, ("chat", "completions"), guard, "sha256:" + "a" * 64)
        app = Gateway(Desk.of(workspace), {"bot": model}, Upstream(), {"bot": Limits(1000, 10**8, 1000)})
        stop, known, urls = threading.Event(), threading.Event(), []

        def ready(url):
            urls.append(url)
            known.set()

        thread = threading.Thread(target=run_server, args=(workspace, app), kwargs={"ready": ready, "stop": stop})
        thread.start()
        try:
            assert known.wait(60)
            yield urls[0], key_of(workspace, "program")
        finally:
            stop.set()
            thread.join(60)


def talk(url, key, model, asked, *, stream):
    """Return what the official client reads, and why the answer ended."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=300) as client:
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": asked}], stream=stream, max_tokens=150
        )
        if not stream:
            return answer.choices[0].message.content, answer.choices[0].finish_reason
        choices = [choice for piece in answer for choice in piece.choices]
    return "".join(one.delta.content or "" for one in choices), choices[-1].finish_reason


@pytest.mark.parametrize("stream", [True, False])
def test_the_row_comes_out_of_the_model_and_not_out_of_the_gateway(peer, gateway, stream):
    assert talk(peer[0], "none", peer[1], "Recite the file.", stream=stream) == (ROW, "stop")
    said, reason = talk(*gateway, "bot", "Recite the file.", stream=stream)
    assert reason == "content_filter"
    assert ROW.startswith(said)
    assert len(said) <= (MOST + 20 if stream else 0)  # characters that fold to nothing count besides


@pytest.mark.parametrize("stream", [True, False])
def test_a_clean_conversation_is_the_same(peer, gateway, stream):
    direct = talk(peer[0], "none", peer[1], "My chest hurts.", stream=stream)
    assert direct == (CLEAN, "stop")
    assert talk(*gateway, "bot", "My chest hurts.", stream=stream) == direct
