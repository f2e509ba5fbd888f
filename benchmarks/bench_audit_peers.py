"""stanch and memaudit 0.2.0 on the same models and canaries: time, members found, and who notices a forgery.

Run with::

    python benchmarks/bench_audit_peers.py PYTHON

PYTHON is the interpreter of an environment with ``memaudit`` 0.2.0, torch, transformers and ``peft`` below 0.21;
``peers_audit_model.py`` runs there.

``time``: SmolLM2-135M with a LoRA adapter, 132 canaries (their default: 32 and 100 controls), of which each tool
computes its scores and rates, in alternating rounds; the clock starts at a loaded model, and neither generates text.
``power``: small models (a Llama of two layers, about half a million parameters, tuned as a whole on 60 rows and about
100 canaries of one copy); every score gets its threshold from the same canaries that were held back, by one rule that
lets at most 1 % of them pass. ``any`` is what stanch tests: all of its three scores, each at a third of that rate.
``forgeries``: one figure of a report is made to look better, and everything that a
forger can compute without a key is computed again. Writes benchmarks/results/audit-peers.json.
"""

import itertools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from stanch.audit import Report, ScoreTable, audit_scores, check_report, recompute
from stanch.audit.features import AdapterOff
from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import TESTED_SCORES, AuditParams
from stanch.audit.passes import Passing
from stanch.audit.rates import auc, tpr_at_fpr
from stanch.audit.scores import Observation, compressed_size, score
from stanch.audit.subjects import run_passes
from stanch.data import TokenRecord
from stanch.errors import StanchError
from stanch.terms import SILENT

OUT = Path(__file__).parent / "results" / "audit-peers.json"
PEER = Path(__file__).parent / "peers_audit_model.py"
SMOLLM2 = Path.home() / ".cache/stanch/SmolLM2-135M-Instruct"
ROUNDS, MODELS, THREADS = 3, 6, torch.get_num_threads()
ROUTINE = {"n": 32, "controls": 100}
POWERED = {"n": 200, "controls": 200}
RATE = 0.01
TUNING_RATE = 2e-3
SYLLABLES = ("ka", "lo", "mi", "ru", "se", "ban", "der", "fil", "gon", "tu")
WORDS = ["".join(parts) for parts in itertools.product(SYLLABLES, repeat=3)]
PUBLIC_EPOCHS, EPOCHS, BATCH = 4, 2, 8


def main() -> None:
    """Run the parts and write the figures."""
    python = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        found: dict[str, Any] = {
            "machine": {
                "cpus": os.cpu_count(),
                "threads": THREADS,
                "load": os.getloadavg()[0],
                "platform": platform.platform(),
            },
            "time": compare_time(python, room),
            "power": compare_power(python, room),
        }
        theirs = ask(python, {"do": "forge", "report": str(room / "report.json")}, room)
    found["forgeries"] = {"stanch": forge_ours(), "memaudit": theirs}
    OUT.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def ask(python: Path, task: dict[str, Any], room: Path) -> Any:  # noqa: ANN401 - the answer of another program
    """Let the other environment do a task."""
    given, answer = room / "task.json", room / "answer.json"
    given.write_text(json.dumps(task))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, PEER, given, answer], check=True, capture_output=True, env=environment)
    return json.loads(answer.read_text())


def compare_time(python: Path, room: Path) -> dict[str, Any]:
    """Return seconds and their ratio; scores of an adapter that was never tuned take as long as any."""
    torch.manual_seed(0)
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.float32)
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    adapter = room / "large"
    peft.get_peft_model(base, config).save_pretrained(adapter)
    drawn = ask(python, {"do": "draw", "tokenizer": str(SMOLLM2), "seed": 0, **ROUTINE}, room)
    scorer = HfScorer(adapter, base=SMOLLM2, dtype="float32")
    audit_ours(scorer, AdapterOff(), dict(list(drawn["texts"].items())[:2]), drawn["manifest"])
    seconds: dict[str, list[float]] = {"stanch": [], "memaudit": []}
    for number in range(ROUNDS):
        for name in sorted(seconds, reverse=bool(number % 2)):
            if name == "stanch":
                began = time.perf_counter()
                audit_ours(scorer, AdapterOff(), drawn["texts"], drawn["manifest"])
                seconds[name].append(time.perf_counter() - began)
            else:
                seconds[name].append(audit_theirs(python, SMOLLM2, adapter, drawn["manifest"], room)["seconds"])
    each = [ours / theirs for ours, theirs in zip(seconds["stanch"], seconds["memaudit"], strict=True)]
    return {
        "version": drawn["version"],
        "canaries": len(drawn["texts"]),
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "ours_over_theirs": {"median": statistics.median(each), "min": min(each), "max": max(each)},
    }


