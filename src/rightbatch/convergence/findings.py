"""What a table of runs shows that a reader of its fit should know, in plain words."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rightbatch.convergence.noise import Noise
from rightbatch.convergence.runs import RepeatedRuns
from rightbatch.fitting import FloatArray, Interval

# Largest over smallest batch size below which a curve hardly shows.
NARROW_RANGE = 8.0
WIDEST_RATIO = 4.0
# A step grid finer than this share of the steps is below the noise floor of a mean.
COARSE_GRID = 0.02
# Chance of so coarse a common divisor among numbers that have none.
GRID_P = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that a table shows.

    Args:
        kind: A stable word for programs.
        sentence: The finding in plain words, one sentence with its full stop.

    Example:
        >>> Finding(kind="untested_law", sentence="Two runs fit any law.").to_dict()
        {'kind': 'untested_law', 'sentence': 'Two runs fit any law.'}
    """

    kind: str
    sentence: str

    def to_dict(self) -> dict[str, str]:
        """Return the fields."""
        return {"kind": self.kind, "sentence": self.sentence}


def corner_findings(
    runs: RepeatedRuns, noise: Noise, min_steps: Interval, critical: Interval
) -> Iterator[Finding]:
    """Yield why phi cannot be told, or from how far away it is; the gravest first.

    Args:
        runs: The runs.
        noise: Their noise.
        min_steps: Interval of S_min.
        critical: Interval of phi.

    Yields:
        ``unknown_noise``, ``below_data_optimal``, ``too_noisy``, ``flat_in_steps``,
        ``flat_in_examples``, ``all_above``, ``all_below``, ``wide_interval`` or
        ``extrapolation``: at most one of them.
    """
    small, large = float(runs.batch_sizes[0]), float(runs.batch_sizes[-1])
    if noise.scale is None:
        yield Finding(
            kind="unknown_noise",
            sentence="Two runs fit any law exactly, so nothing tells how far to trust "
            "it.",
        )
    elif min_steps.high is not None and min_steps.high < 0:
        yield Finding(
            kind="below_data_optimal",
            sentence="S_min is negative beyond doubt: your batches are below the "
            "data-optimal one, and larger batches cost no extra examples.",
        )
    elif critical.low is None or critical.high is None:
        yield _flat_finding(small, large, critical)
    else:
        yield from _bounded_findings(small, large, critical)


def _flat_finding(small: float, large: float, critical: Interval) -> Finding:
    phi = math.inf if critical.value is None else critical.value
    if critical.high is None and phi > large:
        return Finding(
            kind="flat_in_examples",
            sentence="Examples hardly grow with the batch size yet, so S_min cannot be "
            "told from 0.",
        )
    if critical.low is None and phi < small:
        return Finding(
            kind="flat_in_steps",
            sentence="Steps do not fall with the batch size, so E_min cannot be told "
            "from 0.",
        )
    unknown = [
        name
        for name, limit in (("S_min", critical.high), ("E_min", critical.low))
        if limit is None
    ]
    return Finding(
        kind="too_noisy",
        sentence=f"The runs scatter so much that {' and '.join(unknown)} cannot be "
        "told from 0.",
    )


def _bounded_findings(
    small: float, large: float, critical: Interval
) -> Iterator[Finding]:
    assert critical.low is not None
    assert critical.high is not None
    spans = (
        f"The interval of the critical batch size spans {critical.low:.3g} to "
        f"{critical.high:.3g}"
    )
    value = critical.value or small
    if critical.high < small:
        yield Finding(
            kind="all_above",
            sentence=f"{spans}, and all batch sizes run lie above it.",
        )
    elif critical.low > large:
        yield Finding(
            kind="all_below",
            sentence=f"{spans}, and all batch sizes run lie below it.",
        )
    elif not small <= value <= large:
        yield Finding(
            kind="extrapolation",
            sentence=f"{spans}; its value, {value:.3g}, is extrapolated from runs at "
            f"{small:.10g} to {large:.10g}.",
        )
    elif critical.high / critical.low > WIDEST_RATIO:
        yield Finding(kind="wide_interval", sentence=f"{spans}.")


def table_findings(
    runs: RepeatedRuns, batch_sizes: FloatArray, steps: FloatArray
) -> Iterator[Finding]:
    """Yield what the table itself shows, whatever was fitted.

    Args:
        runs: The runs, grouped.
        batch_sizes: One per run, shape (N,).
        steps: Steps to the target of each run, shape (N,).

    Yields:
        ``untested_law``, ``narrow_range``, ``identical_repeats``,
        ``quantised_steps``.
    """
    small, large = float(runs.batch_sizes[0]), float(runs.batch_sizes[-1])
    if len(runs.batch_sizes) == 2:
        yield Finding(
            kind="untested_law",
            sentence="Two batch sizes fit the law exactly and cannot test it.",
        )
    if large / small < NARROW_RANGE:
        yield Finding(
            kind="narrow_range",
            sentence=f"The batch sizes span only {large / small:.2g}-fold "
            f"({small:.10g} to {large:.10g}): too little for the curve to show itself.",
        )
    if runs.noise_degrees and not runs.observed_variance.any():
        yield Finding(
            kind="identical_repeats",
            sentence="All repeats agree to the last digit: copies of one run, or a "
            "target checked so seldom that seeds do not show.",
        )
    # Tables in epochs give steps that are not whole, of examples that are.
    is_whole = np.allclose(steps, np.round(steps), rtol=1e-9, atol=0)
    name, counts = ("steps", steps) if is_whole else ("examples", batch_sizes * steps)
    grid = coarsest_grid(batch_sizes, counts)
    if grid is not None:
        batch, every, share = grid
        yield Finding(
            kind="quantised_steps",
            sentence=f"All runs at batch size {batch:.10g} took whole multiples of "
            f"{every:.10g} {name}: the target is checked that seldom, which can make "
            f"the steps there up to {share:.1%} too many.",
        )


