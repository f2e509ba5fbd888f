from .callback_torch import StanchCallback
from .checkpoint_sealed import CheckpointSeal
from .demo import BatchLossSensitivity, show_batch_loss
from .fetch import fetch_model
from .goldfish import Goldfish
from .hosted_torch import adapter_shapes
from .journal import BudgetJournal, JournalHead, journal_name
from .keeping import Keeping
from .noise import NoiseSource
from .plan import ParameterShape, PrivacyParams, PrivacyPlan
from .prepare import Preparation, prepare, trainable_shapes
from .provenance import describe_run
from .record import NULL, Recorder, TrainEvent
from .rows import token_rows, training_rows
from .run import TunedModel, run_folder, tune
from .scale_ray import tune_on_ray
from .sft_torch import PrivateSFTTrainer
from .spec import (
    BaseSpec,
    DataSpec,
    ExtraSpec,
    MethodSpec,
    OutputSpec,
    PrivacySpec,
    TrainSpec,
    TuneSpec,
)
from .statement import (
    Earlier,
    EarlierRun,
    PrivacyStatement,
    RunFacts,
    UnfinishedRun,
    read_plan,
    state_no_privacy,
    state_privacy,
)
from .trainer_torch import PrivateTrainer
from .units import ColumnUnit, RecordUnit, Unit, UnitPolicy, UnitTable, form_units, parse_unit
from .verify import VerifiedPrivacyRun, VerifyExpectations, verify_run

__all__ = [
    "NULL",
    "BaseSpec",
    "BatchLossSensitivity",
    "BudgetJournal",
    "CheckpointSeal",
    "ColumnUnit",
    "DataSpec",
    "Earlier",
    "EarlierRun",
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
    "UnfinishedRun",
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
