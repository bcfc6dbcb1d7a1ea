"""Whole steps of a stack of runs as one compiled function.

What is left of a stacked update of a small model is the overhead of some sixty
operations: a compiler makes a few loops of them. A few steps are unrolled into one
function of parameters, learning rates and batches, which is traced on real rows and
compiled by torch's inductor, with the machine's C++ compiler. It is not believed:
:func:`compile_steps` holds it against the same function uncompiled, on rows it was not
traced on, and says why where it is not to be had.

A function is for a number of members. Fewer are filled up with copies of the first
one, whose learning rate is 0, and fewer steps than it makes are marked as not to be
made, so that neither needs another compile.
"""

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import process_time
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from rightbatch.engine.flat import Update
from rightbatch.engine.forward import TOLERANCES, Batch
from rightbatch.engine.stacked import Stack, is_addition

# On a small MLP one step compiles in 10 s of CPU, four in 17 and eight in 28, and is 5,
# 6.8 and 7.1 times as fast as a stack's own; a run is judged every few steps at first.
STEPS = 4
# A parameter and its change are a few roundings apart where the change is small.
ROUNDINGS = 4

Function = Callable[..., Sequence[Tensor]]
Compiler = Callable[[Any, list[Tensor]], Function]


@dataclass(frozen=True, slots=True)
class CompiledSteps:
    """A function that makes up to `num_steps` whole steps of up to `members` runs.

    Args:
        function: Of flat arguments, as :class:`CompiledStack` gives them.
        num_steps: In one call.
        members: Runs that it is for.
        gain: How many times as fast it is as uncompiled, by a short timing.
    """

    function: Function
    num_steps: int
    members: int
    gain: float


class Compilation(NamedTuple):
    """Compiled steps, or why there are none: one of the two is there."""

    steps: CompiledSteps | None
    reason: str = ""


class CompiledStack:
    """A stack whose steps are made by a compiled function.

    The stack must not be called meanwhile.

    Args:
        stack: Of at most as many members as the function is for.
        steps: As :func:`compile_steps` returns them, of a stack of the same models.

    Example:
        >>> from torch import nn
        >>> from torch.optim import SGD
        >>> from rightbatch.engine import find_forward, make_update
        >>> def loss(model, batch):
        ...     return (model(batch[0]) - 1).square().sum(1)
        >>> models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
        >>> updates = [make_update(model, SGD, loss, 0.5) for model in models]
        >>> batches = [(torch.ones(4 * 2, 1),)] * (2 * STEPS)
        >>> found = find_forward(updates, [(torch.ones(4, 1),)] * 2)
        >>> stack = Stack(updates, found.forward)
        >>> as_it_is = lambda graph, arguments: graph
        >>> steps, _ = compile_steps(stack, batches, compiler=as_it_is)
        >>> losses = CompiledStack(stack, steps)(batches[:5])
        >>> losses.shape, [round(model.weight.item(), 6) for model in models]
        (torch.Size([2, 5]), [1.0, 1.0])
    """

    def __init__(self, stack: Stack, steps: CompiledSteps) -> None:
        self._stack = stack
        self._steps = steps
        self._values, self._factors = _arguments(stack, steps.members)
        self._going = _going(steps.num_steps)

    @property
    def width(self) -> int:
        """Members that a batch has rows for; those of the filling are not used."""
        return self._steps.members

    def __call__(self, batches: Iterable[Batch]) -> Tensor:
        """Make one update of each member per batch.

        Args:
            batches: Each of tensors of M `width` rows; row m `width` + s is member
                s's m-th.

        Returns:
            Each member's mean losses before the updates, shape (S, number of batches).
        """
        coming, losses = iter(batches), list[Tensor]()
        members, most = len(self._stack), self._steps.num_steps
        while some := list(islice(coming, most)):
            count = len(some)
            # Any rows will do for the steps that are not to be made.
            some += some[-1:] * (most - count)
            *self._values, each = self._steps.function(
                *self._values, *self._factors, self._going[count], *_flat(some)
            )
            losses.append(each[:members, :count])
        self._stack.put([value[:members] for value in self._values])
        return torch.cat(losses, dim=1)


