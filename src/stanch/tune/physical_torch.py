"""How many tokens go through the model at once: found by probes on public random tokens, before the first step.

It changes memory and time, never the sample or the sum.
"""

from collections.abc import Callable

import torch

from stanch.data import TokenRecord
from stanch.tune.chunks import Row
from stanch.tune.engine_torch import UnitGradients
from stanch.tune.model_torch import CausalModel

CPU_TOKENS = 1024
"""A processor gains nothing from larger chunks, while per-unit gradients grow with their number."""
_SHARE = 0.85
_PROBES = 8


def choose_budget(model: CausalModel, gradients: UnitGradients, longest: int) -> int:
    """Return how many tokens (rows times longest row) a chunk may have on the model's device.

    Args:
        model: The model, which collects into ``gradients``.
        gradients: What a private step collects into; it is left empty.
        longest: Tokens of the longest record.
    """
    if model.device.type != "cuda":
        return CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(model.device)
    # What the allocator holds without using it is free to this process.
    idle = torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
    return fit_budget(lambda rows: _measure(model, gradients, rows, longest), free + idle, longest)


def fit_budget(measure: Callable[[int], int], free: int, longest: int) -> int:
    """Return the tokens that fit into 85 % of ``free`` bytes, by a line through probes of 1, 2, 4 ... rows.

    Args:
        measure: Returns the bytes that a pass over so many of the longest rows needs, or raises
            ``torch.OutOfMemoryError``.
        free: Bytes.
        longest: Tokens of a row.
    """
    needs: list[tuple[int, int]] = []
    for power in range(_PROBES):
        rows = 1 << power
        # From the last two probes on, the next one is known well enough not to try it in vain.
        if len(needs) > 1 and 3 * needs[-1][1] - 2 * needs[-2][1] > _SHARE * free:
            break
        try:
            needs.append((rows, measure(rows)))
        except torch.OutOfMemoryError:
            break
    if not needs:
        # One row does not fit: smaller chunks would not help, the step itself says so.
        return longest
    (few, low), (many, high) = needs[0], needs[-1]
    slope = max(1.0, (high - low) / (many - few)) if many > few else max(1.0, low)
    rows = max(1, int(many + (_SHARE * free - high) / slope))
    return rows * longest


def _measure(model: CausalModel, gradients: UnitGradients, rows: int, longest: int) -> int:
    """Return the peak bytes of a private pass over ``rows`` rows of random tokens."""
    generator = torch.Generator().manual_seed(1)
    vocabulary = int(model.head.out_features)
    batch = torch.randint(0, vocabulary, (rows, longest), generator=generator).tolist()
    device = model.device
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        gradients.expect(rows, rows)
        loss = model.loss([Row(TokenRecord("probe", tuple(ids), (1, longest)), 1 / longest) for ids in batch])
        loss.backward()  # type: ignore[no-untyped-call]  # torch types no backward
        gradients.add_clipped()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    finally:
        gradients.reset()
