"""One optimizer update, with the overhead of a small step taken out.

A small model's step is mostly overhead: on a 4,810-parameter network and one example,
arithmetic is a tenth of it. What is saved, and nothing else is changed:

* the backward pass starts from the loss of each example with weight 1/B, so that the
  mean is no node of the graph;
* parameters become views of one flat buffer, so that an optimizer that treats every
  number alike makes one pass instead of one per parameter;
* gradients accumulate straight into views of one flat gradient where the optimizer
  is plain SGD, whose update is then a single addition.

Whatever is not understood (another optimizer, sparse gradients, shared storage) takes
the plain path: ``zero_grad``, ``backward``, ``step``. The trajectory is that of the
plain loop to float rounding on every path.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import (
    SGD,
    Adadelta,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)

from rightbatch.errors import WorkloadError

# Each number's update depends on that number's own gradients alone, and state begins
# at the first step, so the optimizer may be handed one flat parameter before it.
ELEMENTWISE = frozenset({SGD, Adam, AdamW, RMSprop, NAdam, RAdam, Adamax, Adadelta})


@dataclass(frozen=True, slots=True)
class FlatGroup:
    """Parameters of one of the optimizer's groups, and the buffer that holds them.

    Args:
        parameters: Views of the buffer, one after the other.
        flat: The buffer, shape (n,).
        options: The optimizer's group: its lr and the like.
    """

    parameters: list[nn.Parameter]
    flat: Tensor
    options: dict[str, Any]


class Update:
    """One optimizer update per call; made by :func:`make_update`.

    Args:
        model: Trained in place. Its parameters may be views of one buffer; moving it
            to another device or dtype afterwards would cut them off.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        optimizer: As made by the workload; its learning rate may be changed between
            calls through ``optimizer.param_groups``.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Any], Tensor],
        optimizer: Optimizer,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loss = loss
        self._path = _path_for(model, optimizer)
        self._weights = torch.empty(0)

    @property
    def path(self) -> str:
        """Which path is taken: "flat add", "flat" or "plain"."""
        return self._path.name

    @property
    def flat_groups(self) -> tuple[FlatGroup, ...]:
        """The flat buffers behind the model's parameters; none on the plain path."""
        return tuple(self._path.groups)

    def __call__(self, batch: Any) -> Tensor:
        """Make one update.

        Returns:
            The batch's mean loss before the update, detached, shape ().

        Raises:
            WorkloadError: The loss is not one value per example.
        """
        losses = self.loss(self.model, batch)
        weights = self._weights
        if losses.shape != weights.shape:
            weights = self._weights = equal_weights(losses)
        self._path.step(losses, weights)
        # A dot product costs a third of a mean here, and the weights are at hand.
        return losses.detach().dot(weights)


def make_update(
    model: nn.Module,
    optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer],
    loss: Callable[[nn.Module, Any], Tensor],
    lr: float,
) -> Update:
    """Return a callable that makes one update of `model` per batch.

    Args:
        model: Trained in place.
        optimizer: ``optimizer(parameters, lr)`` returns a torch optimizer.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        lr: Learning rate.

    Returns:
        The update; called with a batch it returns the mean loss before the update.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(model.weight)
        >>> update = make_update(
        ...     model, SGD, lambda model, x: (model(x) - 1).square().sum(1), lr=0.25
        ... )
        >>> float(update(torch.ones(4, 1))), model.weight.item()
        (1.0, 0.5)
    """
    return Update(model, loss, optimizer(model.parameters(), lr))


class _Path(Protocol):
    """How a weighted sum of losses becomes an update."""

    name: str
    groups: list[FlatGroup]

    def step(self, losses: Tensor, weights: Tensor) -> None: ...


class _Plain:
    """Any optimizer, as every loop does it."""

    name = "plain"

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self.groups: list[FlatGroup] = []

    def step(self, losses: Tensor, weights: Tensor) -> None:
        self._optimizer.zero_grad()
        losses.backward(weights)
        self._optimizer.step()


class _FlatAdd:
    """SGD without extras: gradients land in one buffer; one addition."""

    name = "flat add"

    def __init__(self, optimizer: Optimizer) -> None:
        self.groups: list[FlatGroup] = []
        self._gradients: list[Tensor] = []
        for group in optimizer.param_groups:
            trained = _trained(group)
            if not trained:
                continue
            flat = _flattened(trained)
            gradient = torch.zeros_like(flat)
            for parameter, part in zip(
                trained, parts_of(gradient, trained), strict=True
            ):
                parameter.grad = part
            self.groups.append(FlatGroup(trained, flat, group))
            self._gradients.append(gradient)

    def step(self, losses: Tensor, weights: Tensor) -> None:
        for gradient in self._gradients:
            gradient.zero_()
        losses.backward(weights)
        for group, gradient in zip(self.groups, self._gradients, strict=True):
            group.flat.add_(gradient, alpha=-group.options["lr"])


