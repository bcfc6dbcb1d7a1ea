"""Fits of the step-time law to timed steps, with intervals and plain warnings."""

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import confidence_level, positive_array
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval, corrected_aic
from rightbatch.step_time.candidates import Basis
from rightbatch.step_time.communication import NO_COMMUNICATION, Communication
from rightbatch.step_time.findings import (
    StepTimeFinding,
    find_growth,
    find_jags,
    find_valleys,
)
from rightbatch.step_time.fitted import StepTimeFit, TimedStep
from rightbatch.step_time.intervals import FoundLaw
from rightbatch.step_time.law import checked_lengths, checked_overlap, two_or_more
from rightbatch.step_time.overlap import fit_at
from rightbatch.step_time.profile import TimedRows, knee_grid
from rightbatch.step_time.remarks import (
    fit_warnings,
    hidden_warnings,
    overlap_findings,
    rival_findings,
)
from rightbatch.step_time.repeats import check_repeats
from rightbatch.step_time.selection import (
    KNEE_P_VALUE,
    KNEES,
    NOISE_FLOOR,
    Candidate,
    candidates,
    choose,
    nested_p_value,
    polished,
)

# Times differ past this, and past so many standard deviations of one of them: two
# single times, each the extreme of a few.
CHANGE = 0.05
NOISES = 4.0
WHOLE_REPLICAS = (
    "batch sizes are global, of all replicas together; multiply a local one by its "
    "replicas, or leave the row out"
)


def fit_step_time(
    batch_sizes: ArrayLike,
    seconds: ArrayLike,
    num_replicas: ArrayLike | None = None,
    communication: Communication = NO_COMMUNICATION,
    level: float = 0.9,
    overlap_exponent: float | None = None,
) -> StepTimeFit:
    r"""Return the step-time law fitted to timed steps.

    Least squares of the residuals of ln T, knee and signs included: overhead, time per
    example and communication are never negative. The noise comes from the residuals,
    2 % at least. Intervals are profile intervals with t quantiles. The knee is kept
    where an F-test (p < .01) and AICc prefer it to a straight line; an overlap
    exponent above 1 likewise, where AICc gains 2.

    Args:
        batch_sizes: Global batch size of each row, shape (rows,); repeats are welcome.
        seconds: Seconds per step of each row.
        num_replicas: Replicas of each row; 1 throughout if not given.
        communication: Communication time known beforehand, not to be fitted. Where
            none is given and some rows have more than one replica, it is fitted: none,
            constant, linear in P, a ring, halving-doubling, whichever AICc prefers; two
            numbers of replicas above one allow the first three, one the first two. A
            table whose seconds fall and then rise with P gets a law that can do so.
        level: Level of the intervals.
        overlap_exponent: Known beforehand; None to fit it where the table can carry
            it, and take 1 elsewhere.

    Returns:
        The fit.

    Raises:
        InputError: A value is not positive, a list has another length than the others,
            there are fewer than two local batch sizes, a row has more replicas than
            examples, or repeats of rows are of two units, machines or workloads.

    Example:
        >>> sizes = [1, 4, 16, 64, 256, 1024]
        >>> fit = fit_step_time(sizes, [212e-6 + 0.65e-6 * size for size in sizes])
        >>> print(fit.overhead_seconds)
        0.000212 seconds (0.000205 to 0.000217, 90 %)
        >>> fit.knee_seen
        False
    """
    confidence_level("fit_step_time", level)
    sizes, times, replicas = _checked(batch_sizes, seconds, num_replicas)
    apart = check_repeats(sizes, replicas, times)
    if overlap_exponent is not None:
        checked_overlap("fit_step_time", overlap_exponent)

    def rows_of(basis: Basis) -> TimedRows:
        return TimedRows(
            local=sizes / replicas,
            seconds=times,
            given=np.asarray(communication.comm_seconds(replicas), dtype=float),
            column=basis.columns(replicas),
        )

    is_given = communication.kind != "none"
    tried = candidates(rows_of, replicas, overlap_exponent, given=is_given)
    change = max(CHANGE, NOISES * min(one.noise for one in tried))
    best, said = _choose(tried, (sizes, replicas, times, change), given=is_given)
    chosen = polished(best)
    tried = [chosen if one is best else one for one in tried]
    found, ranked = _search(chosen), sorted(tried, key=lambda one: one.score)
    said += overlap_findings(found, overlap_exponent)
    said += rival_findings(tried, chosen, replicas)
    is_known = is_given or overlap_exponent is not None
    hidden = hidden_warnings(tried, found, replicas, level, is_given=is_known)
    return StepTimeFit(
        law=found.law_with(communication if is_given else None),
        overhead_seconds=found.coefficient(0, level, "fixed cost of a step"),
        seconds_per_example=found.coefficient(
            1, level, "time of one more local example"
        ),
        saturation_batch_size=found.knee_interval(level),
        comm_seconds=found.communication(replicas, level),
        comm_terms=_comm_terms(found, chosen.basis, level),
        overlap_exponent=found.overlap(level),
        knee_seen=found.knee_seen,
        points=_points(sizes, replicas, found),
        rows=found.rows,
        law_fits=found.law_fits(level) if chosen.overlaps or hidden else (found.fit,),
        basis=chosen.basis,
        noise=found.noise,
        degrees=found.degrees,
        median_relative_error=found.median_relative_error,
        runners_up=tuple(one.rival(chosen) for one in ranked),
        findings=tuple(said),
        warnings=(
            *apart,
            *fit_warnings(found, level, replicas, communication.kind),
            *hidden,
        ),
    )


