r"""Decay into growth: a learning-rate schedule exchanged for a growing batch.

A run of S steps at batch size B reads E = B S examples while its learning rate falls as
f(t), t the share of the examples read. The converter reads the same examples in fewer
steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.lr_scaling.schedule import FloatArray, Schedule
from rightbatch.lr_scaling.settings import as_count

# The power of the batch that the learning rate is tied to while the rest stays equal:
# lr/B for plain SGD, lr/sqrt(B) for normalised updates; the ramp leaves the rate alone.
_LR_POWER: Mapping[str, float] = {"smith": 1.0, "seesaw": 0.5, "convex": 0.0}
_SHORTEST_STAGE = 0.005  # of the examples
SOURCES: Mapping[str, tuple[str, str]] = {
    "smith": (
        "Smith et al. (2018)",
        "SGD: the rate over the batch, which sets the noise, is as it was",
    ),
    "seesaw": (
        "Meterez et al. (2025)",
        "normalised updates, and noise dominates the gradient at every batch served",
    ),
    "convex": (
        "ours, from the last-iterate bound for convex problems (Zamani and Glineur "
        "2023; Defazio et al. 2023)",
        "the schedule is given; the batch starts as it was and the rate is untouched",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stretch of the run at one batch size.

    Args:
        start_example: Examples read before it.
        examples: Examples read in it.
        batch_size: Examples per step.
        lr_factor: Learning rate over the peak of the schedule.
        steps: Steps in it, a number that need not be whole.
    """

    start_example: float
    examples: float
    batch_size: float
    lr_factor: float
    steps: float

    def to_dict(self) -> dict[str, float]:
        """Return the JSON form."""
        return {
            "start_example": as_count(self.start_example),
            "examples": as_count(self.examples),
            "batch_size": as_count(self.batch_size),
            "lr_factor": self.lr_factor,
            "steps": self.steps,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Growth:
    """A schedule whose decay has become growth.

    Args:
        how: ``smith``, ``seesaw`` or ``convex``.
        schedule: Name of the schedule it replaces.
        batch_size: At the start, and throughout the run it replaces.
        max_batch_size: Where growth stops and decay goes on; infinity without a cap.
        total_steps: Steps of the run it replaces.
        saved_uncapped: Share of the steps saved without the cap.
        warnings: What limits it.
    """

    how: str
    schedule: str
    batch_size: float
    max_batch_size: float
    total_steps: float
    saved_uncapped: float
    warnings: tuple[str, ...]
    # Fine cells in the order of the run, shape (n,) each.
    examples: FloatArray = field(repr=False)
    cell_steps: FloatArray = field(repr=False)
    cell_lr: FloatArray = field(repr=False)

    @property
    def steps(self) -> float:
        """Steps of the new run if the batch could follow without rounding."""
        return float(self.cell_steps.sum())

    @property
    def saved(self) -> float:
        """Share of the steps saved."""
        return _saved(self.steps / self.total_steps)

    def stages(
        self, *, factor: float = 2.0, multiple_of: int | None = 1
    ) -> tuple[Stage, ...]:
        """Return the run as stretches of constant batch and learning rate.

        Each stretch keeps its examples, the steps they take and the mean rate of those
        steps; rounding the batch changes the rate along with it as the law asks.
        The batch is rounded down (to the nearest for ``convex``).

        Args:
            factor: Of batch or learning rate from one stage to the next, about.
            multiple_of: What the batch must be a multiple of; None leaves it real.

        Returns:
            Stages from the first example to the last.

        Raises:
            InputError: `factor` is not above 1, or `multiple_of` is no whole number up
                to the first batch size.
        """
        if _checks.finite("stages", "factor", factor) <= 1:
            raise InputError(f"stages: `factor` must be above 1, got {factor:g}.")
        starts = _stage_starts(self, math.log(factor))
        examples = np.add.reduceat(self.examples, starts)
        steps = np.add.reduceat(self.cell_steps, starts)
        lrs = np.add.reduceat(self.cell_steps * self.cell_lr, starts) / steps
        ends = np.cumsum(examples)
        if multiple_of is None:
            return _build(ends, examples / steps, lrs)
        unit = _checks.positive_integer("stages", "multiple_of", multiple_of)
        if unit > self.batch_size:
            raise InputError(
                "stages: `multiple_of` must be <= the first batch size, got "
                f"{unit} and {self.batch_size:g}.",
                f"transfer to {unit} first",
            )
        wished = examples / steps
        power = _LR_POWER[self.how]
        # Down where the rate goes with the batch: up would pass the peak of the rate.
        round_off = np.floor if power else np.rint
        units = round_off(wished / unit * (1 + 1e-9)).astype(float)
        served = unit * np.clip(units, 1, np.floor(self.max_batch_size / unit))
        whole = np.append(np.rint(ends[:-1]), ends[-1]).astype(float)
        return _build(whole, served, lrs * (served / wished) ** power)

    def to_dict(self, stages: tuple[Stage, ...]) -> dict[str, Any]:
        """Return the JSON form.

        Args:
            stages: From :meth:`stages`.

        Returns:
            Names and values; `saved` is that of the stages.
        """
        steps = sum(stage.steps for stage in stages)
        source, holds_when = SOURCES[self.how]
        return {
            "grow": self.how,
            "schedule": self.schedule,
            "batch_size": as_count(self.batch_size),
            "max_batch_size": as_count(self.max_batch_size),
            "examples": self.batch_size * self.total_steps,
            "total_steps": as_count(self.total_steps),
            "steps": steps,
            "saved": _saved(steps / self.total_steps),
            "saved_unrounded": self.saved,
            "saved_uncapped": self.saved_uncapped,
            "source": source,
            "holds_when": holds_when,
            "stages": [stage.to_dict() for stage in stages],
        }


def grow(
    schedule: Schedule,
    how: str,
    *,
    batch_size: float,
    total_steps: float,
    max_batch_size: float | None = None,
    noise_scale: float | None = None,
) -> Growth:
    r"""Return a schedule's decay as growth of the batch over the same examples.

    * ``smith``: the rate is held and :math:`B = B_0/f`. Past the cap :math:`\bar B` the
      batch is held and the rate is :math:`f \bar B/B_0`.
    * ``seesaw``: :math:`B = B_0/f` and the rate :math:`\sqrt{f}`; past the cap
      :math:`f \sqrt{\bar B/B_0}`.
    * ``convex``: :math:`B_t \propto f_t / \sqrt{\int_t^1 f}`, t the share of the steps;
      the rate stays f.

    Smith and Seesaw need :math:`S \int \max(f, B_0/\bar B)` steps. While a schedule
    rises to its peak the batch is held.

    Args:
        schedule: The learning rate over the run.
        how: ``smith`` (SGD), ``seesaw`` (normalised updates) or ``convex``.
        batch_size: :math:`B_0`, in examples.
        total_steps: S, at the constant batch.
        max_batch_size: :math:`\bar B`, in examples.
        noise_scale: In examples. Seesaw's law needs noise to dominate, so its growth
            stops there.

    Returns:
        The growth, with the steps it saves.

    Raises:
        InputError: An argument is out of its range.

    Example:
        >>> from rightbatch.lr_scaling.schedule import named_schedule
        >>> cosine = named_schedule("quarter_cosine")
        >>> round(grow(cosine, "seesaw", batch_size=256, total_steps=1e4).saved, 4)
        0.3634
    """
    _checks.one_of("grow", "how", how, list(SOURCES))
    _checks.positive("grow", "batch_size", batch_size)
    _checks.positive("grow", "total_steps", total_steps)
    largest, warnings = _cap(how, batch_size, max_batch_size, noise_scale)
    make = _ramp if how == "convex" else _exchange
    shares, work, lrs = make(schedule, largest / batch_size, _LR_POWER[how])
    free = make(schedule, math.inf, _LR_POWER[how])[1]
    if how == "convex" and 1 - work.sum() < -1e-9:
        warnings += (
            "this schedule asks for smaller batches later: the ramp takes more steps",
        )
    return Growth(
        how=how,
        schedule=schedule.name,
        batch_size=batch_size,
        max_batch_size=largest,
        total_steps=total_steps,
        saved_uncapped=_saved(float(free.sum())),
        warnings=warnings,
        examples=shares * batch_size * total_steps,
        cell_steps=work * total_steps,
        cell_lr=lrs,
    )


def _cap(
    how: str,
    batch_size: float,
    max_batch_size: float | None,
    noise_scale: float | None,
) -> tuple[float, tuple[str, ...]]:
    largest = math.inf
    warnings: tuple[str, ...] = ()
    if max_batch_size is not None:
        largest = _checks.positive("grow", "max_batch_size", max_batch_size)
        if largest < batch_size:
            raise InputError(
                f"grow: `max_batch_size` must be >= `batch_size`, got {largest:g} and "
                f"{batch_size:g}."
            )
    if how != "seesaw":
        if how == "smith" and max_batch_size is None:
            warnings = (
                "growth has no cap: the last batches are larger than any machine "
                "serves, and past the noise scale they hardly save steps; give a "
                "largest batch size",
            )
        return largest, warnings
    if noise_scale is None:
        return largest, (
            "seesaw needs noise to dominate at every batch served: give a noise scale "
            "and growth stops there",
        )
    guard = max(_checks.positive("grow", "noise_scale", noise_scale), batch_size)
    if guard < largest:
        warnings = (
            f"growth stops at the noise scale, {noise_scale:g}: past it seesaw's law "
            "does not hold, and the rest is decayed as before",
        )
    return min(guard, largest), warnings


def _exchange(
    schedule: Schedule, largest: float, power: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return shares of the examples, of the old steps, and the rate of each cell."""
    edges, factor, weights = schedule.sampled()
    share = np.diff(edges)
    tempo = np.maximum(factor, 1 / largest)  # B_0/B, which is also new steps over old
    tempo[: _peak(factor @ weights)] = 1.0
    mean_tempo = tempo @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = (factor * tempo ** (1 - power)) @ weights / mean_tempo
    return share, share * mean_tempo, np.where(mean_tempo > 0, rate, 0.0)


def _ramp(
    schedule: Schedule, largest: float, _power: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the same for the convex ramp, whose cells are shares of its steps."""
    edges, factor, weights = schedule.sampled()
    share = np.diff(edges)
    rate = factor @ weights
    left = np.append(np.cumsum((share * rate)[::-1])[::-1], 0.0)
    peak = _peak(rate)
    # The mean of f/sqrt(rest) over a cell is exact: the rest falls by f.
    batch = 2 * -np.diff(np.sqrt(left)) / share * math.sqrt(left[peak])
    batch[:peak] = 1.0
    batch = np.minimum(batch, largest)
    read = share * batch
    return read / read.sum(), share / read.sum(), rate


def _peak(means: FloatArray) -> int:
    """Return the first cell of the peak: before it the schedule rises."""
    return int(np.argmax(means >= means.max() * (1 - 1e-9)))


def _stage_starts(growth: Growth, log_factor: float) -> NDArray[np.intp]:
    """Return the first cell of each stage, as indices."""
    with np.errstate(divide="ignore"):
        batch = np.log(growth.examples / growth.cell_steps / growth.batch_size)
        rate = np.log(growth.cell_lr)
    # Rounded, so that a stage lies about its level; a cell of no steps joins the last.
    levels = np.clip(np.round(np.array([batch, rate]) / log_factor), -99, 99)
    cuts = np.flatnonzero((np.diff(levels, axis=1) != 0).any(axis=0)) + 1
    starts = [0]
    steps = np.concatenate([[0.0], np.cumsum(growth.cell_steps)])
    read = np.concatenate([[0.0], np.cumsum(growth.examples)])

    def is_long(first: int, last: int) -> bool:
        share = (read[last] - read[first]) / read[-1]
        return steps[last] - steps[first] >= 1 and share >= _SHORTEST_STAGE

    for cut in cuts:
        if is_long(starts[-1], int(cut)):
            starts.append(int(cut))
    if len(starts) > 1 and not is_long(starts[-1], -1):
        starts.pop()
    return np.array(starts, dtype=np.intp)


def _saved(work: float) -> float:
    # A constant schedule saves nothing, not the last bit of a sum.
    return round(1 - work, 12)


def _build(ends: FloatArray, batches: FloatArray, lrs: FloatArray) -> tuple[Stage, ...]:
    begins = np.concatenate([[0.0], ends[:-1]])
    return tuple(
        Stage(
            start_example=float(begin),
            examples=float(end - begin),
            batch_size=float(batch),
            lr_factor=float(lr),
            steps=float((end - begin) / batch),
        )
        for begin, end, batch, lr in zip(begins, ends, batches, lrs, strict=True)
        if end > begin
    )
