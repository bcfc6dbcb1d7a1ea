"""The learning rates of one batch size and seed, run side by side.

A learning rate that is too small takes many times the steps of the best, and one that
is too large never arrives. Side by side, on budgets that double, none can spend more
than a few times what the fastest needs, whichever that is.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

from rightbatch.experiments.record import Run, Status, reread
from rightbatch.experiments.run import LiveRun

FIRST_BUDGET = 64
# Below it, who is capped would depend on the order within a round.
MIN_CAP_FACTOR = 2.0


class Contender(Protocol):
    """A run that is taken further piece by piece."""

    @property
    def status(self) -> Status | None:
        """How it ended; None while it has not."""
        ...

    def advance(self, budget: int) -> None:
        """Go on until the run ends or `budget` updates are made."""
        ...

    def result(self, budget: int) -> Run:
        """Return the run as it stands."""
        ...


AnyContender = TypeVar("AnyContender", bound=Contender)
Advance = Callable[[Sequence[tuple[AnyContender, int]]], Iterable[AnyContender]]


def race(
    contenders: Sequence[AnyContender], *, max_steps: int, cap_factor: float
) -> Iterator[tuple[AnyContender, Run]]:
    """Yield each run as it ends; late ones are capped.

    All are taken to the same budget, which doubles from round to round. Once one has
    reached its hardest target in s steps, none is taken beyond `cap_factor` x s, or 64.
    Who is capped, and where, does not depend on the order: a round takes a budget
    from b to 2 b, and a cap that is found in it lies above 2 b.

    Args:
        contenders: The runs, all at the same budget; let go of as they end.
        max_steps: Updates allowed to each.
        cap_factor: At least 2.

    Yields:
        The contender and its run, whose budget is `max_steps`, or the cap for those
        it stopped.
    """
    yield from race_together(
        [contenders], one_by_one, max_steps=max_steps, cap_factor=cap_factor
    )


def one_by_one(going: Sequence[tuple[AnyContender, int]]) -> Iterator[AnyContender]:
    """Yield each contender after taking it to its budget."""
    for contender, budget in going:
        contender.advance(budget)
        yield contender


def race_together(
    heats: Sequence[Sequence[AnyContender]],
    advance: Advance[AnyContender],
    *,
    max_steps: int,
    cap_factor: float,
) -> Iterator[tuple[AnyContender, Run]]:
    """Yield the runs of several races, each as if it were alone.

    Args:
        heats: The contenders of each race, which caps its own only.
        advance: Takes contenders to the budgets beside them, in any order or all
            together, and yields each when it is there.
        max_steps: Updates allowed to each.
        cap_factor: At least 2.

    Yields:
        As :func:`race`.
    """
    racing = [_Heat(list(heat), max_steps, cap_factor) for heat in heats]
    budget = min(FIRST_BUDGET, max_steps)
    while racing:
        heat_of = {id(one): heat for heat in racing for one in heat.going}
        pairs = [(c, min(budget, heat.cap)) for heat in racing for c in heat.going]
        for contender in advance(pairs):
            if contender.status is not None:
                yield contender, heat_of[id(contender)].ended(contender)
        for heat in racing:
            if budget >= heat.cap:
                yield from heat.stopped()
        racing = [heat for heat in racing if heat.going]
        budget *= 2


@dataclass(slots=True)
class _Heat(Generic[AnyContender]):
    going: list[AnyContender]
    max_steps: int
    cap_factor: float
    cap: int = field(init=False)

    def __post_init__(self) -> None:
        self.cap = self.max_steps

    def ended(self, contender: AnyContender) -> Run:
        run = contender.result(self.max_steps)
        if contender.status == "reached":
            most = math.ceil(self.cap_factor * run.last_step)
            self.cap = min(self.cap, max(FIRST_BUDGET, most))
        self.going.remove(contender)
        return run

    def stopped(self) -> Iterator[tuple[AnyContender, Run]]:
        for contender in self.going:
            yield contender, contender.result(self.cap)
        self.going = []


class Resumed:
    """A run taken from the store where it answers, and trained where it does not.

    Args:
        stored: Earlier runs at the same settings; their targets may differ.
        targets: The targets asked for.
        live: Starts the run anew.
    """

    def __init__(
        self,
        stored: Sequence[Run],
        targets: tuple[float, ...],
        live: Callable[[], LiveRun],
    ) -> None:
        self._targets = targets
        self._start = live
        self._live: LiveRun | None = None
        # As far as each goes; whether it ended there is what a budget is held against.
        self._stored = [
            (run, whole)
            for run in stored
            if (whole := reread(run, targets, _covered(run))) is not None
        ]
        self._ended: Status | None = None
        if not self._stored:
            self._live = live()

    @property
    def measured(self) -> bool:
        """Whether the run was trained now."""
        return self._live is not None

    @property
    def status(self) -> Status | None:
        """How it ended; None while it has not."""
        return self._ended if self._live is None else self._live.status

    def advance(self, budget: int) -> None:
        """Go on until the run ends or `budget` updates are made."""
        live = self.trainee(budget)
        if live is not None:
            live.advance(budget)

    def trainee(self, budget: int) -> LiveRun | None:
        """Return the run to take to `budget`; None where the store answers."""
        if self._live is None:
            for _, whole in self._stored:
                if whole.status != "not_reached" and whole.last_step <= budget:
                    self._ended = whole.status
                    return None
                if whole.status != "not_reached" or _covered(whole) >= budget:
                    return None
            self._live = self._start()
        return self._live

    def restart(self) -> LiveRun:
        """Return the run started anew."""
        # The old one's memory is to be had first.
        self._live = None
        self._live = self._start()
        return self._live

    def result(self, budget: int) -> Run:
        """Return the run as it stands."""
        if self._live is not None:
            return self._live.result(budget)
        ended = [run for _, run in self._stored if run.status == self._ended]
        if ended:
            return replace(ended[0], budget=budget)
        answers = [reread(run, self._targets, budget) for run, _ in self._stored]
        return next(answer for answer in answers if answer is not None)


def _covered(run: Run) -> int:
    return run.budget if run.status == "not_reached" else run.last_step
