"""What of a Lightning Trainer does not go with a batch that changes, and why."""

import inspect
from typing import Any

from rightbatch import _checks
from rightbatch.controller import Acting, Sensing
from rightbatch.errors import InputError
from rightbatch.lr_scaling import LR_RULES, find_rule
from rightbatch.policies import PolicyContext, check_policy, named_policy

_WHO = "BatchSizeCallback"
# Whatever a run can know of itself, for what a name needs to be a policy at all.
_ANY_RUN = PolicyContext(dataset_size=2**40, total_steps=2**20, epochs=1)
_SHARDED = ("FSDPStrategy", "ModelParallelStrategy")


def refuse_settings(policy: Any, lr_rule: Any, settings: dict[str, Any]) -> None:
    """Refuse what no run can follow, where the user writes it.

    Args:
        policy: Or its name.
        lr_rule: By its name.
        settings: Of the callback, by name; None for what was left out.

    Raises:
        InputError: A name is unknown, or a setting is something else.

    Example:
        >>> refuse_settings("geodamp", "linear", {"sensing": None})
    """
    if isinstance(policy, str):
        named_policy(policy, initial_batch_size=1, context=_ANY_RUN)
    else:
        check_policy(_WHO, policy)
    if not isinstance(lr_rule, str):
        raise InputError(
            f"{_WHO}: `lr_rule` must be the name of a rule, got {lr_rule!r}.",
            "lr_rule='none' leaves the learning rate alone",
        )
    if lr_rule not in ("none", "auto"):
        word = lr_rule.partition(":")[0].replace("-", "_")
        _checks.one_of(_WHO, "lr_rule", word, ["none", "auto", *LR_RULES])
        find_rule(lr_rule)
    for name, kind in (("sensing", Sensing), ("acting", Acting)):
        given = settings.get(name)
        if given is not None and not isinstance(given, kind):
            raise InputError(
                f"{_WHO}: `{name}` must be {kind.__name__}(...), got {given!r}.",
                f"from rightbatch.controller import {kind.__name__}",
            )
    for name in ("count", "log"):
        given = settings.get(name)
        if given is not None and not callable(given):
            raise InputError(f"{_WHO}: `{name}` must be a function, got {given!r}.")
    if settings.get("micro_batch_size") is not None:
        _checks.positive_integer(_WHO, "micro_batch_size", settings["micro_batch_size"])


def refuse_trainer(trainer: Any, module: Any) -> None:
    """Refuse a Trainer or LightningModule whose updates cannot be followed.

    Args:
        trainer: Before its strategy is set up.
        module: The user's.

    Raises:
        InputError: It cannot; the reason is given.
    """
    if not module.automatic_optimization:
        raise InputError(
            f"{_WHO}: {type(module).__name__} has manual optimization: it steps by "
            "itself, and the callback cannot say when.",
            "leave automatic_optimization at True, or use "
            "rightbatch.controller.HostedController in training_step",
        )
    if "dataloader_iter" in inspect.signature(module.training_step).parameters:
        raise InputError(
            f"{_WHO}: training_step(dataloader_iter) takes its batches itself; the "
            "callback does not see them.",
            "write training_step(batch, batch_idx)",
        )
    _refuse_strategy(trainer.strategy)
    _refuse_accumulation(trainer)


def _refuse_strategy(strategy: Any) -> None:
    name = type(strategy).__name__
    if strategy.handles_gradient_accumulation:
        raise InputError(
            f"{_WHO}: {name} accumulates gradients itself, over a number of "
            "micro-batches that is fixed when training begins.",
            "use strategy='ddp' or one device",
        )
    kinds = {kind.__name__ for kind in type(strategy).__mro__}
    if kinds.intersection(_SHARDED):
        raise InputError(
            f"{_WHO}: {name} shards the model, which is not tested with a batch that "
            "changes.",
            "use strategy='ddp', or rightbatch.train with fully_shard",
        )


def _refuse_accumulation(trainer: Any) -> None:
    accumulation = trainer.accumulate_grad_batches
    if accumulation != 1:
        raise InputError(
            f"{_WHO}: Trainer(accumulate_grad_batches={accumulation}) and the callback "
            "would both say how many micro-batches make an update.",
            "leave it out, and let the policy begin at that batch size",
        )
    for callback in trainer.callbacks:
        kinds = {kind.__name__ for kind in type(callback).__mro__}
        if "GradientAccumulationScheduler" in kinds:
            raise InputError(
                f"{_WHO}: GradientAccumulationScheduler and the callback would both "
                "say how many micro-batches make an update.",
                "leave it out; Schedule is a policy by step, epoch or example",
            )
        if "StochasticWeightAveraging" in kinds:
            raise InputError(
                f"{_WHO}: StochasticWeightAveraging sets the accumulation itself while "
                "it goes over the data once more for batch normalization.",
                "use EMAWeightAveraging, or average the weights after training",
            )


def refuse_optimizers(optimizers: list[Any]) -> None:
    """Refuse other optimizers than a single one.

    Args:
        optimizers: Of the Trainer.

    Raises:
        InputError: There is none, or are several.

    Example:
        >>> import torch
        >>> refuse_optimizers([torch.optim.SGD([torch.nn.Parameter(torch.ones(1))])])
    """
    held = [one for one in optimizers if one.param_groups]
    if len(held) != 1:
        raise InputError(
            f"{_WHO}: configure_optimizers must return one optimizer, got {len(held)}.",
            "use rightbatch.controller.HostedController in a loop of your own",
        )
