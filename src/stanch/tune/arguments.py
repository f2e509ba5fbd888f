"""Which arguments of other people's trainers keep the guarantee: a white list of every field.

A field that is not named here must keep its default, since a later release may give it any meaning. Needs neither torch
nor transformers: fields are compared with those of a fresh object of the same class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from stanch.tune.refusals import UnsafeArgument

FREE: Final = frozenset(
    [
        "output_dir",
        "learning_rate",
        "lr_scheduler_kwargs",
        "warmup_steps",
        "weight_decay",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "bf16",
        "tf32",
        "per_device_train_batch_size",
        "activation_checkpointing",
        "activation_checkpointing_kwargs",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "use_cpu",
        "use_cache",
        "seed",
        "data_seed",
        "full_determinism",
        "average_tokens_across_devices",
        "logging_strategy",
        "logging_steps",
        "logging_first_step",
        "log_on_each_node",
        "logging_nan_inf_filter",
        "log_level",
        "log_level_replica",
        "disable_tqdm",
        "report_to",
        "run_name",
        "project",
        "trackio_space_id",
        "trackio_bucket_id",
        "trackio_static_space_id",
        "save_steps",
        "save_on_each_node",
        "remove_unused_columns",
        "label_names",
        "length_column_name",
        "dataloader_num_workers",
        "dataloader_pin_memory",
        "dataloader_persistent_workers",
        "dataloader_prefetch_factor",
        "dataloader_multiprocessing_context",
        "dataloader_in_order",
        "torch_empty_cache_steps",
        "skip_memory_metrics",
        "ddp_find_unused_parameters",
        "ddp_bucket_cap_mb",
        "ddp_broadcast_buffers",
        "ddp_static_graph",
        "ddp_backend",
        "ddp_timeout",
        "do_train",
        "do_predict",
        "resume_from_checkpoint",
        "local_rank",
        "hub_token",
        "hub_private_repo",
        "hub_model_id",
        "hub_strategy",
        "hub_always_push",
        "hub_revision",
        "dataset_text_field",
        "dataset_kwargs",
        "dataset_num_proc",
        "eos_token",
        "pad_token",
        "max_length",
        "truncation_mode",
        "pad_to_multiple_of",
        "completion_only_loss",
        "assistant_only_loss",
        "packing_strategy",
    ]
)
"""Fields that may have any value: they act on noisy gradients, on one record at a time, or not at all."""

EVALUATION: Final = frozenset(
    [
        "do_eval",
        "eval_strategy",
        "eval_steps",
        "eval_delay",
        "per_device_eval_batch_size",
        "prediction_loss_only",
        "eval_on_start",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "eval_accumulation_steps",
        "include_for_metrics",
        "batch_eval_metrics",
        "bf16_full_eval",
        "fp16_full_eval",
        "metric_for_best_model",
        "greater_is_better",
    ]
)
"""Fields that are about evaluation, which needs ``eval_is_public=True``."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A field with few values that keep the guarantee: which, why, and what to do instead of the others."""

    values: frozenset[str]
    why: str
    instead: str


@dataclass(frozen=True, slots=True)
class Forced:
    """A field with one value: its default, or what stands in :data:`SET`; why, and what to do instead."""

    why: str
    instead: str


_BATCH = "the loss of a record would depend on the records beside it"
_SAMPLER = "only the plan's sampler may choose who takes part in a step"
_LOSS = "the loss must be the mean over a record's own labelled tokens"
_RANKS = "one process computes the sum and adds the noise"
_FORMAT = "checkpoints are safetensors and JSON, without pickle"
_UPLOAD = "a run in progress would leave this machine"
_PLAN = "the privacy plan fixes the number of steps and the batch"

