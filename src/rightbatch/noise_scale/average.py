"""Averages of the two moments over updates, with a memory counted in examples."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.noise_scale.drift import DriftTest, drift_test
from rightbatch.noise_scale.estimate import NoiseScaleEstimate, estimate_noise_scale
from rightbatch.noise_scale.moments import GradientMoments
from rightbatch.noise_scale.scatter import Scatter, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class MomentAverage:
    r"""Both moments averaged apart over updates, and how sure the averages are.

    An update of :math:`B_k` examples has the weight :math:`w_k = B_k`, and what came
    before it is kept to :math:`\exp(-B_k/h)`: the memory is h examples long whatever
    the batch sizes are. A value: `add` returns the next one.

    Args:
        horizon: h, in examples; None forgets nothing.
        num_steps: Updates that were added.
        num_skipped: Updates that were left out because a gradient overflowed.
        examples: Examples of the updates that were added.
        elapsed: Examples from the start to the last update, those of updates that were
            not measured included.
        scatter: Weighted sums over the updates.

    Raises:
        InputError: `horizon` is not positive.

    Example:
        >>> average = MomentAverage()
        >>> for square, variance in ((1.0, 90.0), (0.8, 110.0), (1.2, 100.0)):
        ...     moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
        ...     average = average.add(moments, examples=64)
        >>> average.moments.simple_noise_scale, average.effective_steps
        (100.0, 3.0)
        >>> print(average.noise_scale())
        noise scale 100 examples (54.9 to 227, 95 %) from 3 steps
    """

    horizon: float | None = None
    num_steps: int = 0
    num_skipped: int = 0
    examples: float = 0.0
    elapsed: float = 0.0
    scatter: Scatter = field(default_factory=Scatter)

    def __post_init__(self) -> None:
        if self.horizon is not None:
            _checks.positive("MomentAverage", "horizon", self.horizon)

    def add(
        self,
        moments: GradientMoments,
        examples: float,
        *,
        elapsed: float | None = None,
    ) -> "MomentAverage":
        """Return the average with one more update in it.

        An update so large that its square overflows is skipped.

        Args:
            moments: Of the update, unbiased, not clipped.
            examples: In the update.
            elapsed: Examples since the last update that was added, this one's
                included: more than `examples` where not every update is measured.

        Returns:
            The next value.

        Raises:
            InputError: `examples` is not positive, or `elapsed` is below it.
        """
        size = float(_checks.positive("MomentAverage.add", "examples", examples))
        since = size if elapsed is None else elapsed
        if not size <= since < math.inf:
            raise InputError(
                f"MomentAverage.add: `elapsed` must be at least `examples`, {size:g}, "
                f"got {since!r}."
            )
        one = Scatter.of(moments.grad_variance, moments.grad_sq_norm, weight=size)
        scatter = self.scatter.joined(one, since, self._kept(since))
        # Moments of a diverging run are finite long after their squares are not.
        if not scatter.is_finite:
            return self.skip()
        return replace(
            self,
            num_steps=self.num_steps + 1,
            examples=self.examples + size,
            elapsed=self.elapsed + since,
            scatter=scatter,
        )

    def skip(self) -> "MomentAverage":
        """Return the same average with one more update counted as left out."""
        return replace(self, num_skipped=self.num_skipped + 1)

    def reset(self) -> "MomentAverage":
        """Return an empty average with the same memory."""
        return MomentAverage(horizon=self.horizon)

    def merge(self, later: "MomentAverage") -> "MomentAverage":
        """Return the average over the updates of both, the other's taken to follow.

        It is what adding all of them one by one gives. Without a horizon the order
        matters to the test of a drift alone, so that runs side by side can be merged
        for their noise scale.

        Args:
            later: Over other updates, with the same horizon.

        Returns:
            The average over all.

        Raises:
            InputError: The horizons differ.
        """
        if later.horizon != self.horizon:
            raise InputError(
                f"MomentAverage.merge: `horizon` must be the same, "
                f"got {self.horizon} and {later.horizon}."
            )
        return MomentAverage(
            horizon=self.horizon,
            num_steps=self.num_steps + later.num_steps,
            num_skipped=self.num_skipped + later.num_skipped,
            examples=self.examples + later.examples,
            elapsed=self.elapsed + later.elapsed,
            scatter=self.scatter.joined(
                later.scatter, later.elapsed, self._kept(later.elapsed)
            ),
        )

    @property
    def moments(self) -> GradientMoments:
        """The two averages.

        Raises:
            InputError: No update was added.
        """
        if not self.num_steps:
            raise InputError("MomentAverage: no update was added.", "add one first")
        return GradientMoments(
            grad_sq_norm=self.scatter.q, grad_variance=self.scatter.t
        )

    @property
    def effective_steps(self) -> float:
        r""":math:`(\sum w)^2/\sum w^2`: so many equal updates would tell as much."""
        return self.scatter.effective_steps

    def drift(self) -> DriftTest | None:
        """Return the test of a drift within the window, None where it has no say."""
        return drift_test(self.scatter)

    def noise_scale(
        self,
        level: float = 0.95,
        dataset_size: float | None = None,
        unit: str = "examples",
    ) -> NoiseScaleEstimate:
        """Return the ratio of the averages with its interval and what it is worth.

        Args:
            level: Of the interval, and of the one-sided bound.
            dataset_size: Examples in the data set, where batches are drawn from it
                without replacement and its own gradient is meant.
            unit: What is counted as an example.

        Returns:
            The estimate.

        Raises:
            InputError: `level` is not between 0 and 1, or `dataset_size` is not
                positive.
        """
        _checks.confidence_level("noise_scale", level)
        scatter = self.scatter
        if dataset_size is not None:
            _checks.positive("noise_scale", "dataset_size", dataset_size)
            scatter = scatter.for_dataset(dataset_size)
        return estimate_noise_scale(
            scatter,
            num_steps=self.num_steps,
            examples=self.examples,
            kept_per_step=self._kept(self.elapsed / max(1, self.num_steps)),
            level=level,
            unit=unit,
        )

    def _kept(self, examples: float) -> float:
        return 1.0 if self.horizon is None else math.exp(-examples / self.horizon)

    def state_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, for a checkpoint."""
        state = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**state, "scatter": self.scatter.to_dict()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> "MomentAverage":
        """Return the average that :meth:`state_dict` was taken of.

        Raises:
            InputError: A key is missing or unknown.
        """
        who = "MomentAverage.from_state_dict"
        _check_keys(who, state, {one.name for one in fields(cls)})
        rest: dict[str, Any] = dict(state)
        scatter: dict[str, Any] = dict(rest.pop("scatter"))
        _check_keys(who, scatter, {one.name for one in fields(Scatter)})
        for part in ("sums", "squares"):
            _check_keys(who, scatter[part], {one.name for one in fields(Spread)})
        return cls(scatter=Scatter.from_dict(scatter), **rest)


def _check_keys(who: str, given: Mapping[str, Any], names: set[str]) -> None:
    if missing := sorted(names - set(given)):
        raise InputError(f"{who}: the state lacks {', '.join(missing)}.")
    if unknown := sorted(set(given) - names):
        raise InputError(f"{who}: the state has an unknown {', '.join(unknown)}.")
