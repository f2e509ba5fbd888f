"""A private step beside the same step without privacy and beside Opacus 1.6.0, interleaved: time, memory, noise.

Each variant takes one optimizer step on the same batch (each record its own unit, all tokens labelled) with its own
copy of the same model, in an order that changes from round to round; ratios are of steps of the same round. On a CPU
the figure is the process's CPU time, on a GPU the time between two events of the device. Peak memory is what a model
and two of its steps add to a process of their own. A case with several passes takes its batch through the model in
parts, as everybody must whose logical batch is larger than memory. ``plain`` is transformers with PEFT and ordinary
autograd, ``plain_own`` this package's loop without privacy, ``hooks`` and ``ghost`` are Opacus with its per-sample
gradients and with ghost clipping; a variant that cannot run a case is named with its error. ``noise`` is the part of
the private step that draws, adds and scales the noise: with one pass in a step its share is the largest that it can be;
that of a step of 256 units, the plan's least by default, stands beside it. Its loop is compiled beforehand, as a run
has it after a hundred million coordinates.
Writes benchmarks/results/tune.json.

Usage: bench_tune.py [ROUNDS] [CASE ...]
"""

import gc
import json
import multiprocessing
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn import functional

from stanch.data import TokenRecord
from stanch.tune import boxmuller
from stanch.tune.gradient_torch import PlainGradient, PrivateGradient
from stanch.tune.grid import Released, Whole, grid_exponent, noise_scale, quantise, release_into
from stanch.tune.lora_torch import LoraLinear
from stanch.tune.model_torch import CausalModel, load_base
from stanch.tune.models_torch import tiny_llama
from stanch.tune.noise import AesGaussian
from stanch.tune.plan import PrivacyParams, PrivacyPlan
from stanch.tune.spec import MethodSpec
from stanch.tune.units import Unit, UnitTable

OUT = Path(__file__).parent / "results" / "tune.json"
ROUNDS = 8
SMOLLM2 = Path.home() / ".cache/stanch/SmolLM2-135M-Instruct"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RATE, BOUND, UNITS = 1e-4, 0.5, 1000
PROCESS = multiprocessing.get_context("spawn")
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A model, what is trained of it, and a batch: ``passes`` times so many records of so many tokens."""

    model: str
    method: MethodSpec
    records: int
    tokens: int
    variants: tuple[str, ...]
    passes: int = 1

    def load(self) -> Any:  # noqa: ANN401 - transformers ships no types
        """Return a fresh copy of the base model."""
        if self.model == "smollm2":
            return load_base(SMOLLM2, dtype=torch.float32, attention="sdpa").to(DEVICE)
        return tiny_llama(vocab=4096, d=256, layers=6, heads=8, kv=4, ffn=688).to(DEVICE)

    def ids(self) -> Tensor:
        """Return the batch."""
        generator = torch.Generator().manual_seed(1)
        return torch.randint(3, 4096, (self.passes * self.records, self.tokens), generator=generator)

    def parts(self) -> tuple[Tensor, ...]:
        """Return the batch in passes, on the device."""
        return self.ids().to(DEVICE).split(self.records)


LORA, FULL = MethodSpec(rank=8, alpha=16), MethodSpec(kind="full")
BOTH = ("plain", "plain_own", "private", "hooks", "ghost", "noise")
WITHOUT_GHOST = ("plain", "plain_own", "private", "hooks", "noise")
CASES = {
    "small lora 8x128": Case("small", LORA, 8, 128, BOTH),
    "small lora 16x256": Case("small", LORA, 16, 256, BOTH),
    "small full tied 8x128": Case("small", FULL, 8, 128, BOTH),
    "small full tied 8 times 8x128": Case("small", FULL, 8, 128, WITHOUT_GHOST, passes=8),
    "smollm2 lora 8x128": Case("smollm2", LORA, 8, 128, BOTH),
    "smollm2 full tied 4x128": Case("smollm2", FULL, 4, 128, ("plain", "private", "hooks", "noise")),
    "smollm2 full tied 8 times 4x128": Case("smollm2", FULL, 4, 128, ("plain", "private", "noise"), passes=8),
}


def make_step(case: Case, variant: str) -> Step:
    """Return one optimizer step of a variant."""
    torch.manual_seed(0)
    if variant in {"hooks", "ghost"}:
        return opacus_step(case, ghost=variant == "ghost")
    if variant == "plain":
        return plain_step(case)
    return own_step(case, variant)


def own_step(case: Case, variant: str) -> Step:
    """Return a step of this package's loop, or the noise of one."""
    model = CausalModel(case.load(), case.method)
    model.adapter.initialise(torch.Generator().manual_seed(0))
    for layer in [part for part in model.model.modules() if isinstance(part, LoraLinear)]:
        nn.init.normal_(layer.up, 0, 0.02)
    units = [[TokenRecord(str(n), tuple(row), (1, case.tokens))] for n, row in enumerate(case.ids().tolist())]
    budget = case.records * case.tokens
    if variant == "plain_own":
        plain = PlainGradient(model, len(units), budget=budget)
        return optimised(model.adapter.parameters(), lambda: plain.fill(1, units))
    table = UnitTable("record", "each record", "00", tuple(Unit(f"{n:04}", (f"r{n}",)) for n in range(UNITS)))
    params = PrivacyParams(steps=100, expected_batch=len(units), max_grad_norm=BOUND)
    plan = PrivacyPlan.make(table, model.adapter.shapes(), params)
    source = AesGaussian(bytes(32))
    if variant == "noise":
        return noise_step(plan, source)
    private = PrivateGradient(model, plan, source, budget=budget)
    return optimised(model.adapter.parameters(), lambda: private.fill(1, units))


