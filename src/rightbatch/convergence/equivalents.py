r"""Other people's forms of the one curve, and how to go from one to another.

Perrone's inverse law, McCandlish's hyperbola, Kaplan's corrections, the statistical
efficiency of Pollux and the gain of AdaScale are functions of the same critical batch
size :math:`\phi = E_{\min}/S_{\min}`. Everything here takes numbers or arrays and
broadcasts; nothing checks its arguments, so that it may stand in an inner loop. Where
:math:`\phi` was read off gradients, pass the noise scale in its place: the formulas are
the same, the number need not be.

==========================================  =============================  ==========
function                                    formula                        of
==========================================  =============================  ==========
:func:`mccandlish_form`                     S_min, E_min, phi              Perrone
:func:`perrone_form`                        N_inf, alpha                   McCandlish
:func:`examples_at_steps`                   E_min S/(S - S_min)            McCandlish
:func:`steps_at_examples`                   S_min E/(E - E_min)            McCandlish
:func:`share_of_best_step`                  1/(1 + phi/B)                  McCandlish
:func:`improvement_per_step`                dL_max/(1 + phi/B)             McCandlish
:func:`best_lr`                             lr_max/(1 + phi/B)             McCandlish
:func:`min_steps_of`, :func:`steps_of_min`  S/(1 + phi/B) and back         Kaplan
:func:`min_compute_of`,                     C/(1 + B/phi) and back         Kaplan
:func:`compute_of_min`
:func:`gain`                                (1 + phi/B_0)/(1 + phi/B)      AdaScale
:func:`efficiency`                          (phi + B_0)/(phi + B)          Pollux
==========================================  =============================  ==========
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class McCandlishForm(NamedTuple):
    """The curve as McCandlish et al. (2018), section 2.3, write it.

    Args:
        min_steps: S_min, steps.
        min_examples: E_min, examples.
        critical_batch_size: E_min/S_min, examples.
    """

    min_steps: Any
    min_examples: Any
    critical_batch_size: Any


class PerroneForm(NamedTuple):
    """The curve as Perrone et al. (2019), eq. 2, write it: N = N_inf + alpha/M.

    Args:
        updates_without_noise: N_inf, steps.
        noise_sensitivity: alpha, examples.
    """

    updates_without_noise: Any
    noise_sensitivity: Any


def mccandlish_form(
    updates_without_noise: ArrayLike, noise_sensitivity: ArrayLike
) -> McCandlishForm:
    r"""Return McCandlish's three numbers from Perrone's two.

    .. math:: S_{\min} = N_\infty,\quad E_{\min} = \alpha,\quad \phi = \alpha/N_\infty

    Args:
        updates_without_noise: N_inf, steps.
        noise_sensitivity: alpha, examples.

    Returns:
        S_min, E_min and phi.

    Example:
        >>> mccandlish_form(100, 4800).critical_batch_size
        48.0
    """
    steps, examples = _number(updates_without_noise), _number(noise_sensitivity)
    return McCandlishForm(steps, examples, examples / steps)


def perrone_form(min_steps: ArrayLike, critical_batch_size: ArrayLike) -> PerroneForm:
    r"""Return Perrone's two numbers from S_min and the critical batch size.

    .. math:: N_\infty = S_{\min},\quad \alpha = \phi S_{\min}

    Args:
        min_steps: S_min, steps.
        critical_batch_size: phi, examples.

    Returns:
        N_inf and alpha.

    Example:
        >>> perrone_form(100, 48)
        PerroneForm(updates_without_noise=100.0, noise_sensitivity=4800.0)
    """
    steps = _number(min_steps)
    return PerroneForm(steps, _number(critical_batch_size) * steps)


def examples_at_steps(
    steps: ArrayLike, min_steps: ArrayLike, min_examples: ArrayLike
) -> Any:
    r"""Return the examples that reach the target in so many steps.

    .. math:: (S/S_{\min} - 1)(E/E_{\min} - 1) = 1

    McCandlish et al. (2018), eq. 2.11, solved for E.

    Args:
        steps: S, above S_min.
        min_steps: S_min, steps.
        min_examples: E_min, examples.

    Returns:
        Examples.

    Example:
        >>> examples_at_steps(200, min_steps=100, min_examples=4800)
        9600.0
    """
    return _number(min_examples) * _over_its_minimum(steps, min_steps)


def steps_at_examples(
    examples: ArrayLike, min_steps: ArrayLike, min_examples: ArrayLike
) -> Any:
    r"""Return the steps that reach the target with so many examples.

    The same hyperbola, solved for S.

    Args:
        examples: E, above E_min.
        min_steps: S_min, steps.
        min_examples: E_min, examples.

    Returns:
        Steps.

    Example:
        >>> steps_at_examples(9600, min_steps=100, min_examples=4800)
        200.0
    """
    return _number(min_steps) * _over_its_minimum(examples, min_examples)


def share_of_best_step(batch_size: ArrayLike, critical_batch_size: ArrayLike) -> Any:
    r"""Return what one step gains, as a share of a step without gradient noise.

    .. math:: 1/(1 + \phi/B) = S_{\min}/S(B)

    McCandlish et al. (2018), section 2.2. One half at :math:`B = \phi`.

    Args:
        batch_size: B, examples.
        critical_batch_size: phi, or a noise scale, examples.

    Returns:
        A fraction.

    Example:
        >>> share_of_best_step([16, 48, 144], 48)
        array([0.25, 0.5 , 0.75])
    """
    return 1 / (1 + _number(critical_batch_size) / _number(batch_size))


def improvement_per_step(
    batch_size: ArrayLike, critical_batch_size: ArrayLike, *, best: ArrayLike
) -> Any:
    r"""Return by how much one step at the best learning rate improves the loss.

    .. math:: \Delta L(B) = \Delta L_{\max}/(1 + \phi/B)

    McCandlish et al. (2018), section 2.2.

    Args:
        batch_size: B, examples.
        critical_batch_size: phi, or a noise scale, examples.
        best: The improvement of a step without noise, in units of the loss.

    Returns:
        Improvement, in the unit of `best`.

    Example:
        >>> improvement_per_step(48, 48, best=0.02)
        0.01
    """
    return _number(best) * share_of_best_step(batch_size, critical_batch_size)


def best_lr(
    batch_size: ArrayLike, critical_batch_size: ArrayLike, *, lr_max: ArrayLike
) -> Any:
    r"""Return the learning rate at which one step of SGD improves the loss most.

    .. math:: \epsilon(B) = \epsilon_{\max}/(1 + \phi/B)

    McCandlish et al. (2018), section 2.2. Proportional to B far below phi, constant far
    above; for plain SGD, not for optimizers that normalise.

    Args:
        batch_size: B, examples.
        critical_batch_size: phi, or a noise scale, examples.
        lr_max: The best learning rate without noise.

    Returns:
        Learning rate.

    Example:
        >>> best_lr([16, 48], 48, lr_max=0.4)
        array([0.1, 0.2])
    """
    return _number(lr_max) * share_of_best_step(batch_size, critical_batch_size)


def min_steps_of(
    steps: ArrayLike, batch_size: ArrayLike, critical_batch_size: ArrayLike
) -> Any:
    r"""Return the steps that a very large batch would have taken.

    .. math:: S_{\min} = S/(1 + \phi/B)

    Kaplan et al. (2020), eq. 5.4.

    Args:
        steps: S, taken at batch size B.
        batch_size: B, examples.
        critical_batch_size: phi, examples.

    Returns:
        Steps.

    Example:
        >>> min_steps_of(200, 48, 48)
        100.0
    """
    return _number(steps) * share_of_best_step(batch_size, critical_batch_size)


def steps_of_min(
    min_steps: ArrayLike, batch_size: ArrayLike, critical_batch_size: ArrayLike
) -> Any:
    r"""Return the steps at batch size B: the inverse of :func:`min_steps_of`.

    .. math:: S = S_{\min} (1 + \phi/B)

    Args:
        min_steps: S_min, steps.
        batch_size: B, examples.
        critical_batch_size: phi, examples.

    Returns:
        Steps.

    Example:
        >>> steps_of_min(100, 48, 48)
        200.0
    """
    return _number(min_steps) / share_of_best_step(batch_size, critical_batch_size)


def min_compute_of(
    compute: ArrayLike, batch_size: ArrayLike, critical_batch_size: ArrayLike
) -> Any:
    r"""Return the compute that a very small batch would have needed.

    .. math:: C_{\min} = C/(1 + B/\phi)

    Kaplan et al. (2020), eq. 5.5. Compute is proportional to examples, so the same
    factor turns E into E_min.

    Args:
        compute: C, spent at batch size B, in any unit.
        batch_size: B, examples.
        critical_batch_size: phi, examples.

    Returns:
        Compute, in the unit of `compute`.

    Example:
        >>> min_compute_of(9600, 48, 48)
        4800.0
    """
    return _number(compute) * share_of_best_step(critical_batch_size, batch_size)


def compute_of_min(
    min_compute: ArrayLike, batch_size: ArrayLike, critical_batch_size: ArrayLike
) -> Any:
    r"""Return the compute at batch size B: the inverse of :func:`min_compute_of`.

    .. math:: C = C_{\min} (1 + B/\phi)

    Args:
        min_compute: C_min, in any unit.
        batch_size: B, examples.
        critical_batch_size: phi, examples.

    Returns:
        Compute, in the unit of `min_compute`.

    Example:
        >>> compute_of_min(4800, 48, 48)
        9600.0
    """
    return _number(min_compute) / share_of_best_step(critical_batch_size, batch_size)


def gain(
    batch_size: ArrayLike, critical_batch_size: ArrayLike, *, reference: ArrayLike
) -> Any:
    r"""Return how many steps at a reference batch size one step is worth.

    .. math:: r(B) = \frac{1 + \phi/B_0}{1 + \phi/B} = S(B_0)/S(B)

    The gain ratio of AdaScale (Johnson et al. 2020), between 1 and :math:`B/B_0`.

    Args:
        batch_size: B, examples.
        critical_batch_size: phi, or a noise scale, examples.
        reference: B_0, examples.

    Returns:
        A ratio.

    Example:
        >>> gain(144, 48, reference=16)
        3.0
    """
    return share_of_best_step(batch_size, critical_batch_size) / share_of_best_step(
        reference, critical_batch_size
    )


def efficiency(
    batch_size: ArrayLike, critical_batch_size: ArrayLike, *, reference: ArrayLike
) -> Any:
    r"""Return what one example is worth against one at a reference batch size.

    .. math:: \frac{\phi + B_0}{\phi + B} = E(B_0)/E(B) = \frac{r(B)}{B/B_0}

    The statistical efficiency of Pollux (Qiao et al. 2021); throughput times it is
    their goodput.

    Args:
        batch_size: B, examples.
        critical_batch_size: phi, or a noise scale, examples.
        reference: B_0, examples.

    Returns:
        A fraction, above 1 where the batch is smaller than the reference.

    Example:
        >>> round(efficiency(144, 48, reference=16), 4)
        0.3333
    """
    phi = _number(critical_batch_size)
    return (phi + _number(reference)) / (phi + _number(batch_size))


def _number(value: ArrayLike) -> Any:
    """Return a float for a number and an array for anything else."""
    array = np.asarray(value, dtype=float)
    return float(array) if array.ndim == 0 else array


def _over_its_minimum(value: ArrayLike, minimum: ArrayLike) -> Any:
    """Return the other side of the hyperbola over its minimum: x/(x - 1)."""
    number = _number(value)
    return number / (number - _number(minimum))
