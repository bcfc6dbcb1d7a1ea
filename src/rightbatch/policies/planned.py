r"""The batch size that is soonest, from the noise now and the seconds of a step."""

from dataclasses import dataclass
from typing import TypeGuard

from rightbatch import _checks
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.policies.contract import Decision, Observation, check_positive
from rightbatch.policies.noise_reading import (
    NOISE_SCALE,
    UNRESOLVED,
    hold,
    noise_scale_of,
    wish,
)
from rightbatch.step_time import StepTimeLaw
from rightbatch.training_time import (
    BatchLimits,
    ClosedForm,
    StepTimeModel,
    TrainingTimeLaw,
    best_batch_size,
)

# No noise at all leaves the knee of the step time; a law of steps needs some.
_LEAST_NOISE = 1e-9
PlannedState = tuple[float | None, float | None, int]
"""The last wish, the noise scale and the replicas it was planned for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    r"""The batch size that makes the most progress per second at the noise of now.

    .. math:: B = \max(\sqrt{\phi\,\delta P/\gamma},\ M_T P)

    for the step-time law of Perrone et al. (2019), and in general the B with the
    largest :math:`\frac{B}{T(B)} \frac{\phi + B_0}{\phi + B}`, throughput times
    statistical efficiency (Pollux, Qiao et al. 2021): the least
    :math:`(1 + \phi/B)\,T(B)`. P is the number of replicas seen. Where the noise scale
    is unresolved the batch stays.

    Args:
        initial_batch_size: Until the noise scale is known, in examples.
        step_time: Seconds per step at a batch size on P replicas.
        max_batch_size: Where a search ends; needed for step times other than that law.
        factor: From the noise scale to the critical batch size, as fitted runs gave it.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> from rightbatch.fitting import Interval
        >>> law = StepTimeLaw(seconds_per_example=0.001, saturation_batch_size=20,
        ...     overhead_seconds=0.02)
        >>> phi = Interval(value=700.0, low=600.0, high=800.0, level=0.95)
        >>> seen = Observation(step=9, examples=72, batch_size=8, noise_scale=phi)
        >>> policy = Planned(initial_batch_size=8, step_time=law)
        >>> round(policy.update(policy.init(), seen)[0].batch_size, 1)
        118.3
    """

    initial_batch_size: float
    step_time: StepTimeModel
    max_batch_size: int | None = None
    factor: float = 1.0

    needs = NOISE_SCALE

    def __post_init__(self) -> None:
        check_positive(self, "initial_batch_size", "factor")
        if self.max_batch_size is not None:
            _checks.positive_integer("Planned", "max_batch_size", self.max_batch_size)
        elif not _has_closed_form(self.step_time):
            raise InputError(
                "Planned: `max_batch_size` must be given for such step times, "
                "got None.",
                "the best batch is searched for, and the search must end somewhere",
            )

    def init(self) -> PlannedState:
        """Return that nothing was planned."""
        return None, None, 1

    def update(
        self, state: PlannedState, seen: Observation
    ) -> tuple[Decision, PlannedState]:
        """Return the batch size for the noise and the replicas seen.

        A plan is kept while both stay as they are: a search takes milliseconds.
        """
        last, known_for, known_replicas = state
        phi, replicas = noise_scale_of(seen), seen.num_replicas
        if phi is None:
            return hold(last, seen, self.initial_batch_size, UNRESOLVED)[0], state
        if last is None or (phi, replicas) != (known_for, known_replicas):
            last = self.batch_size_for(phi, replicas)
        decision, last = wish(last, f"noise scale {phi:.3g}")
        return decision, (last, phi, replicas)

    def batch_size_for(self, noise_scale: float, num_replicas: int = 1) -> float:
        """Return the batch size for a noise scale.

        Args:
            noise_scale: In examples.
            num_replicas: P.

        Returns:
            Examples; whole where the optimum was searched for.
        """
        # Steps over the fewest, 1 + phi/B: only the ratio of the two numbers tells.
        critical = max(self.factor * noise_scale, _LEAST_NOISE)
        steps = ConvergenceLaw(min_steps=1.0, min_examples=critical)
        law = self.step_time
        if _has_closed_form(law):
            plan = ClosedForm(convergence=steps, step_time=law)
            return float(plan.optimal_batch_size(num_replicas))
        time = TrainingTimeLaw(steps=steps, step_time=law)
        limits = BatchLimits(max_batch_size=self.max_batch_size)
        return float(best_batch_size(time, num_replicas, limits))


def _has_closed_form(law: StepTimeModel) -> TypeGuard[StepTimeLaw]:
    if not isinstance(law, StepTimeLaw) or law.seconds_per_example == 0:
        return False
    return law.overlap_exponent == 1 or law.communication.kind == "none"
