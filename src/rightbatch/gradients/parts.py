"""Which parameters are trained, what they are called, and which parts they form."""

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import nn
from torch.optim import Optimizer

from rightbatch import _checks
from rightbatch.errors import InputError

Parts = Literal["layers", "parameters"] | Mapping[str, Iterable[nn.Parameter]]
# What wrappers put in front of a parameter's own name.
_WRAPPERS = ("module.", "_orig_mod.")


def named_trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters by name, each once, wrappers left out.

    Raises:
        InputError: There is none, or one is complex.

    Example:
        >>> list(named_trainable(nn.Linear(2, 1)))
        ['weight', 'bias']
    """
    named = {
        plain_name(name): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    odd = [name for name, parameter in named.items() if parameter.is_complex()]
    if odd:
        raise InputError(
            f"NoiseMeter: `model` has a complex parameter, {odd[0]}.",
            "hold its real and imaginary parts apart, as torch.view_as_real does",
        )
    if not named:
        raise InputError(
            "NoiseMeter: `model` has no trainable parameters.",
            "parameters whose requires_grad is False have no gradient",
        )
    return named


def plain_name(name: str) -> str:
    """Return a module's or parameter's name without what wrappers put before it.

    Example:
        >>> plain_name("module._orig_mod.head.weight")
        'head.weight'
    """
    for wrapper in (*_WRAPPERS, *_WRAPPERS):
        name = name.removeprefix(wrapper)
    return name


def optimizer_parts(optimizer: Optimizer) -> dict[str, list[nn.Parameter]]:
    """Return the parameter groups of an optimizer, as parts a meter reads apart.

    Example:
        >>> from torch.optim import SGD
        >>> model = nn.Linear(2, 1)
        >>> groups = [{"params": [model.weight]}, {"params": [model.bias], "lr": 1.0}]
        >>> list(optimizer_parts(SGD(groups, lr=0.1)))
        ['group 0', 'group 1']
    """
    return {
        f"group {number}": list(group["params"])
        for number, group in enumerate(optimizer.param_groups)
    }


def columns_of(named: Mapping[str, nn.Parameter], parts: Parts) -> dict[str, list[int]]:
    """Return the columns of each part.

    Args:
        named: Trainable parameters by name, in the order of the columns.
        parts: "layers" for each module's own together, "parameters" for each alone,
            or parameters by name.

    Returns:
        Columns, ascending.

    Raises:
        InputError: No such choice, or a part holds nothing that is trained.
    """
    if isinstance(parts, str):
        _checks.one_of("NoiseMeter", "parts", parts, ("layers", "parameters"))
        found: dict[str, list[int]] = {}
        for column, name in enumerate(named):
            layer = name.rpartition(".")[0] or name
            found.setdefault(layer if parts == "layers" else name, []).append(column)
        return found
    places = {id(parameter): column for column, parameter in enumerate(named.values())}
    given: dict[str, list[int]] = {}
    for name, parameters in parts.items():
        columns = sorted({places[id(p)] for p in parameters if id(p) in places})
        if not columns:
            raise InputError(
                f"NoiseMeter: `parts` {name!r} holds no trainable parameter of the "
                "model."
            )
        given[str(name)] = columns
    return given
