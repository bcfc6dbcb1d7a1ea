"""What surrounds a simulated run: its draws, rounding, rules and clocks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.simulation.walk import MEASURED

if TYPE_CHECKING:
    from rightbatch.training_time import StepTimeModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What surrounds a simulated run.

    Args:
        seed: None for the exact expected loss; a number for one noisy run, drawn from
            it, whose policy sees what meters would read off its batches.
        whole_batches: Round the policy's wish up to a whole number of examples, as a
            run must. Otherwise the wish is served as it is; never less than 1.
        lr_rule: What the batch size does to the learning rate: from its ratio to the
            first batch to a factor. None leaves the rate alone.
        lr_schedule: From updates done to a factor on the optimizer's lr.
        dataset_size: Examples in the data set: the largest batch, and an epoch. The
            noise stays that of fresh examples.
        tokens_per_example: For policies that count tokens.
        step_time: Seconds of an update, such as a StepTimeLaw; None for no clock.
        num_replicas: That share every batch.
        num_units: Equal parts of a batch that a draw estimates the moments from.
        record: Observed quantities to put into the trace whether or not the policy
            needs them, so that another policy can be asked about it.

    Raises:
        InputError: A value is out of range.
    """

    seed: int | None = None
    whole_batches: bool = True
    lr_rule: Callable[[float], float] | None = None
    lr_schedule: Callable[[int], float] | None = None
    dataset_size: int | None = None
    tokens_per_example: float | None = None
    step_time: "StepTimeModel | None" = None
    num_replicas: int = 1
    num_units: int = 8
    record: frozenset[str] = field(default_factory=frozenset[str])

    def __post_init__(self) -> None:
        who = "Conditions"
        if self.seed is not None and (
            not isinstance(self.seed, (int, np.integer))  # pyright: ignore
            or isinstance(self.seed, bool)
            or self.seed < 0
        ):
            raise InputError(
                f"{who}: `seed` must be a whole number, not negative, "
                f"got {self.seed!r}.",
                "None follows the expected loss",
            )
        for name in ("dataset_size", "num_replicas", "num_units"):
            if getattr(self, name) is not None:
                _checks.positive_integer(who, name, getattr(self, name))
        if self.num_units < 2:
            raise InputError(
                f"{who}: `num_units` must be at least 2, got {self.num_units}."
            )
        if self.tokens_per_example is not None:
            _checks.positive(who, "tokens_per_example", self.tokens_per_example)
        for name in sorted(self.record):
            _checks.one_of(who, "record", name, sorted(MEASURED))

    def refuse_unseen(self, policy: str, needs: frozenset[str]) -> None:
        """Refuse a policy that needs what these conditions cannot tell.

        Args:
            policy: Its name.
            needs: Names of observed fields.

        Raises:
            InputError: There is one; what to give is named.
        """
        for need, source in (
            ("epoch", "dataset_size"),
            ("dataset_size", "dataset_size"),
            ("tokens", "tokens_per_example"),
            ("seconds", "step_time"),
        ):
            if need in needs and getattr(self, source) is None:
                raise InputError(
                    f"simulate: {policy} needs `{need}`, which is not known here.",
                    f"give Conditions its {source}",
                )

    def served(self, wish: float) -> float:
        """Return the batch size that a wish becomes, in examples."""
        batch = wish
        if self.whole_batches:
            # Up, but not for the last digits of a quotient that is whole.
            nearest = round(wish)
            near = abs(wish - nearest) <= 1e-12 * wish
            batch = nearest if near else math.ceil(wish)
        batch = max(1, batch)
        return batch if self.dataset_size is None else min(batch, self.dataset_size)


def checked_factor(name: str, value: float) -> float:
    """Return what a rule or a schedule gave if it can multiply a learning rate.

    Args:
        name: Which of the two.
        value: What it gave.

    Returns:
        The factor.

    Raises:
        InputError: It is negative or not finite.
    """
    if not (value >= 0 and math.isfinite(value)):
        raise InputError(
            f"Conditions: `{name}` must give factors that are not negative, "
            f"got {value!r}."
        )
    return float(value)
