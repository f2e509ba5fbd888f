"""What to tune and how: ``SPEC.toml``, read strictly (an unknown key is refused)."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import msgspec
from msgspec import Meta, Struct

from stanch.config.toml import load_toml
from stanch.errors import InvalidInput
from stanch.tune.plan import PrivacyParams

_MAX_BYTES = 1 << 16

Positive = Annotated[float, Meta(gt=0, le=1e9)]
Count = Annotated[int, Meta(gt=0, le=2**31)]

ALL_LINEAR: Final = "all-linear"


class BaseSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The base model: a folder with ``config.json``, safetensors and a tokenizer; its digest, if it must match."""

    path: str
    digest: str | None = None


class DataSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The private records; ``unit`` is ``record`` or ``column:NAME``."""

    uri: str = ""
    unit: str | None = None
    max_tokens: Count = 1024
    completion_only: bool = True


class MethodSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) on the named linear layers, or all weights.

    Attributes:
        kind: ``lora``, or ``full``: all weights, for which the rest has no meaning.
        rank: Rank r of the factors.
        alpha: The product is scaled by alpha/rank.
        rank_stabilised: Scale by alpha/√rank instead (rsLoRA; Kalajdzievski 2023, arXiv 2312.03732).
        targets: ``all-linear`` (all but the head), or last parts of module names such as ``q_proj``.
        layers: ``all``, or the numbers of the decoder layers to adapt. With only the last ones, the layers below run
            once per record, not in every step.
    """

    kind: Literal["lora", "full"] = "lora"
    rank: Annotated[int, Meta(gt=0, le=1024)] = 16
    alpha: Positive = 32
    rank_stabilised: bool = False
    targets: Literal["all-linear"] | tuple[str, ...] = ALL_LINEAR
    layers: Literal["all"] | tuple[Annotated[int, Meta(ge=0)], ...] = "all"

    @property
    def scale(self) -> float:
        """Factor of the low-rank product."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilised else self.rank)


class PrivacySpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Differential privacy; ``enabled = false`` trains with the same loop and states no guarantee.

    ``earlier`` names the output folders of earlier private runs on the same dataset: their privacy loss adds up.
    ``insecure_reproducible`` is a seed from which sample, noise and initial weights follow: two runs are the same, and
    the guarantee is void.
    """

    enabled: bool = True
    epsilon: Positive = 8.0
    delta: Annotated[float, Meta(gt=0, lt=1)] | None = None
    max_grad_norm: Positive = 0.5
    clipping: Literal["flat", "automatic"] = "flat"
    max_records_per_unit: Count = 8
    units_public: Count | None = None
    allow_small_noise_unsafe: bool = False
    insecure_reproducible: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    earlier: tuple[str, ...] = ()


class TrainSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """The optimisation: AdamW on the mean gradient of Poisson-sampled units.

    Attributes:
        learning_rate: Peak learning rate.
        epochs: Expected number of times that a unit takes part.
        batch: Expected number of units in a step; default as the privacy plan's.
        steps: Number of steps, instead of ``epochs``.
        schedule: ``linear`` to zero, or ``constant``.
        weight_decay: Of AdamW.
        dtype: Of the frozen base weights; ``auto`` is bfloat16 where the device multiplies it natively.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``. Changes results by rounding.
        chunk_tokens: Tokens (rows x padded length) that go through the model at once; by default what memory allows.
            Changes memory, not results.
        gradient_checkpointing: Compute the layers' inner values twice instead of keeping them.
        checkpoint_every: Steps between checkpoints; 0 keeps none.
    """

    learning_rate: Positive = 1e-3
    epochs: Positive = 3.0
    batch: Count | None = None
    steps: Count | None = None
    schedule: Literal["linear", "constant"] = "linear"
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 0.0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    device: Annotated[str, Meta(pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$")] = "auto"
    chunk_tokens: Count | None = None
    gradient_checkpointing: bool = False
    checkpoint_every: Annotated[int, Meta(ge=0)] = 50


class ExtraSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Near-duplicates: ``group`` into one unit (default with privacy), ``drop`` all but the first, or ``keep``.

    Without privacy ``drop`` is the default, and ``keep`` where the data holds canaries, of which none may be dropped.
    ``goldfish = k`` leaves out about one label in k, chosen by the dataset's key; 0 learns all.
    """

    duplicates: Literal["group", "drop", "keep"] | None = None
    goldfish: Annotated[int, Meta(ge=0, le=1024)] = 0


class OutputSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the adapter, its statement and its journal go; the folder must not exist."""

    path: str = "out"


class TuneSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A tuning run. Relative paths are relative to the working folder, or to the file the spec was read from."""

    base: BaseSpec
    data: DataSpec = DataSpec()
    method: MethodSpec = MethodSpec()
    privacy: PrivacySpec = PrivacySpec()
    train: TrainSpec = TrainSpec()
    extra: ExtraSpec = ExtraSpec()
    output: OutputSpec = OutputSpec()

    @classmethod
    def from_toml(cls, data: bytes, *, what: str = "SPEC.toml") -> Self:
        """Read a spec.

        Raises:
            InvalidInput: Not TOML, an unknown key, or a value out of range; the message names the key.
        """
        if len(data) > _MAX_BYTES:
            raise InvalidInput(f"{what}: expected at most {_MAX_BYTES} bytes, found {len(data)}")
        try:
            return msgspec.convert(load_toml(data.decode()), cls)
        except ValueError as error:  # a ValidationError is one
            raise InvalidInput(
                f"{what}: {error}", next_step="correct the key; docs/spec/privacy-plan.md lists all of them"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a spec file; relative paths in it are taken from its folder."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InvalidInput(f"{path}: cannot be read", why=error.strerror or "") from error
        return cls.from_toml(data, what=str(path)).placed(path.parent)

    def placed(self, folder: Path) -> Self:
        """Return the spec with its relative paths taken from ``folder``."""
        return msgspec.structs.replace(
            self,
            base=msgspec.structs.replace(self.base, path=str(folder / self.base.path)),
            data=msgspec.structs.replace(self.data, uri=str(folder / self.data.uri) if self.data.uri else ""),
            privacy=msgspec.structs.replace(self.privacy, earlier=tuple(str(folder / p) for p in self.privacy.earlier)),
            output=msgspec.structs.replace(self.output, path=str(folder / self.output.path)),
        )

    def changed(self, **tables: Mapping[str, object]) -> Self:
        """Return the spec with other values in the named tables; None leaves what was there.

        Raises:
            InvalidInput: A value is out of range.
        """
        values = msgspec.to_builtins(self)
        for table, changes in tables.items():
            values[table] |= {name: value for name, value in changes.items() if value is not None}
        try:
            return msgspec.convert(values, type(self))
        except msgspec.ValidationError as error:
            raise InvalidInput(f"spec: {error}") from error

    def with_earlier(self, runs: Sequence[Path]) -> Self:
        """Return the spec with further earlier runs on the same dataset."""
        return self.changed(privacy={"earlier": [*self.privacy.earlier, *map(str, runs)]})

    def privacy_params(self) -> PrivacyParams:
        """Return what the privacy plan is made from."""
        privacy, train = self.privacy, self.train
        return PrivacyParams(
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            epochs=train.epochs,
            expected_batch=train.batch,
            steps=train.steps,
            max_grad_norm=privacy.max_grad_norm,
            clipping=privacy.clipping,
            max_records_per_unit=privacy.max_records_per_unit,
            units_public=privacy.units_public,
            allow_small_noise_unsafe=privacy.allow_small_noise_unsafe,
            insecure_reproducible=privacy.insecure_reproducible is not None,
        )
