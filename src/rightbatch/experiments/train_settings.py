"""What decides a training run besides its policy and its seed."""

import math
from collections.abc import Sized
from dataclasses import asdict, dataclass
from typing import Any, cast

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.lr_scaling import named_schedule

NUM_EVALUATIONS = 40
FEW_EVALUATIONS = 10
# A forward pass is a third of an update: evaluations take as long as training at most.
_EVALUATED_SHARE = 3.0
# Its mean loss is then known to about 3 %; a whole data set is rarely worth the wait.
POLICY_EXAMPLES = 1000
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
        num_evaluations: Along the examples of the run, evenly.
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
    num_evaluations: int = NUM_EVALUATIONS
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
        for name in ("measure_every", "num_evaluations"):
            _checks.positive_integer(who, name, getattr(self, name))
        if not 0 < self.policy_fraction <= 1:
            raise InputError(
                f"{who}: `evaluate_fraction` must be above 0 and at most 1, got "
                f"{self.policy_fraction:g}."
            )
        self._check_end(who)

    def _check_end(self, who: str) -> None:
        for name in ("max_examples", "max_steps"):
            if getattr(self, name) is not None:
                _checks.positive_integer(who, name, getattr(self, name))
        if self.max_examples is None and self.max_steps is None:
            raise InputError(f"{who}: an end must be given.", "such as --epochs 20")
        if self.schedule is not None:
            named_schedule(self.schedule)
            if self.max_examples is None:
                raise InputError(
                    f"{who}: a schedule counts examples, and needs their end.",
                    "give --epochs or --max-examples",
                )

    def slot(self, examples: int) -> int:
        """Return the number of the grid's places that lie at or before a position.

        Even ones over the examples of the run. Where these are not known, over
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
        num = self.num_evaluations
        if examples <= end:
            return math.floor(num * examples / end)
        octave = math.ceil(math.log2(examples / end))
        start = end * 2.0 ** (octave - 1)
        # Half as many again with each doubling: few, however far the batch grows.
        before = num + num // 2 * (octave - 1)
        return before + math.floor(num // 2 * (examples - start) / start)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; equal settings have equal ones."""
        return asdict(self)


def num_evaluations(max_examples: int | None, evaluated: int) -> int:
    """Return how often a run is evaluated.

    Forty times, unless that took longer than the training; ten times at least.

    Args:
        max_examples: Of the run; None where unknown.
        evaluated: Examples of one evaluation.

    Returns:
        The number.

    Example:
        >>> num_evaluations(28_760, 359), num_evaluations(24_000, 12_000)
        (40, 10)
    """
    if max_examples is None:
        return NUM_EVALUATIONS
    most = math.floor(_EVALUATED_SHARE * max_examples / max(1, evaluated))
    return max(FEW_EVALUATIONS, min(NUM_EVALUATIONS, most))


def policy_examples(
    train: Any, evaluate_on: Any, *, on_train: bool, fraction: float | None
) -> tuple[str, float]:
    """Return the examples that a policy's own loss is read from.

    A policy compares training losses. So they are the examples of the target where the
    model is trained on these, else as many of the training data, a thousand at most;
    unless a fraction of the training data is asked for.

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
        >>> policy_examples(range(60000), range(4000), on_train=True, fraction=None)
        ('evaluate_on', 0.25)
    """
    if fraction is not None:
        return "train", fraction
    sizes = [len(cast(Sized, data)) for data in (train, evaluate_on)]
    num = min(sizes[1], POLICY_EXAMPLES)
    if on_train:
        return "evaluate_on", min(1.0, num / sizes[1])
    return "train", min(1.0, num / sizes[0])
