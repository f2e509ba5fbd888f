"""``transformers.Trainer`` with differential privacy: the same mechanism as stanch's own loop, in somebody's script.

A subclass, because a callback can change neither loss nor sampler nor denominator. Each step of the trainer is a
logical step: draw units, clip, add noise (in memory only), charge (durable), and then let the optimizer step.
"""

import copy
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME

from stanch.crypto import canonical_json, sync_folder, write_atomic
from stanch.terms import Digest, JsonValue
from stanch.tune import journal as journals
from stanch.tune import statement as statements
from stanch.tune.arguments import SET, check_arguments, check_constructor, refuse_evaluation
from stanch.tune.callback_torch import StanchCallback
from stanch.tune.checkpoint_torch import CheckpointState, list_checkpoints, load_checkpoint, save_checkpoint
from stanch.tune.coverage_torch import check_coverage, check_movement, check_optimizer, check_step
from stanch.tune.device_torch import name_precision
from stanch.tune.draws_torch import Draws
from stanch.tune.earlier import read_earlier
from stanch.tune.goldfish import Goldfish
from stanch.tune.gradient_torch import PrivateGradient
from stanch.tune.hosted_torch import HostedModel
from stanch.tune.journal import BudgetJournal
from stanch.tune.keeping import Keeping
from stanch.tune.noise import AesGaussian
from stanch.tune.plan import DP, PRIVATE_METRICS, PrivacyPlan
from stanch.tune.record import NULL, Recorder, RunRecord, versions_of
from stanch.tune.refusals import PlanChanged, PrivacySpent, RunExists, UnsafeArgument
from stanch.tune.rows import read_rows
from stanch.tune.sampler import StreamKeys, UnitSampler
from stanch.tune.statement import Earlier, PrivacyStatement, RunFacts, exclude_of_run, state_privacy
from stanch.tune.tokens import TokenTable
from stanch.tune.units import UnitTable
from stanch.tune.verify import PLAN_NAME, model_files

_LOGGED = frozenset({"learning_rate", "grad_norm"})
_RESUMED = "resumed"
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "dp-accounting")
_LOSSES = frozenset({"loss", "train_loss"})
_SETTINGS = (
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "weight_decay", "optim", "adam_beta1",
    "adam_beta2", "adam_epsilon",
)  # fmt: skip