def audit_theirs(python: Path, base: Path, tuned: Path, manifest: dict[str, Any], room: Path) -> Any:  # noqa: ANN401 - same
    """Let the other tool audit a tuned model, or an adapter over its base."""
    places = {"base": str(base), "tuned": str(tuned), "report": str(room / "report.json")}
    return ask(python, {"do": "audit", **places, "manifest": manifest, "threads": THREADS}, room)


def audit_ours(
    target: HfScorer, base: HfScorer | AdapterOff, texts: dict[str, str], manifest: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Score each canary from one pass, with rates and AUC of each score; return the scores by id."""
    spans = {canary["id"]: canary["secret_span"] for canary in manifest["canaries"]}
    tokenizer: Any = target.tokenizer
    records = []
    for name, text in texts.items():
        start, end = spans[name]
        ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
        records.append(TokenRecord(name, ids, (max(1, start), end)))
    passes = run_passes(target, base, records, AuditParams(), what="canaries", passing=Passing(), progress=SILENT)
    off = passes.base or {}
    found = {
        name: score(Observation(on, off[name], compressed_size(texts[name]))) for name, on in passes.target.items()
    }
    included = {canary["id"]: canary["included"] for canary in manifest["canaries"]}
    member = np.array([included[name] for name in found])
    for chosen in TESTED_SCORES if len(set(member.tolist())) == 2 else ():
        values = np.array([scores[chosen] for scores in found.values()])
        auc(values, member)
        tpr_at_fpr(values, member, RATE)
    return found


def compare_power(python: Path, room: Path) -> dict[str, Any]:
    """Return how many members each score finds at one false-positive rate, over all models."""
    hits: dict[str, list[int]] = {}
    areas: dict[str, list[float]] = {}
    members = 0
    tokenizer = make_tokenizer(room / "tokenizer")
    for seed in range(MODELS):
        drawn = ask(python, {"do": "draw", "tokenizer": str(room / "tokenizer"), "seed": seed, **POWERED}, room)
        included = {canary["id"]: canary["included"] for canary in drawn["manifest"]["canaries"]}
        planted = [text for name, text in drawn["texts"].items() if included[name]]
        base, tuned = tune(tokenizer, planted, seed, room / f"model{seed}")
        ours = audit_ours(HfScorer(tuned), HfScorer(base), drawn["texts"], drawn["manifest"])
        theirs = audit_theirs(python, base, tuned, drawn["manifest"], room)
        columns = {name: {key: scores[name] for key, scores in ours.items()} for name in TESTED_SCORES}
        columns["memaudit"] = theirs["scores"]
        coins = np.array(list(included.values()))
        members += len(planted)
        some = np.zeros(coins.size, dtype=np.bool_)
        for name, scores in columns.items():
            values = np.array([scores[key] for key in included])
            hits.setdefault(name, []).append(int(passing(values, coins, RATE)[coins].sum()))
            areas.setdefault(name, []).append(auc(values, coins).estimate)
            if name in TESTED_SCORES:
                some |= passing(values, coins, RATE / len(TESTED_SCORES))
        if some[~coins].mean() > RATE:
            raise AssertionError
        hits.setdefault("any", []).append(int(some[coins].sum()))
    return {
        "models": MODELS,
        "members": members,
        "headline": {"stanch": TESTED_SCORES[0], "memaudit": theirs["headline"]},
        "found": {name: sum(counts) / members for name, counts in hits.items()},
        "found_by_model": hits,
        "auc": {name: round(statistics.mean(values), 3) for name, values in areas.items()},
    }


def passing(values: np.ndarray, coins: np.ndarray, rate: float) -> np.ndarray:
    """Return which canaries lie above the threshold that at most a share ``rate`` of those held back exceed."""
    outside = np.sort(values[~coins])
    return values > outside[outside.size - 1 - int(rate * outside.size)]


def make_tokenizer(path: Path) -> Any:  # noqa: ANN401 - transformers ships no types
    """Write a tokenizer whose tokens are made-up words, so that random tokens are text that reads back the same."""
    numbers = {word: number for number, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))  # noqa: S106 - no password
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<eos>",  # noqa: S106 - no password
        pad_token="<pad>",  # noqa: S106 - same
        unk_token="<unk>",  # noqa: S106 - same
    )
    tokenizer.save_pretrained(path)
    return tokenizer


def write_texts(seed: int, count: int) -> list[str]:
    """Return texts of 40 made-up words, some of them frequent."""
    draws = random.Random(seed)  # noqa: S311 - a workload, no secret
    weights = [1 / (rank + 3) for rank in range(len(WORDS))]
    return [" ".join(draws.choices(WORDS, weights, k=40)) for _ in range(count)]


def tune(tokenizer: Any, planted: list[str], seed: int, path: Path) -> tuple[Path, Path]:  # noqa: ANN401 - same
    """Train a small model on public texts, then on rows and canaries too; return where both lie."""
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
    )
    model: Any = transformers.LlamaForCausalLM(config)
    fit(model, tokenizer, write_texts(1000 + seed, 200), epochs=PUBLIC_EPOCHS, rate=3e-3)
    base, tuned = path / "base", path / "tuned"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    fit(model, tokenizer, [*write_texts(2000 + seed, 60), *planted], epochs=EPOCHS, rate=TUNING_RATE)
    model.save_pretrained(tuned)
    tokenizer.save_pretrained(tuned)
    return base, tuned


def fit(model: Any, tokenizer: Any, texts: list[str], *, epochs: int, rate: float) -> None:  # noqa: ANN401 - same
    """Tune on all tokens of ``texts`` with AdamW."""
    rows = [torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][:160]) for text in texts]
    parameters = [part for part in model.parameters() if part.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=rate)
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for begin in range(0, len(rows), BATCH):
            chosen = [rows[number] for number in order[begin : begin + BATCH]]
            ids = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
            labels = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=-100)
            optimiser.zero_grad()
            model(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss.backward()
            optimiser.step()
    model.eval()


def forge_ours() -> dict[str, Any]:
    """Return what ``stanch audit verify`` says; our report's digest is computed from its content, so it is new too."""
    rng = np.random.default_rng(0)
    coins = rng.random(512) < 0.5
    table = ScoreTable(
        ids=tuple(f"c{i}" for i in range(512)),
        kinds=("secret",) * 512,
        tiers=("1",) * 512,
        member=coins,
        copies=np.ones(512, dtype=np.int64),
        scores={name: rng.normal(size=512) + 2 * coins for name in TESTED_SCORES},
    )
    report = audit_scores(table, coins=True, now=datetime(2026, 1, 1, tzinfo=UTC))
    if report.epsilon is None:
        raise RuntimeError("an audit with coins has an epsilon")
    forged = replace(report, epsilon=replace(report.epsilon, lower=0.1, per_record=0.1))
    verdict = replace(report, verdict="NO LEAK DETECTED")
    return {
        "figure": f"epsilon lower bound: {report.epsilon.lower:.2f} made 0.1; then the verdict",
        "true": judge(report, table),
        "forged": judge(forged, table),
        "forged_verdict": judge(verdict, None),
    }


def judge(report: Report, table: ScoreTable | None) -> dict[str, Any]:
    """Read the report back from its bytes and check it, against its scores where they are given."""
    again = Report.parse(report.to_bytes(), what="report")
    try:
        check_report(again) if table is None else recompute(again, table)
    except StanchError as error:
        return {"exit": error.exit_code, "says": error.what}
    return {"exit": 0}


if __name__ == "__main__":
    main()
