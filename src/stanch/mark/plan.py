"""Planning a mark: what is marked, how strongly, and what must not be marked at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stanch.errors import InvalidInput
from stanch.mark.layout import Kind, Layout, make_layout
from stanch.mark.strength import (
    MarkParams,
    Strength,
    check_alpha,
    colluder_table,
    measure_distortion,
    solve_alpha,
)
from stanch.terms import Digest, JsonValue
from stanch.weights import Tensor, directory_digest, is_adapter, open_adapter, open_model, read_json_object

MIN_COORDINATES = 10_000
"""Below this a mark is too weak to name anybody."""

_QUANTISED_NAMES = ("qweight", "qzeros", "absmax", "SCB", "weight_scale", "weight_scale_inv", "weight_packed")
_PACKED_TYPES = frozenset({"I8", "U8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "I16", "U16", "I32", "U32"})
_PACKED_ELEMENTS = 4096
# Above this magnitude squares and sums would leave the range of float32.
_LARGEST = np.float32(1e15)
_RANK_SAMPLES = 8
_STEP = {"F32": 2.0**-23, "F16": 2.0**-10, "BF16": 2.0**-7}


@dataclass(frozen=True, slots=True)
class MarkPlan:
    """What will be marked, and how.

    Attributes:
        original: Digest of the original directory.
        kind: ``full`` or ``adapter``.
        alpha: Size of the mark relative to the rms of each row.
        layout: The marked tensors and their coordinates.
        colluders: For each treatment (``bf16``, ``int8``, ``nf4``) how many averaged copies still lead to each
            colluder: ``(k_max, k_even)``, see :func:`stanch.mark.strength.colluder_table`.
    """

    original: Digest
    kind: Kind
    alpha: float
    layout: Layout
    colluders: Mapping[str, tuple[int, int]]

    @property
    def strength(self) -> Strength:
        """How strong the mark is, and what it costs."""
        return Strength(alpha=self.alpha, distortion=measure_distortion(self.alpha), colluders=self.colluders)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the plan for people and for the ledger; it holds no secret."""
        plan: dict[str, JsonValue] = {
            "schema": "stanch/mark-plan/v1",
            "original": str(self.original),
            "kind": self.kind,
            "coordinates": self.layout.coordinates,
            "tensors": len(self.layout.entries),
            "layout_digest": self.layout.digest.hex(),
        }
        return plan | self.strength.to_json()


def plan_mark(
    original: Path,
    *,
    kind: Kind | None = None,
    params: MarkParams | None = None,
    base: Path | None = None,
    digest: Digest | None = None,
) -> MarkPlan:
    """Plan the marking of the model or adapter in the directory ``original``. The same input gives the same plan.

    Args:
        original: The unmarked directory.
        kind: ``adapter`` marks LoRA factors, ``full`` a model's own weights; by default what the directory holds.
        params: Strength; by default :class:`MarkParams`.
        base: The public base model of a merged model, to refuse one whose tuning is of low rank.
        digest: The original's digest where the caller has one; by default ``directory_digest(original).root``.

    Raises:
        InvalidInput: Quantised weights, NaN or infinity, too few coordinates, a merged low-rank model, or α outside
            the tested range.
    """
    params = params or MarkParams()
    kind = kind or ("adapter" if is_adapter(original) else "full")
    tensors = open_adapter(original).tensors if kind == "adapter" else open_model(original)
    _refuse_quantised(original, tensors)
    layout = make_layout(tensors.values(), kind)
    if layout.coordinates < MIN_COORDINATES:
        raise InvalidInput(
            f"{original.name}: expected at least {MIN_COORDINATES} weights to mark, found {layout.coordinates}",
            why="a mark over so few weights is too weak to name anybody",
            next_step="mark the merged model, or tune with a higher rank",
        )
    for entry in layout.entries:
        _refuse_unusable(tensors[entry.name])
    if base is not None and kind == "full":
        _refuse_merged(tensors, open_model(base), layout)
    alpha = params.adapter_alpha if kind == "adapter" else solve_alpha(layout.coordinates, params)
    check_alpha(alpha, params)
    return MarkPlan(
        original=digest or directory_digest(original).root,
        kind=kind,
        alpha=alpha,
        layout=layout,
        colluders=colluder_table(layout.coordinates, alpha, params),
    )


def _refuse_quantised(original: Path, tensors: Mapping[str, Tensor]) -> None:
    config = original / "config.json"
    quantised = config.is_file() and read_json_object(config).get("quantization_config")
    found = config.name if quantised else ""
    for tensor in tensors.values():
        packed = tensor.dtype in _PACKED_TYPES and len(tensor.shape) > 1 and tensor.raw.size >= _PACKED_ELEMENTS
        if (
            tensor.name.rpartition(".")[2] in _QUANTISED_NAMES
            or "quant_state" in tensor.name
            or (
                packed and not tensor.name.endswith("bias")  # GPT-2 keeps its causal mask as an integer "bias"
            )
        ):
            found = tensor.name
    if found:
        raise InvalidInput(
            f"{original.name}: expected float weights, found quantised ones ({found})",
            why="a mark in quantised integers does not survive being quantised again",
            next_step="mark the float master, then quantise each recipient's copy",
        )


def _refuse_unusable(tensor: Tensor) -> None:
    """Refuse NaN, infinity and absurd magnitudes, block by block."""
    flat = tensor.raw.reshape(-1)
    for start in range(0, flat.size, 1 << 18):
        block = Tensor(tensor.name, tensor.dtype, flat[start : start + (1 << 18)]).to_float32()
        # A NaN makes the comparison false.
        if not np.abs(block).max() <= _LARGEST:
            raise InvalidInput(
                f"tensor {tensor.name!r}: expected finite weights, found NaN, infinity or a value above 1e15",
                next_step="repair the model before marking it",
            )


def _refuse_merged(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor], layout: Layout) -> None:
    """Refuse a model that differs from its base by a low-rank change in most of the tensors that differ."""
    ranks: list[bool] = []
    for entry in layout.entries:
        twin = base.get(entry.name)
        if len(entry.shape) == 2 and twin is not None and twin.shape == entry.shape and len(ranks) < _RANK_SAMPLES:
            change = tensors[entry.name].to_float32() - twin.to_float32()
            if change.any():
                ranks.append(_is_low_rank(change, tensors[entry.name]))
    if ranks and 2 * sum(ranks) > len(ranks):
        raise InvalidInput(
            "the model differs from its base by a low-rank change: it is a merged adapter",
            why="whoever has the base can cut a full-rank mark away by reducing the rank again",
            next_step="mark the adapter's factors first, then merge, and keep the factors as the originals",
        )


def _is_low_rank(change: npt.NDArray[np.float32], stored: Tensor) -> bool:
    """Say whether all that a quarter of the possible rank leaves of ``change`` is the rounding of the stored type."""
    gram = change @ change.T if change.shape[0] <= change.shape[1] else change.T @ change
    energy = np.linalg.eigvalsh(gram.astype(np.float64))
    tail = energy[: len(energy) - len(energy) // 4].sum()
    # Rounding to nearest leaves a uniform error of one step, variance step²/12.
    step = np.exp2(np.floor(np.log2(np.abs(stored.to_float32()) + np.float32(1e-30)))) * _STEP[stored.dtype]
    rounding = float(np.square(step, dtype=np.float64).sum()) / 12
    return bool(tail <= 1.2 * rounding + 1e-6 * energy.sum())