CHOICES: Final[Mapping[str, Choice]] = {
    "optim": Choice(
        frozenset({"adamw_torch", "adamw_torch_fused", "sgd", "adafactor"}),
        "its state must be known to come from noisy gradients alone, and must be saved without pickle",
        "use adamw_torch, adamw_torch_fused, sgd or adafactor",
    ),
    "lr_scheduler_type": Choice(
        frozenset(
            [
                "linear",
                "cosine",
                "cosine_with_restarts",
                "polynomial",
                "constant",
                "constant_with_warmup",
                "inverse_sqrt",
                "cosine_with_min_lr",
                "cosine_warmup_with_min_lr",
                "warmup_stable_decay",
            ]
        ),
        "a schedule that looks at a loss follows private data",
        "use a schedule of the step number, such as linear or cosine",
    ),
    "save_strategy": Choice(
        frozenset({"no", "steps"}), "the best checkpoint is chosen by private data", "use save_strategy='steps'"
    ),
}

SET: Final[Mapping[str, Any]] = {"max_grad_norm": 0.0, "ignore_data_skip": True, "save_total_limit": 1}
"""What the trainer sets itself in place of the field's default."""

FORCED: Final[Mapping[str, Forced]] = {
    "max_grad_norm": Forced("units are clipped before the noise", "set max_grad_norm of the plan"),
    "num_train_epochs": Forced(_PLAN, "set epochs when you make the plan"),
    "max_steps": Forced(_PLAN, "set steps when you make the plan"),
    "gradient_accumulation_steps": Forced(_PLAN, "set expected_batch when you make the plan; chunks keep memory low"),
    "auto_find_batch_size": Forced("steps would be repeated without a charge", "lower per_device_train_batch_size"),
    "train_sampling_strategy": Forced(_SAMPLER, "leave it out"),
    "shuffle_dataset": Forced(_SAMPLER, "leave it out"),
    "dataloader_drop_last": Forced(_SAMPLER, "leave it out"),
    "ignore_data_skip": Forced("a resumed run draws new units", "leave it out"),
    "packing": Forced("two units would share a row", "set packing=False"),
    "eval_packing": Forced("two units would share a row", "leave it out"),
    "padding_free": Forced("units could no longer be told apart", "set padding_free=False"),
    "loss_type": Forced(_LOSS, "set loss_type='nll'"),
    "label_smoothing_factor": Forced(_LOSS, "set label_smoothing_factor=0"),
    "router_aux_loss_coef": Forced(_BATCH, "leave it out"),
    "neftune_noise_alpha": Forced("it changes embeddings between the passes of one step", "leave it out"),
    "fp16": Forced("its loss scaler skips steps depending on the data", "use bf16=True"),
    "use_liger_kernel": Forced("its kernels hide gradients from the engine", "leave it out"),
    "liger_kernel_config": Forced("its kernels hide gradients from the engine", "leave it out"),
    "torch_compile": Forced("a compiled module hides gradients from the engine", "leave it out"),
    "torch_compile_backend": Forced("a compiled module hides gradients from the engine", "leave it out"),
    "torch_compile_mode": Forced("a compiled module hides gradients from the engine", "leave it out"),
    "optim_args": Forced("what it may set depends on the optimizer", "use the Adam constants and weight_decay"),
    "optim_target_modules": Forced("layer-wise optimizers look at single gradients", "leave it out"),
    "include_num_input_tokens_seen": Forced("the number of tokens tells who took part", "leave it out"),
    "save_only_model": Forced("a run could not be resumed within its budget", "set save_strategy='no'"),
    "save_total_limit": Forced("the last checkpoint alone is kept", "leave it out, or set 1"),
    "enable_jit_checkpoint": Forced(_FORMAT, "use save_strategy='steps'"),
    "restore_callback_states_from_checkpoint": Forced(_FORMAT, "leave it out"),
    "load_best_model_at_end": Forced("the best model would be chosen by private data", "keep the last one"),
    "push_to_hub": Forced(_UPLOAD, "publish the finished adapter with its statement"),
    "model_init_kwargs": Forced("a model is loaded and checked by the caller", "pass the loaded model"),
    "chat_template_path": Forced("it may add tokens to the model", "set chat_template of the tokenizer"),
    "activation_offloading": Forced("the private step does not use it", "use activation_checkpointing"),
    "trust_remote_code": Forced("foreign code could do anything", "use a model that transformers knows"),
    "accelerator_config": Forced(_SAMPLER, "leave it out"),
    "parallelism_config": Forced(_RANKS, "use one process, or stanch's own loop for several"),
    "fsdp": Forced(_RANKS, "use one process, or stanch's own loop for several"),
    "fsdp_config": Forced(_RANKS, "use one process, or stanch's own loop for several"),
    "deepspeed": Forced(_RANKS, "use one process, or stanch's own loop for several"),
    "debug": Forced("its reports show private values", "leave it out"),
}

