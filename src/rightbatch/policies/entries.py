"""What each policy says of itself: formula, source, parameters, needs."""

from rightbatch.policies import making
from rightbatch.policies.damped import AdaDampNN
from rightbatch.policies.geometric import CntsDampLR, GeoDamp, GeoDampLR, Geometric
from rightbatch.policies.making import Kind, Parameter, PolicyEntry
from rightbatch.policies.noise_driven import (
    Diversity,
    DoublingWarmup,
    EfficiencyFloor,
    ExchangeRate,
    NoiseFollowing,
    Similarity,
)
from rightbatch.policies.norm_tests import CABS, InnerProductTest, NormTest
from rightbatch.policies.radadamp import RadaDamp

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
        make=making.make_constant,
        is_fixed=True,
    ),
    PolicyEntry(
        name="full-batch",
        summary="all examples at every update",
        formula="n",
        source="",
        needs=frozenset({"dataset_size"}),
        make=making.make_full_batch,
    ),
    PolicyEntry(
        name="schedule",
        summary="batch sizes from given points of the run on",
        formula="B_i from p_i on",
        source="the text form of Megatron-LM",
        needs=frozenset({"tokens"}),
        make=making.make_schedule,
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
        make=making.make_linear_ramp,
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
        make=making.make_doubling,
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
        make=making.make_adadamp,
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
        make=making.make_plain(AdaDampNN),
    ),
    PolicyEntry(
        name="padadamp",
        summary="more by the same amount at every update",
        formula="B0 + rate k",
        source="Sievert and Shah (2021)",
        needs=frozenset(),
        make=making.make_padadamp,
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
        make=making.make_plain(GeoDamp),
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
        make=making.make_plain(GeoDampLR),
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
        make=making.make_plain(CntsDampLR),
        parameters={"rate": Parameter(meaning="examples per update", default=0.02)},
        is_fixed=True,
    ),
    PolicyEntry(
        name="geometric",
        summary="times a factor at every update",
        formula="B0 f^k",
        source="Bottou, Curtis and Nocedal (2018), section 5",
        needs=frozenset(),
        make=making.make_plain(Geometric),
        parameters={"factor": _need("f; 1.01 doubles in 70 updates")},
    ),
    PolicyEntry(
        name="radadamp",
        summary="inversely proportional to averages off the training batches",
        formula="max(B0, B0/((L/L0 + N/N0)/2))",
        source="adadamp 0.2",
        needs=frozenset({"batch_loss", "batch_grad_sq_norm"}),
        make=making.make_plain(RadaDamp),
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
        make=making.make_plain(NoiseFollowing),
        parameters={"factor": Parameter(meaning="c", default=1.0)},
        least="initial",
    ),
    PolicyEntry(
        name="exchange-rate",
        summary="where an update more is worth so many examples",
        formula="sqrt(r phi)",
        source="McCandlish et al. (2018)",
        needs=_SCALE,
        make=making.make_plain(ExchangeRate),
        parameters={"examples_per_update": _need("r, examples as dear as one update")},
        least="initial",
    ),
    PolicyEntry(
        name="planned",
        summary="the most progress per second at the noise of now",
        formula="argmax B/T(B) (phi + B0)/(phi + B)",
        source="Perrone et al. (2019); Pollux, Qiao et al. (2021)",
        needs=_SCALE,
        make=making.make_planned,
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
        make=making.make_plain(EfficiencyFloor),
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
        make=making.make_plain(NormTest),
        parameters={"theta": Parameter(meaning="noise over signal", default=0.9)},
        least="initial",
    ),
    PolicyEntry(
        name="inner-product-test",
        summary="the least batch that passes the inner-product test, or the augmented",
        formula="G'Sigma G/(theta^2 G2^2); (T - G'Sigma G/G2)/(nu^2 G2)",
        source="Bollapragada et al. (2018)",
        needs=frozenset({"moments", "inner_product_variance"}),
        make=making.make_plain(InnerProductTest),
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
        make=making.make_plain(CABS),
        parameters={"best_loss": _BEST_LOSS},
        least="initial",
    ),
    PolicyEntry(
        name="diversity",
        summary="in proportion to the diversity of the gradients",
        formula="delta (phi + 1)",
        source="Yin et al. (2018); DiveBatch (2025)",
        needs=_SCALE,
        make=making.make_plain(Diversity),
        parameters={"share": Parameter(meaning="delta", default=1.0)},
        least="initial",
    ),
    PolicyEntry(
        name="similarity",
        summary="where halves of a batch agree so well",
        formula="2 phi s/(1 - s)",
        source="after SimiGrad, Qin et al. (2021)",
        needs=_SCALE,
        make=making.make_plain(Similarity),
        parameters={"similarity": Parameter(meaning="s", default=0.5)},
        least="initial",
    ),
    PolicyEntry(
        name="seesaw",
        summary="a schedule's decay turned into growth",
        formula="at a cut by a: B a, lr/sqrt(a); SGD: B a, lr",
        source="Meterez et al. (2025); Smith et al. (2018)",
        needs=frozenset(),
        make=making.make_seesaw,
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
        make=making.make_convex_ramp,
        parameters={"schedule": _LR_SCHEDULE},
    ),
    PolicyEntry(
        name="doubling-warmup",
        summary="doubled when the noise scale surely lies above twice the batch",
        formula="2 B when low(phi) > 2 B",
        source="after Merrill et al. (2025)",
        needs=_SCALE,
        make=making.make_plain(DoublingWarmup),
        least="initial",
    ),
)
