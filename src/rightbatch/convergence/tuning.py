"""The learning rate tuned at every batch size, and the law fitted to the best runs.

At one fixed learning rate the curve is flat above a feasibility floor and says little
about the batch size, so a fit says which of the two it is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rightbatch.convergence.choice import LawName
from rightbatch.convergence.findings import Finding, lr_findings
from rightbatch.convergence.fit import ConvergenceFit, fit_convergence
from rightbatch.convergence.learning_rate import LearningRateFit, fit_learning_rate
from rightbatch.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedBatch:
    """The best learning rate found at one batch size.

    Args:
        batch_size: Examples per step.
        lr: The learning rate with the best mean steps.
        at_edge: True when it is the least or the largest one tried there.
    """

    batch_size: float
    lr: float
    at_edge: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "batch_size": self.batch_size,
            "lr": self.lr,
            "at_edge": self.at_edge,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TunedFit:
    """A convergence law fitted to the best learning rate of each batch size.

    Args:
        fit: The law with its intervals.
        lrs: Best learning rate per batch size; none where no rates are known.
        findings: What the rates show; the fit has its own.
        lr_law: The best rate as a function of the batch size; None where fewer than
            two rates were tried.
    """

    fit: ConvergenceFit
    lrs: tuple[TunedBatch, ...]
    findings: tuple[Finding, ...]
    lr_law: LearningRateFit | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """The same in plain words."""
        return tuple(finding.sentence for finding in self.findings)

    def lr_at(self, batch_size: float) -> float | None:
        """Return the learning rate to train at with this batch size.

        ln lr is interpolated in ln B between the tuned batch sizes, and held at the
        ends, where no run supports a larger or smaller one.

        Args:
            batch_size: Examples per step.

        Returns:
            The rate; None where no rates are known.
        """
        if not self.lrs:
            return None
        sizes = np.log([tuned.batch_size for tuned in self.lrs])
        rates = np.log([tuned.lr for tuned in self.lrs])
        rate = float(np.exp(np.interp(math.log(batch_size), sizes, rates)))
        return float(f"{rate:.6g}")  # six digits undo the rounding of exp(log(lr))

    def to_dict(self) -> dict[str, Any]:
        """Return the fit's stable keys with `lrs`, `lr_law` and all warnings."""
        found = self.fit.to_dict()
        found["lrs"] = [tuned.to_dict() for tuned in self.lrs]
        found["lr_law"] = None if self.lr_law is None else self.lr_law.to_dict()
        rates = {tuned.batch_size: tuned.lr for tuned in self.lrs}
        for point in found["points"]:
            point["lr"] = rates.get(point["batch_size"])
        found["findings"] += [finding.to_dict() for finding in self.findings]
        found["warnings"] = [*self.warnings, *self.fit.warnings]
        return found


def fit_tuned(
    batch_sizes: Sequence[float],
    steps: Sequence[float],
    lrs: Sequence[float] | None = None,
    *,
    law: LawName = "auto",
    level: float = 0.9,
    example_unit: str = "example",
) -> TunedFit:
    """Return the law fitted to the best learning rate of each batch size.

    Args:
        batch_sizes: One per run, shape (N,), examples.
        steps: Steps to the target, NaN for a run that did not reach it, shape (N,).
        lrs: Learning rate of each run, shape (N,); None where unknown.
        law: As in :func:`fit_convergence`.
        level: Of the intervals.
        example_unit: What a batch size counts.

    Returns:
        The fit, the chosen rates and what to know about them.

    Raises:
        InputError: Fewer than two batch sizes reached the target.

    Example:
        >>> tuned = fit_tuned(
        ...     [8, 8, 64, 64, 512, 512],
        ...     [500, 900, 212, 150, 200, 112],
        ...     [0.1, 0.5] * 3,
        ... )
        >>> tuned.lr_at(8), tuned.lr_at(20)
        (0.1, 0.203234)
    """
    rates = [math.nan] * len(steps) if lrs is None else list(lrs)
    if not len(batch_sizes) == len(steps) == len(rates):
        raise InputError(
            "fit: `batch_sizes`, `steps` and `lrs` must pair up, got "
            f"{len(batch_sizes)}, {len(steps)} and {len(rates)}."
        )
    best = best_learning_rates(batch_sizes, rates, steps)
    kept = [
        (size, count)
        for size, rate, count in zip(batch_sizes, rates, steps, strict=True)
        if size in best and _same(best[size], rate) and not math.isnan(count)
    ]
    if len(best) < 2:
        raise InputError(
            "fit: needs two batch sizes or more that reached the target, got "
            f"{len(best)}.",
            "raise the budget, move the target, or add batch sizes",
        )
    fit = fit_convergence(
        [b for b, _ in kept],
        [s for _, s in kept],
        law=law,
        level=level,
        example_unit=example_unit,
    )
    tuned = () if lrs is None else _edges(best, batch_sizes, rates)
    return TunedFit(
        fit=fit,
        lrs=tuned,
        findings=lr_findings(batch_sizes, rates, best),
        lr_law=(
            fit_learning_rate(
                batch_sizes, rates, steps, level=level, example_unit=example_unit
            )
            if len(set(rates)) > 1 and not any(map(math.isnan, rates))
            else None
        ),
    )


def best_learning_rates(
    batch_sizes: Sequence[float], lrs: Sequence[float], steps: Sequence[float]
) -> dict[float, float]:
    """Return the learning rate with the best mean steps for each batch size.

    A learning rate counts only if all its runs at that batch size reached the target,
    else the lucky half of a rate that often fails would win. Where none did, the rate
    that reached it most often, then soonest, stands in.

    Args:
        batch_sizes: One per run, shape (N,).
        lrs: Learning rate of each run, shape (N,); all NaN where unknown.
        steps: Steps to the target, NaN for a run that did not reach it, shape (N,).

    Returns:
        Learning rate by batch size; a batch size no run of which reached is left out.

    Example:
        >>> best_learning_rates([8, 8, 8], [0.1, 0.2, 0.5], [100, 60, math.nan])
        {8: 0.2}
    """
    cells: dict[float, dict[float, list[float]]] = {}
    for size, lr, count in zip(batch_sizes, lrs, steps, strict=True):
        # NaN is not equal to itself; runs of unknown rate belong together all the same.
        key = math.nan if math.isnan(lr) else lr
        cells.setdefault(size, {}).setdefault(key, []).append(count)
    best: dict[float, float] = {}
    for size in sorted(cells):
        ranked = [
            (_share_missed(counts), float(np.nanmean(counts)), lr)
            for lr, counts in cells[size].items()
            if _share_missed(counts) < 1
        ]
        if ranked:
            best[size] = min(ranked)[2]
    return best


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _share_missed(counts: list[float]) -> float:
    return sum(math.isnan(count) for count in counts) / len(counts)


def _edges(
    best: dict[float, float], batch_sizes: Sequence[float], rates: Sequence[float]
) -> tuple[TunedBatch, ...]:
    tuned: list[TunedBatch] = []
    for size, lr in best.items():
        tried = {r for b, r in zip(batch_sizes, rates, strict=True) if b == size}
        at_edge = len(tried) > 1 and lr in (min(tried), max(tried))
        tuned.append(TunedBatch(batch_size=size, lr=lr, at_edge=at_edge))
    return tuple(tuned)
