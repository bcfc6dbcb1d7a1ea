"""What an optimizer multiplies the next gradient by, read off its state."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from rightbatch.curvature.loss_surface import LossSurface, flatten
from rightbatch.errors import InputError


def preconditioner_diagonal(optimizer: Optimizer, model: nn.Module) -> Tensor:
    r"""Return D, where an optimizer moves along D g: its state's before the step.

    The factor of the (bias-corrected) gradient or its average in the update, at the
    state the optimizer is in; the gradient of the coming step is not in it. For Adam,
    with :math:`\hat v = v/(1 - \beta_2^k)` after k steps,

    .. math:: D = 1/(\sqrt{\hat v} + \epsilon)

    Parameters in a group with a smaller rate than the largest have a factor smaller in
    proportion. What only an average over steps does (momentum) and weight decay are no
    part of D.

    Args:
        optimizer: SGD (ones), Adam, AdamW, NAdam, RAdam, RMSprop or Adagrad.
        model: Whose trainable parameters the optimizer holds.

    Returns:
        Factors in the order of ``model.parameters()``, shape (n,).

    Raises:
        InputError: The optimizer is another one, lacks a parameter or has not made a
            step yet, or all rates are zero.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> preconditioner_diagonal(SGD(model.parameters(), lr=0.1), model).tolist()
        [1.0, 1.0, 1.0]
    """
    who = "preconditioner_diagonal"
    factor = FACTORS.get(type(optimizer))
    if factor is None:
        names = ", ".join(sorted(kind.__name__ for kind in FACTORS))
        raise InputError(
            f"{who}: `optimizer` must be one of {names}, got "
            f"{type(optimizer).__name__}.",
            "pass the diagonal itself where one is asked for",
        )
    LossSurface(who, model)
    groups = _groups(optimizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    if not all(id(p) in groups for p in trained):
        raise InputError(
            f"{who}: `optimizer` must hold every trainable parameter of the model.",
            "freeze the others, or pass the diagonal itself where one is asked for",
        )
    largest = max(_rate(groups[id(p)]) for p in trained)
    if largest <= 0:
        raise InputError(
            f"{who}: `optimizer` must have a positive learning rate, got {largest:g}."
        )
    return flatten(
        _rate(groups[id(p)]) / largest * factor(p, _state(optimizer, p), groups[id(p)])
        for p in trained
    )


def _groups(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    return {id(p): group for group in optimizer.param_groups for p in group["params"]}


def _rate(group: dict[str, Any]) -> float:
    return float(group["lr"])


def _state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    state = optimizer.state.get(parameter, {})
    if type(optimizer) is not SGD and float(state.get("step", 0)) < 1:
        raise InputError(
            "preconditioner_diagonal: `optimizer` must have made a step with every "
            "parameter, got one without.",
            "measure after the first step",
        )
    return state


def _ones(parameter: Tensor, _state: dict[str, Any], _group: dict[str, Any]) -> Tensor:
    return torch.ones_like(parameter)


def _adam(_parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    second = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    mean = second / (1 - group["betas"][1] ** float(state["step"]))
    return 1 / (mean.sqrt() + group["eps"])


def _radam(parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    # Plain while too few steps tell of the variance (Liu et al., 2020).
    beta, step = group["betas"][1], float(state["step"])
    seen = 1 - beta**step
    most = 2 / (1 - beta) - 1
    length = most - 2 * step * beta**step / seen
    if length <= 5:
        return torch.ones_like(parameter)
    rectified = (length - 4) * (length - 2) * most
    rectified /= (most - 4) * (most - 2) * length
    return math.sqrt(rectified * seen) / (state["exp_avg_sq"].sqrt() + group["eps"])


def _rmsprop(
    _parameter: Tensor, state: dict[str, Any], group: dict[str, Any]
) -> Tensor:
    mean = state["square_avg"]
    if group["centered"]:
        mean = (mean - state["grad_avg"].square()).clamp(min=0)
    return 1 / (mean.sqrt() + group["eps"])


def _adagrad(
    _parameter: Tensor, state: dict[str, Any], group: dict[str, Any]
) -> Tensor:
    # The rate of the step to come, as parameters may have made unlike numbers of them.
    decay = 1 + float(state["step"]) * group["lr_decay"]
    return 1 / (decay * (state["sum"].sqrt() + group["eps"]))


Factor = Callable[[Tensor, dict[str, Any], dict[str, Any]], Tensor]

FACTORS: dict[type[Optimizer], Factor] = {
    SGD: _ones,
    Adam: _adam,
    AdamW: _adam,
    NAdam: _adam,
    RAdam: _radam,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}
