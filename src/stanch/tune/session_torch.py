"""One run from preparation to output folder."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoTokenizer

from stanch.crypto import RandomBytes, random_bytes, sync_folder, write_atomic
from stanch.data import Dataset, TokenRecord, tokenise
from stanch.errors import NotFound
from stanch.terms import JsonValue, Progress
from stanch.tune import journal as journals
from stanch.tune import statement as statements
from stanch.tune.checkpoint_sealed import CheckpointSeal
from stanch.tune.checkpoint_torch import ADAPTER_NAME, CheckpointState, adapter_bytes, adapter_config
from stanch.tune.coverage_torch import check_saved
from stanch.tune.device_torch import find_device, find_dtype, name_precision
from stanch.tune.goldfish import Goldfish
from stanch.tune.gradient_torch import PlainGradient, PrivateGradient, StepGradient
from stanch.tune.journal import BudgetJournal
from stanch.tune.keeping import Keeping
from stanch.tune.loop_torch import Loop
from stanch.tune.lora_torch import Adapter
from stanch.tune.model_torch import CausalModel, load_causal_model
from stanch.tune.noise import AesGaussian
from stanch.tune.physical_torch import CPU_TOKENS
from stanch.tune.plan import PrivacyPlan
from stanch.tune.prepare import Preparation
from stanch.tune.ranks_torch import NoNoise, Ranks
from stanch.tune.record import Recorder, RunRecord, versions_of
from stanch.tune.refusals import PlanChanged, UnsupportedParallelism
from stanch.tune.sampler import StreamKeys, UnitSampler
from stanch.tune.statement import PrivacyStatement, RunFacts, exclude_of_run, state_no_privacy, state_privacy
from stanch.tune.tokens import TokenTable
from stanch.tune.verify import PLAN_NAME, model_files

_TOKENIZER_FILES = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json",
)  # fmt: skip
_PACKAGES = ("torch", "transformers", "peft", "dp-accounting")


class Session:
    """A run in its folder; :meth:`run` does everything.

    Args:
        prepared: What will be done.
        folder: Where journal and checkpoints lie until the output is whole.
        recorder: Where events go.
        progress: Told of stages and steps.
        random: The source of keys and initial weights.
        ranks: The processes that share the steps.
    """

    def __init__(
        self,
        prepared: Preparation,
        folder: Path,
        recorder: Recorder,
        progress: Progress,
        *,
        random: RandomBytes = random_bytes,
        ranks: Ranks | None = None,
    ) -> None:
        self._prepared = prepared
        self._spec = prepared.spec
        self._folder = folder
        self._events = RunRecord(recorder)
        self._progress = progress
        self._random = random
        self._ranks = ranks or Ranks()
        self._base = Path(prepared.spec.base.path)
        self._anchored = False

    def run(self, dataset: Dataset, *, resume: bool, keeping: Keeping) -> tuple[Path, PrivacyStatement]:
        """Tune, check, and move the whole output into place. Returns its path and its statement."""
        records = self._tokenise(dataset)
        self._prepared = replace(self._prepared, tokens=records.digest)
        self._ranks.agree(self._prepared.digest.value, "plan")
        if not self._ranks.leads:
            return self._follow(records)
        self._anchored = keeping.on_head is not None
        self._events.record("train.begin", {**self._prepared.facts, "versions": dict(versions_of(*_PACKAGES))})
        with ExitStack() as stack:
            try:
                journal = self._open_journal(resume=resume, keeping=keeping)
                if journal is not None:
                    stack.enter_context(journal)
                model = self._load(records)
                updates = self._loop(model, records, journal, keeping.seal).run_steps()
                path, statement = self._finish(model, journal, updates)
            except BaseException as error:
                self._events.record_failure(error)
                raise
        self._events.record("train.end", {"model_digest": statement.model_digest, "epsilon": statement.epsilon})
        shutil.rmtree(self._folder)
        self._ranks.share(statement.to_json())
        return path, statement

    def _follow(self, records: TokenTable) -> tuple[Path, PrivacyStatement]:
        """Share the steps of the process that leads, which charges and writes."""
        self._loop(self._load(records), records, None, None).run_steps()
        return Path(self._spec.output.path), PrivacyStatement.from_json(self._ranks.share(b""))

    def _tokenise(self, dataset: Dataset) -> TokenTable:
        tokenizer = AutoTokenizer.from_pretrained(self._base, local_files_only=True, trust_remote_code=False)
        data = self._spec.data
        every = self._spec.extra.goldfish
        goldfish = Goldfish.of(dataset.key, every) if every else None

        def read() -> Iterator[TokenRecord]:
            for done, record in enumerate(dataset):
                tokens = tokenise(record, tokenizer, max_tokens=data.max_tokens, completion_only=data.completion_only)
                yield tokens if goldfish is None else goldfish.apply(tokens)
                self._progress("tokenise", done + 1, None)

        return TokenTable(read())

    def _open_journal(self, *, resume: bool, keeping: Keeping) -> BudgetJournal | None:
        """Create the run's folder, whole or not at all, or open the journal in it."""
        plan = self._prepared.plan
        if resume:
            if plan is None:
                return None
            self._check_plan(plan)
            return BudgetJournal.open(
                self._folder / journals.NAME, plan, anchor=keeping.anchor, on_head=keeping.on_head
            )
        partial = self._folder.with_name(f"{self._folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        journal = None
        if plan is not None:
            write_atomic(partial / PLAN_NAME, plan.to_json())
            journal = BudgetJournal.create(partial / journals.NAME, plan, on_head=keeping.on_head)
        partial.rename(self._folder)
        sync_folder(self._folder.parent)
        return journal

    def _check_plan(self, plan: PrivacyPlan) -> None:
        path = self._folder / PLAN_NAME
        if not path.is_file():
            raise NotFound(f"{path}: the plan of the unfinished run is missing")
        before = PrivacyPlan.from_json(path.read_bytes())
        changed = [name for name, value in before.to_fields().items() if plan.to_fields()[name] != value]
        if changed:
            raise PlanChanged(
                f"the privacy plan changed in {', '.join(changed)}",
                why="a plan is fixed before the first step",
                next_step="restore what was changed, or start a new run",
            )

    def _load(self, records: TokenTable) -> CausalModel:
        train = self._spec.train
        device = find_device(train.device)
        dtype = find_dtype(train.dtype, device)
        model = load_causal_model(self._base, self._spec.method, dtype=dtype, longest=records.longest, device=device)
        if train.gradient_checkpointing:
            model.checkpoint_layers()
        if model.adapter.shapes() != self._prepared.trainable:
            raise PlanChanged(
                "the loaded model has other trainable parameters than the plan",
                next_step="restore the base model, or start a new run",
            )
        seed = int.from_bytes(self._random(8), "big") >> 1
        model.adapter.initialise(torch.Generator().manual_seed(seed))
        return model

    def _loop(
        self,
        model: CausalModel,
        records: TokenTable,
        journal: BudgetJournal | None,
        seal: CheckpointSeal | None,
    ) -> Loop:
        prepared, ranks = self._prepared, self._ranks
        keys = ranks.share_keys(StreamKeys.fresh(self._random))
        count, chosen = len(prepared.units.units), self._spec.train.chunk_tokens
        gradient: StepGradient
        if prepared.plan is not None:
            noise = AesGaussian(keys.noise) if ranks.leads else NoNoise()
            budget = chosen or CPU_TOKENS
            add_up = ranks.add_up if ranks.world > 1 else None
            gradient = PrivateGradient(model, prepared.plan, noise, budget=budget, add_up=add_up)
            if chosen is None:
                gradient.choose_chunks(model, records.longest)
            sampler = UnitSampler.of(prepared.plan, prepared.units, keys)
        elif ranks.world > 1:
            raise UnsupportedParallelism(
                "several processes without privacy", next_step="run it in one process, or with privacy"
            )
        else:
            gradient = PlainGradient(model, prepared.batch, budget=chosen or CPU_TOKENS)
            sampler = UnitSampler(keys, min((prepared.batch << 64) // count, 2**64 - 1), count, 1, prepared.units)
        return Loop(
            model=model,
            gradient=gradient,
            sampler=sampler,
            records=records,
            journal=journal,
            train=self._spec.train,
            steps=prepared.steps,
            folder=self._folder,
            run=prepared.digest.hex,
            seal=seal,
            ranks=ranks,
            progress=self._progress,
            on_checkpoint=self._report,
        )

    def _report(self, state: CheckpointState) -> None:
        plan = self._prepared.plan
        facts: dict[str, JsonValue] = {"updates": state.updates, "elapsed": state.elapsed}
        if plan is not None and state.head is not None:
            facts["charged"] = state.head.charged
            facts["epsilon"] = plan.epsilon_after(state.head.charged, discretization=1e-3)
        self._events.record("checkpoint.saved", facts)

    def _finish(self, model: CausalModel, journal: BudgetJournal | None, updates: int) -> tuple[Path, PrivacyStatement]:
        """Write the output beside its place, check it, state the guarantee, and rename it into place."""
        output = Path(self._spec.output.path)
        partial = output.with_name(f"{output.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._write_model(model, partial)
        check_saved(model, partial, self._base)
        dtype = model.precision
        precision = name_precision(dtype, model.device)
        facts = RunFacts(
            files=model_files(partial),
            base_digest=str(self._prepared.base_digest),
            dataset_root=self._prepared.units.dataset_root,
            updates=updates,
            dtype=str(dtype).removeprefix("torch."),
            device=model.device.type,
            ranks=self._ranks.world,
            versions=versions_of(*_PACKAGES),
            anchored=self._anchored,
            excluded=() if journal is None else exclude_of_run(self._prepared.unfinished, self._folder, precision),
            earlier_runs=self._prepared.earlier,
        )
        if journal is None or self._prepared.plan is None:
            statement = state_no_privacy(facts)
        else:
            journal.close(updates)
            write_atomic(partial / PLAN_NAME, self._prepared.plan.to_json())
            for name in (journals.NAME, journals.TORN_NAME):
                if (self._folder / name).exists():
                    write_atomic(partial / name, (self._folder / name).read_bytes())
            statement = state_privacy(self._prepared.plan, journal.head, facts)
        write_atomic(partial / statements.NAME, statement.to_json())
        partial.rename(output)
        sync_folder(output.parent)
        return output, statement

    def _write_model(self, model: CausalModel, folder: Path) -> None:
        if isinstance(model.adapter, Adapter):
            layers = model.adapter.layers
            names, transposed = [layer.name for layer in layers], any(layer.transposed for layer in layers)
            config = adapter_config(self._base, self._spec.method, names, transposed=transposed)
            write_atomic(folder / ADAPTER_NAME, adapter_bytes(model.adapter.parameters()))
            write_atomic(folder / "adapter_config.json", config)
        else:
            model.model.save_pretrained(folder)
        for name in _TOKENIZER_FILES:
            if (self._base / name).is_file():
                write_atomic(folder / name, (self._base / name).read_bytes())
