"""A block after which a model, its optimizer and the generators are as before it."""

import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer


@contextmanager
def restored(model: nn.Module, optimizer: Optimizer | None = None) -> Generator[None]:
    """Return a block that leaves no trace, bit for bit, however it ends.

    Put back are parameters, buffers, gradients, the mode of each module; the
    optimizer's state, settings and attributes; and torch's, numpy's and Python's own
    generators. Copies are kept in the CPU's memory, so that the device has as much as
    without them. Not seen: what a module keeps in plain attributes, generators that a
    data set owns, and what hooks keep.

    Args:
        model: Trained in the block, or anything else.
        optimizer: Stepped in the block; its tensors stay the same objects.

    Yields:
        Nothing.

    Example:
        >>> layer = nn.BatchNorm1d(2)
        >>> with restored(layer):
        ...     _ = layer.train()(torch.rand(8, 2))
        >>> int(layer.num_batches_tracked)
        0
    """
    undo: list[_Generators | _Modules | _Settings] = [_Generators(), _Modules(model)]
    if optimizer is not None:
        undo.append(_Settings(optimizer))
    try:
        yield
    finally:
        for one in reversed(undo):
            one.put_back()


class _Copy:
    """A tensor and what it held; None stays None."""

    def __init__(self, tensor: Tensor | None) -> None:
        self.tensor = tensor
        self._held: Tensor | None = None
        if tensor is not None:
            self._held = _own_part(tensor).detach().to("cpu", copy=True)

    def put_back(self) -> Tensor | None:
        if self.tensor is not None and self._held is not None:
            with torch.no_grad():
                _own_part(self.tensor).copy_(self._held)
        return self.tensor


def _own_part(tensor: Tensor) -> Tensor:
    """Return what this process holds of a tensor that may be spread over several."""
    # Importing DTensor to ask for it takes a second.
    return cast(Any, tensor).to_local() if hasattr(tensor, "to_local") else tensor


class _Generators:
    """Where the global generators are."""

    def __init__(self) -> None:
        self._torch = torch.get_rng_state()
        # Asking a GPU that is not in use yet would start it.
        in_use = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._cuda = torch.cuda.get_rng_state_all() if in_use else []
        self._numpy = np.random.get_state()
        self._python = random.getstate()

    def put_back(self) -> None:
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        np.random.set_state(self._numpy)
        random.setstate(self._python)


class _Modules:
    """Parameters, gradients, buffers and modes."""

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [_Copy(p) for p in model.parameters()]
        self._gradients = [(p, _Copy(p.grad)) for p in model.parameters()]
        self._modes = [(module, module.training) for module in model.modules()]
        # By name in their module: a forward pass may put another tensor there.
        self._buffers = [
            (module, name, _Copy(buffer))
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def put_back(self) -> None:
        for copy in self._parameters:
            copy.put_back()
        for parameter, copy in self._gradients:
            parameter.grad = copy.put_back()
        for module, name, copy in self._buffers:
            setattr(module, name, copy.put_back())
        for module, mode in self._modes:
            module.training = mode


class _Settings:
    """An optimizer's state, its groups, and what a scheduler notes on it."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._attributes = dict(vars(optimizer))
        self._state = {
            parameter: _kept(state) for parameter, state in optimizer.state.items()
        }
        self._groups = [
            (group, _kept({k: v for k, v in group.items() if k != "params"}))
            for group in optimizer.param_groups
        ]

    def put_back(self) -> None:
        own = vars(self._optimizer)
        own.clear()
        own.update(self._attributes)
        state: dict[Any, dict[str, Any]] = self._optimizer.state
        for parameter in list(state):
            if parameter not in self._state:
                del state[parameter]
        for parameter, kept in self._state.items():
            _put_back(state[parameter], kept)
        for group, kept in self._groups:
            _put_back(group, {**kept, "params": group["params"]})


class _List:
    """A list and its members."""

    def __init__(self, members: list[Any]) -> None:
        self._list = members
        self._held = [_held(member) for member in members]

    def put_back(self) -> list[Any]:
        self._list[:] = [_released(member) for member in self._held]
        return self._list


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    return {name: _held(value) for name, value in values.items()}


def _held(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _Copy(value)
    return _List(cast(list[Any], value)) if isinstance(value, list) else value


def _released(value: Any) -> Any:
    return value.put_back() if isinstance(value, (_Copy, _List)) else value


def _put_back(values: dict[str, Any], kept: dict[str, Any]) -> None:
    for name in list(values):
        if name not in kept:
            del values[name]
    for name, value in kept.items():
        values[name] = _released(value)