def coarsest_grid(
    batch_sizes: FloatArray, steps: FloatArray
) -> tuple[float, float, float] | None:
    """Return the batch size whose step counts are most coarsely quantised.

    Steps to a target are whole multiples of the interval between checks of it. The
    interval is the largest common divisor of the runs of a batch size, or of all runs,
    where so large a one has a chance below one in ten thousand among unrelated numbers.

    Args:
        batch_sizes: One per run, shape (N,).
        steps: Shape (N,).

    Returns:
        Batch size, interval between checks in steps, and the interval as a share of
        the steps there; None where no grid shows, or one finer than 2 %.

    Example:
        >>> coarsest_grid(np.full(4, 512.0), np.array([1200, 1100, 1500, 1300.0]))
        (512.0, 100.0, 0.0784...)
    """
    found: list[tuple[float, float, float]] = []
    every_run = _grid_of(steps)
    for size in np.unique(batch_sizes):
        here = steps[batch_sizes == size]
        every = max(_grid_of(here), every_run)
        share = every / float(here.mean())
        if share >= COARSE_GRID:
            found.append((share, float(size), every))
    if not found:
        return None
    share, size, every = max(found)
    return size, every, share


def _grid_of(steps: FloatArray) -> float:
    """Return the common interval of step counts, zero where chance would do it."""
    counts = np.unique(np.round(steps))
    if len(counts) < 3 or not np.allclose(steps, np.round(steps), rtol=1e-9, atol=0):
        return 0.0
    every = math.gcd(*(int(count) for count in counts))
    # The chance that n whole numbers share a divisor of at least d is about
    # d^(1-n)/(n-1).
    chance = every ** (1.0 - len(counts)) / (len(counts) - 1)
    return float(every) if chance < GRID_P else 0.0


def rise_finding(small: float, large: float, *, is_proven: bool = True) -> Finding:
    """Return the finding that steps rise between two batch sizes.

    Args:
        small: The smaller batch size.
        large: The larger one, with more steps.
        is_proven: False where no repeats tell the noise.

    Returns:
        ``steps_rise``.
    """
    return Finding(
        kind="steps_rise",
        sentence=f"Steps rise from batch size {small:.10g} to {large:.10g}, which no "
        "such law allows"
        + ("." if is_proven else " (unless single runs scatter by more than 10 %)."),
    )


def lr_findings(
    batch_sizes: Sequence[float], lrs: Sequence[float], best: Mapping[float, float]
) -> tuple[Finding, ...]:
    """Return what the learning rates of a sweep show.

    Args:
        batch_sizes: One per run, shape (N,).
        lrs: Learning rate of each run, shape (N,); NaN where unknown.
        best: The best learning rate of each batch size that reached the target.

    Returns:
        ``not_reached``, ``single_lr``, ``edge_lr``.

    Example:
        >>> for found in lr_findings([8, 8, 64], [0.1, 0.2, 0.2], {8: 0.2, 64: 0.2}):
        ...     print(found.kind, found.sentence[-41:])
        edge_lr the largest tried (0.2): try larger ones.
    """
    found: list[Finding] = []
    missed = sorted(set(batch_sizes) - set(best))
    if missed:
        found.append(
            Finding(
                kind="not_reached",
                sentence=f"No run reached the target at {_batches(missed)}: below the "
                "feasibility floor of these learning rates, or out of budget.",
            )
        )
    known = {lr for lr in lrs if not math.isnan(lr)}
    if len(known) == 1:
        found.append(
            Finding(
                kind="single_lr",
                sentence=f"The learning rate was held at {known.pop():g}: law and "
                "plan hold for it alone, and say little of what a tuned rate would do.",
            )
        )
        return tuple(found)
    tried: dict[float, set[float]] = {}
    for size, lr in zip(batch_sizes, lrs, strict=True):
        tried.setdefault(size, set()).add(lr)
    for largest in (False, True):
        end = max if largest else min
        at = {
            size: lr
            for size, lr in best.items()
            if len(tried[size]) > 1 and lr == end(tried[size])
        }
        for lr in sorted(set(at.values())):
            sizes = [size for size, other in at.items() if other == lr]
            found.append(
                Finding(
                    kind="edge_lr",
                    sentence=f"The best learning rate at {_batches(sizes)} is the "
                    f"{'largest' if largest else 'least'} tried ({lr:g}): try "
                    f"{'larger' if largest else 'smaller'} ones.",
                )
            )
    return tuple(found)


def _batches(sizes: Sequence[float]) -> str:
    listed = ", ".join(f"{size:.10g}" for size in sizes)
    return f"batch size {listed}" if len(sizes) == 1 else f"batch sizes {listed}"
