"""What a person should know of a fit of step times, in plain words."""

import numpy as np

from rightbatch.fitting import FloatArray
from rightbatch.step_time.findings import StepTimeFinding
from rightbatch.step_time.intervals import FoundLaw
from rightbatch.step_time.selection import Candidate

LARGE_ERROR = 0.10
# Laws this near by AICc are not told apart.
SAME_AICC = 2.0


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
            "two are added (overlap exponent 1). To tell, time several batch sizes on "
            "one replica and on two other numbers of them, some with communication as "
            "long as computing."
        )
    return [StepTimeFinding(kind="overlap", sentence=said)]


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
