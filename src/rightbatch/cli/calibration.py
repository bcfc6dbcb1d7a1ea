"""The calibrated factor: a critical batch size fitted to runs over a noise scale.

A noise scale says how noisy gradients are; runs to a target say what that costs. Their
ratio is what makes the one a statement about the other, for this workload alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightbatch._checks import confidence_level
from rightbatch.errors import InputError
from rightbatch.fitting import Interval

if TYPE_CHECKING:
    from rightbatch.experiments.record import Run

LEVEL = 0.9
DEFINITION = "calibrated factor: fitted critical batch size over noise scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPhi:
    """A critical batch size fitted to runs, and where it is from.

    Args:
        interval: Of S_min and E_min's ratio, in examples.
        target: Of the runs; None where the result names none.
        status: Of the fit.
        path: The file.
    """

    interval: Interval
    target: float | None
    status: str
    path: Path


def calibrated_factor(
    fitted: Interval, noise_scale: Interval, level: float = LEVEL
) -> Interval:
    """Return a fitted critical batch size over a noise scale, with its interval.

    The two are measured apart: on a logarithmic scale the distances to the ends of
    their intervals, brought to one level as those of normal errors, add in squares.

    Args:
        fitted: Critical batch size of a fit.
        noise_scale: Over the run, or part of it.
        level: Of the factor's interval.

    Returns:
        The factor; a side on which either is unbounded is open.

    Raises:
        InputError: One has no value above zero, or `level` is out of range.

    Example:
        >>> fitted = Interval(value=50, low=40, high=62.5, level=0.9)
        >>> noise = Interval(value=100, low=80, high=125, level=0.9)
        >>> print(calibrated_factor(fitted, noise))
        0.5 (0.365 to 0.686, 90 %)
    """
    confidence_level("calibrated_factor", level)
    if not fitted.value or not noise_scale.value:
        raise InputError("calibrated_factor: both must have a value above zero.")
    factor = fitted.value / noise_scale.value
    below = math.hypot(_down(fitted, level), _up(noise_scale, level))
    above = math.hypot(_up(fitted, level), _down(noise_scale, level))
    return Interval(
        value=factor,
        low=factor * math.exp(-below) if math.isfinite(below) else None,
        high=factor * math.exp(above) if math.isfinite(above) else None,
        level=level,
        definition=DEFINITION,
    )


def _down(interval: Interval, level: float) -> float:
    value, low = interval.value or 0.0, interval.low
    return math.log(value / low) * _stretch(interval, level) if low else math.inf


def _up(interval: Interval, level: float) -> float:
    value, high = interval.value or math.inf, interval.high
    return math.log(high / value) * _stretch(interval, level) if high else math.inf


def _stretch(interval: Interval, level: float) -> float:
    from scipy.stats import norm

    wanted, given = norm.ppf([(1 + level) / 2, (1 + interval.level) / 2])
    return float(wanted / given)


def read_fitted(path: Path, workload: str) -> FittedPhi:
    """Return the critical batch size that a result or a store of runs tells.

    Args:
        path: A store, or the JSON of ``plan`` or ``fit``.
        workload: Whose it has to be.

    Returns:
        Of the hardest target.

    Raises:
        InputError: The file cannot be read, is of another workload or another command,
            or no critical batch size is known from it.
    """
    from rightbatch.cli.report import read_result

    try:
        is_store = path.read_bytes()[:15] == b"SQLite format 3"
    except OSError as error:
        raise InputError(
            f"--calibrate: {path} cannot be read: {error.strerror}.",
            "sweep or plan makes a store of runs, plan --json a result",
        ) from None
    found = _of_store(path, workload) if is_store else _of(read_result(path), path)
    entry = _entry_of(found, path, workload)
    phi = Interval(
        **{
            name: entry["critical_batch_size"].get(name, "")
            for name in ("value", "low", "high", "level", "unit", "definition")
        }
    )
    if not phi.value:
        raise InputError(
            f"--calibrate: {path} has no critical batch size: its fit is "
            f"{entry.get('status', 'unknown')}.",
            "run more batch sizes or seeds",
        )
    return FittedPhi(
        interval=phi,
        target=entry.get("target"),
        status=str(entry.get("status")),
        path=path,
    )


def _of(document: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    places = {"plan": "convergence", "fit": "workloads"}
    command = str(document.get("command"))
    if command not in places:
        raise InputError(
            f"--calibrate: {path} is a result of {command}, which fits no runs.",
            "give a store of runs, or the output of plan --json or fit --json",
        )
    return list(document.get(places[command]) or [])


def _entry_of(found: list[dict[str, Any]], path: Path, workload: str) -> dict[str, Any]:
    names = [str(entry.get("workload")) for entry in found]
    if not found:
        raise InputError(f"--calibrate: {path} holds no fitted law.")
    kept = [entry for entry in found if entry.get("workload") == workload]
    if not kept:
        raise InputError(
            f"--calibrate: {path} is of {', '.join(dict.fromkeys(names))}, not of "
            f"{workload}: a factor holds for one workload alone.",
            "fit its own runs; a table names them in a column workload",
        )
    # Targets are fitted in order, the hardest last.
    return kept[-1]


def _of_store(path: Path, workload: str) -> list[dict[str, Any]]:
    from rightbatch.convergence import fit_tuned
    from rightbatch.experiments.store import RunStore

    with RunStore(path) as store:
        name, runs = store.identity.workload, store.runs()
    entry: dict[str, Any] = {"workload": name}
    if name != workload:
        return [entry]
    if not runs:
        raise InputError(f"--calibrate: {path} holds no run.")
    target = _hardest(runs)
    kept = [run for run in runs if target in run.targets]
    steps = [run.steps(target) for run in kept]
    try:
        tuned = fit_tuned(
            [run.batch_size for run in kept],
            [math.nan if count is None else count for count in steps],
            [run.lr for run in kept],
        )
    except InputError as error:
        raise InputError(f"--calibrate: {path}: {error}") from None
    return [{**entry, "target": target, **tuned.to_dict()}]


def _hardest(runs: "tuple[Run, ...]") -> float:
    targets = {target for run in runs for target in run.targets}
    return runs[0].crossing.hardest(tuple(targets))
