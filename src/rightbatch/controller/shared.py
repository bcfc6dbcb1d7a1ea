"""Who shares the gradient of a model, and what they tell each other."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from rightbatch.collectives import rank
from rightbatch.errors import InputError
from rightbatch.gradients.replicas import replicas_of
from rightbatch.sampler import Stream


class GradientSharing:
    """The replicas that one gradient is the mean over; a process alone is one.

    Args:
        model: As the loop calls it.

    Example:
        >>> GradientSharing(nn.Linear(1, 1)).num_replicas
        1
    """

    def __init__(self, model: nn.Module) -> None:
        self._replicas = replicas_of(model)
        self.model = model
        self.num_replicas = self._replicas.num
        self.is_sharded = self._replicas.sharded
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """Return the sums over replicas, in one exchange."""
        return self._replicas.sum(list(numbers))

    def agree(self, numbers: Sequence[float]) -> list[float]:
        """Return the numbers of the first replica; all must ask."""
        if self.num_replicas == 1:
            return list(numbers)
        # A sum with nothing from the others, as exact as a broadcast and one exchange.
        return self.sum([number if self.is_first else 0.0 for number in numbers])

    def without_exchange(self, *, is_last: bool) -> AbstractContextManager[None] | None:
        """Return the block of a pass that only adds up here; None for the last one.

        Args:
            is_last: Whether the gradient is exchanged after this pass.
        """
        if self.num_replicas == 1 or (is_last and not self.is_sharded):
            return None
        if not self.is_sharded:
            return _holder(self.model).no_sync()
        return _sharded_pass(self.model, is_last=is_last)

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.num_replicas == 1 or rank() == 0

    def state(
        self, model: nn.Module, optimizer: Optimizer
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the states of model and optimizer; whole where they are sharded."""
        if not self.is_sharded:
            inner = _unwrapped(model)
            return inner.state_dict(), _by_name(optimizer, inner)
        from torch.distributed.checkpoint.state_dict import get_state_dict

        weights, settings = get_state_dict(model, optimizer, options=_whole())
        return dict(weights), dict(settings)

    def load(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        weights: dict[str, Any],
        settings: dict[str, Any],
    ) -> None:
        """Put states back, from however many replicas they were written."""
        if not self.is_sharded:
            inner = _unwrapped(model)
            inner.load_state_dict(weights)
            optimizer.load_state_dict(_by_place(settings, optimizer, inner))
            return
        from torch.distributed.checkpoint.state_dict import set_state_dict

        set_state_dict(
            model,
            optimizer,
            model_state_dict=weights,
            optim_state_dict=settings,
            options=_whole(),
        )


def check_places(sharing: GradientSharing, stream: Stream) -> None:
    """Check that model and stream are on one device and of the same replicas.

    Args:
        sharing: Of the model.
        stream: Of examples.

    Raises:
        InputError: They are not.
    """
    if sharing.device != stream.device:
        raise InputError(
            f"BatchSizeController: the model is on {sharing.device}, the stream's "
            f"batches are on {stream.device}.",
            "move the model, or give the stream Loading(device=...)",
        )
    if sharing.num_replicas != stream.num_replicas:
        raise InputError(
            f"BatchSizeController: the stream is cut for {stream.num_replicas} "
            f"replicas, the model is shared by {sharing.num_replicas}.",
            "wrap the model in DistributedDataParallel or fully_shard before, or give "
            "the stream Loading(num_replicas=...)",
        )


def _whole() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself inside what wraps it: one process can go on from it."""
    inner: Any = model
    while hasattr(inner, "_orig_mod") or hasattr(inner, "no_sync"):
        inner = inner._orig_mod if hasattr(inner, "_orig_mod") else inner.module
    return inner


def _by_name(optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return an optimizer's state by the names of its parameters, as shards have it."""
    state = optimizer.state_dict()
    names = _names(optimizer, model)
    return {
        "state": {names[place]: one for place, one in state["state"].items()},
        "param_groups": [
            {**group, "params": [names[place] for place in group["params"]]}
            for group in state["param_groups"]
        ],
    }


def _by_place(
    settings: dict[str, Any], optimizer: Optimizer, model: nn.Module
) -> dict[str, Any]:
    """Return the same by the places of the parameters, as torch's optimizers load it.

    Raises:
        KeyError: A parameter has another name here.
    """
    places = {name: place for place, name in enumerate(_names(optimizer, model))}
    return {
        "state": {places[name]: one for name, one in settings["state"].items()},
        "param_groups": [
            {**group, "params": [places[name] for name in group["params"]]}
            for group in settings["param_groups"]
        ],
    }


def _names(optimizer: Optimizer, model: nn.Module) -> list[str]:
    """Return the name of each of an optimizer's parameters, in their order."""
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [known.get(id(p), f"parameter {k}") for k, p in enumerate(parameters)]


@contextmanager
def _sharded_pass(model: Any, *, is_last: bool) -> Generator[None]:
    _holder(model).set_requires_gradient_sync(is_last)
    yield


def _holder(model: nn.Module) -> Any:
    """Return the module that exchanges: itself, or inside a compiled one."""
    for module in model.modules():
        if hasattr(module, "no_sync") or hasattr(module, "set_requires_gradient_sync"):
            return module
    return model
