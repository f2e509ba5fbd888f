"""The model side of an audit on SmolLM2-135M with a LoRA adapter: the whole pass, one pass per attack, a bare forward.

All but ``audit`` work on three batches from the whole plan: a sixth, a half and five sixths along it.

``audit`` is what a planned audit puts through target and base: 512 canaries and 3,000 rows, with scores and
extraction, beside its limit of ten minutes on two cores; ``left_open`` of the rows were read on after their first
tokens. ``first_look`` sets that way beside a pass over whole rows: to a row that is left open both are done, so
(1 + 1/ratio) times the whole pass is the worst case. ``one_pass`` sets the time of seven results (the six
scores and extraction) from one pass beside seven separate attacks as they are usually written: a forward of the
target for each record alone, and one of the base where the attack compares with it. ``overhead`` sets the feature pass
beside a bare batched forward of the same batches (transformers, no reductions), which computes logits for the scored
tokens alone as the pass does. Parts alternate within a round, so that what else the machine does hits both.
Writes benchmarks/results/audit-model.json.

Usage: bench_audit.py [audit] [one_pass] [first_look] [overhead], all of them without one.
"""

import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from stanch.audit.extraction import draw, probe_of, summarise_rows
from stanch.audit.features import AdapterOff, Features, plan_batches, shared_prefix_length
from stanch.audit.first_look import look
from stanch.audit.hf_torch import HfScorer
from stanch.audit.params import AuditParams
from stanch.audit.passes import Passing
from stanch.audit.scores import NEEDS_BASE, SCORES, Observation
from stanch.audit.subjects import Passes, run_passes
from stanch.cli.progress import Bar
from stanch.data import TokenRecord
from stanch.terms import SILENT, Progress

OUT = Path(__file__).parent / "results" / "audit-model.json"
SMOLLM2 = Path.home() / ".cache/stanch/SmolLM2-135M-Instruct"
COINS, ROWS, ROUNDS = 512, 3000, 3
PLACES = (1 / 6, 1 / 2, 5 / 6)
LIMIT_SECONDS = 600
PARTS = ("audit", "one_pass", "first_look", "overhead")
PARAMS = AuditParams()


def load() -> HfScorer:
    """Return the model with a LoRA adapter on every linear layer, as tuning makes it by default."""
    torch.manual_seed(0)
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(SMOLLM2, dtype=torch.float32)
    config = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(SMOLLM2)
    return HfScorer.from_loaded(peft.get_peft_model(base, config), tokenizer)


