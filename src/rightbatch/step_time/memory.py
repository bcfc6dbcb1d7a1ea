"""Bytes against micro-batch size, and the largest micro-batch that fits."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import confidence_level, nonnegative, positive, positive_array
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval, half_width
from rightbatch.step_time.law import checked_lengths, two_or_more
from rightbatch.step_time.surface import Surface

# Allocators round up, and caches move a little from run to run.
NOISE_FLOOR = 0.005
MARGIN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLaw:
    """Bytes of a training step: weights and states, and so much per example.

    Args:
        fixed_bytes: Parameters, gradients, optimizer states, buffers.
        bytes_per_example: Activations of one example of the micro-batch.

    Example:
        >>> law = MemoryLaw(fixed_bytes=2e9, bytes_per_example=5e7)
        >>> law.largest_micro_batch(16e9)
        248
    """

    fixed_bytes: float
    bytes_per_example: float

    def __post_init__(self) -> None:
        nonnegative("MemoryLaw", "fixed_bytes", self.fixed_bytes)
        positive("MemoryLaw", "bytes_per_example", self.bytes_per_example)

    def num_bytes(self, micro_batch_size: ArrayLike) -> Any:
        """Return the bytes a step takes.

        Args:
            micro_batch_size: Examples per forward pass, any shape.

        Returns:
            Bytes: a float for a number, else an array.
        """
        micro = np.asarray(micro_batch_size, dtype=float)
        found = np.asarray(self.fixed_bytes + self.bytes_per_example * micro)
        return float(found) if found.ndim == 0 else found

    def largest_micro_batch(self, capacity_bytes: float, margin: float = MARGIN) -> int:
        """Return the largest micro-batch that fits: to be verified by one step.

        Args:
            capacity_bytes: Memory of a device.
            margin: Share of it kept free, for what the law leaves out.

        Returns:
            Examples, 1 at least.

        Raises:
            InputError: A number is out of range, or not even one example fits; the
                smallest capacity that works is named.
        """
        who = "largest_micro_batch"
        positive(who, "capacity_bytes", capacity_bytes)
        nonnegative(who, "margin", margin)
        if margin >= 1:
            raise InputError(f"{who}: `margin` must be below 1, got {margin:g}.")
        room = (1 - margin) * capacity_bytes - self.fixed_bytes
        # The margin of rounding lets the capacity that is named below suffice.
        examples = math.floor(room / self.bytes_per_example * (1 + 1e-12))
        if examples < 1:
            least = self.num_bytes(1) / (1 - margin)
            raise InputError(
                f"{who}: one example does not fit into {_bytes(capacity_bytes)} with "
                f"{margin:.0%} kept free.",
                f"it takes {math.ceil(least):,} bytes ({_bytes(least)}) at least",
            )
        return examples


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFit:
    """A memory law with its intervals.

    Args:
        law: The fitted law.
        fixed_bytes: What a step takes before its first example.
        bytes_per_example: What each example adds.
        measured_range: Smallest and largest micro-batch measured.
        largest_relative_error: Largest of |law / measured - 1|.
    """

    law: MemoryLaw
    fixed_bytes: Interval
    bytes_per_example: Interval
    measured_range: tuple[float, float]
    largest_relative_error: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "fixed_bytes": self.fixed_bytes.to_dict(),
            "bytes_per_example": self.bytes_per_example.to_dict(),
            "measured_range": list(self.measured_range),
            "largest_relative_error": self.largest_relative_error,
        }


def fit_memory(
    micro_batch_sizes: ArrayLike, num_bytes: ArrayLike, level: float = 0.9
) -> MemoryFit:
    """Return the memory law fitted to the peaks of a few steps.

    Least squares of relative residuals, neither number negative; profile intervals
    with t quantiles, the noise taken as half a percent at least.

    Args:
        micro_batch_sizes: Examples per forward pass, shape (rows,).
        num_bytes: Peak bytes of a step at each.
        level: Level of the intervals.

    Returns:
        The fit.

    Raises:
        InputError: A value is not positive, there are fewer than two sizes, or memory
            does not grow with the micro-batch.

    Example:
        >>> fit = fit_memory([8, 16, 32, 64], [2.4e9, 2.8e9, 3.6e9, 5.2e9])
        >>> round(fit.law.fixed_bytes), round(fit.law.bytes_per_example)
        (2000000000, 50000000)
    """
    who = "fit_memory"
    confidence_level(who, level)
    sizes = positive_array(who, "micro_batch_sizes", micro_batch_sizes)
    found = positive_array(who, "num_bytes", num_bytes)
    checked_lengths(who, sizes, "num_bytes", found)
    two_or_more(who, sizes)
    terms = np.stack([np.ones_like(sizes), sizes], axis=-1) / found[:, None]
    surface = Surface(
        terms=terms[None], values=np.ones((len(sizes), 1)), knees=np.ones(1)
    )
    coefficients, _, squares = surface.best()
    fixed, each = (float(one) for one in coefficients[:, 0])
    if each * sizes.max() < NOISE_FLOOR * found.max():
        raise InputError(
            f"{who}: `num_bytes` must grow with the micro-batch, and by more than half "
            f"a percent, got {_bytes(found[0])} at {sizes[0]:g} and "
            f"{_bytes(found[-1])} at {sizes[-1]:g}.",
            "measure larger micro-batches",
        )
    ends = _limits(surface, float(squares[0]), len(sizes) - 2, level)
    law = MemoryLaw(fixed_bytes=fixed, bytes_per_example=each)
    return MemoryFit(
        law=law,
        fixed_bytes=_interval(fixed, ends[0], level, "before the first example"),
        bytes_per_example=_interval(each, ends[1], level, "of each example"),
        measured_range=(float(sizes.min()), float(sizes.max())),
        largest_relative_error=float(np.abs(law.num_bytes(sizes) / found - 1).max()),
    )


Ends = tuple[float | None, float | None]


def _limits(
    surface: Surface, squares: float, degrees: int, level: float
) -> tuple[Ends, Ends]:
    if degrees < 1:
        return (None, None), (None, None)
    noise = max((squares / degrees) ** 0.5, NOISE_FLOOR)
    quantile = half_width(degrees, level)
    threshold = squares + (quantile * noise) ** 2
    return surface.limits(0, threshold), surface.limits(1, threshold)


def _interval(value: float, ends: Ends, level: float, definition: str) -> Interval:
    low, high = ends
    return Interval(
        value=value,
        low=None if low is None else min(low, value),
        high=None if high is None else max(high, value),
        level=level,
        unit="bytes",
        definition=f"memory {definition}",
    )


def _bytes(count: float | FloatArray) -> str:
    return f"{float(count) / 2**30:.3g} GiB"
