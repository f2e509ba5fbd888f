"""Fine-tune a causal language model on private records, by default with differential privacy.

A privacy plan is fixed before the first step, a budget journal charges every step before it is applied, and a statement
says what the finished model guarantees, so that anybody can recompute its epsilon::

    spec = TuneSpec.load(Path("support.toml"))
    tuned = tune(spec, dataset=open_dataset(spec.data.uri, key=key))     # needs the extra `train`
    print(tuned.statement.reading)
    verified = verify_run(tuned.path)                                   # needs dp-accounting, no torch

People who keep their own trainer use :class:`PrivateTrainer` or :class:`PrivateSFTTrainer` in place of the trainer of
transformers or TRL, or, without privacy, :class:`StanchCallback`. What is imported here does not need torch; these
three load it when they are asked for.
"""

from typing import Any

from stanch.errors import MissingExtraError
from stanch.tune.checkpoint_sealed import CheckpointSeal
from stanch.tune.demo import BatchLossSensitivity, show_batch_loss
from stanch.tune.fetch import fetch_model
from stanch.tune.goldfish import Goldfish
from stanch.tune.journal import BudgetJournal, JournalHead, journal_name
from stanch.tune.keeping import Keeping
from stanch.tune.noise import NoiseSource
from stanch.tune.plan import ParameterShape, PrivacyParams, PrivacyPlan
from stanch.tune.prepare import Preparation, prepare, trainable_shapes
from stanch.tune.provenance import describe_run
from stanch.tune.record import NULL, Recorder, TrainEvent
from stanch.tune.rows import token_rows, training_rows
from stanch.tune.run import TunedModel, run_folder, tune
from stanch.tune.scale_ray import tune_on_ray
from stanch.tune.spec import (
    BaseSpec,
    DataSpec,
    ExtraSpec,
    MethodSpec,
    OutputSpec,
    PrivacySpec,
    TrainSpec,
    TuneSpec,
)
from stanch.tune.statement import PrivacyStatement, RunFacts, read_plan, state_no_privacy, state_privacy
from stanch.tune.units import ColumnUnit, RecordUnit, Unit, UnitPolicy, UnitTable, form_units, parse_unit
from stanch.tune.verify import VerifiedPrivacyRun, VerifyExpectations, verify_run

__all__ = [
    "NULL",
    "BaseSpec",
    "BatchLossSensitivity",
    "BudgetJournal",
    "CheckpointSeal",
    "ColumnUnit",
    "DataSpec",
    "ExtraSpec",
    "Goldfish",
    "JournalHead",
    "Keeping",
    "MethodSpec",
    "NoiseSource",
    "OutputSpec",
    "ParameterShape",
    "Preparation",
    "PrivacyParams",
    "PrivacyPlan",
    "PrivacySpec",
    "PrivacyStatement",
    "PrivateSFTTrainer",
    "PrivateTrainer",
    "RecordUnit",
    "Recorder",
    "RunFacts",
    "StanchCallback",
    "TrainEvent",
    "TrainSpec",
    "TuneSpec",
    "TunedModel",
    "Unit",
    "UnitPolicy",
    "UnitTable",
    "VerifiedPrivacyRun",
    "VerifyExpectations",
    "adapter_shapes",
    "describe_run",
    "fetch_model",
    "form_units",
    "journal_name",
    "parse_unit",
    "prepare",
    "read_plan",
    "run_folder",
    "show_batch_loss",
    "state_no_privacy",
    "state_privacy",
    "token_rows",
    "trainable_shapes",
    "training_rows",
    "tune",
    "tune_on_ray",
    "verify_run",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the module's protocol
    """Load what needs torch when it is asked for."""
    try:
        match name:
            case "PrivateTrainer":
                from stanch.tune.trainer_torch import PrivateTrainer  # noqa: PLC0415 - optional part

                return PrivateTrainer
            case "PrivateSFTTrainer":
                from stanch.tune.sft_torch import PrivateSFTTrainer  # noqa: PLC0415 - optional part

                return PrivateSFTTrainer
            case "StanchCallback":
                from stanch.tune.callback_torch import StanchCallback  # noqa: PLC0415 - optional part

                return StanchCallback
            case "adapter_shapes":
                from stanch.tune.hosted_torch import adapter_shapes  # noqa: PLC0415 - optional part

                return adapter_shapes
    except ImportError as error:
        raise MissingExtraError("trl" if name == "PrivateSFTTrainer" else "train") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
