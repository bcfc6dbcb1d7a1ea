"""What a table of step times shows before any law is fitted, in plain words."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from rightbatch.fitting import FloatArray

FindingKind = Literal["valley", "growth", "jagged", "overlap", "rivals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeFinding:
    """Something a table of step times shows.

    Args:
        kind: ``valley``: seconds fall and then rise with replicas; ``growth``: at one
            share of the batch they rise; ``jagged``: they go up and down; ``overlap``:
            what is known of it; ``rivals``: laws that do as well.
        sentence: The same for a person.
    """

    kind: FindingKind
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Series:
    """Median seconds at one batch size, or at one share, against replicas."""

    size: float
    replicas: FloatArray
    seconds: FloatArray

    @property
    def lowest(self) -> int:
        return int(self.seconds.argmin())

    def is_valley(self, change: float) -> bool:
        edge = min(self.seconds[0], self.seconds[-1])
        inside = 0 < self.lowest < len(self.seconds) - 1
        return bool(inside and edge > (1 + change) * self.seconds[self.lowest])


def find_valleys(
    sizes: FloatArray, replicas: FloatArray, seconds: FloatArray, change: float
) -> list[StepTimeFinding]:
    """Return where seconds fall and then rise with the number of replicas.

    Args:
        sizes: Global batch sizes.
        replicas: Replicas.
        seconds: Seconds per step.
        change: Relative difference from which times are not the same.

    Returns:
        A finding per kind of series that has one: at one batch size, and at one share
        of it; the deepest is told.

    Example:
        >>> found = find_valleys(
        ...     np.array([64.0, 64, 64]),
        ...     np.array([1.0, 8, 64]),
        ...     np.array([4.0, 1, 2]),
        ...     change=0.05,
        ... )
        >>> found[0].sentence[:72]
        'At batch size 64 a step is fastest on 8 replicas (1 s): 4 s on 1, 2 s on'
    """
    said: list[StepTimeFinding] = []
    for name, keys in (("batch size", sizes), ("a local batch of", sizes / replicas)):
        series = [
            one for one in _series(keys, replicas, seconds) if one.is_valley(change)
        ]
        if not series:
            continue
        deepest = max(series, key=lambda one: one.seconds[-1] / one.seconds.min())
        place = deepest.lowest
        said.append(
            StepTimeFinding(
                kind="valley",
                sentence=(
                    f"At {name} {deepest.size:g} a step is fastest on "
                    f"{deepest.replicas[place]:g} replicas "
                    f"({deepest.seconds[place]:.3g} s): {deepest.seconds[0]:.3g} s on "
                    f"{deepest.replicas[0]:g}, {deepest.seconds[-1]:.3g} s on "
                    f"{deepest.replicas[-1]:g}. Communication grows with the number of "
                    "replicas."
                ),
            )
        )
    return said


def find_growth(
    sizes: FloatArray, replicas: FloatArray, seconds: FloatArray, change: float
) -> list[StepTimeFinding]:
    """Return whether a step takes longer on more replicas with the same share each.

    Args:
        sizes: Global batch sizes.
        replicas: Replicas.
        seconds: Seconds per step.
        change: Relative difference from which times are not the same.

    Returns:
        One finding or none; one replica, which does not communicate, is left out.
    """
    many = replicas > 1

    def growth(one: _Series) -> float:
        return float(one.seconds[-1] / one.seconds[0])

    found = _series((sizes / replicas)[many], replicas[many], seconds[many], least=2)
    found = [one for one in found if growth(one) > 1 + change]
    if not found:
        return []
    steepest = max(found, key=growth)
    return [
        StepTimeFinding(
            kind="growth",
            sentence=(
                f"With {steepest.size:g} examples each, {steepest.replicas[-1]:g} "
                f"replicas take {growth(steepest):.2f} times as long as "
                f"{steepest.replicas[0]:g}: communication grows with their number."
            ),
        )
    ]


def find_jags(
    sizes: FloatArray, replicas: FloatArray, seconds: FloatArray, change: float
) -> list[StepTimeFinding]:
    """Return whether seconds rise and then fall again from two replicas on.

    Args:
        sizes: Global batch sizes.
        replicas: Replicas.
        seconds: Seconds per step.
        change: Relative difference from which times are not the same.

    Returns:
        One finding or none.
    """
    many = replicas > 1
    jagged = [
        one
        for one in _series(sizes[many], replicas[many], seconds[many])
        if _has_hill(one.seconds, change)
    ]
    if not jagged:
        return []
    listed = ", ".join(f"{one.size:g}" for one in jagged[:3])
    return [
        StepTimeFinding(
            kind="jagged",
            sentence=(
                f"At batch size {listed} seconds rise and then fall again with the "
                "number of replicas, which no law here does: noise, or machines that "
                "differ; time those rows again."
            ),
        )
    ]


def _series(
    keys: FloatArray, replicas: FloatArray, seconds: FloatArray, least: int = 3
) -> list[_Series]:
    found: list[_Series] = []
    for key in np.unique(keys):
        rows = keys == key
        counts = np.unique(replicas[rows])
        if len(counts) >= least:
            medians = [np.median(seconds[rows & (replicas == one)]) for one in counts]
            found.append(
                _Series(size=float(key), replicas=counts, seconds=np.array(medians))
            )
    return found


def _has_hill(seconds: FloatArray, change: float) -> bool:
    # A place that stands above something before it and something after it.
    return any(
        seconds[place]
        > (1 + change) * max(seconds[:place].min(), seconds[place:].min())
        for place in range(1, len(seconds) - 1)
    )