def noise_step(plan: PrivacyPlan, source: AesGaussian) -> Step:
    """Return what a private step does after its clipped sum."""
    exponent, scale = grid_exponent(plan.max_grad_norm, plan.coordinates), noise_scale(plan)
    sums = [np.zeros(np.prod(parameter.shape), dtype=np.float32) for parameter in plan.trainable]

    def add(index: int, values: Released) -> None:
        def take(places: slice, noise: Whole) -> None:
            noise += quantise(values[places], exponent)
            release_into(values[places], noise, exponent, plan.denominator)

        source.draw(0, index, len(values), scale, take)

    return lambda: [add(index, values) for index, values in enumerate(sums)]


def optimised(parameters: dict[str, nn.Parameter], fill: Step) -> Step:
    """Return a step that fills the gradients and applies them."""
    optimizer = torch.optim.AdamW(parameters.values(), lr=RATE, fused=True)

    def step() -> None:
        fill()
        optimizer.step()

    return step


def peer_model(case: Case) -> nn.Module:
    """Return transformers' model, with PEFT's adapter where one is trained."""
    base = case.load()
    if case.method.kind == "full":
        return base.requires_grad_(requires_grad=True)  # type: ignore[no-any-return]  # transformers ships no types
    model: nn.Module = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, 0, 0.02)
    return model


def plain_step(case: Case) -> Step:
    """Return a step by ordinary autograd."""
    model = peer_model(case)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, fused=True)
    parts = case.parts()

    def step() -> None:
        optimizer.zero_grad()
        for ids in parts:
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
            (functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()) / len(parts)).backward()
        optimizer.step()

    return step


def opacus_step(case: Case, *, ghost: bool) -> Step:
    """Return a step of Opacus: per-sample gradients by hooks, or norms by ghost clipping and a second backward."""
    inner = peer_model(case).train()
    parts = case.parts()
    positions = torch.arange(case.tokens, device=DEVICE).expand_as(parts[0])
    inner_optimizer = torch.optim.AdamW([p for p in inner.parameters() if p.requires_grad], lr=RATE, fused=True)
    noise = {"noise_multiplier": 1.0, "max_grad_norm": BOUND, "expected_batch_size": case.records * len(parts)}
    criterion = nn.CrossEntropyLoss(reduction="mean")
    model: Any
    if ghost:
        model = GradSampleModuleFastGradientClipping(inner, max_grad_norm=BOUND)
        optimizer: Any = DPOptimizerFastGradientClipping(inner_optimizer, **noise)
        loss: Any = DPLossFastGradientClipping(model, optimizer, criterion)
    else:
        model, optimizer = GradSampleModule(inner), DPOptimizer(inner_optimizer, **noise)

    def step() -> None:
        for number, ids in enumerate(parts, 1):
            optimizer.zero_grad()
            logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, :-1]
            flat, targets = logits.flatten(0, 1), ids[:, 1:].flatten()
            (loss(flat, targets, shape=logits.shape) if ghost else criterion(flat, targets)).backward()
            # All but the last only add to the clipped sum.
            optimizer.signal_skip_step(do_skip=number < len(parts))
            optimizer.step()

    return step


