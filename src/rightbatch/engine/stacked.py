"""Runs at one batch size advanced in lockstep, one update of all for one call.

An update of a small model is mostly overhead, the same for one model as for twenty.
So the parameters of S runs become rows of one buffer, and one forward and one backward
pass serve all. Each member keeps its own examples, learning rate and optimizer state,
and its trajectory is that of the plain loop to float rounding.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from rightbatch.engine.flat import FlatGroup, Update, parts_of
from rightbatch.engine.forward import TOLERANCES, Batch, Forward
from rightbatch.errors import WorkloadError


class Stack:
    """Several runs as one: called with all their batches, it updates each.

    While they are stacked, the models' parameters are views of the stack, so that a
    model can be evaluated at any time; the members' own updates must not be called.
    Learning rates are read when the stack is made.

    Args:
        updates: Of models of one kind, with optimizers of one kind, made by
            :func:`rightbatch.engine.make_update`. Those of equal learning rates had
            better be neighbours.
        forward: As :func:`rightbatch.engine.find_forward` returns it.

    Example:
        >>> from rightbatch.engine import find_forward, make_update
        >>> def loss(model, batch):
        ...     return (model(batch[0]) - 1).square().sum(1)
        >>> models = [nn.Linear(1, 1, bias=False) for _ in range(2)]
        >>> batches = [(torch.ones(4, 1),) for _ in models]
        >>> updates = [make_update(model, SGD, loss, 0.5) for model in models]
        >>> stack = Stack(updates, find_forward(updates, batches).forward)
        >>> losses = stack((torch.ones(4 * 2, 1),))
        >>> losses.shape, [round(model.weight.item(), 6) for model in models]
        (torch.Size([2]), [1.0, 1.0])
    """

    def __init__(self, updates: Sequence[Update], forward: Forward) -> None:
        self._updates = tuple(updates)
        self._forward = forward
        per_update = [update.flat_groups for update in updates]
        self._rows = [_Rows(groups) for groups in zip(*per_update, strict=True)]
        self._leaves = self._named_leaves()
        optimizers = [update.optimizer for update in updates]
        self._optimizer: _StackedOptimizer = (
            _Addition(self._rows)
            if all(map(is_addition, optimizers))
            else _Optimizer(self._rows, optimizers)
        )
        self._weights = torch.empty(0)

    def __len__(self) -> int:
        return len(self._updates)

    def __call__(self, batch: Batch) -> Tensor:
        """Make one update of each member.

        Args:
            batch: Tensors of M S rows; row m S + s is member s's m-th.

        Returns:
            Each member's mean loss before the update, detached, shape (S,).

        Raises:
            WorkloadError: A parameter took no part in the loss.
        """
        for leaf in self._leaves.values():
            leaf.grad = None
        losses = self._forward.losses(self._leaves, batch)
        members = len(self._updates)
        weights = self._weights
        if weights.shape != losses.shape:
            weights = torch.full_like(losses, members / len(losses)).detach()
            self._weights = weights
        losses.backward(weights)
        self._optimizer.step()
        return (losses.detach() * weights).view(-1, members).sum(0)

    @property
    def forward(self) -> Forward:
        """Gives the losses of all members."""
        return self._forward

    @property
    def leaves(self) -> Mapping[str, Tensor]:
        """The members' parameters by name, shape (S, ...)."""
        return self._leaves

    def factors(self) -> tuple[list[Tensor], list[Tensor]] | None:
        """Return what an update multiplies by, where it is no more than an addition.

        It takes a parameter w with gradient g to k w - lr g.

        Returns:
            The learning rates lr and the factors k = 1 - lr x weight decay, of each of
            the leaves, shape (S, 1, ...); None where the optimizer is another.
        """
        return self._optimizer.factors()

    @torch.no_grad()
    def put(self, values: Sequence[Tensor]) -> None:
        """Set the parameters to those that updates made elsewhere led to.

        Args:
            values: In the order of the leaves, shape (S, ...).
        """
        for leaf, value in zip(self._leaves.values(), values, strict=True):
            leaf.copy_(value)

    def agrees(self, batch: Batch) -> bool:
        """Return whether each member by itself has the same losses.

        A model's code that asks how many rows there are is told another number here.

        Args:
            batch: As for an update; none is made.
        """
        members = len(self)
        with torch.no_grad():
            together = self._forward.losses(self._leaves, batch).view(-1, members)
            for place, update in enumerate(self._updates):
                own = tuple(part[place::members] for part in batch)
                alone = update.loss(update.model, own)
                off = (together[:, place] - alone).norm()
                size = alone.norm()
                if size.isfinite() and off > TOLERANCES.get(alone.dtype, 0.0) * size:
                    return False
        return True

    def release(self) -> None:
        """Give the members their parameters and optimizer states back."""
        self._optimizer.release()
        for rows in self._rows:
            rows.release()

    def _named_leaves(self) -> dict[str, Tensor]:
        names = {p: name for name, p in self._updates[0].model.named_parameters()}
        return {
            names[parameter]: leaf
            for rows in self._rows
            for parameter, leaf in zip(
                rows.groups[0].parameters, rows.leaves, strict=True
            )
        }


