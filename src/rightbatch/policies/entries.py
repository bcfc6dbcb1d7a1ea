"""What each policy says of itself, and how it is made from what a text gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.lr_scaling import Schedule as LrSchedule
from rightbatch.lr_scaling import named_schedule
from rightbatch.policies.constant import Constant
from rightbatch.policies.contract import Policy
from rightbatch.policies.damped import AdaDamp, AdaDampNN, PadaDamp, padadamp_rate
from rightbatch.policies.geometric import CntsDampLR, GeoDamp, GeoDampLR, Geometric
from rightbatch.policies.lr_driven import ConvexRamp, Seesaw
from rightbatch.policies.noise_driven import (
    Diversity,
    DoublingWarmup,
    EfficiencyFloor,
    ExchangeRate,
    NoiseFollowing,
    Similarity,
)
from rightbatch.policies.norm_tests import CABS, InnerProductTest, NormTest
from rightbatch.policies.planned import Planned
from rightbatch.policies.radadamp import RadaDamp
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
        num_replicas: That share every batch.
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
        least: What the batch is clipped to from below: ``one`` example, or the
            ``initial`` size for policies that start where the noise is least.
        is_fixed: Whether it never leaves the initial batch, and so is not clipped.
        dwell: Updates between questions unless the text says.
    """

    name: str
    summary: str
    formula: str
    source: str
    needs: frozenset[str]
    make: Callable[[Given], Policy[Any]] = field(repr=False)
    parameters: Mapping[str, Parameter] = field(default_factory=dict[str, Parameter])
    least: Literal["one", "initial"] = "one"
    is_fixed: bool = False
    dwell: int = 1


def _constant(given: Given) -> Policy[Any]:
    return Constant(batch_size=given.initial_batch_size)


def _full_batch(given: Given) -> Policy[Any]:
    del given
    return FullBatch()


def _schedule(given: Given) -> Policy[Any]:
    return parse_schedule(given["points"], given["unit"])


def _linear_ramp(given: Given) -> Policy[Any]:
    final = given["to"] if given["to"] is not None else given.max_batch_size
    if final is None:
        raise given.missing("`to`", "where the ramp ends, or a largest batch size")
    return linear_ramp(
        initial_batch_size=given.initial_batch_size,
        final_batch_size=final,
        over=given["over"],
        unit=given["unit"],
    )


def _doubling(given: Given) -> Policy[Any]:
    largest = given.max_batch_size
    if largest is None:
        raise given.missing("a largest batch size", "give max_batch_size")
    return doubling_schedule(
        initial_batch_size=given.initial_batch_size,
        max_batch_size=largest,
        every=given["every"],
        unit=given["unit"],
    )


def _adadamp(given: Given) -> Policy[Any]:
    return AdaDamp(
        initial_batch_size=given.initial_batch_size, best_loss=given["best_loss"]
    )


def _padadamp(given: Given) -> Policy[Any]:
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


def _plain(kind: Callable[..., Policy[Any]]) -> Callable[[Given], Policy[Any]]:
    """Return how to make a policy whose parameters are its fields."""

    def make(given: Given) -> Policy[Any]:
        return kind(initial_batch_size=given.initial_batch_size, **given.values)

    return make


def _planned(given: Given) -> Policy[Any]:
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


def _seesaw(given: Given) -> Policy[Any]:
    schedule, steps = _run_schedule(given)
    return Seesaw(
        initial_batch_size=given.initial_batch_size,
        schedule=schedule,
        total_steps=steps,
        normalised=given["normalised"],
        max_batch_size=given.max_batch_size,
        noise_scale=given["noise_scale"],
    )


def _convex_ramp(given: Given) -> Policy[Any]:
    schedule, steps = _run_schedule(given)
    return ConvexRamp(
        initial_batch_size=given.initial_batch_size,
        schedule=schedule,
        total_steps=steps,
        max_batch_size=given.max_batch_size,
    )


_SCALE = frozenset({"noise_scale"})
_BEST_LOSS = Parameter(meaning="the least loss there is, F*", default=0.0)
_LR_SCHEDULE = Parameter(
    meaning="learning rate over the run, such as cosine; else the run's own",
    kind="word",
)


def _unit(default: str) -> Parameter:
    return Parameter(
        meaning="step, epoch, example or token", default=default, kind="word"
    )


def _need(meaning: str, kind: Kind = "number") -> Parameter:
    return Parameter(meaning=meaning, kind=kind, required=True)


