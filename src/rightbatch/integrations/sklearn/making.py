"""What an estimator is told by its parameters, made: module, optimizer, policy."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.integrations.sklearn.parameters import check_fitting
from rightbatch.policies import (
    Clip,
    Observation,
    Policy,
    PolicyContext,
    named_policy,
)
from rightbatch.policies.contract import ask, check_policy

_OPTIMIZERS = {
    name.lower(): kind
    for name, kind in vars(torch.optim).items()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
}


_UNFIT: dict[type[Optimizer], str] = {
    torch.optim.LBFGS: "asks for the loss again within a step, of other weights",
    torch.optim.SparseAdam: "takes sparse gradients alone",
}
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


def dtype_of(given: Any) -> torch.dtype:
    """Return torch's type of floating numbers.

    Args:
        given: Its name, or torch's or numpy's type of that name.

    Raises:
        InputError: It is neither single nor double precision.

    Example:
        >>> dtype_of("float64"), dtype_of(torch.float32)
        (torch.float64, torch.float32)
    """
    if isinstance(given, torch.dtype):
        name = str(given).removeprefix("torch.")
    elif isinstance(given, type):
        name = given.__name__
    else:
        name = str(given)
    return _DTYPES[_checks.one_of("estimator", "dtype", name, list(_DTYPES))]


class OneHiddenLayer(nn.Sequential):
    """A small network: inputs, a layer of rectified units, outputs.

    Args:
        num_inputs: Values of an example, of whatever shape.
        num_outputs: Values it returns for one.
        hidden: Units of the layer.

    Example:
        >>> OneHiddenLayer(4, 3)(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, num_inputs: int, num_outputs: int, hidden: int = 100) -> None:
        size = _checks.positive_integer("module", "module__hidden", hidden)
        super().__init__(
            nn.Flatten(),
            nn.Linear(num_inputs, size),
            nn.ReLU(),
            nn.Linear(size, num_outputs),
        )

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs, shape (b, num_outputs); whole numbers are inputs too."""
        last: Any = self[3]
        return super().forward(input.to(last.weight.dtype))


def module_of(
    given: Any, parameters: Mapping[str, Any], num_inputs: int, num_outputs: int
) -> nn.Module:
    """Return the module to train.

    Args:
        given: A module, which is copied; its class or a function that returns one,
            which is called with `parameters`; or None, for :class:`OneHiddenLayer`.
        parameters: Those written ``module__x``.
        num_inputs: Values of an example; for None alone.
        num_outputs: Values wanted for one; for None alone.

    Raises:
        InputError: What was given is no such thing, cannot be made with these
            parameters, or has nothing to train.
    """
    who = "module"
    if isinstance(given, nn.Module):
        if parameters:
            raise InputError(
                f"{who}: `module__{next(iter(parameters))}` needs a class to be given "
                "to, and this is a module already.",
                f"give module={type(given).__name__}, the class",
            )
        made: Any = copy.deepcopy(given)
    elif given is not None and not callable(given):
        raise InputError(
            f"{who}: must be an nn.Module, its class or a function that returns one, "
            f"got {given!r}."
        )
    else:
        sizes = (num_inputs, num_outputs) if given is None else ()
        make: Any = given or OneHiddenLayer
        check_fitting(who, make, sizes, parameters)
        made = make(*sizes, **parameters)
    if not isinstance(made, nn.Module):
        raise InputError(
            f"{who}: the function must return an nn.Module, got {type(made).__name__}."
        )
    if not any(parameter.requires_grad for parameter in made.parameters()):
        raise InputError(f"{who}: {type(made).__name__} has nothing to train.")
    return made


def optimizer_of(
    given: Any, module: nn.Module, lr: float, parameters: Mapping[str, Any]
) -> Optimizer:
    """Return an optimizer of the parameters that are trained.

    Args:
        given: A class or function called with parameters and lr, or its name in
            ``torch.optim`` in any case.
        module: Trained.
        lr: Learning rate.
        parameters: Those written ``optimizer__x``.

    Raises:
        InputError: There is no such optimizer, or it does not take a parameter.
    """
    who = "optimizer"
    make: Any = given
    if "lr" in parameters:
        raise InputError(f"{who}: the learning rate must be given as `lr`.")
    rate = _checks.positive(who, "lr", lr)
    if isinstance(given, str):
        name = given.lower()
        make = _OPTIMIZERS[_checks.one_of(who, who, name, sorted(_OPTIMIZERS))]
    if not callable(make):
        raise InputError(
            f"{who}: must be a class of torch.optim or its name, got {given!r}."
        )
    check_fitting(who, make, ([],), {"lr": rate, **parameters})
    trained = [one for one in module.parameters() if one.requires_grad]
    try:
        made: Any = make(trained, lr=rate, **parameters)
    except (TypeError, ValueError) as error:
        called = ", ".join(f"optimizer__{name}" for name in parameters) or "lr"
        raise InputError(f"{who}: cannot be made with {called}: {error}.") from error
    if not isinstance(made, Optimizer):
        raise InputError(
            f"{who}: the function must return a torch optimizer, got "
            f"{type(made).__name__}."
        )
    for kind, reason in _UNFIT.items():
        if isinstance(made, kind):
            raise InputError(f"{who}: {kind.__name__} {reason}.", "adam, for one")
    return made


def policy_of(
    given: Any,
    initial_batch_size: int,
    max_batch_size: int | None,
    context: PolicyContext,
) -> Policy[Any]:
    """Return the policy to follow.

    Args:
        given: A policy, or a text for :func:`rightbatch.policies.named_policy`.
        initial_batch_size: For the text.
        max_batch_size: What no batch exceeds; None for the data set's size.
        context: What the run knows, for the text.

    Raises:
        InputError: There is no such policy, or batch sizes are out of order.
    """
    if not isinstance(given, str):
        check_policy("policy", given)
        if max_batch_size is None:
            return given
        high = _checks.positive_integer("policy", "max_batch_size", max_batch_size)
        return Clip(given, high=high)
    return named_policy(
        given,
        initial_batch_size=initial_batch_size,
        max_batch_size=max_batch_size,
        context=context,
    )


def first_wish(policy: Policy[Any], dataset_size: int) -> float:
    """Return the batch size that a policy begins with.

    Args:
        policy: Asked as before a first update, with a loss of 1.
        dataset_size: Examples there are.

    Example:
        >>> from rightbatch.policies import AdaDamp
        >>> first_wish(AdaDamp(initial_batch_size=8), 100)
        8.0
    """
    start = Observation(
        step=0,
        examples=0,
        batch_size=0,
        epoch=0.0,
        dataset_size=dataset_size,
        eval_loss=1.0,
    )
    return float(ask(policy, policy.init(), start)[0].batch_size)