def objection_to_compiling(updates: Sequence[Update]) -> str:
    """Return why no stack of these updates can be compiled; empty where one may.

    Args:
        updates: Of models that can be stacked.

    Example:
        >>> from torch import nn
        >>> from torch.optim import Adam
        >>> from rightbatch.engine import make_update
        >>> def loss(model, batch):
        ...     return model(batch[0]).square().sum(1)
        >>> objection_to_compiling([make_update(nn.Linear(1, 1), Adam, loss, 0.5)])
        'its optimizer is more than SGD with weight decay'
    """
    if not all(is_addition(update.optimizer) for update in updates):
        return "its optimizer is more than SGD with weight decay"
    if any(p.device.type != "cpu" for u in updates for p in u.model.parameters()):
        return "its parameters are not on the CPU"
    # As torch's inductor looks for it.
    usual = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    name = os.environ.get("CXX", usual)
    if shutil.which(name) is None:
        return f"there is no C++ compiler {name}"
    return ""


def inductor(graph: Any, arguments: list[Tensor]) -> Function:
    """Return the graph compiled by torch's inductor, in this process."""
    # Imported late: it takes seconds. Not torch.compile: of a graph that is traced
    # already, its own tracing and guards are only a cost.
    from torch._inductor import (  # pyright: ignore[reportPrivateUsage]
        compile as compiled,  # pyright: ignore[reportUnknownVariableType]
    )

    # By itself, without processes that would outlast it.
    options = {"compile_threads": 1}
    return cast(Function, compiled(graph, [*arguments], options=options))


def compile_steps(
    stack: Stack,
    batches: Sequence[Batch],
    *,
    num_steps: int = STEPS,
    compiler: Compiler = inductor,
) -> Compilation:
    """Return whole steps of a stack as one compiled function, once it is tried.

    Args:
        stack: Is left as it is. What is compiled serves other stacks of the same
            models too, of as many members or fewer.
        batches: Twice `num_steps` of its batches.
        num_steps: In one call.
        compiler: Makes a function of a traced graph and its arguments.
    """
    if stack.factors() is None:
        return Compilation(None, "its optimizer is more than SGD with weight decay")
    members = len(stack)
    eager = _Unrolled(stack, num_steps)
    values, factors = _arguments(stack, members)
    going = _going(num_steps)[num_steps]
    traced_on = [*values, *factors, going, *_flat(batches[:num_steps])]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Of the compiler's own making; nobody could do anything about them.
            warnings.simplefilter("ignore")
            graph = make_fx(eager)(*traced_on)
            graph.graph.eliminate_dead_code()
            graph.recompile()
            function = compiler(graph, traced_on)
            trial = _Trial(values, factors, _flat(batches[num_steps:]), num_steps)
            agree, gain = trial.compare(function, eager)
    except Exception as error:
        # The user's code meets a tracer, and a graph the compilers of a machine.
        return Compilation(None, f"it cannot be compiled ({type(error).__name__})")
    if not agree:
        return Compilation(None, "compiled, it has other gradients")
    return Compilation(CompiledSteps(function, num_steps, members, gain))


