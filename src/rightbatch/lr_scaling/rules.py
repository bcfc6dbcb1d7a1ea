r"""What a change of the batch size does to each setting: one formula per function.

Throughout :math:`\kappa = B'/B`, the new batch size over the old one; below 1 where the
batch shrinks. Every function takes numbers and returns a number.
"""

import math

from rightbatch import _checks
from rightbatch.errors import InputError


def linear_factor(ratio: float) -> float:
    r"""Return the factor of the learning rate that keeps its sum per example.

    .. math:: \eta' / \eta = \kappa

    For plain SGD, as long as the new batch is well below the noise scale (Goyal et al.
    2017).

    Args:
        ratio: :math:`\kappa`, no unit.

    Returns:
        The factor.

    Raises:
        InputError: `ratio` is not a positive number.

    Example:
        >>> linear_factor(8)
        8.0
    """
    return float(_checks.positive("linear_factor", "ratio", ratio))


def square_root_factor(ratio: float) -> float:
    r"""Return the factor of the learning rate for normalised updates.

    .. math:: \eta' / \eta = \sqrt{\kappa}

    For the Adam family while noise dominates the gradient: an update then has the same
    size at any batch, and its noise adds up like a random walk (Malladi et al. 2022).

    Args:
        ratio: :math:`\kappa`, no unit.

    Returns:
        The factor.

    Raises:
        InputError: `ratio` is not a positive number.

    Example:
        >>> square_root_factor(16)
        4.0
    """
    return math.sqrt(_checks.positive("square_root_factor", "ratio", ratio))


def power_factor(ratio: float, exponent: float) -> float:
    r"""Return the factor of the learning rate by a power fitted to a tuned sweep.

    .. math:: \eta' / \eta = \kappa^a

    Tuned sweeps show a from .2 to .8 at small batches and a flat stretch past them.

    Args:
        ratio: :math:`\kappa`, no unit.
        exponent: a, no unit.

    Returns:
        The factor.

    Raises:
        InputError: `ratio` is not a positive number, or `exponent` not finite.

    Example:
        >>> power_factor(16, 0.25)
        2.0
    """
    _checks.finite("power_factor", "exponent", exponent)
    return _checks.positive("power_factor", "ratio", ratio) ** exponent


def adascale_gain(from_batch: float, to_batch: float, noise_scale: float) -> float:
    r"""Return how many old steps one new step is worth.

    .. math:: r = \frac{1 + \phi/B}{1 + \phi/(\kappa B)} = S(B)/S(\kappa B)

    Between 1 and :math:`\kappa`. AdaScale multiplies the learning rate of SGD by r and
    advances the schedule by r at each step (Johnson et al. 2020); the Adam variant
    multiplies by :math:`\sqrt{r}`. S is the inverse law of steps to a target, so that
    the run at the new batch needs 1/r of the steps.

    Args:
        from_batch: B, in examples.
        to_batch: :math:`\kappa B`, in examples.
        noise_scale: :math:`\phi`, in examples.

    Returns:
        The gain, in old steps per new step.

    Raises:
        InputError: A batch size is not positive, or `noise_scale` is negative.

    Example:
        >>> round(adascale_gain(256, 2048, 700), 4)
        2.7831
    """
    _checks.positive("adascale_gain", "from_batch", from_batch)
    _checks.positive("adascale_gain", "to_batch", to_batch)
    _checks.nonnegative("adascale_gain", "noise_scale", noise_scale)
    # convergence.equivalents.gain in one line: importing it runs the package's
    # __init__, a tenth of a second that `rightbatch transfer` starts without. A test
    # holds the two equal.
    return (1 + noise_scale / from_batch) / (1 + noise_scale / to_batch)


def sde_decay(decay: float, ratio: float) -> float:
    r"""Return the decay of a moving average by the differential equation of Adam.

    .. math:: 1 - \beta' = \kappa (1 - \beta)

    The discrete average follows the continuous one while :math:`1 - \beta'` is small
    (Malladi et al. 2022). An average that is off (0) stays off.

    Args:
        decay: :math:`\beta` per step, in [0, 1).
        ratio: :math:`\kappa`, no unit.

    Returns:
        :math:`\beta'`, per step.

    Raises:
        InputError: `decay` is outside [0, 1), `ratio` is not positive, or no average
            decays so fast.

    Example:
        >>> round(sde_decay(0.999, 16), 6)
        0.984
    """
    _check_decay("sde_decay", decay)
    _checks.positive("sde_decay", "ratio", ratio)
    scaled = 1 - ratio * (1 - decay)
    if decay == 0:
        return 0.0
    if scaled < 0:
        raise InputError(
            f"sde_decay: 1 - {ratio:g} (1 - {decay:g}) is negative.",
            "half_life_decay is safe at any ratio",
        )
    return scaled


def sde_eps(eps: float, ratio: float) -> float:
    r"""Return Adam's eps by its differential equation; it is divided.

    .. math:: \epsilon' = \epsilon / \sqrt{\kappa}

    The gradient whose root mean square eps stands beside is noise, and that falls by
    :math:`\sqrt{\kappa}` (Malladi et al. 2022).

    Args:
        eps: :math:`\epsilon`, in the unit of a gradient.
        ratio: :math:`\kappa`, no unit.

    Returns:
        :math:`\epsilon'`, in the same unit.

    Raises:
        InputError: `eps` is negative, or `ratio` is not positive.

    Example:
        >>> sde_eps(1e-8, 16)
        2.5e-09
    """
    _checks.nonnegative("sde_eps", "eps", eps)
    return eps / math.sqrt(_checks.positive("sde_eps", "ratio", ratio))


