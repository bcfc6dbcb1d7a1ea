"""What an optimizer does to one direction: its name, its settings, its stability."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from rightbatch import _checks
from rightbatch.errors import InputError

OptimizerName = Literal[
    "sgd",
    "momentum",
    "nesterov",
    "ema",
    "momentum+ema",
    "nesterov+ema",
    "average",
    "tail-average",
]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
"""All names, in the order of the tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """An optimizer with its settings, as torch means them.

    Momentum is heavy ball, ``buf' = momentum buf + g``, ``x' = x - lr buf'``; Nesterov
    steps along ``g + momentum buf'``. The loss is read at the exponential moving
    average, ``y' = ema_decay y + (1 - ema_decay) x'`` from y_0 = x_0, at the mean of
    all iterates x_1 to x_k (``average``), or at the mean of the last ones
    (``tail-average``, the last ``max(1, round(tail_fraction k))``).

    Args:
        name: One of :data:`OPTIMIZERS`.
        lr: Learning rate, positive; ignored where a schedule gives its own.
        momentum: In [0, 1); 0 unless the name says momentum or Nesterov.
        ema_decay: In [0, 1); 0 unless the name says ema.
        tail_fraction: Share of the iterates that a tail average takes, in (0, 1].

    Raises:
        InputError: A setting is out of range or is not one of this optimizer.

    Example:
        >>> Optimizer(name="momentum", lr=0.1, momentum=0.9).max_stable_rate
        3.8
    """

    name: OptimizerName
    lr: float
    momentum: float = 0.0
    ema_decay: float = 0.0
    tail_fraction: float = 0.5

    def __post_init__(self) -> None:
        who = "Optimizer"
        _checks.one_of(who, "name", self.name, OPTIMIZERS)
        _checks.positive(who, "lr", self.lr)
        for setting, used in (
            ("momentum", self.has_momentum),
            ("ema_decay", self.has_ema),
        ):
            value = _checks.finite(who, setting, getattr(self, setting))
            if not 0 <= value < 1:
                raise InputError(
                    f"{who}: `{setting}` must be in [0, 1), got {value:g}."
                )
            if value and not used:
                raise InputError(
                    f"{who}: {self.name} has no `{setting}`, got {value:g}."
                )
        if not 0 < _checks.finite(who, "tail_fraction", self.tail_fraction) <= 1:
            raise InputError(
                f"{who}: `tail_fraction` must be in (0, 1], got {self.tail_fraction:g}."
            )

    @property
    def has_momentum(self) -> bool:
        """Whether there is a momentum buffer."""
        return self.name.startswith(("momentum", "nesterov"))

    @property
    def is_nesterov(self) -> bool:
        """Whether the gradient is taken ahead."""
        return self.name.startswith("nesterov")

    @property
    def has_ema(self) -> bool:
        """Whether the loss is read at an exponential moving average."""
        return self.name.endswith("ema")

    @property
    def averages(self) -> bool:
        """Whether the loss is read at a uniform or tail average."""
        return self.name.endswith("average")

    @property
    def max_stable_rate(self) -> float:
        """Where lr p h must stay below: 2, 2(1+m), or 2(1+m)/(1+2m) for Nesterov."""
        return 2 * (1 + self.momentum) / (1 + 2 * self.momentum * self.is_nesterov)

    def to_dict(self) -> dict[str, Any]:
        """Return name and settings for a program; those it has not are left out."""
        settings: dict[str, Any] = {"optimizer": self.name, "lr": self.lr}
        if self.has_momentum:
            settings["momentum"] = self.momentum
        if self.has_ema:
            settings["ema_decay"] = self.ema_decay
        if self.name == "tail-average":
            settings["tail_fraction"] = self.tail_fraction
        return settings
