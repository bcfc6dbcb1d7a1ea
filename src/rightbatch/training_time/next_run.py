"""Which batch size to run next: what lowers the expected regret most per second.

Two batch sizes far apart come first. Then, for every candidate, the outcomes of one
more run are tried on paper: the expected regret of the batch that would be recommended
after each, against the seconds of running it. Once the regret is small enough two runs
near phi test the law; where it is not the inverse one, laws with a knee are thought
possible too, and buying goes on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from rightbatch._checks import positive, positive_integer
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray, f_test
from rightbatch.training_time.law import NO_LIMITS, BatchLimits, StepTimeModel
from rightbatch.training_time.posterior import (
    NOISE_WORTH,
    USUAL_NOISE,
    LawPosterior,
    LawShapes,
    Regret,
    RegretTable,
    law_posterior,
    regret_of,
    regret_table,
)
from rightbatch.training_time.search import served_range
from rightbatch.training_time.uncertainty import LEVEL

Reason = Literal["start", "regret", "law"]
BoughtLaw = Literal["inverse", "knee"]

GOAL = 0.05
# The first two, either side of most workloads' corner, or of a guess of it.
FIRST = (16, 256)
FIRST_RATIO = 4
# So many batch sizes at which nothing reaches the target, and there is no start.
MOST_MISSED = 4
TEST_RUNS = 2
NEAR_PHI = 1.5
# Runs bent so far from the inverse law come by chance this seldom.
BENT_P = 0.1
# Outcomes tried of each candidate, by Gauss's quadrature.
NUM_OUTCOMES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Purchase:
    """A batch size to run next.

    Args:
        batch_size: Examples per step.
        reason: ``start``: one of the first two; ``regret``: lowers it most per second;
            ``law``: tests the law near its corner.
    """

    batch_size: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """The runs so far, at the best learning rate of each batch size.

    Args:
        batch_sizes: One per run that reached the target.
        steps: Of each.
        missed: Batch sizes at which no run reached it.
        closed: Those at which seeds missed so often that no more are run.
        num_tests: Runs bought to test the law.

    Raises:
        InputError: `batch_sizes` and `steps` do not pair up.
    """

    batch_sizes: tuple[int, ...] = ()
    steps: tuple[float, ...] = ()
    missed: tuple[int, ...] = ()
    closed: tuple[int, ...] = ()
    num_tests: int = 0

    def __post_init__(self) -> None:
        if len(self.batch_sizes) != len(self.steps):
            raise InputError(
                "Bought: `batch_sizes` and `steps` must pair up, got "
                f"{len(self.batch_sizes)} and {len(self.steps)}."
            )

    @property
    def missed_below(self) -> int:
        """The largest batch size that missed below all that reached; 0 for none."""
        least = min(self.batch_sizes, default=0)
        return max((size for size in self.missed if size < least), default=0)

    @property
    def missed_above(self) -> int | None:
        """The least batch size that missed above all that reached; None for none."""
        most = max(self.batch_sizes, default=math.inf)
        return min((size for size in self.missed if size > most), default=None)

    def and_run(self, purchase: Purchase, steps: float) -> "Bought":
        """Return these with one more run.

        Args:
            purchase: What was bought.
            steps: What it took.

        Returns:
            All of them.
        """
        return replace(
            self,
            batch_sizes=(*self.batch_sizes, purchase.batch_size),
            steps=(*self.steps, steps),
            num_tests=self.num_tests + (purchase.reason == "law"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Where buying stands.

    Args:
        regrets: One per number of replicas.
        goal: What each should be at most.
        law: ``inverse``; or ``knee`` once the runs are bent away from it.
        bent_p: Probability of runs bent so by chance; None while the law is untested.
        critical_batch_size: Median of phi.
    """

    regrets: tuple[Regret, ...]
    goal: float
    law: BoughtLaw
    bent_p: float | None
    critical_batch_size: float

    @property
    def value(self) -> float:
        """The largest of the regrets."""
        return max(regret.value for regret in self.regrets)

    @property
    def is_met(self) -> bool:
        """True where every regret is within the goal."""
        return self.value <= self.goal

    def replicas_in_words(self) -> str:
        """Return the regret of the replicas that lose most, as a person says it."""
        worst = max(self.regrets, key=lambda regret: regret.value)
        alone = len(self.regrets) == 1
        replicas = (
            f"{worst.num_replicas} replica{'s' if worst.num_replicas > 1 else ''}"
        )
        where = "" if alone else f", on {replicas}, the worst case"
        return f"{worst}{where}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with `value` and `met`."""
        return {
            "value": self.value,
            "level": self.regrets[0].level,
            "goal": self.goal,
            "met": self.is_met,
            "law": self.law,
            "bent_p": self.bent_p,
            "critical_batch_size": self.critical_batch_size,
            "replicas": [regret.to_dict() for regret in self.regrets],
        }


