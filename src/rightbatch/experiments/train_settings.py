"""What decides a training run besides its policy and its seed."""

import math
from collections.abc import Sized
from dataclasses import asdict, dataclass
from typing import Any, cast

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.lr_scaling import named_schedule

NUM_EVALUATIONS = 40
DEFAULT_GROWTH = 32  # as from 16 to 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What decides a training run besides its policy and its seed.

    Args:
        lr: Learning rate, meant for the initial batch size.
        lr_rule: How it follows the batch; ``none`` for not at all.
        initial_batch_size: Examples of an update at the start.
        max_batch_size: Examples of an update at most.
        micro_batch_size: Batches are multiples of it.
        max_examples: Where the run ends; None for no end in examples.
        max_steps: Where it ends in updates; None likewise.
        measure_every: Updates between two readings of the gradient noise.
        schedule: Of the learning rate, over the examples of the run; None for none.
        policy_data: Which examples a policy's own loss is of: ``train`` or
            ``evaluate_on``.
        policy_fraction: Which share of them.
        device: Where; another one rounds otherwise.

    Raises:
        InputError: A value is out of its range, or sizes are out of order.

    Example:
        >>> settings = TrainSettings(lr=0.1, initial_batch_size=16, max_batch_size=512,
        ...     micro_batch_size=16, max_examples=4000)
        >>> [settings.slot(examples) for examples in (0, 99, 100, 4000, 4100)]
        [0, 0, 1, 40, 40]
    """

    lr: float
    lr_rule: str = "none"
    initial_batch_size: int
    max_batch_size: int
    micro_batch_size: int
    max_examples: int | None = None
    max_steps: int | None = None
    measure_every: int = 10
    schedule: str | None = None
    policy_data: str = "train"
    policy_fraction: float = 1.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        who = "train"
        _checks.positive(who, "lr", self.lr)
        for name in ("initial_batch_size", "max_batch_size", "micro_batch_size"):
            _checks.positive_integer(who, name, getattr(self, name))
        if self.max_batch_size < self.initial_batch_size:
            raise InputError(
                f"{who}: `max_batch_size` must be >= `initial_batch_size`, got "
                f"{self.max_batch_size} and {self.initial_batch_size}."
            )
        if self.micro_batch_size > self.initial_batch_size:
            raise InputError(
                f"{who}: `micro_batch_size` must be <= `initial_batch_size`, got "
                f"{self.micro_batch_size} and {self.initial_batch_size}.",
                "the smallest batch is one micro-batch",
            )
        for name in ("max_examples", "max_steps"):
            if getattr(self, name) is not None:
                _checks.positive_integer(who, name, getattr(self, name))
        if self.max_examples is None and self.max_steps is None:
            raise InputError(f"{who}: an end must be given.", "such as --epochs 20")
        _checks.positive_integer(who, "measure_every", self.measure_every)
        if not 0 < self.policy_fraction <= 1:
            raise InputError(
                f"{who}: `evaluate_fraction` must be above 0 and at most 1, got "
                f"{self.policy_fraction:g}."
            )
        if self.schedule is not None:
            named_schedule(self.schedule)
            if self.max_examples is None:
                raise InputError(
                    f"{who}: a schedule counts examples, and needs their end.",
                    "give --epochs or --max-examples",
                )

    def slot(self, examples: int) -> int:
        """Return the number of the grid's places that lie at or before a position.

        Forty even ones over the examples of the run. Where these are not known, over
        those of the updates at the initial batch size, and then half as dense with
        each doubling.

        Args:
            examples: The position.

        Returns:
            An evaluation is due where the number has grown.
        """
        end = self.max_examples
        if end is None:
            end = self.initial_batch_size * (self.max_steps or 1)
        if examples <= end:
            return math.floor(NUM_EVALUATIONS * examples / end)
        octave = math.ceil(math.log2(examples / end))
        start = end * 2.0 ** (octave - 1)
        half = NUM_EVALUATIONS // 2
        return (
            NUM_EVALUATIONS
            + half * (octave - 1)
            + math.floor(NUM_EVALUATIONS * (examples - start) / (2 * start))
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; equal settings have equal ones."""
        return asdict(self)


def policy_examples(
    train: Any, evaluate_on: Any, *, on_train: bool, fraction: float | None
) -> tuple[str, float]:
    """Return the examples that a policy's own loss is read from.

    A policy compares training losses. So they are the examples of the target where the
    model is trained on these, else as many of the training data, unless a fraction of
    the training data is asked for.

    Args:
        train: The training data.
        evaluate_on: The examples of the target.
        on_train: Whether the model is trained on them.
        fraction: Asked for; None for the above.

    Returns:
        ``train`` or ``evaluate_on``, and which share of it.

    Example:
        >>> policy_examples(range(1000), range(250), on_train=False, fraction=None)
        ('train', 0.25)
        >>> policy_examples(range(1000), range(250), on_train=True, fraction=None)
        ('evaluate_on', 1.0)
    """
    if fraction is not None:
        return "train", fraction
    if on_train:
        return "evaluate_on", 1.0
    sizes = [len(cast(Sized, data)) for data in (train, evaluate_on)]
    return "train", min(1.0, sizes[1] / sizes[0])
