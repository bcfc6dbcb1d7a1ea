"""How few examples could do: the bound of Bayes, and the maximum-likelihood figure."""

import math

from rightbatch import _checks
from rightbatch.quadratic.problem import (
    NoisyQuadratic,
    check_target,
    refuse_label_noise,
)
from rightbatch.quadratic.spectrum import FloatArray

ROUNDS = 200
CLOSE = 1e-14


def bayes_risk(problem: NoisyQuadratic, examples: float) -> float:
    r"""Return the least expected loss that any method can have after some examples.

    .. math:: L_\infty + \tfrac12 \sum_i w_i h_i \frac{s_i}{1 + N h_i^2 s_i / c_i}

    One example's gradient shows where the minimum is along direction i up to a variance
    c / h^2, wherever it is taken, so nothing beats the posterior mean when the start is
    Gaussian with variance s and so is the noise. A linear method, as every optimizer
    here, sees second moments only, so the bound holds for it whatever the distribution.
    Preconditioning does not enter. A direction without noise costs nothing after the
    first example.

    Args:
        problem: What is minimised.
        examples: N, steps times batch size.

    Returns:
        The loss, the irreducible one included.

    Raises:
        InputError: `examples` is negative or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> round(bayes_risk(problem, 495_016), 6)
        0.01
    """
    who = "bayes_risk"
    refuse_label_noise(who, problem)
    num = _checks.nonnegative(who, "examples", examples)
    if num == 0:
        return problem.initial_loss
    heights, speeds = _bayes_terms(problem)
    return problem.irreducible_loss + float((heights / (1 + num * speeds)).sum())


def bayes_examples(problem: NoisyQuadratic, target: float) -> float:
    """Return the examples below which no method can expect to reach a loss.

    A true lower bound: see :func:`bayes_risk`, which it inverts.

    Args:
        problem: What is minimised.
        target: Expected loss to reach.

    Returns:
        N, a real number; 0 where the noisy directions start below the target.

    Raises:
        InputError: The target is not between the irreducible and the initial loss, or
            the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> round(bayes_examples(problem, 0.01))
        495016
    """
    who = "bayes_examples"
    refuse_label_noise(who, problem)
    gap = check_target(who, problem, target) - problem.irreducible_loss
    heights, speeds = _bayes_terms(problem)
    if heights.sum() <= gap:
        return 0.0
    # 1 / risk is concave in N, and a line for one direction: Newton climbs from the
    # left without overshooting.
    num = 0.0
    for _ in range(ROUNDS):
        falls = 1 / (1 + num * speeds)
        risk = float((heights * falls).sum())
        slope = float((heights * speeds * falls**2).sum())
        if slope == 0:  # the target is past what a float can tell from zero
            return math.inf
        move = (risk / gap - 1) * risk / slope
        num += move
        if move <= CLOSE * num:
            break
    return num


def bayes_steps(problem: NoisyQuadratic, batch_size: float, target: float) -> float:
    """Return the steps below which no method can expect to reach a loss.

    A true lower bound, :func:`bayes_examples` over the batch size; a real number.

    Args:
        problem: What is minimised.
        batch_size: Examples per step.
        target: Expected loss to reach.

    Returns:
        Steps.

    Raises:
        InputError: An argument is out of range or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> round(bayes_steps(problem, 64, 0.01), 1)
        7734.6
    """
    num = _checks.positive("bayes_steps", "batch_size", batch_size)
    return bayes_examples(problem, target) / num


def max_likelihood_risk(problem: NoisyQuadratic, examples: float) -> float:
    r"""Return the loss of the maximum-likelihood estimate of the minimum.

    .. math:: L_\infty + \tfrac12 \sum_i \frac{w_i c_i}{h_i N},
              \quad L_\infty + n / 2N \text{ for } c = h

    What is known of the start is thrown away, so it is no lower bound: an average over
    the run can be better.

    Args:
        problem: What is minimised.
        examples: N, steps times batch size.

    Returns:
        The loss, the irreducible one included.

    Raises:
        InputError: `examples` is not positive or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> max_likelihood_risk(problem, 500_000)
        0.01
    """
    who = "max_likelihood_risk"
    refuse_label_noise(who, problem)
    num = _checks.positive(who, "examples", examples)
    return problem.irreducible_loss + _likelihood_numerator(problem) / num


def max_likelihood_examples(problem: NoisyQuadratic, target: float) -> float:
    """Return the examples after which the maximum-likelihood estimate is good enough.

    A yardstick of the paper, not a lower bound: see :func:`max_likelihood_risk`.

    Args:
        problem: What is minimised.
        target: Expected loss to reach.

    Returns:
        N, a real number.

    Raises:
        InputError: The target is not between the irreducible and the initial loss, or
            the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> max_likelihood_examples(problem, 0.01)
        500000.0
    """
    who = "max_likelihood_examples"
    refuse_label_noise(who, problem)
    gap = check_target(who, problem, target) - problem.irreducible_loss
    return _likelihood_numerator(problem) / gap


def max_likelihood_steps(
    problem: NoisyQuadratic, batch_size: float, target: float
) -> float:
    """Return the steps of the maximum-likelihood estimate: n / (2 C B) for c = h.

    Not a lower bound: uniform averaging on the standard problem at power .5 and batch
    size 64 needs 7773 steps, fewer than its 7812.5. :func:`bayes_steps` is one.

    Args:
        problem: What is minimised.
        batch_size: Examples per step.
        target: Expected loss to reach.

    Returns:
        Steps, a real number.

    Raises:
        InputError: An argument is out of range or the problem has label noise.

    Example:
        >>> from rightbatch.quadratic.spectrum import Spectrum
        >>> problem = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> max_likelihood_steps(problem, 64, 0.01)
        7812.5
    """
    num = _checks.positive("max_likelihood_steps", "batch_size", batch_size)
    return max_likelihood_examples(problem, target) / num


def _bayes_terms(problem: NoisyQuadratic) -> tuple[FloatArray, FloatArray]:
    """Return w h s / 2 and h^2 s / c of the directions that have noise."""
    noise = problem.noise_variances
    noisy = noise > 0
    start = problem.start[noisy]
    heights = problem.loss_weights[noisy] * start
    return heights, problem.curvatures[noisy] ** 2 * start / noise[noisy]


def _likelihood_numerator(problem: NoisyQuadratic) -> float:
    return 0.5 * float(problem.weights @ (problem.noise_variances / problem.curvatures))