def half_life_decay(decay: float, ratio: float) -> float:
    r"""Return the decay that forgets over as many examples as before.

    .. math:: \beta' = \beta^\kappa

    The half-life :math:`B \ln 2 / (-\ln\beta)`, in examples, stays (Marek et al. 2025;
    Busbridge et al. 2023 for an average of the weights). It is what the rule
    of the differential equation tends to at small :math:`\kappa(1-\beta)`, and never
    leaves [0, 1).

    Args:
        decay: :math:`\beta` per step, in [0, 1).
        ratio: :math:`\kappa`, no unit.

    Returns:
        :math:`\beta'`, per step.

    Raises:
        InputError: `decay` is outside [0, 1), or `ratio` is not positive.

    Example:
        >>> round(half_life_decay(0.95, 1 / 16), 5)
        0.9968
    """
    _check_decay("half_life_decay", decay)
    return decay ** _checks.positive("half_life_decay", "ratio", ratio)


def kept_timescale_decay(
    weight_decay: float, lr_factor: float, steps_factor: float
) -> float:
    r"""Return the weight decay that keeps the share of the run the weights remember.

    .. math:: \tau = \frac{B}{\eta \lambda D} = \frac{1}{\eta \lambda S}, \quad
              \lambda' = \lambda \, \frac{S / S'}{\eta' / \eta}

    with D the examples and S = D/B the steps of the run. For decay apart from the
    gradient, as AdamW's (Power Lines).

    Args:
        weight_decay: :math:`\lambda`, per step over the learning rate.
        lr_factor: :math:`\eta'/\eta`, no unit.
        steps_factor: S/S', old steps over new ones: :math:`\kappa` for a run over the
            same examples.

    Returns:
        :math:`\lambda'`, in the unit of `weight_decay`.

    Raises:
        InputError: `weight_decay` is negative, or a factor is not positive.

    Example:
        >>> kept_timescale_decay(0.1, lr_factor=4, steps_factor=16)
        0.4
    """
    _checks.nonnegative("kept_timescale_decay", "weight_decay", weight_decay)
    _checks.positive("kept_timescale_decay", "lr_factor", lr_factor)
    _checks.positive("kept_timescale_decay", "steps_factor", steps_factor)
    return weight_decay * steps_factor / lr_factor


def timescale(
    batch_size: float, lr: float, weight_decay: float, num_examples: float
) -> float:
    r"""Return the share of a run that the weights remember under weight decay.

    .. math:: \tau = B / (\eta \lambda D)

    Args:
        batch_size: B, in examples.
        lr: :math:`\eta`, per step.
        weight_decay: :math:`\lambda`, per step over `lr`.
        num_examples: D, examples of the whole run, repeats counted.

    Returns:
        The share; above 1 the run ends before anything is forgotten.

    Raises:
        InputError: An argument is not a positive number.

    Example:
        >>> timescale(256, lr=0.01, weight_decay=0.1, num_examples=256_000)
        1.0
    """
    _checks.positive("timescale", "batch_size", batch_size)
    _checks.positive("timescale", "lr", lr)
    _checks.positive("timescale", "weight_decay", weight_decay)
    _checks.positive("timescale", "num_examples", num_examples)
    return batch_size / (lr * weight_decay * num_examples)


def legw_warmup_epochs(epochs: float, ratio: float) -> float:
    r"""Return the epochs of warm-up of LEGW: longer by the ratio.

    .. math:: w' = \kappa w

    An epoch has :math:`1/\kappa` as many steps, so the number of warm-up *steps* stays
    as it was. Goes with the square root for the learning rate (You et al. 2019).

    Args:
        epochs: w, in epochs at the old batch size.
        ratio: :math:`\kappa`, no unit.

    Returns:
        Epochs at the new batch size.

    Raises:
        InputError: `epochs` is negative, or `ratio` is not positive.

    Example:
        >>> legw_warmup_epochs(0.5, 8)
        4.0
    """
    _checks.nonnegative("legw_warmup_epochs", "epochs", epochs)
    return epochs * _checks.positive("legw_warmup_epochs", "ratio", ratio)


def same_progress_steps(steps: float, steps_factor: float) -> float:
    r"""Return the steps that cover what the old ones did.

    .. math:: S' = S / (S/S')

    By examples the factor is :math:`\kappa`; on AdaScale's clock, which counts old
    steps' worth, it is the gain r.

    Args:
        steps: S, old steps of a warm-up or of the whole schedule.
        steps_factor: Old steps that one new step replaces.

    Returns:
        Steps, not rounded: rounding would lose the way back.

    Raises:
        InputError: `steps` is negative, or `steps_factor` is not positive.

    Example:
        >>> same_progress_steps(10_000, 8)
        1250.0
    """
    _checks.nonnegative("same_progress_steps", "steps", steps)
    return steps / _checks.positive("same_progress_steps", "steps_factor", steps_factor)


def _check_decay(who: str, decay: float) -> None:
    _checks.finite(who, "decay", decay)
    if not 0 <= decay < 1:
        raise InputError(f"{who}: `decay` must be in [0, 1), got {decay:g}.")