ENTRIES: tuple[PolicyEntry, ...] = (
    PolicyEntry(
        name="constant",
        summary="the same batch throughout",
        formula="B0",
        source="",
        needs=frozenset(),
        make=_constant,
        is_fixed=True,
    ),
    PolicyEntry(
        name="full-batch",
        summary="all examples at every update",
        formula="n",
        source="",
        needs=frozenset({"dataset_size"}),
        make=_full_batch,
    ),
    PolicyEntry(
        name="schedule",
        summary="batch sizes from given points of the run on",
        formula="B_i from p_i on",
        source="the text form of Megatron-LM",
        needs=frozenset({"tokens"}),
        make=_schedule,
        parameters={
            "points": _need("such as 0:768 250B:1536", "word"),
            "unit": _unit("token"),
        },
    ),
    PolicyEntry(
        name="linear-ramp",
        summary="along a line, then constant",
        formula="B0 + (B1 - B0) p/p1",
        source="Brown et al. (2020)",
        needs=frozenset(),
        make=_linear_ramp,
        parameters={
            "over": _need("length of the ramp, in the unit"),
            "to": Parameter(meaning="its last batch size; else the largest"),
            "unit": _unit("step"),
        },
    ),
    PolicyEntry(
        name="doubling",
        summary="doubled at equal distances, up to the largest",
        formula="B0 2^floor(p/d)",
        source="Smith et al. (2018)",
        needs=frozenset({"epoch"}),
        make=_doubling,
        parameters={
            "every": _need("distance between doublings, in the unit"),
            "unit": _unit("epoch"),
        },
    ),
    PolicyEntry(
        name="adadamp",
        summary="inversely proportional to the loss that is left",
        formula="B0 (F_0 - F*)/(F_k - F*)",
        source="Sievert and Shah (2021)",
        needs=frozenset({"eval_loss"}),
        make=_adadamp,
        parameters={"best_loss": _BEST_LOSS},
        # An evaluation costs an epoch's forward passes; adadamp's own default.
        dwell=20,
    ),
    PolicyEntry(
        name="adadamp-nn",
        summary="inversely proportional to the squared gradient norm",
        formula="B0 G2_0/G2_k",
        source="adadamp 0.2",
        needs=frozenset({"moments"}),
        make=_plain(AdaDampNN),
    ),
    PolicyEntry(
        name="padadamp",
        summary="more by the same amount at every update",
        formula="B0 + rate k",
        source="Sievert and Shah (2021)",
        needs=frozenset(),
        make=_padadamp,
        parameters={
            "rate": Parameter(meaning="examples more per update; else from the epochs")
        },
    ),
    PolicyEntry(
        name="geodamp",
        summary="times a factor every so many epochs",
        formula="B0 f^floor(e/d)",
        source="adadamp 0.2; Smith et al. (2018)",
        needs=frozenset({"epoch"}),
        make=_plain(GeoDamp),
        # Twice every five epochs: adadamp's own defaults.
        parameters={
            "factor": Parameter(meaning="f", default=2.0),
            "delay": Parameter(meaning="d, in epochs", default=5.0),
        },
    ),
    PolicyEntry(
        name="geodamp-lr",
        summary="the batch stays, the rate over a factor every so many epochs",
        formula="lr0 f^-floor(e/d)",
        source="adadamp 0.2",
        needs=frozenset({"epoch"}),
        make=_plain(GeoDampLR),
        parameters={
            "factor": Parameter(meaning="f", default=2.0),
            "delay": Parameter(meaning="d, in epochs", default=5.0),
        },
        is_fixed=True,
    ),
    PolicyEntry(
        name="cntsdamp-lr",
        summary="the batch stays, the rate falls as one over the updates",
        formula="lr0 B0/(B0 + rate k)",
        source="adadamp 0.2",
        needs=frozenset(),
        make=_plain(CntsDampLR),
        parameters={"rate": Parameter(meaning="examples per update", default=0.02)},
        is_fixed=True,
    ),
    PolicyEntry(
        name="geometric",
        summary="times a factor at every update",
        formula="B0 f^k",
        source="Bottou, Curtis and Nocedal (2018), section 5",
        needs=frozenset(),
        make=_plain(Geometric),
        parameters={"factor": _need("f; 1.01 doubles in 70 updates")},
    ),
    PolicyEntry(
        name="radadamp",
        summary="inversely proportional to averages off the training batches",
        formula="max(B0, B0/((L/L0 + N/N0)/2))",
        source="adadamp 0.2",
        needs=frozenset({"batch_loss", "batch_grad_sq_norm"}),
        make=_plain(RadaDamp),
        parameters={
            "rho": Parameter(meaning="weight of the past", default=0.2),
            "reduction": Parameter(
                meaning="min, mean, median or max of a window",
                default="mean",
                kind="word",
            ),
            "dwell": Parameter(
                meaning="updates between readings", default=20, kind="count"
            ),
            "wait": Parameter(
                meaning="updates before the first", default=100, kind="count"
            ),
        },
    ),
    PolicyEntry(
        name="noise-following",
        summary="in proportion to the noise scale",
        formula="c phi",
        source="McCandlish et al. (2018)",
        needs=_SCALE,
        make=_plain(NoiseFollowing),
        parameters={"factor": Parameter(meaning="c", default=1.0)},
        least="initial",
    ),
    PolicyEntry(
        name="exchange-rate",
        summary="where an update more is worth so many examples",
        formula="sqrt(r phi)",
        source="McCandlish et al. (2018)",
        needs=_SCALE,
        make=_plain(ExchangeRate),
        parameters={"examples_per_update": _need("r, examples as dear as one update")},
        least="initial",
    ),
    PolicyEntry(
        name="planned",
        summary="the most progress per second at the noise of now",
        formula="argmax B/T(B) (phi + B0)/(phi + B)",
        source="Perrone et al. (2019); Pollux, Qiao et al. (2021)",
        needs=_SCALE,
        make=_planned,
        parameters={
            "factor": Parameter(meaning="phi to critical batch size", default=1.0),
            "seconds_per_example": Parameter(meaning="past the knee; else measured"),
            "overhead_seconds": Parameter(meaning="fixed, per step", default=0.0),
            "saturation": Parameter(meaning="knee, in local examples", default=1.0),
        },
        least="initial",
    ),
    PolicyEntry(
        name="efficiency-floor",
        summary="the largest batch whose examples are worth a given share",
        formula="phi (1/e - 1); from B0: (phi + B0)/e - phi",
        source="McCandlish et al. (2018); Pollux, Qiao et al. (2021)",
        needs=_SCALE,
        make=_plain(EfficiencyFloor),
        parameters={
            "efficiency": Parameter(meaning="e, the share", default=0.5),
            "from_initial": Parameter(
                meaning="count from B0", default=False, kind="flag"
            ),
        },
        least="initial",
    ),
    PolicyEntry(
        name="norm-test",
        summary="the least batch that passes the norm test",
        formula="phi/theta^2",
        source="Byrd et al. (2012); Lau et al. (2024)",
        needs=_SCALE,
        make=_plain(NormTest),
        parameters={"theta": Parameter(meaning="noise over signal", default=0.9)},
        least="initial",
    ),
    PolicyEntry(
        name="inner-product-test",
        summary="the least batch that passes the inner-product test, or the augmented",
        formula="G'Sigma G/(theta^2 G2^2); (T - G'Sigma G/G2)/(nu^2 G2)",
        source="Bollapragada et al. (2018)",
        needs=frozenset({"moments", "inner_product_variance"}),
        make=_plain(InnerProductTest),
        parameters={
            "theta": Parameter(meaning="tolerated along the gradient", default=0.9),
            "nu": Parameter(meaning="tolerated across it; not tested unless given"),
        },
        least="initial",
    ),
    PolicyEntry(
        name="cabs",
        summary="the most progress per example of plain SGD",
        formula="lr T/(F - F*)",
        source="Balles et al. (2017)",
        needs=frozenset({"moments", "lr", "batch_loss"}),
        make=_plain(CABS),
        parameters={"best_loss": _BEST_LOSS},
        least="initial",
    ),
    PolicyEntry(
        name="diversity",
        summary="in proportion to the diversity of the gradients",
        formula="delta (phi + 1)",
        source="Yin et al. (2018); DiveBatch (2025)",
        needs=_SCALE,
        make=_plain(Diversity),
        parameters={"share": Parameter(meaning="delta", default=1.0)},
        least="initial",
    ),
    PolicyEntry(
        name="similarity",
        summary="where halves of a batch agree so well",
        formula="2 phi s/(1 - s)",
        source="after SimiGrad, Qin et al. (2021)",
        needs=_SCALE,
        make=_plain(Similarity),
        parameters={"similarity": Parameter(meaning="s", default=0.5)},
        least="initial",
    ),
    PolicyEntry(
        name="seesaw",
        summary="a schedule's decay turned into growth",
        formula="at a cut by a: B a, lr/sqrt(a); SGD: B a, lr",
        source="Meterez et al. (2025); Smith et al. (2018)",
        needs=frozenset(),
        make=_seesaw,
        parameters={
            "schedule": _LR_SCHEDULE,
            "normalised": Parameter(meaning="false for SGD", default=True, kind="flag"),
            "noise_scale": Parameter(meaning="growth stops there, in examples"),
        },
    ),
    PolicyEntry(
        name="convex-ramp",
        summary="the batch that goes with a schedule on a convex loss",
        formula="B_t ~ lr_t/sqrt(integral_t^T lr)",
        source="ours, from Zamani and Glineur (2023)",
        needs=frozenset(),
        make=_convex_ramp,
        parameters={"schedule": _LR_SCHEDULE},
    ),
    PolicyEntry(
        name="doubling-warmup",
        summary="doubled when the noise scale surely lies above twice the batch",
        formula="2 B when low(phi) > 2 B",
        source="after Merrill et al. (2025)",
        needs=_SCALE,
        make=_plain(DoublingWarmup),
        least="initial",
    ),
)
