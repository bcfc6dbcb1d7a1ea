"""The optimizers by name, and a workload with another one in place of its own."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from rightbatch._checks import did_you_mean
from rightbatch.errors import InputError
from rightbatch.experiments.optimizers.ema import check_decay
from rightbatch.experiments.optimizers.kfac import KfacFor, KfacSettings
from rightbatch.experiments.record import exact_text
from rightbatch.workload import STAND_IN_MARK, Workload, failing_as

OptimizerFactory = Callable[[Iterable[nn.Parameter], float], Optimizer]

# What Adam's kin is tried at: a step moves each weight by about this much, whatever
# the gradient's size.
STEP_SIZES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)
# What SGD is tried at where a workload's own rates are not those of SGD.
SGD_LRS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
KFAC_LRS = (0.03, 0.1, 0.3, 1.0)

# torch takes more, and the steps grow without bound.
_BELOW_ONE = ("momentum", "alpha")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerEntry:
    """What an optimizer says of itself.

    Args:
        summary: What it is, in a few words.
        settings: By name, with their defaults; whole numbers stay so.
        make: From the settings, what a workload has as its `optimizer`.
        lrs: To choose among, from the workload and the settings.
    """

    summary: str
    settings: Mapping[str, float]
    make: Callable[[Mapping[str, Any]], OptimizerFactory] = field(repr=False)
    lrs: Callable[[Workload, Mapping[str, Any]], tuple[float, ...]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """An optimizer of torch with its settings; ``named(parameters, lr)`` makes one.

    Args:
        kind: The class.
        settings: Its keyword arguments.
    """

    kind: Callable[..., Optimizer]
    settings: Mapping[str, Any]

    def __call__(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Return the optimizer of some parameters.

        Args:
            parameters: To be changed.
            lr: Learning rate.
        """
        return self.kind(parameters, lr=lr, **self.settings)


def named_optimizer(text: str) -> OptimizerFactory:
    """Return what makes the optimizer of a name, as a workload's `optimizer` does.

    Args:
        text: ``name``, or ``name:key=value,key=value``; names and keys are those of
            :data:`OPTIMIZERS`.

    Returns:
        ``made(parameters, lr)`` returns an optimizer; K-FAC's is made with
        ``for_model(model, lr)`` instead.

    Raises:
        InputError: The name or a key is unknown (near names are offered), or a value
            is not a number in its range.

    Example:
        >>> made = named_optimizer("momentum:momentum=.95")
        >>> made([torch.nn.Parameter(torch.zeros(1))], 0.1).defaults["momentum"]
        0.95
    """
    entry, settings, _ = _read(text)
    made = entry.make(settings)
    if isinstance(made, Named):
        # torch's own ranges, asked now and not when the runs have begun.
        try:
            made([nn.Parameter(torch.zeros(1))], 1.0)
        except ValueError as error:
            raise InputError(f"optimizer: {text!r} cannot be: {error}.") from error
    return made


def with_optimizer(
    workload: Workload, optimizer: str | None = None, ema_decay: float | None = None
) -> Workload:
    """Return a workload that trains otherwise, told apart by its name.

    Its learning rates are the optimizer's usual ones: for SGD the workload's own, over
    one less its momentum where it has one, or .01 to 3 where its optimizer is no SGD;
    those times one less the momentum for momentum. Weight decay is what the text says,
    not the workload's.

    Args:
        workload: What to train.
        optimizer: As for :func:`named_optimizer`; None keeps the workload's own.
        ema_decay: Checks are on the average of the weights with this decay; None for
            the weights themselves.

    Returns:
        The workload, ``+`` and what is other added to its name.

    Raises:
        InputError: The optimizer or the decay is none.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> other = with_optimizer(mlp(), "momentum:momentum=.95", ema_decay=0.99)
        >>> other.name, other.lrs[-1]
        ('digits-mlp+momentum,momentum=0.95+ema0.99', 0.1)
    """
    if optimizer is not None:
        made = named_optimizer(optimizer)
        entry, settings, name = _read(optimizer)
        workload = replace(
            workload,
            name=_added(workload.name, f"+{name}"),
            optimizer=made,
            lrs=entry.lrs(workload, settings),
        )
    if ema_decay is None:
        return workload
    decay = check_decay("ema", ema_decay)
    name = _added(workload.name, f"+ema{exact_text(decay)}")
    return replace(workload, name=name, ema_decay=decay)


def _added(name: str, addition: str) -> str:
    # The mark of a stand-in stays last.
    bare = name.removesuffix(f" {STAND_IN_MARK}")
    return bare + addition + name.removeprefix(bare)


