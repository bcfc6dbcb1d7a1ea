"""What a policy says of itself, and how each is made from what a text gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.lr_scaling import Schedule as LrSchedule
from rightbatch.lr_scaling import named_schedule
from rightbatch.policies.constant import Constant
from rightbatch.policies.contract import Policy
from rightbatch.policies.damped import PadaDamp, padadamp_rate
from rightbatch.policies.lr_driven import ConvexRamp, Seesaw
from rightbatch.policies.planned import Planned
from rightbatch.policies.schedules import (
    FullBatch,
    doubling_schedule,
    linear_ramp,
    parse_schedule,
)
from rightbatch.step_time import StepTimeLaw
from rightbatch.training_time import StepTimeModel

Kind = Literal["number", "count", "word", "flag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter that a text can set.

    Args:
        meaning: In a few words, with its unit.
        default: What it is when not set; None where it must be set or the run tells.
        kind: ``number``, ``count`` (a whole one), ``word`` or ``flag``.
        required: Whether it must be set.
    """

    meaning: str
    default: float | str | bool | None = None
    kind: Kind = "number"
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyContext:
    """What a run knows beside its batch sizes; all of it optional.

    Args:
        dataset_size: In examples; the largest batch there can be.
        num_replicas: That share every batch; no batch is smaller.
        step_time: Seconds per step, for ``planned``.
        total_steps: Updates of the run at its initial batch, for ``seesaw`` and
            ``convex-ramp``; else from `epochs` and `dataset_size`.
        epochs: Length of the run, for the rate of ``padadamp``.
        lr_schedule: Learning rate over the run, for ``seesaw`` and ``convex-ramp``.

    Raises:
        InputError: A value is out of its range.
    """

    dataset_size: int | None = None
    num_replicas: int = 1
    step_time: StepTimeModel | None = None
    total_steps: float | None = None
    epochs: float | None = None
    lr_schedule: LrSchedule | None = None

    def __post_init__(self) -> None:
        who = "PolicyContext"
        _checks.positive_integer(who, "num_replicas", self.num_replicas)
        if self.dataset_size is not None:
            _checks.positive_integer(who, "dataset_size", self.dataset_size)
        for name in ("total_steps", "epochs"):
            if getattr(self, name) is not None:
                _checks.positive(who, name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a policy is made from: its parameters, and the run's."""

    name: str
    values: Mapping[str, Any]
    initial_batch_size: float
    max_batch_size: float | None
    context: PolicyContext

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def missing(self, what: str, way_out: str) -> InputError:
        """Return the error that something is not known.

        Args:
            what: Its name.
            way_out: How to give it.

        Returns:
            The error, to be raised.
        """
        return InputError(f"policy: {self.name} needs {what}.", way_out)


Make = Callable[[Given], Policy[Any]]
"""From what was given to the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEntry:
    """What a policy says of itself.

    Args:
        name: Its name here.
        summary: What it does, in a few words.
        formula: In symbols: B0 the initial batch, F losses, G2 and T the moments, phi
            the noise scale, k updates, e epochs.
        source: Where it comes from.
        needs: Observed fields it looks at.
        make: From what was given to the policy.
        parameters: By name; the first may be set without it.
        least: What the batch is clipped to from below: ``one`` per replica, or the
            ``initial`` size for policies that start where the noise is least.
        is_fixed: Whether it never leaves the initial batch, and so is not clipped.
        dwell: Updates between questions unless the text says.
    """

    name: str
    summary: str
    formula: str
    source: str
    needs: frozenset[str]
    make: Make = field(repr=False)
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    least: Literal["one", "initial"] = "one"
    is_fixed: bool = False
    dwell: int = 1


def make_constant(given: Given) -> Policy[Any]:
    """Return the policy that never changes."""
    return Constant(batch_size=given.initial_batch_size)


def make_full_batch(given: Given) -> Policy[Any]:
    """Return full gradient descent."""
    del given
    return FullBatch()


def make_schedule(given: Given) -> Policy[Any]:
    """Return the schedule of a text's points."""
    return parse_schedule(given["points"], given["unit"])


def make_linear_ramp(given: Given) -> Policy[Any]:
    """Return a ramp to its end, or to the largest batch."""
    final = given["to"] if given["to"] is not None else given.max_batch_size
    if final is None:
        raise given.missing("`to`", "where the ramp ends, or a largest batch size")
    return linear_ramp(
        initial_batch_size=given.initial_batch_size,
        final_batch_size=final,
        over=given["over"],
        unit=given["unit"],
    )


def make_doubling(given: Given) -> Policy[Any]:
    """Return doublings up to the largest batch."""
    largest = given.max_batch_size
    if largest is None:
        raise given.missing("a largest batch size", "give max_batch_size")
    return doubling_schedule(
        initial_batch_size=given.initial_batch_size,
        max_batch_size=largest,
        every=given["every"],
        unit=given["unit"],
    )


def make_padadamp(given: Given) -> Policy[Any]:
    """Return PadaDamp at its rate, or at the one that ends at the largest batch."""
    rate, run = given["rate"], given.context
    if rate is None:
        largest = given.max_batch_size
        if run.epochs is None or run.dataset_size is None or largest is None:
            raise given.missing(
                "`rate`, examples more per update",
                "write padadamp:rate=0.05; or give a largest batch size, the epochs "
                "and the data set's size, and it ends at the largest batch",
            )
        rate = padadamp_rate(
            initial_batch_size=given.initial_batch_size,
            max_batch_size=largest,
            epochs=run.epochs,
            dataset_size=run.dataset_size,
        )
    return PadaDamp(initial_batch_size=given.initial_batch_size, rate=rate)


def make_plain(kind: Callable[..., Policy[Any]]) -> Make:
    """Return how to make a policy whose parameters are its fields."""

    def make(given: Given) -> Policy[Any]:
        return kind(initial_batch_size=given.initial_batch_size, **given.values)

    return make


def make_planned(given: Given) -> Policy[Any]:
    """Return the plan for the step times of the text, or of the run."""
    step_time = given.context.step_time
    if given["seconds_per_example"] is not None:
        step_time = StepTimeLaw(
            seconds_per_example=given["seconds_per_example"],
            saturation_batch_size=given["saturation"],
            overhead_seconds=given["overhead_seconds"],
        )
    if step_time is None:
        raise given.missing(
            "seconds per step",
            "give step times, or write "
            "planned:seconds_per_example=1e-4,overhead_seconds=0.01,saturation=32",
        )
    largest = given.max_batch_size
    return Planned(
        initial_batch_size=given.initial_batch_size,
        step_time=step_time,
        max_batch_size=None if largest is None else max(1, int(largest)),
        factor=given["factor"],
    )


def _run_schedule(given: Given) -> tuple[LrSchedule, float]:
    """Return the learning-rate schedule of the run, and its updates."""
    run, word = given.context, given["schedule"]
    schedule = run.lr_schedule if word is None else named_schedule(word)
    if schedule is None:
        raise given.missing("a learning-rate schedule", "write schedule=cosine")
    steps = run.total_steps
    if steps is None and run.epochs is not None and run.dataset_size is not None:
        steps = run.epochs * run.dataset_size / given.initial_batch_size
    if steps is None:
        raise given.missing("the length of the run", "give its epochs or its updates")
    return schedule, steps


def make_seesaw(given: Given) -> Policy[Any]:
    """Return Seesaw for the text's schedule, or the run's."""
    schedule, steps = _run_schedule(given)
    return Seesaw(
        initial_batch_size=given.initial_batch_size,
        schedule=schedule,
        total_steps=steps,
        normalised=given["normalised"],
        max_batch_size=given.max_batch_size,
        noise_scale=given["noise_scale"],
    )


def make_convex_ramp(given: Given) -> Policy[Any]:
    """Return the ramp for the text's schedule, or the run's."""
    schedule, steps = _run_schedule(given)
    return ConvexRamp(
        initial_batch_size=given.initial_batch_size,
        schedule=schedule,
        total_steps=steps,
        max_batch_size=given.max_batch_size,
    )
