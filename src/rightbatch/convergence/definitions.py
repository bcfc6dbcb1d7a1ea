r"""Every definition of a critical batch size, read off one fitted law.

Five people who say "critical batch size" can mean batch sizes a factor of fifty apart.
All of theirs are increasing functions of :math:`\phi = E_{\min}/S_{\min}`, so one fit
answers them all, with the interval of phi carried along.

================================  ========================  ==========================
function                          inverse law               who
================================  ========================  ==========================
:func:`even_trade`                phi                       McCandlish, Power Lines
:func:`overhead_of_tiny_batches`  eps phi                   folklore
:func:`overhead_of_reference`     (1 + eps) B_0 + eps phi   Zhang et al. 2024
:func:`share_of_step`             phi kappa/(1 - kappa)     McCandlish
:func:`norm_test`                 phi/theta^2               Byrd; DDP-Norm
================================  ========================  ==========================

A law with a knee or a floor keeps the words of each definition and changes its formula;
the norm test is refused there, since it is about gradients and only the inverse law
ties phi to them. The sixth definition, the batch that ends soonest on P replicas, needs
seconds too: a plan gives it (Perrone et al. 2019, eq. 9).
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rightbatch import _checks
from rightbatch.convergence.law import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, Interval

if TYPE_CHECKING:
    from rightbatch.convergence.fit import ConvergenceFit

    Fitted = ConvergenceFit | ConvergenceLaw

# phi, knee exponent and floor in, batch size out; arrays that broadcast.
Formula = Callable[[FloatArray, FloatArray, FloatArray], FloatArray]


def even_trade(fitted: "Fitted") -> Interval:
    r"""Return the batch size at which steps and examples trade evenly.

    There one per cent fewer steps costs one per cent more examples,
    :math:`d\ln S/d\ln B = -1/2`. The inverse law and the knee have it at
    :math:`\phi`; a floor F moves it to
    :math:`F + (\phi + \sqrt{\phi^2 + 8 \phi F})/2`. McCandlish et al. (2018), eq. 2.12,
    and Bergsma et al. (2025), "Power Lines".

    Args:
        fitted: A fit, or a law taken as exact.

    Returns:
        The batch size with the fit's level and unit.

    Example:
        >>> print(even_trade(ConvergenceLaw(min_steps=100, min_examples=4800)))
        48 examples (48 to 48, 100 %)
    """
    words = "steps and examples trade evenly: 1 % fewer steps for 1 % more examples"
    return _interval(fitted, _even_batch_size, words)


def overhead_of_tiny_batches(fitted: "Fitted", *, overhead: float = 0.2) -> Interval:
    r"""Return the batch size that needs so many more examples than tiny batches do.

    :math:`\epsilon\phi` for the inverse law, :math:`\phi((1+\epsilon)^s - 1)^{1/s}`
    with a knee. Above a floor tiny batches never arrive, so the batch size with the
    fewest examples, :math:`F + \sqrt{\phi F}`, takes their place.

    Args:
        fitted: A fit, or a law taken as exact.
        overhead: Extra examples, a fraction.

    Returns:
        The batch size with the fit's level and unit.

    Raises:
        InputError: The overhead is not positive.

    Example:
        >>> law = ConvergenceLaw(min_steps=100, min_examples=4800)
        >>> overhead_of_tiny_batches(law, overhead=0.25).value
        12.0
    """
    _checks.positive("overhead_of_tiny_batches", "overhead", overhead)

    def formula(phi: FloatArray, knee: FloatArray, floor: FloatArray) -> FloatArray:
        least = (1 + np.sqrt(floor / phi)) ** 2
        return _batch_size_of_examples((1 + overhead) * least, phi, knee, floor)

    law = _law_of(fitted)
    least = (
        "the batch size with the fewest examples needs"
        if law.name == "floor"
        else "batches towards zero need"
    )
    words = f"{100 * overhead:g} % more examples to the target than {least}"
    return _interval(fitted, formula, words)


def overhead_of_reference(
    fitted: "Fitted", *, overhead: float = 0.2, reference: float | None = None
) -> Interval:
    r"""Return the batch size that needs so many more examples than a reference does.

    :math:`(1+\epsilon) B_0 + \epsilon\phi` for the inverse law; with a knee or a floor
    the larger root of :math:`E(B) = (1+\epsilon) E(B_0)`. Zhang et al. (2024).

    Args:
        fitted: A fit, or a law taken as exact.
        overhead: Extra examples, a fraction.
        reference: B_0, examples; the smallest batch size of a fit unless given.

    Returns:
        The batch size with the fit's level and unit.

    Raises:
        InputError: An argument is not positive, the reference lies below a floor, or
            a law comes without a reference.

    Example:
        >>> law = ConvergenceLaw(min_steps=2095.3, min_examples=1.138e7)
        >>> round(overhead_of_reference(law, reference=256).value)
        1393
    """
    who = "overhead_of_reference"
    _checks.positive(who, "overhead", overhead)
    law = _law_of(fitted)
    if reference is None:
        if isinstance(fitted, ConvergenceLaw):
            raise InputError(f"{who}: a law needs a `reference`, got None.")
        reference = fitted.fitted_range[0]
    base = _checks.positive(who, "reference", reference)
    if base <= law.min_batch_size:
        raise InputError(
            f"{who}: `reference` must lie above the floor of {law.min_batch_size:g}, "
            f"got {base:.10g}."
        )

    def formula(phi: FloatArray, knee: FloatArray, floor: FloatArray) -> FloatArray:
        ratio = (1 + overhead) * _examples_ratio(base, phi, knee, floor)
        return _batch_size_of_examples(ratio, phi, knee, floor)

    more = f"{100 * overhead:g} % more examples to the target"
    words = f"{more} than batch size {base:.10g} needs"
    return _interval(fitted, formula, words)


def share_of_step(fitted: "Fitted", *, share: float = 0.5) -> Interval:
    r"""Return the batch size at which a step gains a share of the best step.

    :math:`S_{\min}/S(B) = \kappa`: at :math:`\phi\kappa/(1-\kappa)` for the inverse
    law, that much above a floor, and :math:`\phi(\kappa^{-s} - 1)^{-1/s}` with a knee.
    McCandlish et al. (2018), section 2.2.

    Args:
        fitted: A fit, or a law taken as exact.
        share: kappa, between 0 and 1.

    Returns:
        The batch size with the fit's level and unit.

    Raises:
        InputError: The share does not lie between 0 and 1.

    Example:
        >>> law = ConvergenceLaw(min_steps=100, min_examples=4800)
        >>> round(share_of_step(law, share=0.75).value, 3)
        144.0
    """
    if not 0 < share < 1:
        raise InputError(
            f"share_of_step: `share` must lie between 0 and 1, got {share!r}."
        )

    def formula(phi: FloatArray, knee: FloatArray, floor: FloatArray) -> FloatArray:
        return floor + phi * (share**-knee - 1) ** (-1 / knee)

    words = f"a step gains {100 * share:g} % of what a step without noise would"
    return _interval(fitted, formula, words)


def norm_test(fitted: "Fitted", *, theta: float = 1.0) -> Interval:
    r"""Return the batch size at which the norm test holds with equality.

    The batch gradient's variance is :math:`\theta^2` times its squared norm,
    :math:`B = \phi/\theta^2` with phi for the noise scale. Byrd et al. (2012); DDP-Norm
    (Lau et al. 2024). Without a value for a law with a knee or a floor, whose phi says
    nothing of the gradients' noise scale.

    Args:
        fitted: A fit, or a law taken as exact.
        theta: Tolerated noise over signal, positive.

    Returns:
        The batch size with the fit's level and unit; no value where it is refused.

    Raises:
        InputError: Theta is not positive.

    Example:
        >>> law = ConvergenceLaw(min_steps=100, min_examples=4800)
        >>> norm_test(law, theta=0.5).value
        192.0
    """
    _checks.positive("norm_test", "theta", theta)
    law = _law_of(fitted)
    if law.name != "inverse":
        level, unit = _level_and_unit(fitted)
        words = (
            f"refused: the norm test is about gradients, and a law with a {law.name} "
            "does not tell their noise scale; measure it"
        )
        return Interval(
            value=None, low=None, high=None, level=level, unit=unit, definition=words
        )

    def formula(phi: FloatArray, knee: FloatArray, floor: FloatArray) -> FloatArray:
        return phi / theta**2

    words = f"the gradient's standard error is {theta:g} times its norm"
    return _interval(fitted, formula, words)


def definitions_of(fitted: "ConvergenceFit") -> list[dict[str, Any]]:
    """Return every definition with its usual parameters, for the JSON form.

    Args:
        fitted: A fit.

    Returns:
        One entry each: `name`, `parameters`, the interval's keys and `who`.
    """
    base = fitted.fitted_range[0]
    entries = [
        ("even_trade", {}, even_trade(fitted), "McCandlish et al. 2018; Power Lines"),
        (
            "overhead_of_tiny_batches",
            {"overhead": 0.2},
            overhead_of_tiny_batches(fitted, overhead=0.2),
            "folklore",
        ),
        (
            "overhead_of_reference",
            {"overhead": 0.2, "reference": base},
            overhead_of_reference(fitted, overhead=0.2, reference=base),
            "Zhang et al. 2024",
        ),
        *(
            (
                "share_of_step",
                {"share": share},
                share_of_step(fitted, share=share),
                "McCandlish et al. 2018",
            )
            for share in (0.5, 0.9)
        ),
        ("norm_test", {"theta": 1.0}, norm_test(fitted), "Byrd et al. 2012; DDP-Norm"),
    ]
    return [
        {"name": name, "parameters": parameters, **found.to_dict(), "who": who}
        for name, parameters, found, who in entries
    ]


def _even_batch_size(
    phi: FloatArray, knee: FloatArray, floor: FloatArray
) -> FloatArray:
    above = (phi + np.sqrt(phi**2 + 8 * phi * floor)) / 2
    return np.where(floor > 0, floor + above, phi)


# Any law's examples, in units of E_min, and back ------------------------------------


def _examples_ratio(
    batch: float, phi: FloatArray, knee: FloatArray, floor: FloatArray
) -> FloatArray:
    """Return E(B)/E_min; infinity up to a floor."""
    with np.errstate(divide="ignore"):
        above = batch / phi + batch / np.maximum(batch - floor, 0.0)
    return np.where(floor > 0, above, (1 + (batch / phi) ** knee) ** (1 / knee))


def _batch_size_of_examples(
    ratio: FloatArray, phi: FloatArray, knee: FloatArray, floor: FloatArray
) -> FloatArray:
    """Return the larger B with E(B)/E_min = ratio."""
    plain = phi * (ratio**knee - 1) ** (1 / knee)
    # B^2 - (F + (ratio - 1) phi) B + ratio phi F = 0; a floor comes with knee 1.
    half = (floor + (ratio - 1) * phi) / 2
    root = half + np.sqrt(np.maximum(half**2 - ratio * phi * floor, 0.0))
    return np.where(floor > 0, root, plain)


# Values and intervals ---------------------------------------------------------------


def _law_of(fitted: "Fitted") -> ConvergenceLaw:
    return fitted if isinstance(fitted, ConvergenceLaw) else fitted.law


def _level_and_unit(fitted: "Fitted") -> tuple[float, str]:
    if isinstance(fitted, ConvergenceLaw):
        return 1.0, "examples"
    return fitted.level, fitted.critical_batch_size.unit


def _interval(fitted: "Fitted", formula: Formula, words: str) -> Interval:
    law = _law_of(fitted)
    level, unit = _level_and_unit(fitted)
    value = None
    if law.min_steps > 0:
        phi = np.array(law.critical_batch_size)
        knee, floor = np.array(law.knee_exponent), np.array(law.min_batch_size)
        value = float(formula(phi, knee, floor))
    low, high = (
        (value, value)
        if isinstance(fitted, ConvergenceLaw)
        else _limits(fitted, formula, value)
    )
    return Interval(
        value=value, low=low, high=high, level=level, unit=unit, definition=words
    )


def _limits(
    fit: "ConvergenceFit", formula: Formula, value: float | None
) -> tuple[float | None, float | None]:
    """Return the limits that phi's imply; a side unbounded for phi stays so."""
    phi = fit.critical_batch_size
    is_phi = formula is _even_batch_size and fit.law.name == "knee"
    if fit.law.name == "inverse" or is_phi:
        one, none = np.array(1.0), np.array(0.0)
        ends = [
            None if end is None else float(formula(np.array(end), one, none))
            for end in (phi.low, phi.high)
        ]
        return ends[0], ends[1]
    values = _values_inside(fit, formula)
    if value is not None:
        values = np.append(values, value)
    # A shape whose floor lies above the reference never arrives there, and says none.
    values = values[np.isfinite(values)]
    return (
        None if phi.low is None or not values.size else float(values.min()),
        None if phi.high is None or not values.size else float(values.max()),
    )


def _values_inside(fit: "ConvergenceFit", formula: Formula) -> FloatArray:
    """Return the batch size under every shape of the law that the data allow.

    The third parameter moves freely with phi here: the extremes over the joint region
    are the limits of a profile interval.
    """
    surface = fit.surface
    threshold = fit.noise.threshold(surface.best_chi2, fit.level)
    inside = (surface.chi2 <= threshold) & (surface.ratios > 0)
    if not math.isfinite(threshold):
        return np.empty(0)
    return formula(
        1 / surface.ratios[inside], surface.knees[inside], surface.floors[inside]
    )
