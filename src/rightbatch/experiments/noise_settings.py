"""What decides a measurement of gradient noise: its batch, its units, its windows."""

from dataclasses import dataclass
from typing import Any, Literal

from rightbatch._checks import one_of, positive, positive_integer
from rightbatch.errors import InputError

# The first window, and the batches at initialisation, in updates.
FIRST_WINDOW = 20
MAX_STEPS = FIRST_WINDOW * 2**7
NUM_UNITS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSettings:
    """What decides a measurement, beside the workload.

    Args:
        batch_size: Examples per update.
        lr: Learning rate.
        unit_sizes: Examples of each unit; the batch alone with `source` "examples".
        source: "units" or "examples".
        seed: What all that is random derives from.
        max_steps: Updates at most.
        target: Where the workload's metric ends the run; None for nowhere.
        window_ends: Updates after which a row is written, ascending.
        every: Measure every so many updates.
        dataset_size: Of the data the gradient is meant over; None for more than that.
        max_seconds: For all of it; None for no limit.
        relative_error: Half the average's interval over its value that is enough; None
            to go on to the end.
    """

    batch_size: int
    lr: float
    unit_sizes: tuple[int, ...]
    source: Literal["units", "examples"] = "units"
    seed: int = 0
    max_steps: int = MAX_STEPS
    target: float | None = None
    window_ends: tuple[int, ...] = ()
    every: int = 1
    dataset_size: int | None = None
    max_seconds: float | None = None
    relative_error: float | None = None

    def __post_init__(self) -> None:
        who = "noise"
        for name in ("batch_size", "max_steps", "every"):
            positive_integer(who, name, getattr(self, name))
        positive(who, "lr", self.lr)
        one_of(who, "source", self.source, ("units", "examples"))
        if self.seed < 0:
            raise InputError(f"{who}: `seed` must not be negative, got {self.seed}.")
        if self.source == "units" and len(self.unit_sizes) < 2:
            raise InputError(
                f"{who}: a batch of {self.batch_size} in one unit tells no noise.",
                "make the micro-batches smaller, or read single examples",
            )
        if self.source == "examples" and self.batch_size < 2:
            raise InputError(f"{who}: a batch of one example tells no noise.")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as the inputs of a JSON document."""
        return {
            "batch_size": self.batch_size,
            "lr": self.lr,
            "source": self.source,
            "unit_sizes": list(self.unit_sizes),
            "seed": self.seed,
            "max_steps": self.max_steps,
            "target": self.target,
            "every": self.every,
            "dataset_size": self.dataset_size,
        }


def unit_sizes(batch_size: int, micro_batch_size: int | None = None) -> tuple[int, ...]:
    """Return the examples of each unit of a batch.

    Args:
        batch_size: All of them.
        micro_batch_size: Of every unit, the last may be smaller; None for eight equal
            ones, or the most below eight that divide the batch, or eight nearly equal.

    Returns:
        The sizes; together the batch.

    Raises:
        InputError: A number is not positive, or there would be one unit only.

    Example:
        >>> unit_sizes(64), unit_sizes(20), unit_sizes(20, 8)
        ((8, 8, 8, 8, 8, 8, 8, 8), (4, 4, 4, 4, 4), (8, 8, 4))
    """
    batch = positive_integer("noise", "batch_size", batch_size)
    if batch == 1:
        raise InputError(
            "noise: one example alone tells no noise, got batch_size=1.",
            "take two or more",
        )
    if micro_batch_size is not None:
        micro = positive_integer("noise", "micro_batch_size", micro_batch_size)
        if micro >= batch:
            raise InputError(
                f"noise: `micro_batch_size` must be below the batch size {batch}, got "
                f"{micro}: one unit alone tells no noise."
            )
        full, rest = divmod(batch, micro)
        return (micro,) * full + ((rest,) if rest else ())
    for num in range(min(NUM_UNITS, batch), 1, -1):
        if batch % num == 0:
            return (batch // num,) * num
    num = min(NUM_UNITS, batch)
    small, more = divmod(batch, num)
    return (small + 1,) * more + (small,) * (num - more)


def window_ends(max_steps: int, num_rows: int | None = None) -> tuple[int, ...]:
    """Return the updates after which a row is written.

    Args:
        max_steps: The last.
        num_rows: Rows of the run; None for windows as long as all before them.

    Returns:
        Ends that grow geometrically, from 20 updates on.

    Raises:
        InputError: A number is not positive.

    Example:
        >>> window_ends(200), window_ends(320, 3)
        ((20, 40, 80, 160, 200), (20, 80, 320))
    """
    last = positive_integer("noise", "max_steps", max_steps)
    first = min(FIRST_WINDOW, last)
    if num_rows is None:
        ends = [first]
        while ends[-1] < last:
            ends.append(min(2 * ends[-1], last))
        return tuple(ends)
    num = positive_integer("noise", "rows", num_rows)
    if num == 1:
        return (last,)
    ratio = (last / first) ** (1 / (num - 1))
    return tuple(sorted({round(first * ratio**i) for i in range(num)}))