class PrivateTrainer(Trainer):
    """Trains the LoRA adapter of a PEFT model, or the weights of a model without adapters, with differential privacy.

    ``train_dataset`` holds a row a record: ``record_id``, ``input_ids`` and perhaps ``labels``
    (:func:`stanch.tune.token_rows` makes them). ``per_device_train_batch_size`` is the number of longest rows that go
    through the model at once: it changes memory, not results. After :meth:`train`, ``run_dir`` holds adapter, plan,
    journal and statement, as ``stanch tune verify`` reads them. The loss is logged only where the plan was made with
    ``log_private_metrics_unsafe``.

    Args:
        model: A ``PeftModel`` over a causal language model, or such a model itself: then each of its weights that asks
            for a gradient is trained.
        args: The arguments; what could break the guarantee is refused.
        plan: The privacy plan, made from ``units`` and :func:`stanch.tune.adapter_shapes`.
        units: The units, formed from the records of ``train_dataset``.
        run_dir: A new folder for the run.
        earlier: Earlier private runs on the same dataset, whose loss adds to this one's: their folders, or what a log
            says, also of unfinished ones. An adapter that has learned already must be that of one of the folders.
        keeping: How the journal's heads and the checkpoints are kept.
        recorder: Where events go, durably: ``train.begin`` before the first step, ``train.progress`` with what is
            logged, ``checkpoint.saved``, and ``train.end`` or ``train.failed``.
        eval_is_public: Whether whatever is evaluated is public data.
        goldfish: Leaves out labels; None learns all.
        given: Other arguments of the trainer.

    Raises:
        UnsafeArgument: An argument would break the guarantee, or is unknown.
        UnsupportedModule: The model trains what has no exact per-unit gradient.
        PlanChanged: The plan is for other units or parameters.
        PrivacySpent: The base was tuned on this dataset without a guarantee.
        InvalidInput: Rows and units are not about the same records, or an earlier run is not on this dataset.
    """

    model: Any
    args: Any
    train_dataset: Any
    optimizer: Any
    _journal: BudgetJournal
    _sampler: UnitSampler
    _gradient: PrivateGradient
    _process_step: int
    _checkpoint: Path | None

    def __init__(  # noqa: PLR0913 - by keyword, beside those of the trainer that it replaces
        self,
        model: Any,  # noqa: ANN401 - transformers ships no types
        args: Any,  # noqa: ANN401 - same
        *,
        plan: PrivacyPlan,
        units: UnitTable,
        run_dir: Path,
        earlier: Sequence[Path | Earlier] = (),
        keeping: Keeping | None = None,
        recorder: Recorder = NULL,
        eval_is_public: bool = False,
        goldfish: Goldfish | None = None,
        **given: Any,  # noqa: ANN401 - same
    ) -> None:
        check_constructor(given, eval_is_public=eval_is_public)
        check_arguments(args, eval_is_public=eval_is_public)
        for callback in given.get("callbacks") or ():
            _check_callback(callback)
        if isinstance(model, str):
            raise UnsafeArgument(
                "model: a name is refused", why="the caller loads a model", next_step="load it without remote code"
            )
        self._plan = plan
        self._units = units
        self._run_dir = Path(run_dir)
        self._named = [one for one in earlier if isinstance(one, Path)]
        self._keeping = keeping or Keeping()
        self._events = RunRecord(recorder)
        self._eval_is_public = eval_is_public
        self._logged = _LOGGED | (_LOSSES if PRIVATE_METRICS in plan.excluded else frozenset())
        self._check_places(Path(args.output_dir))
        args = copy.copy(args)
        for name, value in {**SET, "max_steps": plan.steps}.items():
            if hasattr(args, name):
                setattr(args, name, value)
        super().__init__(model=model, args=args, **given)
        self._check_accelerator()
        self._hosted = HostedModel(self.model, self.accelerator.autocast)
        self._check_plan()
        base = Path(getattr(self.model, "name_or_path", None) or "-")
        self._earlier, self._unfinished = read_earlier(earlier, base, units.dataset_root)
        records = read_rows(self.train_dataset, units)
        self._records = records if goldfish is None else TokenTable(map(goldfish.apply, records.values()))
        self._base_digest = self._hosted.base_digest()
        self._updates = 0
        self.statement: PrivacyStatement | None = None
        if args.activation_checkpointing:
            # Otherwise nothing below the first adapter asks for a gradient, and the layers are not run again.
            self.model.enable_input_require_grads()
        self.add_callback(_Watch(self))

    def add_callback(self, callback: Any) -> None:  # noqa: ANN401 - transformers ships no types
        """Add a callback; one that records a run without privacy is refused."""
        _check_callback(callback)
        super().add_callback(callback)

    def train(self, resume_from_checkpoint: str | bool | None = None) -> Any:  # type: ignore[override]  # noqa: ANN401, FBT001 - no trials: each is a run; as the parent's
        """Train until every planned step is charged, and write the run's folder.

        Args:
            resume_from_checkpoint: Continue the run, from its last checkpoint (True) or a given one. Steps that a crash
                lost stay charged.

        Raises:
            RunExists: A run or its checkpoints lie where this one would write, or there is none to resume.
            PlanChanged: A run is resumed with another plan or other settings.
            PrivacySpent: The weights have learned already, in no run that is named as an earlier one.
            ProgressLost: A run with charged steps and without a checkpoint is resumed.
            BudgetRolledBack: The journal is not the one that the checkpoint was made with.
        """
        resume = resume_from_checkpoint not in {None, False}
        with ExitStack() as stack:
            self._events.record("train.begin", self._facts)
            stack.push(self._note_failure)
            journal = stack.enter_context(self._open_journal(resume=resume))
            stack.callback(self._hosted.adapter.collect, None)
            self._journal = journal
            self._updates = 0
            # Fresh for each call and never stored: neither sample nor noise can repeat.
            keys = StreamKeys.fresh()
            self._sampler = UnitSampler.of(self._plan, self._units, keys)
            budget = self.args.per_device_train_batch_size * self._records.longest
            self._gradient = PrivateGradient(self._hosted, self._plan, AesGaussian(keys.noise), budget=budget)
            self._process_step = 0
            output = super().train(resume_from_checkpoint=self._find_checkpoint(resume_from_checkpoint))
            self.statement = self._finish(journal)
            stated = self.statement
            self._events.record("train.end", {"model_digest": stated.model_digest, "epsilon": stated.epsilon})
        return output

    def get_train_dataloader(self) -> Any:  # noqa: ANN401 - no loader of torch: what the trainer uses of one
        """Return the draws of units; no data set, shuffle or batch of the trainer takes part."""
        return Draws(self._sampler, self._plan.steps)

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:  # noqa: ANN401, ARG002 - transformers ships no types; the number of tokens is data
        """Leave the noisy mean gradient of the drawn units in ``param.grad``, and charge the step.

        Returns zero, or their mean loss where the plan says that private metrics are logged.
        """
        model.train()
        step, self._process_step = self._process_step, self._process_step + 1
        if step == 0:
            check_optimizer(self._hosted.adapter.parameters(), _bare(self.optimizer))
        units = [
            [self._records[record_id] for record_id in self._sampler.records_of(step, unit)]
            for unit in inputs["units"].tolist()
        ]
        self._gradient.fill(step, units)
        check_step(step, self._hosted, _bare(self.optimizer), self._gradient)
        self._journal.charge(self._updates)
        self._hosted.touch()
        self._updates += 1
        loss = self._gradient.mean_loss if self._logged & _LOSSES else 0.0
        return torch.tensor(loss, device=self.args.device)

    def create_optimizer(self, model: Any = None) -> Any:  # noqa: ANN401 - transformers ships no types
        """Make the optimizer, and check that it holds the very parameters whose gradients are collected."""
        optimizer = super().create_optimizer(model)
        check_coverage(self._hosted, _bare(optimizer))
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:  # noqa: ANN401 - same
        """Make the schedule and set it to the step of a resumed run: it depends on that number alone."""
        scheduler: Any = super().create_scheduler(num_training_steps, optimizer)
        done = self.state.global_step
        if done:
            rates = [base * scale(done) for base, scale in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
            place = {"last_epoch": done, "_step_count": done + 1, "_last_lr": rates}
            scheduler.load_state_dict({**scheduler.state_dict(), **place})
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
        return scheduler

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:  # noqa: ARG002 - run time is a side channel
        """Log the learning rate, the norm of the noisy gradient and epsilon; nothing else is known to be safe.

        The loss too, where the plan says so.
        """
        kept = {name: value for name, value in logs.items() if self._may_log(name)}
        if kept and self.is_in_train:
            kept["epsilon"] = self._plan.epsilon_after(self._journal.charged, discretization=1e-3)
        if kept:
            # Not through other parents, which add their own figures.
            Trainer.log(self, kept)
            figures = {name: value if math.isfinite(value) else None for name, value in kept.items()}
            self._events.record("train.progress", {**figures, "step": self.state.global_step})

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - transformers ships no types
        """Evaluate on public data."""
        self._need_public("evaluate")
        return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - same
        """Predict on public data."""
        self._need_public("predict")
        return super().predict(*args, **kwargs)

    def hyperparameter_search(self, *_args: Any, **_kwargs: Any) -> Any:  # noqa: ANN401 - same
        """Refuse: each trial is a private run of its own."""
        raise UnsafeArgument(
            "hyperparameter_search: is refused",
            why="each trial spends privacy of its own, and the choice among them too",
            next_step="choose on public data, or plan each run and state the earlier ones",
        )

    def _may_log(self, name: str) -> bool:
        return name in self._logged or (self._eval_is_public and name.startswith("eval_"))

    def _need_public(self, name: str) -> None:
        if not self._eval_is_public:
            raise refuse_evaluation(name)

    def _check_places(self, output: Path) -> None:
        if output.resolve().is_relative_to(self._run_dir.resolve()):
            raise UnsafeArgument(
                f"output_dir: {output} lies in the run's folder",
                why="whatever lies there counts as the model",
                next_step="choose another output_dir",
            )

    def _check_accelerator(self) -> None:
        # Set from the environment, past all arguments.
        mixed = self.accelerator.mixed_precision
        if mixed not in {"no", "bf16"} or self.accelerator.num_processes != 1:
            raise UnsafeArgument(
                f"accelerate: found {self.accelerator.num_processes} processes and mixed precision {mixed!r}",
                why="one process computes the sum and adds the noise, and a loss scaler skips steps",
                next_step="unset the ACCELERATE_* variables",
            )

    def _check_plan(self) -> None:
        if self._plan.guarantee != DP:
            raise UnsafeArgument(
                f"plan: guarantee {self._plan.guarantee!r} is refused",
                why="this trainer takes its keys from the operating system alone",
                next_step="make the plan without insecure_reproducible; `stanch tune run` can repeat a run",
            )
        if self._plan.units_digest != self._units.digest.hex:
            raise PlanChanged("the plan was made for other units", next_step="make a plan from these units")
        if self._plan.trainable != self._hosted.adapter.shapes():
            raise PlanChanged(
                "the model trains other parameters than the plan says",
                next_step="make the plan from adapter_shapes(model)",
            )

    def _check_start(self) -> None:
        if not self._hosted.is_fresh and not any(self._hosted.is_saved_in(run) for run in self._named):
            raise PrivacySpent(
                f"{type(self.model).__name__}: the weights to be trained have learned already",
                why="what they learned before would count in no epsilon",
                next_step="start afresh, or name the private run that made them: earlier=[RUN]",
            )

    @property
    def _settings_digest(self) -> str:
        """Digest of what must not change between start and resume."""
        settings = {name: str(getattr(self.args, name)) for name in _SETTINGS}
        return Digest.sha256(
            canonical_json({
                "plan": self._plan.digest.hex, "base": str(self._base_digest), "tokens": self._records.digest.hex,
                **settings,
            })
        ).hex  # fmt: skip

    def _open_journal(self, *, resume: bool) -> BudgetJournal:
        """Make the run's folder, whole or not at all, or open the journal in it."""
        folder, output = self._run_dir, Path(self.args.output_dir)
        plan = folder / PLAN_NAME
        if resume:
            if not plan.is_file():
                raise RunExists(f"{folder}: there is no run to resume", next_step="start the run without resume")
            if plan.read_bytes() != self._plan.to_json():
                raise PlanChanged(
                    f"{folder}: the run has another plan",
                    why="a plan is fixed before the first step",
                    next_step="restore what was changed, or start a new run",
                )
            kept = self._keeping
            return BudgetJournal.open(folder / journals.NAME, self._plan, anchor=kept.anchor, on_head=kept.on_head)
        if folder.exists() or list_checkpoints(output):
            raise RunExists(
                f"{folder if folder.exists() else output}: a run lies here",
                why="its charged steps may have been seen",
                next_step="resume it with train(resume_from_checkpoint=True), or choose other folders",
            )
        self._check_start()
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_atomic(partial / PLAN_NAME, self._plan.to_json())
        journal = BudgetJournal.create(partial / journals.NAME, self._plan, on_head=self._keeping.on_head)
        partial.rename(folder)
        sync_folder(folder.parent)
        return journal

    def _find_checkpoint(self, wanted: str | bool | None) -> str | None:  # noqa: FBT001 - as the trainer's own argument
        """Return where the trainer finds its own view of the run, and remember the checkpoint itself."""
        self._checkpoint = None
        if wanted is None or wanted is False:
            return None
        if wanted is True:
            found = list_checkpoints(Path(self.args.output_dir))
            if not found:
                self._journal.require_untouched()
                self._check_start()
                return None
            wanted = str(found[-1])
        self._checkpoint = view = Path(wanted)
        if not (view / TRAINER_STATE_NAME).exists():
            # It is sealed, or a crash came before the trainer's view of it: that is rebuilt from the journal anyhow.
            view = Path(self.args.output_dir) / _RESUMED
            view.mkdir(exist_ok=True)
            self.state.train_batch_size = self.args.train_batch_size
            self.state.save_to_json(str(view / TRAINER_STATE_NAME))
        return str(view)

    def _init_training_state(
        self,
        max_steps: int,
        num_update_steps_per_epoch: int,
        *others: Any,  # noqa: ANN401 - passed on
    ) -> tuple[int, int]:
        """Count charged steps as done, whatever the checkpoint says: lost ones stay charged."""
        super()._init_training_state(max_steps, num_update_steps_per_epoch, *others)
        self.state.global_step = self._journal.charged
        return self.state.global_step // num_update_steps_per_epoch, 0

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ANN401, ARG002 - what is trained is saved
        """Write model and tokenizer as safetensors and JSON; no arguments, which the trainer would pickle."""
        folder = Path(output_dir or self.args.output_dir)
        self._hosted.save(folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ANN401, ARG002 - transformers ships no types; no trials
        """Write a checkpoint without pickle and without random state."""
        state = CheckpointState(self._settings_digest, self._updates, self.state.global_step, self._journal.head)
        parameters, seal = self._hosted.adapter.parameters(), self._keeping.seal
        folder = save_checkpoint(Path(self.args.output_dir), state, parameters, _bare(self.optimizer), seal=seal)
        if seal is None:
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self._journal.announce()
        epsilon = self._plan.epsilon_after(self._journal.charged, discretization=1e-3)
        counts = {"updates": self._updates, "elapsed": state.elapsed, "charged": self._journal.charged}
        self._events.record("checkpoint.saved", {**counts, "epsilon": epsilon})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:  # noqa: ARG002 - where the trainer's own view lies
        """Load weights and optimizer, and check that the journal knows the checkpoint."""
        found = self._checkpoint
        if found is None:
            return
        parameters = self._hosted.adapter.parameters()
        run, seal = self._settings_digest, self._keeping.seal
        state = load_checkpoint(found, parameters, _bare(self.optimizer), run=run, seal=seal)
        self._journal.require(state.head, checkpoint=found.name)
        self._updates = state.updates

    def _load_from_checkpoint(self, *_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401 - as the parent's
        """Leave it to :meth:`_load_optimizer_and_scheduler`, which loads weights too."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Load no random state: none is stored."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Load no loss scaler: none is used."""

    @property
    def _facts(self) -> Mapping[str, JsonValue]:
        """What a log may know of the run before it begins."""
        return {
            "base_digest": str(self._base_digest),
            "dataset_root": self._units.dataset_root,
            "earlier": [run.journal for run in (*self._earlier, *self._unfinished)],
            "plan_digest": self._plan.digest.hex,
            "guarantee": self._plan.guarantee,
            "run_digest": self._settings_digest,
            "steps": self._plan.steps,
            "units": len(self._units.units),
            "versions": dict(versions_of(*_PACKAGES)),
        }

    def _note_failure(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:  # noqa: ANN401 - as ExitStack calls it
        if error is not None:
            self._events.record_failure(error)

    def _finish(self, journal: BudgetJournal) -> PrivacyStatement:
        """Write and check the model, close the journal, and state what the run guarantees."""
        self._save(str(self._run_dir))
        self._hosted.check_saved(self._run_dir)
        journal.close(self._updates)
        halved = self.accelerator.mixed_precision == "bf16" or self.model.dtype == torch.bfloat16
        dtype = torch.bfloat16 if halved else self.model.dtype
        facts = RunFacts(
            files=model_files(self._run_dir),
            base_digest=str(self._base_digest),
            dataset_root=self._units.dataset_root,
            updates=self._updates,
            dtype=str(dtype).removeprefix("torch."),
            device=self.args.device.type,
            versions=versions_of(*_PACKAGES),
            anchored=self._keeping.on_head is not None,
            excluded=exclude_of_run(self._unfinished, self._run_dir, name_precision(dtype, self.args.device)),
            earlier_runs=self._earlier,
        )
        statement = state_privacy(self._plan, journal.head, facts)
        write_atomic(self._run_dir / statements.NAME, statement.to_json())
        return statement


class _Watch(TrainerCallback):
    """Checks that the first step with a learning rate moves the weights."""

    def __init__(self, trainer: PrivateTrainer) -> None:
        self._trainer = trainer
        self._before: dict[str, Tensor] | None = None
        self._moved = False

    def on_pre_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401 - as the parent's
        if not self._moved:
            parameters = self._trainer._hosted.adapter.parameters()  # noqa: SLF001 - one file, one concept
            self._before = {name: value.detach().clone() for name, value in parameters.items()}

    def on_optimizer_step(self, *_args: Any, **_kwargs: Any) -> None:  # noqa: ANN401 - same
        if self._before is not None and self._trainer._get_learning_rate() > 0:  # noqa: SLF001 - same
            check_movement(self._before, self._trainer._hosted.adapter.parameters())  # noqa: SLF001 - same
            self._before, self._moved = None, True


def _bare(optimizer: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - Accelerate's wrapper or the optimizer
    found: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return found


def _check_callback(callback: Any) -> None:  # noqa: ANN401 - transformers ships no types
    if callback is StanchCallback or isinstance(callback, StanchCallback):
        raise UnsafeArgument(
            "callbacks: StanchCallback is refused",
            why="it records a run without a guarantee",
            next_step="leave it out; journal and statement record this run",
        )