class _Unrolled:
    """Several steps of a stack as one function of flat arguments, to be traced."""

    def __init__(self, stack: Stack, num_steps: int) -> None:
        self._losses_of = stack.forward.losses
        self._names = list(stack.leaves)
        self._members = len(stack)
        self._num_steps = num_steps

    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Return the parameters afterwards, and the losses, shape (S, num_steps)."""
        coming, count = iter(arguments), len(self._names)
        values, lrs, kept = (list(islice(coming, count)) for _ in range(3))
        going = next(coming)
        rest = list(coming)
        size = len(rest) // self._num_steps
        losses: list[Tensor] = []
        for step in range(self._num_steps):
            batch = tuple(rest[step * size : (step + 1) * size])
            each, gradients = self._gradients(values, batch)
            losses.append(each)
            # Chosen, not multiplied by 0: what is not finite must not come through.
            values = [
                torch.where(going[step], torch.addcmul(v * k, g, lr, value=-1), v)
                for v, k, g, lr in zip(values, kept, gradients, lrs, strict=True)
            ]
        return (*values, torch.stack(losses, dim=1))

    @torch.enable_grad()
    def _gradients(
        self, values: Sequence[Tensor], batch: Batch
    ) -> tuple[Tensor, Sequence[Tensor]]:
        leaves = [value.detach().requires_grad_() for value in values]
        losses = self._losses_of(dict(zip(self._names, leaves, strict=True)), batch)
        each = losses.view(-1, self._members).mean(0)
        return each.detach(), torch.autograd.grad(each.sum(), leaves)


@dataclass(slots=True)
class _Trial:
    """A compiled function beside the same uncompiled.

    Of the unrolled steps one is made at a time, from where the one before it ended:
    over several an unstable learning rate enlarges roundings beyond any tolerance.
    """

    values: list[Tensor]
    factors: list[Tensor]
    batches: list[Tensor]
    num_steps: int

    def compare(self, function: Function, eager: Function) -> tuple[bool, float]:
        """Return whether they agree, and how many times as fast the first is."""
        ours = theirs = float("inf")
        for going in torch.eye(self.num_steps, dtype=torch.bool):
            arguments = [*self.values, *self.factors, going, *self.batches]
            start = process_time()
            *found, found_losses = function(*arguments)
            between = process_time()
            *expected, losses = eager(*arguments)
            ours = min(ours, between - start)
            theirs = min(theirs, process_time() - between)
            # The steps after the one made say how the losses would have gone on.
            made = slice(int(going.int().argmax()) + 1)
            if not _agree(found_losses[:, made], losses[:, made], 0.0) or not all(
                _agree(after - before, wanted - before, _rounding(wanted))
                for before, after, wanted in zip(
                    self.values, found, expected, strict=True
                )
            ):
                return False, 0.0
            self.values = expected
        return True, theirs / max(ours, 1e-9)


def _agree(found: Tensor, expected: Tensor, slack: Tensor | float) -> bool:
    """Return whether each row is the one expected; lost ones are not looked at."""
    if found.shape != expected.shape:
        return False
    off = (found - expected).flatten(1).norm(dim=1)
    size = expected.flatten(1).norm(dim=1)
    within = off <= TOLERANCES.get(expected.dtype, 0.0) * size + slack
    return bool((within | ~size.isfinite()).all())


def _rounding(values: Tensor) -> Tensor:
    return ROUNDINGS * torch.finfo(values.dtype).eps * values.flatten(1).norm(dim=1)


def _arguments(stack: Stack, width: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return parameters and factors of as many rows as there are members asked for."""
    factors = stack.factors()
    assert factors is not None
    lrs, kept = factors
    missing = width - len(stack)
    # Copies of a member: what it can be given, they can.
    values = [
        torch.cat([leaf.detach(), leaf.detach()[:1].repeat_interleave(missing, 0)])
        for leaf in stack.leaves.values()
    ]
    return values, [_filled(lr, missing, 0.0) for lr in lrs] + [
        _filled(part, missing, 1.0) for part in kept
    ]


def _filled(factor: Tensor, missing: int, value: float) -> Tensor:
    return torch.cat([factor, factor.new_full((missing, *factor.shape[1:]), value)])


def _going(num_steps: int) -> Tensor:
    """Return for each number of steps which are made: shape (n + 1, n), row c for c."""
    return torch.ones(num_steps + 1, num_steps).tril(-1).bool()


def _flat(batches: Iterable[Batch]) -> list[Tensor]:
    return [part for batch in batches for part in batch]
