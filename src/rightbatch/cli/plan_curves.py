"""The curves of a plan: time and regret against the batch size, and the scalings."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rightbatch.cli.planning import Findings
    from rightbatch.training_time import Plan, PlanDraws, TrainingTimeLaw

CURVE_POINTS = 80
# Grid of the best batch size of a draw, for its curve over replicas.
SCALING_POINTS = 200
TOLERANCE = 0.05


def time_curve(
    findings: "Findings", entry: dict[str, Any], draws: "PlanDraws | None"
) -> dict[str, Any]:
    """Return time to the target and regret against the batch size.

    Args:
        findings: Both curves.
        entry: The plan's entry for a number of replicas, its JSON form.
        draws: For the bands; None where nothing tells the noise.

    Returns:
        `curve`, `measured`, `regret_curve`, `optimum`, `within_5_percent`.
    """
    count = entry["num_replicas"]
    low, high = findings.tuned.fit.fitted_range
    low = max(min(low, entry["batch_size"]), count)
    high = max(high, 1.2 * entry["within_5_percent"][1], 2 * low)
    grid = np.geomspace(low, high, CURVE_POINTS)
    curve = findings.training_time(findings.step_time.law)
    exact = findings.training_time(findings.measured)
    # Up to a feasibility floor there is no time to draw, nor where no step is left.
    times = np.asarray(curve.seconds_to_target(grid, count))
    grid = grid[np.isfinite(times) & (times > 0)]
    found: dict[str, Any] = {
        "batch_size": grid,
        "seconds": curve.seconds_to_target(grid, count),
    }
    regrets: dict[str, Any] | None = None
    if draws is not None:
        from rightbatch.training_time import regret_curve

        times = draws.steps.steps(grid) * draws.step_time.seconds_per_step(grid, count)
        found["low"], found["high"] = _band(times, draws.level)
        # The least time of each draw may lie beyond what can be served, but not at it.
        regrets = regret_curve(draws, count, findings.served, grid)
    return {
        "num_replicas": count,
        "curve": found,
        "measured": {
            "batch_size": grid,
            "seconds": exact.seconds_to_target(grid, count),
        },
        "regret_curve": regrets,
        "optimum": {"batch_size": entry["batch_size"], "seconds": entry["seconds"]},
        "within_5_percent": entry["within_5_percent"],
    }


def _band(times: Any, level: float) -> tuple[Any, Any]:
    # Infinite draws, below a feasibility floor, cannot be interpolated between.
    tail = (1 - level) / 2
    method = "linear" if np.isfinite(times).all() else "nearest"
    low, high = np.quantile(times, [tail, 1 - tail], axis=0, method=method)
    return low, high


def scaling_curves(
    findings: "Findings", plan: "Plan", draws: "PlanDraws | None"
) -> dict[str, Any]:
    """Return strong, weak and optimal scaling, and the numbers of eq. 10.

    Args:
        findings: Both curves.
        plan: Made from them.
        draws: For the interval of the best batch size; None where noise is unknown.

    Returns:
        `replicas`, `strong`, `weak`, `optimal`, `optimal_becomes_weak_at`,
        `largest_useful_replicas`, `limit_seconds`.
    """
    from rightbatch import scaling

    law = findings.training_time(findings.step_time.law)
    first = plan.entries[0]
    local = max(first.batch_size // first.num_replicas, 1)
    most = findings.limits.max_batch_size
    # One more doubling than was asked for shows where the curves go.
    counts = [2**i for i in range(20) if 2**i <= 4 * max(findings.replicas)]
    counts = sorted({*counts, *findings.replicas})
    if most is not None:
        counts = [count for count in counts if count <= most]
    alone = float(law.seconds_to_target(first.batch_size, 1))
    held = scaling.strong(law, first.batch_size, counts, baseline_seconds=alone)
    served = [count for count in counts if most is None or count * local <= most]
    grown = scaling.weak(law, local, served, baseline_seconds=alone).to_dict()
    rest = [None] * (len(counts) - len(served))
    best = scaling.optimal(law, counts, limits=findings.limits, baseline_seconds=alone)
    return {
        "replicas": counts,
        "strong": {**held.to_dict(), "batch_size": first.batch_size},
        "weak": {
            "local_batch_size": local,
            "seconds": grown["seconds"] + rest,  # beyond: more than the data set holds
            "speedup": grown["speedup"] + rest,
        },
        "optimal": {**best.to_dict(), **_best_band(findings, best, draws)},
        **_numbers(findings, law),
    }


def _numbers(findings: "Findings", law: "TrainingTimeLaw") -> dict[str, Any]:
    """Return where the scalings meet and end; None where the law has no such place."""
    from rightbatch import scaling

    useful = scaling.useful_replicas(law, TOLERANCE, findings.limits)
    return {
        "optimal_becomes_weak_at": scaling.optimal_becomes_weak_at(law),
        "largest_useful_replicas": {"value": useful, "tolerance": TOLERANCE},
        "limit_seconds": scaling.limit_seconds(law),
    }


def _best_band(
    findings: "Findings", best: Any, draws: "PlanDraws | None"
) -> dict[str, Any]:
    """Return the ends of the best batch size at each number of replicas."""
    from rightbatch.training_time.uncertainty import drawn_times

    if draws is None:
        return {"batch_sizes_low": None, "batch_sizes_high": None}
    found: dict[tuple[int, int], Any] = {}
    for used, size in zip(best.replicas_used, best.batch_sizes, strict=True):
        key = (int(used), int(size))
        if key not in found:
            times = drawn_times(
                draws, key[0], findings.limits, [key[1]], SCALING_POINTS
            )
            found[key] = times.best_batch_size(size)
    ends = [
        found[int(used), int(size)]
        for used, size in zip(best.replicas_used, best.batch_sizes, strict=True)
    ]
    return {
        "batch_sizes_low": [one.low for one in ends],
        "batch_sizes_high": [one.high for one in ends],
    }