class _StackedOptimizer(Protocol):
    def step(self) -> None: ...

    def factors(self) -> tuple[list[Tensor], list[Tensor]] | None: ...

    def release(self) -> None: ...


class _Rows:
    """The members' flat buffers of one group, stacked: shape (S, n)."""

    def __init__(self, groups: Sequence[FlatGroup]) -> None:
        self.groups = groups
        self.rows = torch.stack([group.flat.detach() for group in groups])
        self.leaves = [part.detach().requires_grad_() for part in self.split(self.rows)]
        for row, group in zip(self.rows, groups, strict=True):
            _point(group.parameters, row)

    def split(self, rows: Tensor) -> list[Tensor]:
        """Return views of rows, shape (S, ...) for each parameter."""
        parameters = self.groups[0].parameters
        pieces = rows.split([p.numel() for p in parameters], dim=1)
        return [
            piece.view(len(rows), *parameter.shape)
            for piece, parameter in zip(pieces, parameters, strict=True)
        ]

    def gradients(self) -> list[Tensor]:
        """Return the leaves' gradients.

        Raises:
            WorkloadError: There is none for one of them.
        """
        gradients = [leaf.grad for leaf in self.leaves]
        if any(gradient is None for gradient in gradients):
            raise WorkloadError(
                "workload: a parameter took no part in the loss of one batch, which "
                "runs advanced together cannot follow.",
                "--tier plain",
            )
        return [gradient for gradient in gradients if gradient is not None]

    def release(self) -> None:
        for row, group in zip(self.rows, self.groups, strict=True):
            group.flat.data.copy_(row)
            _point(group.parameters, group.flat.data)


