"""What a person should know of a fit of step times, in plain words."""

import numpy as np

from rightbatch.fitting import FloatArray
from rightbatch.step_time.candidates import Basis
from rightbatch.step_time.findings import StepTimeFinding
from rightbatch.step_time.intervals import FoundLaw
from rightbatch.step_time.law import overlapped
from rightbatch.step_time.profile import LawFit
from rightbatch.step_time.selection import Candidate

LARGE_ERROR = 0.10
# Laws this near by AICc are not told apart.
SAME_AICC = 2.0
# Hidden communication is told where it is so many times what was fitted, and changes
# the time of some step by so much (of its logarithm).
LONGER = 1.5
OTHERWISE = 0.15


def overlap_findings(found: FoundLaw, given: float | None) -> list[StepTimeFinding]:
    """Return what is known of the overlap.

    Args:
        found: The law.
        given: An overlap exponent known beforehand, of which nothing is said.

    Returns:
        One finding, or none without communication.
    """
    _, comm = found.rows.parts(found.fit)
    if given is not None or not comm.any():
        return []
    exponent = found.fit.overlap_exponent
    if exponent > 1:
        said = (
            f"Part of the communication hides behind computing (overlap exponent "
            f"{exponent:.2g}): a step takes less than their sum."
        )
    elif found.chosen.profile is not None:
        said = "No overlap of computing and communicating is seen: their times add up."
    else:
        said = (
            "These rows cannot tell whether communication hides behind computing; the "
            "two are added (overlap exponent 1)."
        )
    return [StepTimeFinding(kind="overlap", sentence=said)]


def hidden_warnings(
    tried: list[Candidate],
    found: FoundLaw,
    replicas: FloatArray,
    level: float,
    *,
    is_given: bool,
) -> list[str]:
    """Return whether communication may be larger than fitted, hidden by computing.

    Args:
        tried: All laws of communication.
        found: The law chosen.
        replicas: Of each row.
        level: Level of the intervals.
        is_given: True where overlap or communication was known beforehand.

    Returns:
        One sentence or none.
    """
    most = float(replicas.max())
    if is_given or most == 1 or found.fit.overlap_exponent > 1:
        return []
    fitted = _on(found.chosen.basis, found.fit, most)
    said = (
        f"Communication may be longer than the {fitted:.3g} s fitted on {most:g} "
        "replicas, hidden behind computing: "
    )
    way_out = (
        "To tell, time the same batch sizes, small ones too, on one replica and on two "
        "or more other numbers of them, some with communication as long as computing."
    )
    if all(one.profile is None for one in tried):
        return [
            f"{said}these rows cannot tell. Plans for other batch sizes or more "
            f"replicas may then be far off. {way_out}"
        ]
    worst = _longest_hidden(tried, found, most, level)
    if worst is None:
        return []
    seconds, exponent = worst
    return [
        f"{said}{seconds:.3g} s with an overlap exponent of {exponent:.2g} fits these "
        "rows as well. Where computing is shorter, at smaller shares of a batch, a "
        f"plan may then be far off. {way_out}"
    ]


def _longest_hidden(
    tried: list[Candidate], found: FoundLaw, most: float, level: float
) -> tuple[float, float] | None:
    # Of laws that fit as well and say something else of times that were not timed.
    fitted = _on(found.chosen.basis, found.fit, most)
    threshold = found.threshold(level)
    worst: tuple[float, float] | None = None
    for one in tried:
        for fit in one.profile.inside(threshold) if one.profile else ():
            seconds = _on(one.basis, fit, most)
            longest = worst[0] if worst else LONGER * fitted
            if seconds > longest and _differs(one, fit, found, most):
                worst = seconds, fit.overlap_exponent
    return worst


def _differs(one: Candidate, fit: LawFit, found: FoundLaw, most: float) -> bool:
    local = np.geomspace(found.rows.local.min(), found.rows.local.max(), 30)
    for count in (1.0, most):
        times = [
            _times(basis, law, local, count)
            for basis, law in ((one.basis, fit), (found.chosen.basis, found.fit))
        ]
        if np.max(np.abs(np.log(times[0] / times[1]))) > OTHERWISE:
            return True
    return False


def _times(basis: Basis, fit: LawFit, local: FloatArray, count: float) -> FloatArray:
    overhead, slope = fit.coefficients[:2]
    compute = slope * np.maximum(local, fit.knee)
    comm = _on(basis, fit, count)
    return overhead + overlapped(compute, comm, fit.overlap_exponent)


def _on(basis: Basis, fit: LawFit, num_replicas: float) -> float:
    return float(basis.columns(num_replicas) @ fit.coefficients[2:])


def rival_findings(
    tried: list[Candidate], chosen: Candidate, replicas: FloatArray
) -> list[StepTimeFinding]:
    """Return which laws of communication do as well as the one chosen.

    Args:
        tried: All of them.
        chosen: The one chosen.
        replicas: Of each row.

    Returns:
        One finding or none.
    """
    beyond = 4 * float(replicas.max())
    near = [
        one
        for one in tried
        if one is not chosen and abs(one.score - chosen.score) < SAME_AICC
    ]
    if not near:
        return []
    laws = [
        f"{one.basis.kind} {one.basis.columns(beyond) @ one.fit.coefficients[2:]:.3g} s"
        for one in (chosen, *near)
    ]
    return [
        StepTimeFinding(
            kind="rivals",
            sentence=(
                "The rows do not tell these laws of communication apart, which on "
                f"{beyond:g} replicas would take: {', '.join(laws)}."
            ),
        )
    ]


def fit_warnings(
    found: FoundLaw, level: float, replicas: FloatArray, given: str
) -> list[str]:
    """Return what to know before a fit is used.

    Args:
        found: The law.
        level: Level of its intervals.
        replicas: Of each row.
        given: Kind of the communication known beforehand; ``none`` for none.

    Returns:
        Sentences.
    """
    slope = found.coefficient(1, level, "time of one more local example")
    sizes = np.unique(found.rows.local)
    low, high = sizes[0], sizes[-1]
    said: list[str] = []
    if not found.degrees:
        said.append(
            f"{len(found.law)} rows for {len(found.fit.coefficients)} unknowns: the "
            "line goes through them exactly, so its intervals are unbounded; time more "
            "batch sizes."
        )
    if not found.knee_seen:
        said.append(
            f"No knee seen: a straight line fits the step times as well, from {low:g} "
            "local examples on; where time stops falling below that is not known."
        )
    if not slope.value or slope.low == 0:
        said.append(
            f"Not sure that a step takes longer at {high:g} local examples than at "
            f"{low:g}: time larger batches, or the plan will ask for the largest."
        )
    if found.median_relative_error > LARGE_ERROR:
        said.append(
            f"The step-time law misses the times by {found.median_relative_error:.0%} "
            "(median): real times jump; trust the plan made with the measured times."
        )
    if replicas.max() > 1:
        said.extend(_communication_warnings(found, replicas, given))
    return said


def _communication_warnings(
    found: FoundLaw, replicas: FloatArray, given: str
) -> list[str]:
    said: list[str] = []
    fitted = found.rows.column.shape[1] > 0
    if replicas.min() > 1 and given == "none":
        said.append(
            "No times at one replica: overhead and communication cannot be told apart "
            "safely; time one replica too."
        )
    if fitted and len(np.unique(replicas[replicas > 1])) < 2:
        said.append(
            f"Only {replicas.max():g} replicas timed beside one: how communication "
            "grows with their number is not known; taken as constant."
        )
    if np.any(found.rows.given >= found.rows.seconds):
        said.append(
            "The communication time given is longer than whole steps that were timed."
        )
    return said
