"""Any loss of torch, or one's own, as the loss of each example and weighed."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn.parameters import check_fitting

Criterion = Callable[[Tensor, Tensor], Tensor]

# How losses read the one output that a module may have for two classes.
_PROBABILITIES = (nn.BCELoss, functional.binary_cross_entropy)
_LOG_PROBABILITIES = (nn.NLLLoss, functional.nll_loss)
_NUMBERS = (
    nn.MSELoss,
    functional.mse_loss,
    nn.L1Loss,
    functional.l1_loss,
    nn.SmoothL1Loss,
    functional.smooth_l1_loss,
    nn.HuberLoss,
    functional.huber_loss,
)
_SIGNS = (nn.SoftMarginLoss, functional.soft_margin_loss)
_OF_EACH_CLASS = (
    *_LOG_PROBABILITIES,
    nn.CrossEntropyLoss,
    functional.cross_entropy,
    nn.MultiMarginLoss,
    functional.multi_margin_loss,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleLoss:
    """The loss of a batch of (x, y) or (x, y, weight); can be pickled.

    Args:
        criterion: Called with outputs and targets; from :func:`criterion_of`.
        num_classes: Where targets are labels; None where they are numbers.
    """

    criterion: Criterion
    num_classes: int | None = None

    def __call__(self, module: nn.Module, batch: Any) -> Tensor:
        r"""Return each example's loss, or their mean where there are weights.

        With weights w it is :math:`\sum w_i l_i / \sum w_i`, as if an example of
        weight 2 were there twice. A criterion that returns a mean is taken at its word.
        """
        x, targets, *weights = batch
        outputs = self._pair(module(x), targets)
        if weights:
            losses = self._of_each(*outputs)
            return (losses * weights[0]).sum() / weights[0].sum()
        return _flat(self.criterion(*outputs))

    def of_each(self, module: nn.Module, batch: Any) -> Tensor:
        """Return each example's loss times its weight, shape (b,)."""
        x, targets, *weights = batch
        losses = self._of_each(*self._pair(module(x), targets))
        return losses * weights[0] if weights else losses

    def _pair(self, given: Any, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return outputs and targets as the criterion wants them.

        Raises:
            InputError: It cannot learn these labels from these outputs.
        """
        outputs, targets = fitting(as_outputs(given), targets, self.num_classes)
        if self.num_classes is None:
            return outputs, targets
        if not targets.is_floating_point():
            if _is_any(self.criterion, _NUMBERS):
                raise InputError(
                    "criterion: a loss of numbers needs a module with a single output, "
                    f"for two classes, got {outputs[0].numel()}.",
                    "criterion=None for the cross entropy",
                )
        elif _is_any(self.criterion, _OF_EACH_CLASS):
            raise InputError(
                "criterion: this loss needs an output for each of 2 classes, got one.",
                "nn.BCEWithLogitsLoss or None; or a module with two outputs",
            )
        elif _is_any(self.criterion, _SIGNS):
            return outputs, 2 * targets - 1
        return outputs, targets

    def _of_each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = _flat(self.criterion(outputs, targets))
        if losses.ndim:
            return losses
        # It only says the mean of several: ask it one by one.
        pairs = zip(outputs.split(1), targets.split(1), strict=True)
        return torch.stack([self.criterion(*pair) for pair in pairs])


def entropy(
    outputs: Tensor,
    targets: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Return the cross entropy of labels, from one logit for each or one for two.

    Args:
        outputs: Logits.
        targets: Labels from 0; as floating numbers of the outputs' shape where these
            are one for an example.
        weight: Of each class.
        label_smoothing: Share of a target that is spread over all classes.
        reduction: As in torch.

    Example:
        >>> one = entropy(torch.zeros(1, 1), torch.ones(1, 1))
        >>> float(one) == float(entropy(torch.zeros(1, 2), torch.tensor([1])))
        True
    """
    if not targets.is_floating_point():
        return functional.cross_entropy(
            outputs,
            targets,
            weight=weight,
            label_smoothing=label_smoothing,
            reduction=reduction,
        )
    smooth = targets * (1 - label_smoothing) + label_smoothing / 2
    return functional.binary_cross_entropy_with_logits(
        outputs,
        smooth,
        weight=None if weight is None else weight[targets.long()],
        reduction=reduction,
    )


def criterion_of(
    criterion: Any, parameters: Mapping[str, Any], default: Criterion
) -> Criterion:
    """Return what gives the losses of single examples, as far as it can be told to.

    Args:
        criterion: A module, its class, a function, or None.
        parameters: For the class or the function.
        default: In place of None.

    Raises:
        InputError: It cannot be called, or does not take a parameter.
    """
    who = "criterion"
    made: Any = default if criterion is None else criterion
    if not callable(made):
        raise InputError(
            f"{who}: must be a loss module, its class or a function, got {made!r}.",
            "torch.nn.CrossEntropyLoss, for one",
        )
    if isinstance(made, nn.Module):
        if parameters:
            raise InputError(
                f"{who}: `criterion__{next(iter(parameters))}` needs a class to be "
                "given to, and this is a module already.",
                f"give criterion={type(made).__name__}, the class",
            )
        module: Any = copy.deepcopy(made)
        if hasattr(module, "reduction"):
            module.reduction = "none"
        return module
    settings = dict(parameters)
    if _takes(made, "reduction"):
        settings["reduction"] = "none"
    if not isinstance(made, type):
        _check_taken(who, made, parameters)
        function: Any = made
        return partial(function, **settings) if settings else function
    check_fitting(who, made, (), settings)
    return made(**settings)


def placed(criterion: Criterion, device: torch.device, dtype: torch.dtype) -> Criterion:
    """Return a criterion whose class weights are where the outputs are, and as exact.

    Args:
        criterion: From :func:`criterion_of`.
        device: Of the outputs.
        dtype: Of the outputs.
    """
    if isinstance(criterion, nn.Module):
        return criterion.to(device, dtype)
    if not isinstance(criterion, partial):
        return criterion
    function: Any = criterion
    return partial(
        function.func,
        *function.args,
        **{
            name: value.to(device, dtype)
            if isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in function.keywords.items()
        },
    )


def as_outputs(given: Any) -> Tensor:
    """Return what a module returned, if it has a row for each example.

    Raises:
        InputError: It does not.
    """
    if isinstance(given, Tensor) and given.ndim:
        return given
    raise InputError(
        "module: it must return a tensor with a row for each example, got "
        f"{type(given).__name__}."
    )


def fitting(
    outputs: Tensor, targets: Tensor, num_classes: int | None
) -> tuple[Tensor, Tensor]:
    """Return outputs and targets in shapes that go together.

    Args:
        outputs: Of the module.
        targets: Numbers, or labels from 0.
        num_classes: Of labels; None for numbers.

    Returns:
        Both; for two classes and one output the labels are numbers of its shape.

    Raises:
        InputError: The module gives too few or too many values for an example.

    Example:
        >>> outputs, targets = torch.zeros(2, 1), torch.tensor([0, 1])
        >>> fitting(outputs, targets, num_classes=2)[1]
        tensor([[0.],
                [1.]])
    """
    per_example = outputs.numel() // len(outputs)
    if num_classes is None:
        if outputs.numel() != targets.numel():
            raise InputError(
                f"module: it must give {targets.numel() // len(targets)} values for "
                f"an example, as y has, got {per_example}."
            )
        return outputs.reshape(targets.shape), targets
    if per_example == 1 and num_classes == 2:
        return outputs, targets.to(outputs.dtype).reshape(outputs.shape)
    if num_classes > 1 and outputs.shape[1:] != (num_classes,):
        raise InputError(
            f"module: it must give one value for each of {num_classes} classes, got "
            f"shape {tuple(outputs.shape[1:])} for an example."
        )
    return outputs, targets


def probabilities(outputs: Tensor, criterion: Any, num_classes: int) -> Tensor:
    """Return the probability of each class.

    Outputs are read as the criterion reads them: those of a `BCELoss` are
    probabilities, of `NLLLoss` their logarithms, of `MSELoss` and its like numbers near
    0 or 1, of any other logits.

    Args:
        outputs: Of the module, one column for each class, or a single one for two.
        criterion: The loss as it was given.
        num_classes: How many there are.

    Returns:
        Shape (b, num_classes), each row adding up to 1.

    Example:
        >>> probabilities(torch.zeros(1, 1), nn.BCEWithLogitsLoss, num_classes=2)
        tensor([[0.5000, 0.5000]])
    """
    if num_classes == 1:
        return outputs.new_ones(len(outputs), 1)
    single = outputs.numel() == len(outputs)
    if _is_any(criterion, _PROBABILITIES):
        values = outputs
    elif _is_any(criterion, _NUMBERS):
        values = outputs.clamp(0, 1)
    elif _is_any(criterion, _LOG_PROBABILITIES):
        values = outputs.exp()
    else:
        values = outputs.sigmoid() if single else outputs.softmax(1)
    if single:
        values = values.reshape(-1, 1)
        return torch.cat([1 - values, values], dim=1)
    return values / values.sum(1, keepdim=True)


def _is_any(criterion: Any, kinds: tuple[Any, ...]) -> bool:
    """Return whether a criterion is one of these functions, or is or makes these."""
    made = criterion.func if isinstance(criterion, partial) else criterion
    classes = tuple(kind for kind in kinds if isinstance(kind, type))
    if isinstance(made, type):
        return issubclass(made, classes)
    return isinstance(made, classes) or made in kinds


def _flat(losses: Any) -> Tensor:
    if not isinstance(losses, Tensor):
        raise InputError(
            f"criterion: it must return a tensor, got {type(losses).__name__}.",
            "the loss of each example, or their mean",
        )
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def _takes(made: Any, name: str) -> bool:
    try:
        return name in inspect.signature(made).parameters
    except (TypeError, ValueError):  # some that are written in C do not say
        return False


def _check_taken(who: str, made: Any, parameters: Mapping[str, Any]) -> None:
    for name in parameters:
        if not _takes(made, name):
            called = getattr(made, "__name__", type(made).__name__)
            raise InputError(f"{who}: {called} takes no parameter {name!r}.")