CONSTRUCTOR_FREE: Final = frozenset(
    {"train_dataset", "processing_class", "callbacks", "peft_config", "formatting_func"}
)
CONSTRUCTOR_EVALUATION: Final = frozenset(
    {"eval_dataset", "data_collator", "compute_metrics", "preprocess_logits_for_metrics"}
)
CONSTRUCTOR_FORCED: Final[Mapping[str, Forced]] = {
    "compute_loss_func": Forced(_LOSS, "leave it out"),
    "model_init": Forced("the engine would watch another model", "pass the model itself"),
    "optimizers": Forced("its state may come from elsewhere", "choose optim and lr_scheduler_type in the arguments"),
    "optimizer_cls_and_kwargs": Forced("its state may come from elsewhere", "choose optim in the arguments"),
    "quantization_config": Forced("quantised bases are not tested with the engine", "load the base in bfloat16"),
}


def check_arguments(args: Any, *, eval_is_public: bool) -> None:  # noqa: ANN401 - transformers ships no types
    """Refuse every value that is not known to keep the guarantee.

    Raises:
        UnsafeArgument: A field has such a value; the message names it and says what to do.
    """
    usual = type(args)(output_dir=args.output_dir, use_cpu=args.use_cpu, bf16=args.bf16)
    for field in fields(args):
        name, value = field.name, getattr(args, field.name)
        if name in CHOICES:
            _check_choice(name, value, CHOICES[name])
        elif name in FREE or value == getattr(usual, name):
            continue
        elif name in EVALUATION:
            if not eval_is_public:
                raise refuse_evaluation(name)
        elif name not in SET or value != SET[name]:
            rule = FORCED.get(name, Forced("the field is unknown to this release", "leave it at its default"))
            raise UnsafeArgument(f"{name}: this value is refused", why=rule.why, next_step=rule.instead)
    if args.world_size > 1 or args.n_gpu > 1:
        raise UnsafeArgument(
            f"found {max(args.world_size, args.n_gpu)} processes or devices, expected 1",
            why=_RANKS,
            next_step="set CUDA_VISIBLE_DEVICES to one device, or use stanch's own loop",
        )


def check_constructor(given: Mapping[str, Any], *, eval_is_public: bool) -> None:
    """Refuse arguments of a trainer's constructor in the same way."""
    for name, value in given.items():
        if name in CONSTRUCTOR_FREE or value is None:
            continue
        if name in CONSTRUCTOR_EVALUATION:
            if not eval_is_public:
                raise refuse_evaluation(name)
            continue
        rule = CONSTRUCTOR_FORCED.get(name, Forced("it is unknown to this release", "leave it out"))
        raise UnsafeArgument(f"{name}: this argument is refused", why=rule.why, next_step=rule.instead)


def refuse_evaluation(name: str) -> UnsafeArgument:
    """Return the error for an evaluation on data that was not declared public."""
    return UnsafeArgument(
        f"{name}: evaluation is refused",
        why="figures about private data are outside the guarantee, and so is what is chosen by them",
        next_step="evaluate on public data and pass eval_is_public=True, or leave it out",
    )


def _check_choice(name: str, value: Any, choice: Choice) -> None:  # noqa: ANN401 - transformers ships no types
    # Fields with few values are enumerations of texts, or the texts themselves.
    found = str(getattr(value, "value", value))
    if found not in choice.values:
        raise UnsafeArgument(f"{name}: {found!r} is refused", why=choice.why, next_step=choice.instead)