def _sgd(momentum: float, *, nesterov: bool = False) -> OptimizerEntry:
    def make(settings: Mapping[str, Any]) -> OptimizerFactory:
        kept = {**settings, "nesterov": True} if nesterov else settings
        return Named(kind=torch.optim.SGD, settings=kept)

    summary = "stochastic gradient descent"
    settings = {"weight_decay": 0.0}
    if momentum:
        summary = "Nesterov's momentum" if nesterov else "heavy-ball momentum"
        settings = {"momentum": momentum, **settings}
    return OptimizerEntry(
        summary=summary, settings=settings, make=make, lrs=_less_by_momentum
    )


def _lrs_of_sgd(workload: Workload) -> tuple[float, ...]:
    with failing_as(f"{workload.name}: making its optimizer"):
        make = workload.optimizer_for(nn.Linear(1, 1))
        own: Any = make([nn.Parameter(torch.zeros(1))], 1.0)
    if not isinstance(own, torch.optim.SGD) or own.defaults["momentum"] >= 1:
        return SGD_LRS
    return tuple(lr / (1 - own.defaults["momentum"]) for lr in workload.lrs)


def _less_by_momentum(
    workload: Workload, settings: Mapping[str, Any]
) -> tuple[float, ...]:
    left = 1 - settings.get("momentum", 0.0)
    # Rounded, so that a store finds its runs again whatever the last bit is.
    return tuple(float(f"{lr * left:.6g}") for lr in _lrs_of_sgd(workload))


def _adam(
    kind: Callable[..., Optimizer], summary: str, weight_decay: float
) -> OptimizerEntry:
    def make(settings: Mapping[str, Any]) -> OptimizerFactory:
        kept = dict(settings)
        kept["betas"] = (kept.pop("beta1"), kept.pop("beta2"))
        return Named(kind=kind, settings=kept)

    return OptimizerEntry(
        summary=summary,
        settings={
            "beta1": 0.9,
            "beta2": 0.999,
            "eps": 1e-8,
            "weight_decay": weight_decay,
        },
        make=make,
        lrs=lambda _workload, _settings: STEP_SIZES,
    )


def _rmsprop() -> OptimizerEntry:
    return OptimizerEntry(
        summary="gradients over the root of their mean squares",
        settings={"alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
        make=lambda settings: Named(kind=torch.optim.RMSprop, settings=settings),
        lrs=lambda _workload, _settings: STEP_SIZES,
    )


def _kfac() -> OptimizerEntry:
    usual = KfacSettings()
    return OptimizerEntry(
        summary="Kronecker-factored natural gradient, for classification",
        settings={name: getattr(usual, name) for name in KfacSettings.__slots__},
        make=lambda settings: KfacFor(KfacSettings(**settings)),
        lrs=lambda _workload, _settings: KFAC_LRS,
    )


OPTIMIZERS: Mapping[str, OptimizerEntry] = {
    "sgd": _sgd(0.0),
    "momentum": _sgd(0.9),
    "nesterov": _sgd(0.9, nesterov=True),
    "adam": _adam(torch.optim.Adam, "Adam (Kingma and Ba)", 0.0),
    "adamw": _adam(torch.optim.AdamW, "Adam with decoupled weight decay", 0.01),
    "rmsprop": _rmsprop(),
    "kfac": _kfac(),
}
"""What each optimizer says of itself, by its name."""


def _read(text: str) -> tuple[OptimizerEntry, dict[str, Any], str]:
    name, _, rest = text.partition(":")
    name = name.strip().lower()
    if name not in OPTIMIZERS:
        near = did_you_mean(name, list(OPTIMIZERS))
        raise InputError(
            f"optimizer: there is no optimizer {name!r}.",
            near or f"one of {', '.join(OPTIMIZERS)}",
        )
    entry = OPTIMIZERS[name]
    given: dict[str, Any] = {}
    for part in rest.split(",") if rest.strip() else []:
        key, _, value = (piece.strip() for piece in part.partition("="))
        key = key.replace("-", "_")
        if key not in entry.settings:
            near = did_you_mean(key, list(entry.settings))
            raise InputError(
                f"optimizer: {name} has no setting {key!r}.",
                near or f"it has {', '.join(entry.settings)}",
            )
        if key in given:
            raise InputError(f"optimizer: `{key}` of {name} is given twice.")
        given[key] = _number(name, key, value, entry.settings[key])
    said = [f"{key}={exact_text(value)}" for key, value in given.items()]
    return entry, {**entry.settings, **given}, ",".join([name, *said])


def _number(name: str, key: str, text: str, usual: float) -> float:
    try:
        # "10.0" for a count is refused in the words of its own check.
        value = int(text) if isinstance(usual, int) else float(text)
    except ValueError:
        wanted = "a whole number" if isinstance(usual, int) else "a number"
        raise InputError(
            f"optimizer: `{key}` of {name} must be {wanted}, got {text!r}."
        ) from None
    if not math.isfinite(value):
        raise InputError(f"optimizer: `{key}` of {name} must be finite, got {text}.")
    if key in _BELOW_ONE and value >= 1:
        raise InputError(f"optimizer: `{key}` of {name} must be below 1, got {text}.")
    return value