class _Flat:
    """An elementwise optimizer on one flat parameter per group.

    An optimizer passes over a parameter that took no part in the loss: it is neither
    decayed nor moved by momentum. So gradients are collected anew each step, and the
    first one missing ends this path: parameters and state go back, and the plain path
    takes over with the gradients at hand.
    """

    name = "flat"

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._plain: _Plain | None = None
        self.groups: list[FlatGroup] = []
        self._gradients: list[list[Tensor]] = []
        self._parameters: list[nn.Parameter] = []
        for group in optimizer.param_groups:
            trained = _trained(group)
            if not trained:
                continue
            flat = _flattened(trained)
            flat.grad = torch.zeros_like(flat)
            self.groups.append(FlatGroup(trained, flat, group))
            self._gradients.append(parts_of(flat.grad, trained))
            self._parameters += trained
            group["params"] = [flat]

    def step(self, losses: Tensor, weights: Tensor) -> None:
        if self._plain is not None:
            self._plain.step(losses, weights)
            return
        for parameter in self._parameters:
            parameter.grad = None
        losses.backward(weights)
        for group, parts in zip(self.groups, self._gradients, strict=True):
            for parameter, part in zip(group.parameters, parts, strict=True):
                if parameter.grad is None or parameter.grad.is_sparse:
                    self._unflatten()
                    self._optimizer.step()
                    return
                part.copy_(parameter.grad)
        self._optimizer.step()

    def _unflatten(self) -> None:
        for group in self.groups:
            trained, flat = group.parameters, group.flat
            group.options["params"] = list(trained)
            for key, value in self._optimizer.state.pop(flat, {}).items():
                pieces = _state_parts(value, flat, trained)
                for parameter, piece in zip(trained, pieces, strict=True):
                    self._optimizer.state[parameter][key] = piece
        self._plain = _Plain(self._optimizer)
        self.groups = []
        self.name = "plain"


def _path_for(model: nn.Module, optimizer: Optimizer) -> _Path:
    if type(optimizer) not in ELEMENTWISE or not _can_be_flat(model, optimizer):
        return _Plain(optimizer)
    bare = type(optimizer) is SGD and not has_hooks(optimizer)
    if bare and all(map(_has_no_extras, optimizer.param_groups)):
        return _FlatAdd(optimizer)
    return _Flat(optimizer)


def has_hooks(optimizer: Optimizer) -> bool:
    """Return whether somebody wants to be told of each step."""
    return any(v for k, v in vars(optimizer).items() if k.endswith("_hooks"))


def _has_no_extras(group: dict[str, Any]) -> bool:
    extras = ("momentum", "weight_decay", "maximize")
    return not any(group[name] for name in extras) and isinstance(
        group["lr"], (int, float)
    )


def _can_be_flat(model: nn.Module, optimizer: Optimizer) -> bool:
    # A scheduler or a wrapper that replaced `step` must go on being called.
    if optimizer.state or "step" in vars(optimizer):
        return False
    if any(group["differentiable"] for group in optimizer.param_groups):
        return False
    groups = [_trained(group) for group in optimizer.param_groups]
    for trained in groups:
        if len({(p.dtype, p.device) for p in trained}) > 1:
            return False
    every = [p for trained in groups for p in trained]
    if not every or not all(p.is_contiguous() and p.is_leaf for p in every):
        return False
    # cuDNN wants a recurrent module's weights in a block of its own.
    if every[0].is_cuda and any(isinstance(m, nn.RNNBase) for m in model.modules()):
        return False
    return not _overlap([*model.parameters(), *model.buffers()])


def _overlap(tensors: Sequence[Tensor]) -> bool:
    """Return whether two of the tensors share memory: moving one would part them."""
    spans = sorted((t.data_ptr(), t.data_ptr() + t.nbytes) for t in tensors if t.nbytes)
    return any(a[1] > b[0] for a, b in zip(spans, spans[1:], strict=False))


def _trained(group: dict[str, Any]) -> list[nn.Parameter]:
    return [p for p in group["params"] if p.requires_grad]


def _flattened(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return one buffer that holds the parameters, which become views of it."""
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for parameter, part in zip(parameters, parts_of(flat, parameters), strict=True):
        parameter.data = part
    return flat


def parts_of(flat: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Return views of a flat buffer, in the shapes of the parameters it holds.

    Args:
        flat: Shape (n,).
        parameters: Of n numbers in all.
    """
    pieces = flat.split([p.numel() for p in parameters])
    return [t.view(p.shape) for t, p in zip(pieces, parameters, strict=True)]


def _state_parts(
    value: Any, flat: Tensor, parameters: Sequence[nn.Parameter]
) -> list[Any]:
    if not isinstance(value, Tensor):
        return [value for _ in parameters]
    if value.shape == flat.shape:
        return [part.clone() for part in parts_of(value, parameters)]
    return [value.clone() for _ in parameters]


def equal_weights(losses: Tensor) -> Tensor:
    """Return 1/B for each of B losses: their weights in the mean.

    Args:
        losses: Shape (B,).

    Raises:
        WorkloadError: They are not one value per example.
    """
    if losses.ndim != 1 or not len(losses):
        raise WorkloadError(
            "workload: `loss` must return one value per example, shape (B,), "
            f"got shape {tuple(losses.shape)}.",
            "with reduction='none'",
        )
    return torch.full_like(losses, 1 / len(losses), requires_grad=False)
