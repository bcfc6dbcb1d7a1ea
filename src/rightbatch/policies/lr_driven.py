"""Growth that a learning-rate schedule asks for: its decay turned into batches.

The laws are those of :func:`rightbatch.lr_scaling.grow`; here they are followed by the
examples read, so that they hold whatever batch is served.
"""

from bisect import bisect_right
from dataclasses import dataclass, field

from rightbatch.lr_scaling import Growth, Schedule, Stage, grow
from rightbatch.policies.contract import (
    CLOCK_ALONE,
    Decision,
    Observation,
    check_positive,
    nothing_remembered,
)

# A schedule may end at a rate of 0, and a factor must be positive.
_LEAST_FACTOR = 1e-12
_STAGE = 1.1  # from one stage to the next, of batch or rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Seesaw:
    r"""Batch and learning rate of a schedule whose decay is exchanged for growth.

    Where the schedule cuts the rate by a, the batch grows by a and the rate is cut by
    :math:`\sqrt{a}` (normalised updates, such as Adam's; Meterez et al. 2025); for SGD
    the batch grows by a and the rate stays (Smith et al. 2018). Past
    `max_batch_size` the rate decays for the batch that cannot grow. While the schedule
    rises to its peak the batch waits.

    The policy brings the schedule along, as factors on the learning rate: the run keeps
    the rate of its peak and has no scheduler of its own.

    Args:
        initial_batch_size: :math:`B_0` of the run that is replaced, in examples.
        schedule: Its learning rate over the run.
        total_steps: Its updates; the new run reads as many examples.
        normalised: False for SGD.
        max_batch_size: Where growth stops.
        noise_scale: Growth by Seesaw's law stops there too, in examples.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> from rightbatch.lr_scaling import named_schedule
        >>> cut = named_schedule("step:factor=4,num=1")
        >>> policy = Seesaw(initial_batch_size=64, schedule=cut, total_steps=1000)
        >>> seen = Observation(step=600, examples=38400, batch_size=64)
        >>> decision, _ = policy.update(None, seen)
        >>> round(decision.batch_size, 6), round(decision.lr_factor, 6)
        (256.0, 0.5)
    """

    initial_batch_size: float
    schedule: Schedule
    total_steps: float
    normalised: bool = True
    max_batch_size: float | None = None
    noise_scale: float | None = None
    growth: Growth = field(init=False, repr=False, compare=False)
    stages: tuple[Stage, ...] = field(init=False, repr=False, compare=False)

    needs = CLOCK_ALONE
    init = nothing_remembered

    def __post_init__(self) -> None:
        law = "seesaw" if self.normalised else "smith"
        _grow(self, law, noise_scale=self.noise_scale)

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return batch and rate for the examples read."""
        stage, reason = _stage_at(self.stages, seen.examples)
        factor = max(stage.lr_factor, _LEAST_FACTOR)
        return Decision(stage.batch_size, factor, reason), state


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvexRamp:
    r"""The batch size that goes with a learning-rate schedule on a convex loss.

    .. math:: B_t \propto \mathrm{lr}_t \Big/ \sqrt{\int_t^T \mathrm{lr}}

    Constant under linear decay to zero. The rate is left to the run's own scheduler,
    which counts to `growth.steps` updates. Ours, from the last-iterate bound for convex
    losses (Zamani and Glineur 2023; Defazio et al. 2023).

    Args:
        initial_batch_size: At the peak of the schedule, in examples.
        schedule: The learning rate over the run.
        total_steps: Updates of a run at the initial batch that reads as many examples.
        max_batch_size: Where growth stops.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> from rightbatch.lr_scaling import named_schedule
        >>> decay = named_schedule("linear")
        >>> policy = ConvexRamp(initial_batch_size=64, schedule=decay, total_steps=1000)
        >>> seen = Observation(step=600, examples=38400, batch_size=64)
        >>> round(policy.update(None, seen)[0].batch_size)
        64
    """

    initial_batch_size: float
    schedule: Schedule
    total_steps: float
    max_batch_size: float | None = None
    growth: Growth = field(init=False, repr=False, compare=False)
    stages: tuple[Stage, ...] = field(init=False, repr=False, compare=False)

    needs = CLOCK_ALONE
    init = nothing_remembered

    def __post_init__(self) -> None:
        _grow(self, "convex")

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return the batch for the examples read."""
        stage, reason = _stage_at(self.stages, seen.examples)
        return Decision(stage.batch_size, reason=reason), state


def _grow(
    policy: Seesaw | ConvexRamp, law: str, noise_scale: float | None = None
) -> None:
    """Set what the schedule of a policy becomes under a law, and its stages."""
    check_positive(policy, "initial_batch_size")
    growth = grow(
        policy.schedule,
        law,
        batch_size=policy.initial_batch_size,
        total_steps=policy.total_steps,
        max_batch_size=policy.max_batch_size,
        noise_scale=noise_scale,
    )
    stages = growth.stages(factor=_STAGE, multiple_of=None)
    object.__setattr__(policy, "growth", growth)
    object.__setattr__(policy, "stages", stages)


def _stage_at(stages: tuple[Stage, ...], examples: float) -> tuple[Stage, str]:
    after = bisect_right(stages, examples, key=lambda stage: stage.start_example)
    return stages[max(0, after - 1)], f"stage {max(1, after)} of {len(stages)}"
