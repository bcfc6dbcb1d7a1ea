r"""What the recommended batch may lose, by the runs so far.

The regret of a batch size depends on the shape of the law alone, not on its scale, so
its posterior is a sum over a grid of shapes and nothing is drawn:

.. math:: \ln S(B) = c + \tfrac1s \ln(1 + (\phi/B)^s) + \text{noise}

The scale c has a flat prior, the noise between seeds a scaled inverse chi-square one
worth ten runs at 20 %, and both are integrated out; phi is log-uniform. What the law
does not fit counts as noise, so that misfit widens the regret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import confidence_level, positive_array
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.training_time.law import BatchLimits, StepTimeModel
from rightbatch.training_time.uncertainty import LEVEL, PlanDraws, drawn_times

# Shapes per law: 8 % apart in phi over four decades, well below what few runs tell.
NUM_PHIS = 120
SMALLEST_PHI = 0.5
# Past the largest batch size by this factor the law is a straight line in 1/B. A wider
# prior would hold most of its weight there, and believe in it after three runs.
BEYOND = 8
EXPONENTS = (0.5, 0.7, 0.85, 1.0, 1.25, 1.6, 2.0, 2.6, 3.5, 5.0)
# ln s is normal with this s.d.: knees of tuned runs lie between .7 and 3.6.
EXPONENT_SPREAD = 0.7
# The noise before any run: 20 % between seeds, the upper end of what is usual, worth so
# many runs. With less, three runs that agree by luck would end the buying.
USUAL_NOISE = 0.2
NOISE_WORTH = 10
# Of the tail outside a level: buying ends at a lucky moment, so the promise of a plain
# quantile would be broken more often than it says.
STRICT = 1 / 2
# Batch sizes looked at for each number of replicas: 6 % apart over five decades.
NUM_BATCH_SIZES = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LawShapes:
    """Laws of steps up to a factor, each with a prior weight.

    Args:
        critical_batch_sizes: phi of each, shape (k,).
        exponents: Knee exponent of each, shape (k,); 1 is the inverse law.
        prior: Weights, shape (k,); they sum to one.

    Example:
        >>> shapes = LawShapes.inverse(1024)
        >>> shapes.critical_batch_sizes[[0, -1]]
        array([5.000e-01, 8.192e+03])
    """

    critical_batch_sizes: FloatArray
    exponents: FloatArray
    prior: FloatArray

    @classmethod
    def inverse(cls, max_batch_size: float) -> "LawShapes":
        """Return the inverse law at every phi that a batch could matter to.

        Args:
            max_batch_size: Largest that can be run.

        Returns:
            A grid of phi, equally likely in ln phi.
        """
        return cls._grid(max_batch_size, (1.0,))

    @classmethod
    def knees(cls, max_batch_size: float) -> "LawShapes":
        """Return the same for the law with a knee, its exponent from .5 to 5.

        Args:
            max_batch_size: Largest that can be run.

        Returns:
            A grid of phi and exponents.
        """
        return cls._grid(max_batch_size, EXPONENTS)

    @classmethod
    def _grid(cls, max_batch_size: float, exponents: Sequence[float]) -> "LawShapes":
        phis = np.geomspace(SMALLEST_PHI, BEYOND * max_batch_size, NUM_PHIS)
        powers = np.array(exponents)
        weights = np.exp(-0.5 * (np.log(powers) / EXPONENT_SPREAD) ** 2)
        prior = np.repeat(weights, NUM_PHIS)
        return cls(
            critical_batch_sizes=np.tile(phis, len(powers)),
            exponents=np.repeat(powers, NUM_PHIS),
            prior=prior / prior.sum(),
        )

    def log_steps(self, batch_size: ArrayLike) -> FloatArray:
        """Return ln(S/S_min) at batch sizes (m,), shape (k, m)."""
        sizes = np.atleast_1d(np.asarray(batch_size, dtype=float))
        powers = self.exponents[:, None]
        ratio = self.critical_batch_sizes[:, None] / sizes
        return np.logaddexp(0.0, powers * np.log(ratio)) / powers

    def steps(self, batch_size: ArrayLike) -> FloatArray:
        """Return steps at batch sizes (m,), shape (k, m), as if S_min were 1,000."""
        return 1000.0 * np.exp(self.log_steps(batch_size))


@dataclass(frozen=True, kw_only=True, eq=False)
class LawPosterior:
    """What runs say of the shape of the law.

    Args:
        shapes: The laws thought possible.
        batch_sizes: One per run, shape (n,).
        log_steps: ln of the steps of each, shape (n,).
    """

    shapes: LawShapes
    batch_sizes: FloatArray
    log_steps: FloatArray

    @cached_property
    def log_min_steps(self) -> FloatArray:
        """The best ln S_min for each shape, shape (k,)."""
        return (self.log_steps - self.shapes.log_steps(self.batch_sizes)).mean(1)

    @cached_property
    def squares(self) -> FloatArray:
        """Sum of squared residuals of each shape at its best scale, shape (k,)."""
        away = self.log_steps - self.shapes.log_steps(self.batch_sizes)
        return ((away - away.mean(1, keepdims=True)) ** 2).sum(1)

    @cached_property
    def weights(self) -> FloatArray:
        """Posterior weight of each shape, shape (k,); they sum to one."""
        return self._weigh(self.squares, len(self.log_steps) - 1)

    @cached_property
    def noise_variance(self) -> FloatArray:
        """Variance of ln S between seeds, as each shape sees it, shape (k,)."""
        degrees = NOISE_WORTH + len(self.log_steps) - 1
        return (NOISE_WORTH * USUAL_NOISE**2 + self.squares) / degrees

    @property
    def critical_batch_size(self) -> float:
        """Median of phi, as far as the grid tells."""
        order = np.argsort(self.shapes.critical_batch_sizes, kind="stable")
        passed = np.cumsum(self.weights[order]) >= 0.5
        return float(self.shapes.critical_batch_sizes[order][passed.argmax()])

    def expected_log_steps(self, batch_sizes: ArrayLike) -> FloatArray:
        """Return ln S by each shape at batch sizes (m,), shape (k, m)."""
        return self.log_min_steps[:, None] + self.shapes.log_steps(batch_sizes)

    def expected_steps(self, batch_sizes: ArrayLike) -> FloatArray:
        """Return the steps that a run would take at batch sizes (m,), shape (m,)."""
        return np.exp(self.weights @ self.expected_log_steps(batch_sizes))

    def with_run(self, batch_size: ArrayLike, log_steps: FloatArray) -> FloatArray:
        """Return the weights if one more run had come out so.

        Args:
            batch_size: Of the run, shape (m,).
            log_steps: Its outcomes, shape (m, j).

        Returns:
            Weights, shape (m, j, k).
        """
        count = len(self.log_steps)
        expected = self.expected_log_steps(batch_size).T[:, None, :]
        away = (log_steps[:, :, None] - expected) ** 2
        return self._weigh(self.squares + away * count / (count + 1), count)

    def _weigh(self, squares: FloatArray, degrees: int) -> FloatArray:
        spread = NOISE_WORTH * USUAL_NOISE**2 + squares
        log = -0.5 * (NOISE_WORTH + degrees) * np.log(spread)
        weights = self.shapes.prior * np.exp(log - log.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)


def law_posterior(
    shapes: LawShapes, batch_sizes: Sequence[float], steps: Sequence[float]
) -> LawPosterior:
    """Return what runs say of the shape of the law.

    Args:
        shapes: The laws thought possible.
        batch_sizes: One per run that reached the target.
        steps: Of each.

    Returns:
        The posterior over the shapes.

    Raises:
        InputError: Fewer than two runs, or numbers that do not pair up or are not
            positive.

    Example:
        >>> shapes = LawShapes.inverse(1024)
        >>> known = law_posterior(shapes, [16, 256] * 8, [500, 125] * 8)
        >>> 55 < known.critical_batch_size < 75
        True
    """
    sizes = positive_array("law_posterior", "batch_sizes", batch_sizes)
    counts = positive_array("law_posterior", "steps", steps)
    if len(sizes) != len(counts) or len(sizes) < 2:
        raise InputError(
            "law_posterior: `batch_sizes` and `steps` must be two runs or more, got "
            f"{len(sizes)} and {len(counts)}."
        )
    return LawPosterior(shapes=shapes, batch_sizes=sizes, log_steps=np.log(counts))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegretTable:
    """What each batch size loses under each shape, on one number of replicas.

    Args:
        num_replicas: P.
        batch_sizes: Shape (m,), increasing.
        regrets: Share of the least time, shape (k, m).
    """

    num_replicas: int
    batch_sizes: FloatArray
    regrets: FloatArray


def regret_table(
    shapes: LawShapes,
    step_time: StepTimeModel,
    num_replicas: int = 1,
    limits: BatchLimits | None = None,
    batch_sizes: Sequence[int] = (),
) -> RegretTable:
    """Return what each batch size loses under each shape.

    Args:
        shapes: The laws thought possible.
        step_time: Taken as exact: more runs would not tell it better.
        num_replicas: P.
        limits: What can be served.
        batch_sizes: Looked at besides those of a grid 6 % apart.

    Returns:
        The table.
    """
    known = limits or BatchLimits()
    asked = batch_sizes or (max(num_replicas, known.min_batch_size or 1),)
    draws = PlanDraws(steps=shapes, step_time=step_time)
    times = drawn_times(draws, num_replicas, known, asked, NUM_BATCH_SIZES)
    return RegretTable(
        num_replicas=num_replicas,
        batch_sizes=times.batch_sizes,
        regrets=times.seconds / times.least[:, None] - 1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """What training at a batch size may lose against the best one.

    Args:
        num_replicas: P.
        batch_size: Trained at.
        value: The strict quantile of the regret at `level`: see :func:`regret_of`.
            Share of the least time.
        expected: Its mean.
        level: How often `value` is not exceeded, were it what buying stopped at.

    Example:
        >>> print(Regret(num_replicas=1, batch_size=96, value=0.041, expected=0.01))
        at most 4.1 % at batch size 96
    """

    num_replicas: int
    batch_size: int
    value: float
    expected: float
    level: float = LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return {
            "num_replicas": self.num_replicas,
            "batch_size": self.batch_size,
            "value": self.value,
            "expected": self.expected,
            "level": self.level,
        }

    def __str__(self) -> str:
        return f"at most {100 * self.value:.1f} % at batch size {self.batch_size}"


def regret_of(
    posterior: LawPosterior,
    table: RegretTable,
    batch_size: int | None = None,
    level: float = LEVEL,
) -> Regret:
    """Return what a batch size may lose, by the runs so far.

    Buying stops at the first moment this is small enough, and a first moment is a
    lucky one: at the plain quantile of `level` the promise would be kept less often
    than that. So half of the tail is taken in too (the quantile .95 for a level of .9),
    and it is a shape's own regret, never one between two.

    Args:
        posterior: What the runs say.
        table: Of the same shapes.
        batch_size: One of the table's; the one of least expected regret when None.
        level: Of the quantile.

    Returns:
        Its strict quantile and its mean.

    Raises:
        InputError: `level` is not between 0 and 1, or the table does not hold the
            batch size.
    """
    confidence_level("regret_of", level)
    means = posterior.weights @ table.regrets
    place = int(means.argmin())
    if batch_size is not None:
        place = int(np.searchsorted(table.batch_sizes, batch_size))
        if batch_size not in table.batch_sizes:
            raise InputError(
                f"regret_of: `batch_size` must be in the table, got {batch_size}.",
                "give it to regret_table",
            )
    lost = table.regrets[:, place]
    order = np.argsort(lost)
    passed = np.cumsum(posterior.weights[order])
    found = int(np.searchsorted(passed, (1 - STRICT * (1 - level)) * passed[-1]))
    return Regret(
        num_replicas=table.num_replicas,
        batch_size=int(table.batch_sizes[place]),
        value=float(lost[order][min(found, len(order) - 1)]),
        expected=float(means[place]),
        level=level,
    )
