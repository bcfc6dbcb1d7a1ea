"""What each policy says of itself: formula, source, parameters, needs."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from rightbatch.policies import making
from rightbatch.policies.constant import Constant
from rightbatch.policies.damped import AdaDamp, AdaDampNN, PadaDamp
from rightbatch.policies.geometric import CntsDampLR, GeoDamp, GeoDampLR, Geometric
from rightbatch.policies.lr_driven import ConvexRamp, Seesaw
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
from rightbatch.policies.planned import Planned
from rightbatch.policies.radadamp import RadaDamp
from rightbatch.policies.schedules import FullBatch, Schedule, Unit, fields_of


def _may(
    meaning: str, default: float | str | None = None, kind: Kind = "number"
) -> Parameter:
    return Parameter(meaning=meaning, default=default, kind=kind)


def _must(meaning: str, kind: Kind = "number") -> Parameter:
    return Parameter(meaning=meaning, kind=kind, required=True)


def _unit(default: Unit) -> Parameter:
    return _may("step, epoch, example or token", default, "word")


def _row(  # a policy's class, four texts, and what a run's text may set
    policy: Any,
    name: str,
    summary: str,
    formula: str,
    source: str,
    parameters: Mapping[str, Parameter] | None = None,
    **others: Any,
) -> PolicyEntry:
    # Needs are a constant of most classes; the fields of most are the parameters.
    usual: dict[str, Any] = {"needs": policy.needs, "make": making.make_plain(policy)}
    return PolicyEntry(
        name=name,
        summary=summary,
        formula=formula,
        source=source,
        parameters=parameters or {},
        **{**usual, **others},
    )


# Policies that start where the noise is least.
_noise = partial(_row, least="initial")

_BEST_LOSS = _may("the least loss there is, F*", 0.0)
_LR_SCHEDULE = _may(
    "learning rate over the run, such as cosine; else the run's own", kind="word"
)
# Twice every five epochs: adadamp's own defaults.
_CUTS = {"factor": _may("f", 2.0), "delay": _may("d, in epochs", 5.0)}

ENTRIES: tuple[PolicyEntry, ...] = (
    _row(
        Constant,
        "constant",
        "the same batch throughout",
        "B0",
        "",
        make=making.make_constant,
        is_fixed=True,
    ),
    _row(
        FullBatch,
        "full-batch",
        "all examples at every update",
        "n",
        "",
        make=making.make_full_batch,
    ),
    _row(
        Schedule,
        "schedule",
        "batch sizes from given points of the run on",
        "B_i from p_i on",
        "the text form of Megatron-LM",
        {"points": _must("such as 0:768 250B:1536", "word"), "unit": _unit("token")},
        make=making.make_schedule,
        needs=fields_of("token"),
    ),
    _row(
        Schedule,
        "linear-ramp",
        "along a line, then constant",
        "B0 + (B1 - B0) p/p1",
        "Brown et al. (2020)",
        {
            "over": _must("length of the ramp, in the unit"),
            "to": _may("its last batch size; else the largest"),
            "unit": _unit("step"),
        },
        make=making.make_linear_ramp,
        needs=fields_of("step"),
    ),
    _row(
        Schedule,
        "doubling",
        "doubled at equal distances, up to the largest",
        "B0 2^floor(p/d)",
        "Smith et al. (2018)",
        {
            "every": _must("distance between doublings, in the unit"),
            "unit": _unit("epoch"),
        },
        make=making.make_doubling,
        needs=fields_of("epoch"),
    ),
    # An evaluation costs an epoch's forward passes: adadamp's own default.
    _row(
        AdaDamp,
        "adadamp",
        "inversely proportional to the loss that is left",
        "B0 (F_0 - F*)/(F_k - F*)",
        "Sievert and Shah (2021)",
        {"best_loss": _BEST_LOSS},
        dwell=20,
    ),
    _row(
        AdaDampNN,
        "adadamp-nn",
        "inversely proportional to the squared gradient norm",
        "B0 G2_0/G2_k",
        "adadamp 0.2",
    ),
    _row(
        PadaDamp,
        "padadamp",
        "more by the same amount at every update",
        "B0 + rate k",
        "Sievert and Shah (2021)",
        {"rate": _may("examples more per update; else from the epochs")},
        make=making.make_padadamp,
    ),
    _row(
        GeoDamp,
        "geodamp",
        "times a factor every so many epochs",
        "B0 f^floor(e/d)",
        "adadamp 0.2; Smith et al. (2018)",
        _CUTS,
    ),
    _row(
        GeoDampLR,
        "geodamp-lr",
        "the batch stays, the rate over a factor every so many epochs",
        "lr0 f^-floor(e/d)",
        "adadamp 0.2",
        _CUTS,
        is_fixed=True,
    ),
    _row(
        CntsDampLR,
        "cntsdamp-lr",
        "the batch stays, the rate falls as one over the updates",
        "lr0 B0/(B0 + rate k)",
        "adadamp 0.2",
        {"rate": _may("examples per update", 0.02)},
        is_fixed=True,
    ),
    _row(
        Geometric,
        "geometric",
        "times a factor at every update",
        "B0 f^k",
        "Bottou, Curtis and Nocedal (2018), section 5",
        {"factor": _must("f; 1.01 doubles in 70 updates")},
    ),
    _row(
        RadaDamp,
        "radadamp",
        "inversely proportional to averages off the training batches",
        "max(B0, B0/((L/L0 + N/N0)/2))",
        "adadamp 0.2",
        {
            "rho": _may("weight of the past", 0.2),
            "reduction": _may("min, mean, median or max of a window", "mean", "word"),
            "dwell": _may("updates between readings", 20, "count"),
            "wait": _may("updates before the first", 100, "count"),
        },
    ),
    _noise(
        NoiseFollowing,
        "noise-following",
        "in proportion to the noise scale",
        "c phi",
        "McCandlish et al. (2018)",
        {"factor": _may("c", 1.0)},
    ),
    _noise(
        ExchangeRate,
        "exchange-rate",
        "where an update more is worth so many examples",
        "sqrt(r phi)",
        "McCandlish et al. (2018)",
        {"examples_per_update": _must("r, examples as dear as one update")},
    ),
    _noise(
        Planned,
        "planned",
        "the most progress per second at the noise of now",
        "argmax B/T(B) (phi + B0)/(phi + B)",
        "Perrone et al. (2019); Pollux, Qiao et al. (2021)",
        {
            "factor": _may("phi to critical batch size", 1.0),
            "seconds_per_example": _may("past the knee; else measured"),
            "overhead_seconds": _may("fixed, per step", 0.0),
            "saturation": _may("knee, in local examples", 1.0),
        },
        make=making.make_planned,
    ),
    _noise(
        EfficiencyFloor,
        "efficiency-floor",
        "the largest batch whose examples are worth a given share",
        "phi (1/e - 1); from B0: (phi + B0)/e - phi",
        "McCandlish et al. (2018); Pollux, Qiao et al. (2021)",
        {
            "efficiency": _may("e, the share", 0.5),
            "from_initial": _may("count from B0", False, "flag"),
        },
    ),
    _noise(
        NormTest,
        "norm-test",
        "the least batch that passes the norm test",
        "phi/theta^2",
        "Byrd et al. (2012); Lau et al. (2024)",
        {"theta": _may("noise over signal", 0.9)},
    ),
    _noise(
        InnerProductTest,
        "inner-product-test",
        "the least batch that passes the inner-product test, or the augmented",
        "G'Sigma G/(theta^2 G2^2); (T - G'Sigma G/G2)/(nu^2 G2)",
        "Bollapragada et al. (2018)",
        {
            "theta": _may("tolerated along the gradient", 0.9),
            "nu": _may("tolerated across it; not tested unless given"),
        },
    ),
    _noise(
        CABS,
        "cabs",
        "the most progress per example of plain SGD",
        "lr T/(F - F*)",
        "Balles et al. (2017)",
        {"best_loss": _BEST_LOSS},
    ),
    _noise(
        Diversity,
        "diversity",
        "in proportion to the diversity of the gradients",
        "delta (phi + 1)",
        "Yin et al. (2018); DiveBatch (2025)",
        {"share": _may("delta", 1.0)},
    ),
    _noise(
        Similarity,
        "similarity",
        "where halves of a batch agree so well",
        "2 phi s/(1 - s)",
        "after SimiGrad, Qin et al. (2021)",
        {"similarity": _may("s", 0.5)},
    ),
    _row(
        Seesaw,
        "seesaw",
        "a schedule's decay turned into growth",
        "at a cut by a: B a, lr/sqrt(a); SGD: B a, lr",
        "Meterez et al. (2025); Smith et al. (2018)",
        {
            "schedule": _LR_SCHEDULE,
            "normalised": _may("false for SGD", True, "flag"),
            "noise_scale": _may("growth stops there, in examples"),
        },
        make=making.make_seesaw,
    ),
    _row(
        ConvexRamp,
        "convex-ramp",
        "the batch that goes with a schedule on a convex loss",
        "B_t ~ lr_t/sqrt(integral_t^T lr)",
        "ours, from Zamani and Glineur (2023)",
        {"schedule": _LR_SCHEDULE},
        make=making.make_convex_ramp,
    ),
    _noise(
        DoublingWarmup,
        "doubling-warmup",
        "doubled when the noise scale surely lies above twice the batch",
        "2 B when low(phi) > 2 B",
        "after Merrill et al. (2025)",
    ),
)
