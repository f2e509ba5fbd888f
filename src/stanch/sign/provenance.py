"""Where a tuned model comes from: an in-toto statement with the predicate of SLSA provenance v1.

The subjects are the model's files. Base model and data set are named by digests alone; no path and no count of the
data is written. The statement says what the signer says: it proves origin as far as the signer is believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from stanch.sign.statement import Statement, Subject
from stanch.terms import Digest, JsonValue, NeighboringRelation

PROVENANCE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:stanch:finetune:v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateTraining:
    """With what differential privacy a run was done: its guarantee and what it follows from."""

    epsilon: float
    delta: float
    noise_multiplier: float
    max_grad_norm: float
    sample_rate: float
    steps: int
    accountant: str
    neighboring_relation: NeighboringRelation


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningRun:
    """What a provenance statement says of a run.

    Attributes:
        model: The model's files.
        method: ``full`` or ``lora``.
        privacy: None for a run without differential privacy.
        base: Digest of the base model.
        dataset: Root of the data set's salted manifest.
        invocation: What names this run, and no other.
        builder: Who ran it, as a URI.
        config: Digest of the file that fixed the run.
        commit: The code's git commit (hex).
        container: Digest of the container image.
        versions: Of the packages that computed it.
        started: When it began.
        finished: When it ended.
        byproducts: Digests of what else the run made, by name: leak certificate, evaluation, mark.
    """

    model: tuple[Subject, ...]
    method: Literal["full", "lora"]
    privacy: PrivateTraining | None
    base: Digest
    dataset: Digest
    invocation: str
    builder: str
    config: Digest | None = None
    commit: str | None = None
    container: Digest | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    started: datetime | None = None
    finished: datetime | None = None
    byproducts: Mapping[str, Digest] = field(default_factory=dict)


def state_provenance(run: TuningRun) -> Statement:
    """Return the statement, for :func:`stanch.sign.sign_statement` to sign."""
    commit: JsonValue = {"gitCommit": run.commit} if run.commit is not None else None
    container: JsonValue = _digest(run.container) if run.container is not None else None
    dependencies: dict[str, JsonValue] = {
        "base-model": _digest(run.base), "dataset": _digest(run.dataset), "code": commit, "container": container,
    }  # fmt: skip
    times = {"startedOn": run.started, "finishedOn": run.finished}
    metadata: dict[str, JsonValue] = {"invocationId": run.invocation}
    metadata |= {name: _time(value) for name, value in times.items() if value is not None}
    return Statement(
        run.model,
        PROVENANCE_TYPE,
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "config_sha256": run.config.hex if run.config is not None else None,
                    "method": run.method,
                    "dp": _privacy(run.privacy) if run.privacy is not None else None,
                },
                "resolvedDependencies": [
                    {"name": name, "digest": digest} for name, digest in dependencies.items() if digest is not None
                ],
            },
            "runDetails": {
                "builder": {"id": run.builder, "version": {**run.versions}},
                "metadata": metadata,
                "byproducts": [
                    {"name": name, "digest": _digest(value)} for name, value in sorted(run.byproducts.items())
                ],
            },
        },
    )


def _digest(digest: Digest) -> JsonValue:
    return {digest.algorithm: digest.hex}


def _privacy(privacy: PrivateTraining) -> JsonValue:
    return {
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "noise_multiplier": privacy.noise_multiplier,
        "max_grad_norm": privacy.max_grad_norm,
        "sample_rate": privacy.sample_rate,
        "steps": privacy.steps,
        "accountant": privacy.accountant,
        "neighboring_relation": privacy.neighboring_relation.value,
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
