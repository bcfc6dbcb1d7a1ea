"""Settings of a Trainer under which its batch cannot follow a policy."""

from typing import Any

from rightbatch.errors import InputError
from rightbatch.integrations.windows import WindowLength

_WHO = "BatchSizeCallback"
_METHODS = ("get_batch_samples", "set_initial_training_values")


def refuse(trainer: Any) -> None:
    """Refuse a Trainer whose updates are not its own to make.

    Args:
        trainer: Not under way; settings that another run left in the middle of an
            update are put back.

    Raises:
        InputError: Something else steps, accumulates or cuts its batches.
    """
    missing = [name for name in _METHODS if not hasattr(trainer, name)]
    if missing:
        raise InputError(
            f"{_WHO}: `trainer` must be a transformers.Trainer with {missing[0]}(), "
            f"got {type(trainer).__name__}.",
            "give the Trainer itself, of a newer transformers",
        )
    if isinstance(trainer.args.gradient_accumulation_steps, WindowLength):
        trainer.args.gradient_accumulation_steps = 1
    for is_so, what, way_out in (*_engines(trainer), *_settings(trainer.args)):
        if is_so:
            raise InputError(f"{_WHO}: {what}.", way_out)


def _engines(trainer: Any) -> list[tuple[Any, str, str]]:
    parallel = getattr(trainer.accelerator, "parallelism_config", None)
    shared = [getattr(parallel, f"{name}_size", 1) for name in ("tp", "cp", "sp")]
    averages = getattr(trainer.args, "average_tokens_across_devices", True)
    return [
        (
            trainer.is_deepspeed_enabled,
            "DeepSpeed fixes the micro-batches of an update when it starts, and makes "
            "the steps itself",
            "train with DistributedDataParallel (torchrun), or use "
            "rightbatch.BatchSizeController in a loop with fully_shard",
        ),
        (
            trainer.is_fsdp_enabled,
            "the Trainer's FSDP is not followed",
            "use rightbatch.BatchSizeController in a loop with fully_shard",
        ),
        (
            trainer.args.n_gpu > 1,
            f"one process has {trainer.args.n_gpu} GPUs, whose losses DataParallel "
            "averages whatever they hold",
            "start with torchrun, or show it one GPU by CUDA_VISIBLE_DEVICES",
        ),
        (
            any(size > 1 for size in shared),
            "replicas that share an example (tensor, context or sequence parallel) are "
            "not followed",
            "leave parallelism_config out",
        ),
        (
            trainer.args.world_size > 1
            and trainer.model_accepts_loss_kwargs
            and not averages,
            "`average_tokens_across_devices` must be true, or the gradient is no mean "
            "over the update's tokens",
            "give TrainingArguments(average_tokens_across_devices=True)",
        ),
    ]


def _settings(args: Any) -> list[tuple[Any, str, str]]:
    steps, optim = args.gradient_accumulation_steps, str(args.optim)
    accelerator = args.accelerator_config
    return [
        (
            steps != 1,
            "`gradient_accumulation_steps` must be 1: the policy says how many "
            f"micro-batches an update has, got {steps}",
            "leave it out; per_device_train_batch_size is the micro-batch",
        ),
        (
            accelerator.gradient_accumulation_kwargs,
            "`accelerator_config.gradient_accumulation_kwargs` must not be given: the "
            "policy says how many micro-batches an update has",
            "leave it out",
        ),
        (
            args.auto_find_batch_size,
            "`auto_find_batch_size` changes the micro-batch while training, and begins "
            "anew",
            "find it before: rightbatch.timing.find_micro_batch_size",
        ),
        (
            "lomo" in optim.lower() or "layerwise" in optim.lower(),
            f"{optim} steps in the backward pass, before the gradient is complete",
            "use another optimizer",
        ),
        (
            args.world_size > 1 and not accelerator.even_batches,
            "`accelerator_config.even_batches` must be true: replicas need as many "
            "micro-batches",
            "leave it out",
        ),
    ]