def draw_records(rows: int, vocabulary: int) -> list[TokenRecord]:
    """Return chats of random words after one system turn: canaries of 40 tokens, rows of 60 to 180."""
    draws = random.Random(0)  # noqa: S311 - a workload, no secret
    system = tuple(draws.randrange(20, vocabulary) for _ in range(30))
    sizes = [40] * COINS + [draws.randrange(60, 181) for _ in range(rows)]
    records = []
    for number, size in enumerate(sizes):
        ids = system + tuple(draws.randrange(20, vocabulary) for _ in range(size - 30))
        records.append(TokenRecord(str(number), ids, (max(31, size // 2), size)))
    return records


def pick(scorer: HfScorer, records: list[TokenRecord]) -> list[TokenRecord]:
    """Return the records of a few batches, as alike in length as in a pass over all of them."""
    batches = list(plan_batches(records, scorer.token_budget))
    return [record for place in PLACES for record in batches[int(place * len(batches))]]


def planned(scorer: HfScorer, records: list[TokenRecord], bar: Bar) -> dict[str, Any]:
    """Put canaries and rows through target and base as a planned audit does, with scores and extraction."""
    began = time.perf_counter()
    canaries, rows = records[:COINS], records[COINS:]
    found = run_passes(scorer, AdapterOff(), canaries, PARAMS, what="canaries", passing=Passing(), progress=bar)
    scores(found.target, found.base or {}, canaries)
    looked = first_look(scorer, rows, bar)
    seconds = time.perf_counter() - began
    left_open = len(looked.records) - len(rows)
    return {
        "seconds": round(seconds, 1),
        "limit": LIMIT_SECONDS,
        "within": seconds <= LIMIT_SECONDS,
        "left_open": left_open,
    }


def first_look(scorer: HfScorer, rows: list[TokenRecord], progress: Progress = SILENT) -> Passes:
    """Test rows for extraction as a planned audit does."""
    looked = look(scorer, AdapterOff(), rows, PARAMS, passing=Passing(), progress=progress)
    extraction(looked.target, looked.base or {}, rows)
    return looked


def whole(scorer: HfScorer, rows: list[TokenRecord]) -> None:
    """Test rows for extraction from a pass over all their tokens."""
    found = run_passes(scorer, AdapterOff(), rows, PARAMS, what="rows", passing=Passing(), progress=SILENT)
    extraction(found.target, found.base or {}, rows)


def scores(on: Mapping[str, Features], off: Mapping[str, Features], records: list[TokenRecord]) -> None:
    """Compute six scores of each record."""
    for record in records:
        seen = Observation(on[record.id], off[record.id], 100)
        for score in SCORES.values():
            score(seen)


def extraction(on: Mapping[str, Features], off: Mapping[str, Features], records: list[TokenRecord]) -> None:
    """Compute the extraction of the records."""
    probes = [probe for probe in map(probe_of, records) if probe is not None]
    summarise_rows(draw(probes, on, off, PARAMS), (), PARAMS, too_short=0, census=True)


def one_pass(scorer: HfScorer, records: list[TokenRecord]) -> None:
    """Do seven attacks from one pass."""
    pairs = list(scorer.paired_features(records, decoding=PARAMS.decoding))
    on, off = ({one.record_id: one for one in side} for side in zip(*pairs, strict=True))
    scores(on, off, records)
    extraction(on, off, records)


def pass_per_attack(scorer: HfScorer, records: list[TokenRecord]) -> None:
    """Do seven attacks, each with forwards of its own and one record at a time."""
    for name, score in SCORES.items():
        for record in records:
            base = alone(scorer, record, "off") if name in NEEDS_BASE else None
            score(Observation(alone(scorer, record, "on"), base, 100))
    for record in records:
        alone(scorer, record, "on")
        alone(scorer, record, "off")


def alone(scorer: HfScorer, record: TokenRecord, adapter: Any) -> Features:  # noqa: ANN401 - "on" or "off"
    """Return one record's features from a forward of its own."""
    (found,) = scorer.features([record], decoding=PARAMS.decoding, adapter=adapter)
    return found


def bare(scorer: HfScorer, records: list[TokenRecord]) -> None:
    """Put the pass's batches through the model and drop the logits."""
    model: Any = scorer._model  # noqa: SLF001 - the very model, without what the scorer does around it
    for batch in plan_batches(records, scorer.token_budget):
        width = max(len(record.ids) for record in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        mask, wanted = torch.zeros_like(ids), torch.zeros(len(batch), width, dtype=torch.bool)
        for row, record in enumerate(batch):
            ids[row, : len(record.ids)] = torch.tensor(record.ids)
            mask[row, : len(record.ids)] = 1
            wanted[row, record.span[0] - 1 : record.span[1] - 1] = True
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=wanted)


def feature_pass(scorer: HfScorer, records: list[TokenRecord]) -> None:
    """Put the records through the model with the adapter on, with all figures."""
    for _ in scorer.features(records, decoding=PARAMS.decoding):
        pass


def ratios(rounds: int, one: Callable[[], object], other: Callable[[], object]) -> dict[str, Any]:
    """Return how many times as long ``other`` takes as ``one``, in interleaved rounds whose order alternates."""
    seconds: dict[str, list[float]] = {"one": [], "other": []}
    for number in range(rounds):
        parts = [("one", one), ("other", other)]
        for name, part in parts if number % 2 else parts[::-1]:
            began = time.perf_counter()
            part()
            seconds[name].append(time.perf_counter() - began)
    each = [b / a for a, b in zip(seconds["one"], seconds["other"], strict=True)]
    return {
        "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        "ratio": {"median": statistics.median(each), "min": min(each), "max": max(each)},
    }


def measure(part: str, scorer: HfScorer, records: list[TokenRecord]) -> dict[str, Any]:
    """Return the figures of one part."""
    if part == "audit":
        bar = Bar(sys.stderr, plain=not sys.stderr.isatty())
        found = planned(scorer, records, bar)
        bar.close()
        return found
    few = pick(scorer, records)
    if part == "one_pass":
        return ratios(ROUNDS, lambda: one_pass(scorer, few), lambda: pass_per_attack(scorer, few))
    if part == "first_look":
        return ratios(ROUNDS, lambda: first_look(scorer, few), lambda: whole(scorer, few))
    # The bare forward has no shared prefix to use: here the records have none either.
    unlike = [TokenRecord(r.id, (100 + n, *r.ids[1:]), r.span) for n, r in enumerate(few)]
    if shared_prefix_length(unlike):
        raise AssertionError
    return ratios(ROUNDS, lambda: bare(scorer, unlike), lambda: feature_pass(scorer, unlike))


def main() -> None:
    """Run the parts that are asked for, each of them written as soon as it is done."""
    scorer = load()
    records = draw_records(ROWS, 49_000)
    few = pick(scorer, records)
    feature_pass(scorer, few)
    figures: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    figures["workload"] = {
        "coins": COINS, "rows": ROWS, "tokens": sum(len(r.ids) for r in records), "few": [len(r.ids) for r in few],
    }  # fmt: skip
    figures["machine"] = {"cpus": os.cpu_count(), "threads": torch.get_num_threads(), "platform": platform.platform()}
    for part in sys.argv[1:] or PARTS:
        load_before = os.getloadavg()[0]
        figures[part] = measure(part, scorer, records) | {"load": round(load_before, 1)}
        OUT.write_text(json.dumps(figures, indent=1) + "\n")
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
