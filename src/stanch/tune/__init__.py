"""Fine-tune a causal language model on private records, by default with differential privacy.

A privacy plan is fixed before the first step, a budget journal charges every step before it is applied, and a statement
says what the finished model guarantees, so that anybody can recompute its epsilon::

    spec = TuneSpec.load(Path("support.toml"))
    tuned = tune(spec, dataset=open_dataset(spec.data.uri, key=key))     # needs the extra `train`
    print(tuned.statement.reading)
    verified = verify_run(tuned.path)                                   # needs dp-accounting, no torch

What is imported here does not need torch.
"""

from stanch.tune.checkpoint_sealed import CheckpointSeal
from stanch.tune.demo import BatchLossSensitivity, show_batch_loss
from stanch.tune.fetch import fetch_model
from stanch.tune.journal import BudgetJournal, JournalHead
from stanch.tune.keeping import Keeping
from stanch.tune.noise import NoiseSource
from stanch.tune.plan import ParameterShape, PrivacyParams, PrivacyPlan
from stanch.tune.prepare import Preparation, prepare, trainable_shapes
from stanch.tune.provenance import describe_run
from stanch.tune.record import NULL, Recorder, TrainEvent
from stanch.tune.run import TunedModel, run_folder, tune
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
    "RecordUnit",
    "Recorder",
    "RunFacts",
    "TrainEvent",
    "TrainSpec",
    "TuneSpec",
    "TunedModel",
    "Unit",
    "UnitPolicy",
    "UnitTable",
    "VerifiedPrivacyRun",
    "VerifyExpectations",
    "describe_run",
    "fetch_model",
    "form_units",
    "parse_unit",
    "prepare",
    "read_plan",
    "run_folder",
    "show_batch_loss",
    "state_no_privacy",
    "state_privacy",
    "trainable_shapes",
    "tune",
    "verify_run",
]
