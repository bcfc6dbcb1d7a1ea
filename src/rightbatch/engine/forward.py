"""The losses of several models at once, each on rows of its own.

Two ways, for the same answer. ``torch.vmap`` goes through the model's own code for each
member by itself, and stops where that draws random numbers or branches on what it
computes. A model's twin (:mod:`rightbatch.engine.twins`) is the faster, but of a branch
on the mean of a batch it would never know: it is taken only where vmap gets through.
Neither is believed: :func:`find_forward` holds losses and gradients against those of
the models one by one, on real rows, and says why where nothing fits.
"""

import pickle
import random
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from rightbatch.engine.flat import Update, has_hooks
from rightbatch.engine.twins import bind, make_twin

Batch = tuple[Tensor, ...]
# Sums in another order: a few hundred roundings of float32, or of float64.
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-10}
MODULE_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)
PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
# Looked at for themselves, or values that training is to change.
NO_ATTRIBUTES = ("_parameters", "_buffers", "_modules")


class Forward(Protocol):
    """The losses of S models, each on M rows."""

    name: str

    def losses(self, stacked: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each row, shape (M S,), row m S + s of member s.

        Args:
            stacked: The parameters by name, shape (S, ...).
            batch: Tensors of M S rows, in the same order.
        """
        ...


class Twin:
    """By a twin of the model.

    Args:
        twin: As :func:`rightbatch.engine.twins.make_twin` returns it.
        loss: The workload's.
    """

    name = "twin"

    def __init__(
        self, twin: nn.Module, loss: Callable[[nn.Module, Any], Tensor]
    ) -> None:
        self._twin = twin
        self._loss = loss
        self._bound: Mapping[str, Tensor] | None = None

    def losses(self, stacked: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each row, shape (M S,)."""
        if stacked is not self._bound:
            bind(self._twin, stacked)
            self._bound = stacked
        return self._loss(self._twin, batch)


class Mapped:
    """By ``torch.vmap`` over the members.

    Args:
        model: Any of the models; its parameters are not used.
        loss: The workload's.
    """

    name = "vmap"

    def __init__(
        self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]
    ) -> None:
        self._module = _Losses(model, loss)

    def losses(self, stacked: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the loss of each row, shape (M S,)."""
        members = len(next(iter(stacked.values())))
        rows = tuple(part.unflatten(0, (-1, members)) for part in batch)
        named = {f"model.{name}": value for name, value in stacked.items()}

        def one(parameters: dict[str, Tensor], *batch: Tensor) -> Tensor:
            return functional_call(self._module, parameters, (batch,))

        axes = (0, *(1 for _ in rows))
        losses: Tensor = torch.vmap(one, in_dims=axes, out_dims=1)(named, *rows)
        return losses.flatten()


class _Losses(nn.Module):
    """A model and its loss as one module, whose parameters can be exchanged."""

    def __init__(
        self, model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]
    ) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(self.model, batch)


class Found(NamedTuple):
    """How models can be stacked, or why they cannot: one of the two is there."""

    forward: Forward | None
    reason: str = ""


def find_forward(updates: Sequence[Update], batches: Sequence[Any]) -> Found:
    """Return the first way that gives the gradients of the models one by one.

    Args:
        updates: Two at least, of fresh models of one kind; none is trained.
        batches: One for each, all of one size.

    Example:
        >>> from torch.optim import SGD
        >>> from rightbatch.engine.flat import make_update
        >>> def loss(model, batch):
        ...     return model(*batch).square().sum(1)
        >>> updates = [make_update(nn.Linear(2, 3), SGD, loss, 0.1) for _ in range(2)]
        >>> find_forward(updates, [(torch.ones(4, 2),)] * 2).forward.name
        'twin'
    """
    reason = _objection(updates, batches)
    if reason:
        return Found(None, reason)
    # Each model on rows of its own, then on another's.
    probes = (batches, [*batches[1:], batches[0]])
    with _global_generators_kept():
        expected, reason = _alone(updates, probes)
        if reason:
            return Found(None, reason)
        model, loss = updates[0].model, updates[0].loss
        mapped = Mapped(model, loss)
        if reason := _mismatch(mapped, updates, probes, expected):
            return Found(None, reason)
        twin = _twin_or_none(model, loss)
        if twin is None or _mismatch(twin, updates, probes, expected):
            return Found(mapped)
        return Found(twin)


def interleaved(batches: Sequence[Batch]) -> Batch:
    """Return the batches of S members as one, row m S + s of member s.

    Example:
        >>> interleaved([(torch.tensor([1, 2]),), (torch.tensor([3, 4]),)])
        (tensor([1, 3, 2, 4]),)
    """
    return tuple(
        torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*batches, strict=True)
    )


def stacked_parameters(models: Iterable[nn.Module]) -> dict[str, Tensor]:
    """Return copies of the models' parameters by name, shape (S, ...)."""
    named = [dict(model.named_parameters()) for model in models]
    return {
        name: torch.stack([one[name].detach() for one in named]) for name in named[0]
    }


def _objection(updates: Sequence[Update], batches: Sequence[Any]) -> str:
    if not all(update.flat_groups for update in updates):
        return "its optimizer or its parameters are for the plain path only"
    if any(has_hooks(update.optimizer) for update in updates):
        return "its optimizer has hooks"
    if not all(
        isinstance(batch, tuple) and all(isinstance(t, Tensor) for t in batch)
        for batch in batches
    ):
        return "a batch is no tuple of tensors"
    return _objection_to_model(updates)


def _objection_to_model(updates: Sequence[Update]) -> str:
    model = updates[0].model
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        return "batch normalization makes one example's loss depend on others"
    if not all(parameter.requires_grad for parameter in model.parameters()):
        return "some of its parameters are not trained"
    if not all(map(_trains_all, updates)):
        return "its optimizer has not exactly its parameters"
    if any(_is_watched(update.model) for update in updates):
        return "its parameters or layers have hooks"
    return ""


def _trains_all(update: Update) -> bool:
    return {p for group in update.flat_groups for p in group.parameters} == set(
        update.model.parameters()
    )


def _is_watched(model: nn.Module) -> bool:
    return any(
        getattr(module, name) for module in model.modules() for name in MODULE_HOOKS
    ) or any(
        getattr(parameter, name)
        for parameter in model.parameters()
        for name in PARAMETER_HOOKS
    )


def _alone(
    updates: Sequence[Update], probes: Sequence[Sequence[Any]]
) -> tuple[list[dict[str, Tensor]], str]:
    """Return losses and gradients of each probe, or why they are not to be had."""
    models = [update.model for update in updates]
    buffers, attributes = _buffers(models[0]), _attributes(models)
    draws = _global_generators()
    singly = [
        [_gradients(u, b) for u, b in zip(updates, probe, strict=True)]
        for probe in probes
    ]
    again = _gradients(updates[0], probes[0][0])
    every = [again, *(one for each in singly for one in each)]
    if any(value is None for one in every for value in one.values()):
        return [], "a parameter takes no part in the loss"
    if draws != _global_generators() or _differ(again, singly[0][0]):
        return [], "its loss draws random numbers, or remembers"
    if not all(_equal(buffers, _buffers(model)) for model in models):
        return [], "its buffers change, or differ from seed to seed"
    if attributes != _attributes(models):
        return [], "its attributes change from pass to pass"
    return [
        {key: torch.stack([one[key] for one in each]) for key in again}
        for each in singly
    ], ""


def _mismatch(
    way: Forward,
    updates: Sequence[Update],
    probes: Sequence[Sequence[Any]],
    expected: Sequence[Mapping[str, Tensor]],
) -> str:
    """Return why a way is not to be taken; empty where it may be."""
    try:
        with warnings.catch_warnings():
            # Of vmap being slow where it is only asked whether it gets through.
            warnings.simplefilter("ignore")
            found = [_stacked_gradients(way, updates, probe) for probe in probes]
    except Exception as error:
        # The user's code meets tensors that it was not written for.
        return f"it cannot be stacked ({type(error).__name__})"
    if any(map(_differ, found, expected)):
        return "stacked, it has other gradients"
    return ""


def _twin_or_none(
    model: nn.Module, loss: Callable[[nn.Module, Any], Tensor]
) -> Twin | None:
    try:
        twin = make_twin(model)
    except Exception:
        # Locks, open files and the like cannot be copied.
        return None
    return None if twin is None else Twin(twin, loss)


def _gradients(update: Update, batch: Any) -> dict[str, Any]:
    losses = update.loss(update.model, batch)
    names, parameters = zip(*update.model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(losses.mean(), parameters, allow_unused=True)
    return {"": losses.detach(), **dict(zip(names, gradients, strict=True))}


def _stacked_gradients(
    way: Forward, updates: Sequence[Update], batches: Sequence[Any]
) -> dict[str, Tensor]:
    stacked = stacked_parameters(update.model for update in updates)
    for leaf in stacked.values():
        leaf.requires_grad_()
    losses = way.losses(stacked, interleaved(batches))
    by_member = losses.view(-1, len(updates))
    gradients = torch.autograd.grad(by_member.mean(0).sum(), list(stacked.values()))
    return {"": by_member.detach().T, **dict(zip(stacked, gradients, strict=True))}


def _buffers(model: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def _attributes(models: Iterable[nn.Module]) -> list[Any]:
    """Return what the modules keep beside parameters and buffers, to be compared."""
    return [
        (name, _frozen(value))
        for model in models
        for module in model.modules()
        for name, value in vars(module).items()
        if name not in NO_ATTRIBUTES
    ]


def _frozen(value: Any) -> Any:
    """Return what is different once the value has changed; which it is if in doubt."""
    try:
        return pickle.dumps(value)
    except Exception:
        return id(value)


def _global_generators() -> list[Any]:
    numbers = torch.get_rng_state().tolist()
    return [numbers, random.getstate(), _frozen(np.random.get_state())]


@contextmanager
def _global_generators_kept() -> Generator[None]:
    ours, numpys = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(ours)
            np.random.set_state(numpys)


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def _differ(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return not all(
        found[name].shape == value.shape
        and bool((found[name] - value).norm() <= _tolerance(value) * value.norm())
        for name, value in expected.items()
    )


def _tolerance(value: Tensor) -> float:
    return TOLERANCES.get(value.dtype, 0.0)