def _comm_terms(found: FoundLaw, basis: Basis, level: float) -> dict[str, Interval]:
    return {
        name: found.coefficient(2 + place, level, f"{basis.kind} in P")
        for place, name in enumerate(basis.names)
    }


def _choose(
    tried: list[Candidate],
    table: tuple[FloatArray, FloatArray, FloatArray, float],
    *,
    given: bool,
) -> tuple[Candidate, list[StepTimeFinding]]:
    """Return the law to go on with, and what the table itself shows."""
    valleys = find_valleys(*table)
    best = choose(tried, must_grow=bool(valleys))
    if not (best.grows or given) and any(one.grows for one in tried):
        # Far better without growth: the valley was noise.
        valleys = []
    return best, [*valleys, *find_growth(*table), *find_jags(*table)]


def _points(
    sizes: FloatArray, replicas: FloatArray, found: FoundLaw
) -> tuple[TimedStep, ...]:
    columns = (sizes, replicas, found.rows.seconds, found.law)
    return tuple(
        TimedStep(batch_size=b, num_replicas=int(p), seconds=t, fitted_seconds=f)
        for b, p, t, f in zip(*(one.tolist() for one in columns), strict=True)
    )


def _checked(
    batch_sizes: ArrayLike, seconds: ArrayLike, num_replicas: ArrayLike | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    who = "fit_step_time"
    sizes = positive_array(who, "batch_sizes", batch_sizes)
    times = positive_array(who, "seconds", seconds)
    checked_lengths(who, sizes, "seconds", times)
    replicas = np.ones_like(sizes)
    if num_replicas is not None:
        replicas = positive_array(who, "num_replicas", num_replicas)
        checked_lengths(who, sizes, "num_replicas", replicas)
    odd = np.flatnonzero((replicas % 1 != 0) | (replicas > sizes))
    if odd.size:
        place = int(odd[0])
        raise InputError(
            f"{who}: `num_replicas` must be whole numbers, none above its batch size, "
            f"got {replicas[place]:g} for {sizes[place]:g} at {place}.",
            WHOLE_REPLICAS,
        )
    two_or_more(who, sizes / replicas)
    return sizes, times, replicas


def _search(chosen: Candidate) -> FoundLaw:
    rows, bent = chosen.rows, chosen.fit
    grid = knee_grid(rows.local, KNEES)
    line = fit_at(rows, grid[:1], bent.overlap_exponent)
    seen = _knee_is_seen(rows, line.squares, bent.squares, chosen.num_parameters)
    return FoundLaw(chosen=chosen, fit=bent if seen else line, knee_seen=seen)


def _knee_is_seen(rows: TimedRows, line: float, bent: float, used: int) -> bool:
    num_rows = len(rows.local)
    degrees = num_rows - used
    if degrees < 1 or len(np.unique(rows.local)) < 4:
        return False
    if nested_p_value(line, bent, degrees) >= KNEE_P_VALUE:
        return False
    scale = NOISE_FLOOR**2
    with_knee = corrected_aic(bent / scale, num_rows, used)
    # With too few rows for AICc the F-test, strict by then, decides alone.
    return not with_knee < np.inf or with_knee < corrected_aic(
        line / scale, num_rows, used - 1
    )