class _Family(NamedTuple):
    shapes: LawShapes
    tables: tuple[RegretTable, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Buyer:
    """Decides what to run next: numbers in, numbers out.

    Args:
        step_time: Seconds per step, on any number of replicas; taken as exact.
        candidates: Batch sizes that may be run; two at least.
        replicas: Numbers of replicas to plan for.
        limits: What can be served.
        goal: Regret to stop at, a share of the least time.
        level: Of the regret.
        guess: Of phi, for the first two batch sizes; None for 16 and 256.

    Raises:
        InputError: Fewer than two candidates, or a number that is not positive.

    Example:
        >>> from rightbatch.step_time import StepTimeLaw
        >>> buyer = Buyer(
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=1e-6,
        ...         saturation_batch_size=1,
        ...         overhead_seconds=3e-4,
        ...     ),
        ...     candidates=[2**i for i in range(11)],
        ...     limits=BatchLimits(max_batch_size=1024),
        ... )
        >>> buyer.next_purchase(Bought())
        Purchase(batch_size=16, reason='start')
        >>> runs = Bought(batch_sizes=(16, 256), steps=(500, 125))
        >>> buyer.next_purchase(runs).reason, round(buyer.assess(runs).value, 2)
        ('regret', 0.08)
    """

    step_time: StepTimeModel
    candidates: Sequence[int]
    replicas: Sequence[int] = (1,)
    limits: BatchLimits = NO_LIMITS
    goal: float = GOAL
    level: float = LEVEL
    guess: float | None = None

    def __post_init__(self) -> None:
        positive("Buyer", "goal", self.goal)
        sizes = {positive_integer("Buyer", "candidates", b) for b in self.candidates}
        if len(sizes) < 2:
            raise InputError(
                "Buyer: `candidates` must be two batch sizes or more, got "
                f"{len(sizes)}.",
                "allow larger batch sizes",
            )
        if self.guess is not None:
            positive("Buyer", "guess", self.guess)
        object.__setattr__(self, "candidates", tuple(sorted(sizes)))

    def next_purchase(
        self, bought: Bought, num_lrs: Sequence[int] | None = None
    ) -> Purchase | None:
        """Return what to run next; None where nothing is left to know or to try.

        Args:
            bought: The runs so far.
            num_lrs: Learning rates that a run at each candidate would try; one when
                None.

        Returns:
            The purchase.
        """
        open_ = self._open(bought)
        if len(set(bought.batch_sizes)) < 2:
            return self._start(bought, open_)
        if not open_:
            return None
        known = self.assess(bought)
        if not known.is_met:
            return self._narrow(bought, known, open_, num_lrs)
        phi = known.critical_batch_size
        nearest = min(open_, key=lambda size: abs(math.log(size / phi)))
        is_told = self._num_near(bought, phi) >= TEST_RUNS
        # No law bends where it cannot be run: its corner must lie inside.
        inside = open_[0] * 2 <= phi <= open_[-1] / 2
        if inside and not is_told and bought.num_tests < TEST_RUNS:
            return Purchase(batch_size=nearest, reason="law")
        return None

    def next_purchases(
        self, bought: Bought, num: int, num_lrs: Sequence[int] | None = None
    ) -> tuple[Purchase, ...]:
        """Return several runs to make at once.

        Each is chosen as if those before it had come out as expected.

        Args:
            bought: The runs so far.
            num: How many at most.
            num_lrs: As for :meth:`next_purchase`.

        Returns:
            The purchases, fewer where that would be enough.
        """
        found: list[Purchase] = []
        while len(found) < num:
            purchase = self.next_purchase(bought, num_lrs)
            if purchase is None:
                break
            found.append(purchase)
            is_start = purchase.reason == "start"
            steps = 1.0 if is_start else self._expected(bought, purchase.batch_size)
            bought = bought.and_run(purchase, steps)
            if is_start and len(set(bought.batch_sizes)) > 1:
                break
        return tuple(found)

    def assess(
        self, bought: Bought, batch_sizes: Sequence[int] | None = None
    ) -> Assessment:
        """Return the regret of the best batch known, and what law it rests on.

        No batch size is best at or beyond one that missed, past all that reached.

        Args:
            bought: Runs at two batch sizes or more.
            batch_sizes: What is recommended for each number of replicas; those of
                least expected regret when None.

        Returns:
            The regrets, and whether they are small enough.

        Raises:
            InputError: Fewer than two runs.
        """
        bent_p = self._bent_p(bought)
        law: BoughtLaw = "inverse" if bent_p is None or bent_p >= BENT_P else "knee"
        family = self._family(law, bought)
        posterior = _posterior(family.shapes, bought)
        tables = family.tables
        if batch_sizes is not None:
            served = self._served(bought)
            tables = tuple(
                self._table(family.shapes, table.num_replicas, served, (size,))
                for table, size in zip(tables, batch_sizes, strict=True)
            )
        regrets = tuple(
            regret_of(posterior, table, size, self.level)
            for table, size in zip(
                tables, batch_sizes or [None] * len(tables), strict=True
            )
        )
        return Assessment(
            regrets=regrets,
            goal=self.goal,
            law=law,
            bent_p=bent_p,
            critical_batch_size=posterior.critical_batch_size,
        )

    def _open(self, bought: Bought) -> list[int]:
        """Return the candidates not known to miss the target."""
        low, high = bought.missed_below, bought.missed_above or math.inf
        out = {*bought.missed, *bought.closed}
        return [b for b in self.candidates if low < b < high and b not in out]

    def _start(self, bought: Bought, open_: list[int]) -> Purchase | None:
        if len(bought.missed) >= MOST_MISSED:
            return None
        wanted = [self.guess / 4, self.guess * 4] if self.guess else list(FIRST)
        reached = set(bought.batch_sizes)
        wanted = [min(max(b, open_[0]), open_[-1]) for b in wanted] if open_ else []
        if reached:
            (there,) = reached
            open_ = [b for b in open_ if b != there]
            apart = [b for b in open_ if _apart(b, there) >= math.log(FIRST_RATIO)]
            wanted = sorted(wanted, key=lambda b: -_apart(b, there))
            open_ = apart or sorted(open_, key=lambda b: _apart(b, there))[-1:]
        if not open_:
            return None
        # Of two as near, the larger: it is less likely to miss the target.
        size = min(open_, key=lambda b: (_apart(b, wanted[0]), -b))
        return Purchase(batch_size=size, reason="start")

    def _narrow(
        self,
        bought: Bought,
        known: Assessment,
        open_: list[int],
        num_lrs: Sequence[int] | None,
    ) -> Purchase:
        family = self._family(known.law, bought)
        posterior = _posterior(family.shapes, bought)
        sizes = np.array(open_, dtype=float)
        counts = np.ones(len(self.candidates)) if num_lrs is None else np.array(num_lrs)
        tried = counts[np.isin(self.candidates, open_)]
        step = self.limits.served_step_seconds(self.step_time, sizes, 1)
        seconds = posterior.expected_steps(sizes) * step * tried
        gain = expected_gain(posterior, family.tables, sizes)
        return Purchase(
            batch_size=open_[int((gain / seconds).argmax())], reason="regret"
        )

    def _expected(self, bought: Bought, batch_size: int) -> float:
        law = self.assess(bought).law
        posterior = _posterior(self._family(law, bought).shapes, bought)
        return float(posterior.expected_steps([batch_size])[0])

    def _num_near(self, bought: Bought, phi: float) -> int:
        apart = [_apart(size, phi) for size in bought.batch_sizes]
        return sum(one <= math.log(NEAR_PHI) for one in apart)

    def _bent_p(self, bought: Bought) -> float | None:
        """Return how often chance bends runs so far from the inverse law."""
        if len(set(bought.batch_sizes)) < 3:
            return None
        straight = _posterior(self._inverse, bought)
        near = self._num_near(bought, straight.critical_batch_size)
        if max(near, bought.num_tests) < TEST_RUNS:
            return None
        least = float(straight.squares.min())
        bent = float(_posterior(self._knee, bought).squares.min())
        degrees = NOISE_WORTH + len(bought.steps) - 3
        variance = (NOISE_WORTH * USUAL_NOISE**2 + bent) / degrees
        return f_test(max(least - bent, 0.0) / variance, 1, degrees)

    def _family(self, law: BoughtLaw, bought: Bought) -> _Family:
        shapes = self._inverse if law == "inverse" else self._knee
        key = (law, bought.missed_below, bought.missed_above)
        if key not in self._families:
            served = self._served(bought)
            tables = [self._table(shapes, p, served, ()) for p in self.replicas]
            self._families[key] = _Family(shapes, tuple(tables))
        return self._families[key]

    @cached_property
    def _families(self) -> dict[tuple[BoughtLaw, int, int | None], _Family]:
        return {}

    @cached_property
    def _inverse(self) -> LawShapes:
        return LawShapes.inverse(self.candidates[-1])

    @cached_property
    def _knee(self) -> LawShapes:
        return LawShapes.knees(self.candidates[-1])

    def _served(self, bought: Bought) -> BatchLimits:
        """Return the limits, less what lies at or beyond batch sizes that missed."""
        low, high = bought.missed_below, bought.missed_above
        ends = [served_range(count, self.limits) for count in self.replicas]
        served = self.limits
        # Where nothing would be left, whoever plans has to say so.
        if low:
            least = max(low + 1, served.min_batch_size or 1)
            served = replace(
                served, min_batch_size=min(least, *(end for _, end in ends))
            )
        if high is not None:
            most = max(high - 1, *(end for end, _ in ends))
            served = replace(
                served, max_batch_size=min(most, served.max_batch_size or most)
            )
        return served

    def _table(
        self,
        shapes: LawShapes,
        num_replicas: int,
        limits: BatchLimits,
        batch_sizes: Sequence[int],
    ) -> RegretTable:
        return regret_table(shapes, self.step_time, num_replicas, limits, batch_sizes)


def expected_gain(
    posterior: LawPosterior, tables: Sequence[RegretTable], batch_sizes: FloatArray
) -> FloatArray:
    """Return how much one more run would lower the expected regret, on average.

    Args:
        posterior: What the runs so far say.
        tables: Of the same shapes, one per number of replicas; their gains add up.
        batch_sizes: Where the run may be made, shape (m,).

    Returns:
        The gains, shape (m,); none is negative.
    """
    means = posterior.expected_log_steps(batch_sizes)
    mean = posterior.weights @ means
    spread = posterior.noise_variance * (1 + 1 / len(posterior.log_steps))
    variance = posterior.weights @ ((means - mean) ** 2 + spread[:, None])
    nodes, chances = np.polynomial.hermite_e.hermegauss(NUM_OUTCOMES)
    chances /= chances.sum()
    outcomes = mean[:, None] + np.sqrt(variance)[:, None] * nodes
    weights = posterior.with_run(batch_sizes, outcomes)
    # The few outcomes tried do not average to the posterior quite: both sides of the
    # difference use theirs, so that knowing more never seems to hurt.
    before = np.einsum("mjk,j->mk", weights, chances)
    gains = [
        (before @ table.regrets).min(1) - (weights @ table.regrets).min(2) @ chances
        for table in tables
    ]
    return np.maximum(np.sum(gains, axis=0), 0.0)


def _posterior(shapes: LawShapes, bought: Bought) -> LawPosterior:
    return law_posterior(shapes, bought.batch_sizes, bought.steps)


def _apart(one: float, other: float) -> float:
    return abs(math.log(one / other))
