"""Runs at one batch size trained together: one update of all at a time.

Each is judged where it would be, at its own steps. Those that have ended leave the
stack, and the others go on; the last one left trains by itself. Where all of them do
not fit into memory, each is started again by itself. With compiled graphs at hand the
steps are theirs, as long as enough members are left.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from rightbatch.engine import CompiledStack, Forward, Stack
from rightbatch.errors import RightbatchError
from rightbatch.experiments.graphs import CompiledGraphs
from rightbatch.experiments.run import LiveRun, loss_file
from rightbatch.experiments.tiers import find_stacking
from rightbatch.sampler import SideBySide
from rightbatch.timing import is_out_of_memory
from rightbatch.workload import Workload, failing_as


class Runner(Protocol):
    """What may have a run to train: where the store answers, it has none."""

    def trainee(self, budget: int) -> LiveRun | None:
        """Return the run to take to `budget`; None where nothing is to be trained."""
        ...

    def restart(self) -> LiveRun:
        """Return the run started anew."""
        ...


AnyRunner = TypeVar("AnyRunner", bound=Runner)


class Lockstep:
    """Takes several runs at one batch size to their budgets together.

    Args:
        workload: What they train.
        batch_size: Examples per step.
        required: Together or not at all, as somebody asked for it.
        graphs: Compile their steps; None to leave them as they are.
    """

    def __init__(
        self,
        workload: Workload,
        batch_size: int,
        *,
        required: bool = False,
        graphs: CompiledGraphs | None = None,
    ) -> None:
        self._required = required
        self._graphs = graphs
        self._workload = workload
        self._batch_size = batch_size
        self._stacked: _Stacked | None = None
        self._tried = False

    def advance(self, going: Sequence[tuple[AnyRunner, int]]) -> Iterator[AnyRunner]:
        """Yield each as it has come to its budget or its end.

        Args:
            going: Each with its budget, in updates.

        Raises:
            RightbatchError: All of them together do not fit into memory, and it is
                required.
            InputError: Compiled graphs are required and cannot be had.
            WorkloadFailedError: The workload's own code raised.
        """
        members: list[tuple[AnyRunner, _Member]] = []
        left: list[tuple[AnyRunner, int]] = []
        for runner, budget in going:
            live = runner.trainee(budget)
            if live is None:
                yield runner
                continue
            if self._forward is not None and live.tier == "plain":
                live.tier = "stacked"
            members.append((runner, _Member(live, budget)))
        # Neighbours of one learning rate are one parameter to the optimizer.
        members.sort(key=lambda pair: pair[1].place)
        while members:
            going_on = [pair for pair in members if pair[1].look_ahead()]
            if len(going_on) < len(members):
                self._let_go()
            yield from (runner for runner, member in members if member.stop is None)
            members = going_on
            try:
                self._train([member for _, member in members])
            except RightbatchError as error:
                if self._required or not isinstance(error, _NotTogether):
                    raise
                self._stacked = self._forward = None
                left = [(runner, member.budget) for runner, member in members]
                members = []
            # How far a step that failed went is not known.
            for runner, budget in left:
                runner.restart().advance(budget)
                yield runner
        self._let_go()

    @cached_property
    def _forward(self) -> Forward | None:
        # Looked for when there is something to train.
        return find_stacking(self._workload, self._batch_size).forward

    def _train(self, members: Sequence["_Member"]) -> None:
        alone = len(members) == 1 and not members[0].losses
        if alone or self._forward is None:
            for member in members:
                member.live.advance(member.budget)
        elif members:
            if self._stacked is None:
                lives = [member.live for member in members]
                self._stacked = _Stacked(
                    self._workload, lives, self._forward, self._graphs
                )
                # Of as many members and rows as it will ever have.
                if not self._tried:
                    self._stacked.check()
                self._tried = True
            steps = min(member.steps_left() for member in members)
            losses, seconds = self._stacked.train(steps)
            for member, own in zip(members, losses, strict=True):
                member.take(own, seconds / len(members))

    def _let_go(self) -> None:
        if self._stacked is not None:
            self._stacked.release()
            self._stacked = None


class _NotTogether(RightbatchError):
    """All of them do not fit into memory, or are not what each is by itself."""


class _Stacked:
    """A stack, and the batches of its members."""

    def __init__(
        self,
        workload: Workload,
        lives: Sequence[LiveRun],
        forward: Forward,
        graphs: CompiledGraphs | None,
    ) -> None:
        batch_size = lives[0].settings.batch_size
        together = f"batch size {batch_size}, {len(lives)} runs together"
        self._what = f"{workload.name} ({together})"
        self._file = loss_file(workload)
        with self._guarded():
            self._build(lives, forward, graphs, batch_size)

    def _build(
        self,
        lives: Sequence[LiveRun],
        forward: Forward,
        graphs: CompiledGraphs | None,
        batch_size: int,
    ) -> None:
        self._stack = Stack([live.update for live in lives], forward)
        self._own_streams = streams = [live.stream for live in lives]
        self._batch_size = batch_size
        self._compiled: CompiledStack | None = None
        if graphs is not None:
            self._compiled = graphs.compiled(self._stack, streams, batch_size)
        if self._compiled is None:
            self._streams = SideBySide(streams, batch_size)
        else:
            width = self._compiled.width
            self._streams = SideBySide(streams, batch_size, width=width)
            for live in lives:
                live.tier = "compiled"

    def check(self) -> None:
        """Compare with the runs by themselves, on the first batch.

        Raises:
            _NotTogether: Their losses are others.
        """
        # Never settled: the streams do not learn of it.
        ahead = SideBySide(self._own_streams, self._batch_size)
        with self._guarded():
            agree = self._stack.agrees(ahead.next())
        if not agree:
            told = f"{self._what}: together they have other losses than one by one."
            raise _NotTogether(told, "--tier plain")

    def train(self, steps: int) -> tuple[Tensor, float]:
        """Return the losses, shape (S, steps), and the seconds they took."""
        start = perf_counter()
        batches = (self._streams.next() for _ in range(steps))
        with self._guarded():
            if self._compiled is not None:
                losses = self._compiled(batches)
            else:
                losses = torch.stack([self._stack(b) for b in batches], dim=1)
        return losses, perf_counter() - start

    @contextmanager
    def _guarded(self) -> Generator[None]:
        with failing_as(self._what, self._file):
            try:
                yield
            except (MemoryError, RuntimeError) as error:
                if is_out_of_memory(error):
                    told = f"{self._what}: the memory does not suffice."
                    raise _NotTogether(told, "--tier plain") from error
                raise

    def release(self) -> None:
        self._stack.release()
        self._streams.settle()


@dataclass(slots=True)
class _Member:
    """A run on its way to its next judgement."""

    live: LiveRun
    budget: int
    stop: int | None = None
    losses: list[Tensor] = field(default_factory=list[Tensor])
    seconds: float = 0.0

    @property
    def place(self) -> tuple[float, int]:
        return self.live.settings.lr, self.live.settings.seed

    def look_ahead(self) -> bool:
        """Return whether there is more to train."""
        self.stop = self.live.stop_within(self.budget)
        return self.stop is not None

    def steps_left(self) -> int:
        made = sum(len(part) for part in self.losses)
        return (self.stop or 0) - self.live.step - made

    def take(self, losses: Tensor, seconds: float) -> None:
        self.losses.append(losses)
        self.seconds += seconds
        if self.steps_left() == 0:
            self.live.take(torch.cat(self.losses), self.seconds)
            self.losses, self.seconds = [], 0.0