class _Addition:
    """SGD with at most weight decay: a scaled addition, each row with its own lr."""

    def __init__(self, all_rows: Iterable[_Rows]) -> None:
        self._all = [(rows, *_decay_and_lrs(rows)) for rows in all_rows]

    @torch.no_grad()
    def step(self) -> None:
        for rows, decay, lrs in self._all:
            gradients = rows.gradients()
            if decay is not None:
                rows.rows.mul_(decay)
            for leaf, gradient, lr in zip(rows.leaves, gradients, lrs, strict=True):
                leaf.addcmul_(gradient, lr, value=-1)

    def factors(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return learning rates and what weight decay keeps, leaf by leaf."""
        every = [(decay, lr) for _, decay, lrs in self._all for lr in lrs]
        return [lr for _, lr in every], [
            torch.ones_like(lr) if decay is None else decay.view(lr.shape)
            for decay, lr in every
        ]

    def release(self) -> None:
        """Nothing is remembered from step to step."""


def _decay_and_lrs(rows: _Rows) -> tuple[Tensor | None, list[Tensor]]:
    options = [group.options for group in rows.groups]
    lrs = rows.rows.new_tensor([one["lr"] for one in options])
    decays = lrs * lrs.new_tensor([one["weight_decay"] for one in options])
    kept = (1 - decays).unsqueeze(1) if bool(decays.any()) else None
    return kept, [lrs.view(-1, *([1] * (leaf.ndim - 1))) for leaf in rows.leaves]


class _Optimizer:
    """The members' optimizer itself, on the rows: it acts on every number alike.

    Neighbours with the same settings and the same number of steps behind them are one
    flat parameter.
    """

    def __init__(
        self, all_rows: Sequence[_Rows], optimizers: Sequence[Optimizer]
    ) -> None:
        self._gradients = [torch.zeros_like(rows.rows) for rows in all_rows]
        self._parts = [
            (rows, rows.split(gradient))
            for rows, gradient in zip(all_rows, self._gradients, strict=True)
        ]
        self._blocks = [
            block
            for rows, gradient in zip(all_rows, self._gradients, strict=True)
            for block in _blocks(rows, gradient, optimizers)
        ]
        kind: Any = type(optimizers[0])
        self._optimizer: Optimizer = kind(
            [{**b.options, "params": [b.parameter]} for b in self._blocks]
        )
        for block in self._blocks:
            if block.state:
                self._optimizer.state[block.parameter] = block.state

    @torch.no_grad()
    def step(self) -> None:
        for rows, parts in self._parts:
            for part, gradient in zip(parts, rows.gradients(), strict=True):
                part.copy_(gradient)
        self._optimizer.step()

    def factors(self) -> None:
        """Return nothing: it keeps a state."""

    def release(self) -> None:
        for block in self._blocks:
            block.release(self._optimizer.state[block.parameter])


class _Block:
    """Neighbouring rows with the same options, as one flat parameter."""

    def __init__(
        self, rows: Tensor, members: Sequence[tuple[FlatGroup, Optimizer]]
    ) -> None:
        self._members = members
        self._shape = rows.shape
        self.parameter = rows.view(-1)
        group, _ = members[0]
        self.options = {k: v for k, v in group.options.items() if k != "params"}
        states = [o.state.get(g.flat, {}) for g, o in members]
        self.state = {
            key: torch.stack([state[key] for state in states]).view(-1)
            if _is_row(value, group.flat)
            else _copied(value)
            for key, value in states[0].items()
        }

    def release(self, state: Mapping[str, Any]) -> None:
        """Give each member its part of the optimizer's state."""
        for place, (group, optimizer) in enumerate(self._members):
            optimizer.state[group.flat].update(
                (key, _copied(self._part(value, place))) for key, value in state.items()
            )

    def _part(self, value: Any, place: int) -> Any:
        if isinstance(value, Tensor) and value.shape == self.parameter.shape:
            return value.view(self._shape)[place]
        return value


def _blocks(
    rows: _Rows, gradient: Tensor, optimizers: Sequence[Optimizer]
) -> list[_Block]:
    members = list(zip(rows.groups, optimizers, strict=True))
    blocks: list[_Block] = []
    start = 0
    for _, same in groupby(members, key=_settings):
        some = list(same)
        stop = start + len(some)
        block = _Block(rows.rows[start:stop], some)
        block.parameter.grad = gradient[start:stop].view(-1)
        blocks.append(block)
        start = stop
    return blocks


def _settings(member: tuple[FlatGroup, Optimizer]) -> tuple[Any, ...]:
    """Return what must agree for rows to be one parameter: options, steps made."""
    group, optimizer = member
    options = [(k, v) for k, v in sorted(group.options.items()) if k != "params"]
    state = optimizer.state.get(group.flat, {})
    scalars = [
        (key, value.item() if isinstance(value, Tensor) else value)
        for key, value in sorted(state.items())
        if not _is_row(value, group.flat)
    ]
    return (options, scalars, sorted(state))


def _is_row(value: Any, flat: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == flat.shape


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _point(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    for parameter, part in zip(parameters, parts_of(flat, parameters), strict=True):
        parameter.data = part


def is_addition(optimizer: Optimizer) -> bool:
    """Return whether an update is no more than a scaled addition: SGD, decay or none.

    Example:
        >>> parameters = nn.Linear(1, 1).parameters()
        >>> is_addition(SGD(parameters, lr=0.1, weight_decay=0.01))
        True
    """
    return type(optimizer) is SGD and all(
        isinstance(group["lr"], (int, float))
        and not (group["momentum"] or group["maximize"])
        for group in optimizer.param_groups
    )
