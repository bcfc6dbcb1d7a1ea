"""Which of a run's checks are left out, far from the targets it has yet to cross.

Checks are what a run to a loss at a small batch costs. Dense ones are needed where a
target is crossed, and nowhere else: a gate opens when the loss comes near the easiest
target left, and closes once that is crossed.
"""

import math
from collections.abc import Sequence

from rightbatch.experiments.crossing import Crossing, grid_index

# While the gate is closed one grid point in ten is checked: 22 % of the steps apart.
SPARSE_CHECKS = 10


class Gate:
    """Opens within a factor of the easiest target left, and closes when it is crossed.

    Without a factor in the crossing it is always open.

    Args:
        crossing: What a crossing is, and the factor.
        targets: Values the metric must get to.

    Example:
        >>> gate = Gate(Crossing(definition="first", gate=1.5), (0.4, 0.1))
        >>> gate.see(0.5)
        >>> gate.is_open, gate.easiest_left
        (True, 0.4)
        >>> gate.cross(((7, 0.39),))
        >>> gate.is_open, gate.easiest_left
        (False, 0.1)
    """

    def __init__(self, crossing: Crossing, targets: Sequence[float]) -> None:
        self._crossing = crossing
        self._left = list(targets)
        self.is_open = crossing.gate is None

    @property
    def easiest_left(self) -> float:
        """The target that is crossed next; there must be one left."""
        return self._crossing.easiest(self._left)

    @property
    def is_done(self) -> bool:
        """Whether every target was crossed."""
        return not self._left

    def see(self, value: float) -> None:
        """Open where a loss, of mini-batches or a check, is near the next target."""
        factor = self._crossing.gate
        if factor is not None and self._left:
            # A factor says nothing of a target that is not positive.
            bound = factor * self.easiest_left if self.easiest_left > 0 else math.inf
            self.is_open = self.is_open or value <= bound

    def cross(self, trace: Sequence[tuple[int, float]]) -> None:
        """See the last check, and drop the targets that it shows to be crossed.

        Args:
            trace: The checks, at least one; those before the last few do not matter.
        """
        crossing, before = self._crossing, len(self._left)
        for _, value in crossing.completed(trace):
            self._left = [one for one in self._left if not crossing.meets(value, one)]
        if len(self._left) < before:
            self.is_open = crossing.gate is None
        self.see(trace[-1][1])

    def skips(self, index: int, index_before: int) -> bool:
        """Whether nothing is checked, between two points of the grid.

        Args:
            index: Of the last grid point that was passed.
            index_before: Of the last one before the updates made since.

        Returns:
            Always false where the gate is open.
        """
        return not self.is_open and index // SPARSE_CHECKS == (
            index_before // SPARSE_CHECKS
        )


def answers_for(
    crossing: Crossing,
    trace: Sequence[tuple[int, float]],
    target: float,
    own: Sequence[float],
) -> bool:
    """Return whether a run's checks tell where it crossed a target it was not made for.

    Args:
        crossing: The run's.
        trace: Its checks.
        target: Not one of its own.
        own: The targets that it was made for; at least one.

    Returns:
        For ``smoothed`` without a gate always; with one where no grid point is left out
        from the first check that is within the gate of it, and above it, to its
        crossing. For ``first``, whose checks are given up where they are above its own
        targets, where it is harder than all of these.

    Example:
        >>> dense = tuple((step, 10.0 / (step + 1)) for step in range(30))
        >>> answers_for(Crossing(gate=2.0), dense, 0.5, [0.4])
        True
        >>> answers_for(Crossing(gate=2.0), (*dense[:12], *dense[20:]), 0.5, [0.4])
        False
    """
    if crossing.definition == "first":
        if crossing.meets(target, crossing.hardest(own)):
            return True
        return crossing.gate is None and crossing.direction == "max"
    if crossing.gate is None:
        return True
    bound = crossing.gate * target
    near = next((i for i, (_, v) in enumerate(trace) if v <= bound), len(trace))
    for i in range(max(near, 1), len(trace)):
        is_gap = grid_index(trace[i][0]) != (grid_index(trace[i - 1][0]) or 0) + 1
        # One just before `near` does no harm while that check is above the target.
        if is_gap and (i > near or trace[i][1] <= target):
            return crossing.steps(trace[:i], target) is not None
    return True
