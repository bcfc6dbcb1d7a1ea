"""The settings of a run that may have to change with its batch size."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from rightbatch import _checks
from rightbatch.errors import InputError

_ADAM = ("beta1", "beta2", "eps")
# What each optimizer has beside the settings that every run has.
OPTIMIZERS: Mapping[str, tuple[str, ...]] = {
    "sgd": ("momentum",),
    "adam": _ADAM,
    "adamw": _ADAM,
    "nadam": _ADAM,
    "lamb": _ADAM,
    "rmsprop": ("momentum", "beta2", "eps"),
}
_COUNTS = ("warmup_steps", "total_steps", "dataset_size")
DECAYS = ("momentum", "beta1", "beta2", "ema_decay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run, or one of its parameter groups, is set to; None where it has none.

    Args:
        optimizer: A key of `OPTIMIZERS`.
        lr: Learning rate at the peak of its schedule; 1 to get multipliers.
        momentum: Of SGD (or RMSprop), in [0, 1).
        beta1: Decay of Adam's mean gradient, in [0, 1).
        beta2: Decay of Adam's mean square (RMSprop's alpha), in [0, 1).
        eps: Beside the root mean square.
        weight_decay: As given to the optimizer.
        ema_decay: Of an average of the weights, per step, in [0, 1).
        warmup_steps: Steps of warm-up; a number that need not be whole.
        total_steps: Steps of the whole schedule, warm-up included.
        dataset_size: Examples in an epoch.

    Raises:
        InputError: A value is out of its range, or the optimizer has no such setting.

    Example:
        >>> Settings(optimizer="adamw", lr=1e-3, beta2=0.95).family
        'adaptive'
    """

    optimizer: str
    lr: float
    momentum: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    eps: float | None = None
    weight_decay: float | None = None
    ema_decay: float | None = None
    warmup_steps: float | None = None
    total_steps: float | None = None
    dataset_size: float | None = None

    def __post_init__(self) -> None:
        _checks.one_of("Settings", "optimizer", str(self.optimizer), list(OPTIMIZERS))
        _checks.positive("Settings", "lr", self.lr)
        for name, value in self.given().items():
            _check(self.optimizer, name, value)

    @property
    def family(self) -> Literal["sgd", "adaptive"]:
        """``sgd`` where steps are proportional to the gradient, else ``adaptive``."""
        return "sgd" if self.optimizer == "sgd" else "adaptive"

    def given(self) -> dict[str, float]:
        """Return the numbers that were given, `lr` first."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        del values["optimizer"]
        return {name: value for name, value in values.items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, without what was not given; whole counts as ints."""
        given = {
            name: as_count(value) if name in _COUNTS else value
            for name, value in self.given().items()
        }
        return {"optimizer": self.optimizer, **given}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Settings":
        """Return settings from their JSON form.

        Args:
            values: Names and numbers.

        Returns:
            The settings.

        Raises:
            InputError: A name is unknown (near names are offered), or one is missing.

        Example:
            >>> Settings.from_dict({"optimizer": "sgd", "lr": 0.1}).lr
            0.1
        """
        known = [one.name for one in fields(cls)]
        for name in values:
            if name not in known:
                near = _checks.did_you_mean(name, known)
                raise InputError(
                    f"Settings: there is no setting {name!r}.",
                    near or f"the settings are {', '.join(known)}",
                )
        missing = [name for name in ("optimizer", "lr") if name not in values]
        if missing:
            raise InputError(f"Settings: `{missing[0]}` is missing.")
        return cls(**values)


def as_count(value: float) -> float:
    """Return a count as an int where it is whole, as loaders and loops want it.

    Args:
        value: Examples or steps.

    Returns:
        The same number.

    Example:
        >>> as_count(2500.0), as_count(12.5)
        (2500, 12.5)
    """
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else value


def _check(optimizer: str, name: str, value: float) -> None:
    has = OPTIMIZERS[optimizer]
    if name in ("momentum", *_ADAM) and name not in has:
        raise InputError(
            f"Settings: {optimizer} has no `{name}`, got {value!r}.",
            f"its own are {', '.join(has)}",
        )
    if name in DECAYS:
        _checks.finite("Settings", name, value)
        if not 0 <= value < 1:
            raise InputError(f"Settings: `{name}` must be in [0, 1), got {value:g}.")
    elif name in ("total_steps", "dataset_size"):
        _checks.positive("Settings", name, value)
    else:
        _checks.nonnegative("Settings", name, value)