def seconds(step: Step) -> float:
    """Time one step: CPU time, or on a GPU what passes between two of its events."""
    if DEVICE.type == "cpu":
        start = time.process_time()
        step()
        return time.process_time() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    step()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def peak_mebibytes(name: str, variant: str) -> float:
    """Return what a model and two of its steps need at most, in this process alone, beyond the programs themselves."""
    prepare()
    programs = 0.0 if DEVICE.type == "cuda" else resident("VmRSS:")
    step = make_step(CASES[name], variant)
    gc.collect()
    step()
    step()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage: its peak outlives the start of a new program, and would be that of the parent.
    return resident("VmHWM:") - programs


def resident(what: str) -> float:
    """Return the memory of this process in mebibytes, now (``VmRSS:``) or at its peak (``VmHWM:``)."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(what) + 1]) / 2**10


def prepare() -> None:
    """One thread, no warnings of the peers, and the loop of the noise compiled."""
    torch.set_num_threads(1)
    boxmuller.COMPILER.loop(boxmuller.WORTH + 1)
    warnings.simplefilter("ignore")


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Measure one case."""
    case = CASES[name]
    steps: dict[str, Step] = {}
    failed: dict[str, str] = {}
    for variant in case.variants:
        try:
            steps[variant] = make_step(case, variant)
            steps[variant]()
        except Exception as error:
            if variant not in {"hooks", "ghost"}:
                raise
            steps.pop(variant, None)
            failed[variant] = f"{type(error).__name__}: {error}"[:200]
    found: dict[str, list[float]] = {variant: [] for variant in steps}
    order = list(steps)
    for number in range(rounds):
        for variant in order[number % len(order) :] + order[: number % len(order)]:
            found[variant].append(seconds(steps[variant]))
    steps.clear()
    gc.collect()
    with PROCESS.Pool(1, maxtasksperchild=1) as pool:
        memory = {variant: pool.apply(peak_mebibytes, (name, variant)) for variant in found if variant != "noise"}
    own = found["private"]
    ratios = {f"private_over_{v}": [a / b for a, b in zip(own, found[v], strict=True)] for v in found if v != "private"}
    shares = ratios["noise_share"] = [1 / ratio for ratio in ratios.pop("private_over_noise")]
    # A larger batch takes more passes of this size, with noise once.
    more = 256 / (case.records * case.passes)
    ratios["noise_share_of_256"] = [share / (share + more * (1 - share)) for share in shares]
    return {
        "seconds": {variant: summary(values) for variant, values in found.items()},
        "ratios": {label: summary(values) for label, values in ratios.items()},
        "peak_mebibytes": memory,
        "failed": failed,
    }


def summary(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def main() -> None:
    """Measure and write."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    prepare()
    names = [name for name in (sys.argv[2:] or CASES) if CASES[name].model != "smollm2" or SMOLLM2.is_dir()]
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {DEVICE}, torch {torch.__version__}",
        "load": os.getloadavg()[0],
        "rounds": rounds,
        "left_out": [] if SMOLLM2.is_dir() else ["smollm2: run `stanch tune fetch-model smollm2`"],
        "cases": {},
    }
    for name in names:
        found = result["cases"][name] = measure(name, rounds)
        print(name, *(f"{variant}: {reason}" for variant, reason in found["failed"].items()), sep="\n  ")
        for label, value in {**found["seconds"], **found["ratios"]}.items():
            print(f"  {label:<28} {value['median']:8.3g} [{value['low']:.3g}, {value['high']:.3g}]")
        print("  MiB", {variant: round(value) for variant, value in found["peak_mebibytes"].items()}, flush=True)
        # After each case: the large ones take long, and a run that is cut off keeps what it found.
        OUT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
