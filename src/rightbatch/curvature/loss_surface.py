"""A loss as a function of one flat vector of parameters; looking leaves no trace."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from rightbatch.errors import InputError

Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLoss:
    """A loss in two parts, as the Gauss-Newton matrix needs it; a loss itself.

    Args:
        outputs: ``outputs(model, batch)`` returns what the model says of each example,
            shape (B, ...).
        loss_of_outputs: ``loss_of_outputs(outputs, batch)`` returns the loss of each
            example, shape (B,); convex in the outputs for a matrix without negative
            curvature.

    Example:
        >>> squares = OutputLoss(
        ...     outputs=lambda model, batch: model(batch[0]).squeeze(1),
        ...     loss_of_outputs=lambda outputs, batch: (outputs - batch[1]) ** 2 / 2,
        ... )
        >>> model = nn.Linear(1, 1)
        >>> _ = nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
        >>> squares(model, (torch.ones(2, 1), torch.tensor([2.0, 4.0]))).tolist()
        [2.0, 8.0]
    """

    outputs: Callable[[nn.Module, Any], Tensor]
    loss_of_outputs: Callable[[Tensor, Any], Tensor]

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the loss of each example, shape (B,)."""
        return self.loss_of_outputs(self.outputs(model, batch), batch)


class _Bound(nn.Module):
    """A function of a model as a module, so that the model's tensors can be replaced.

    Args:
        model: Its tensors are replaced for the length of a call.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[nn.Module, Any], Tensor], batch: Any) -> Any:
        return function(self.model, batch)


class LossSurface:
    """The trainable parameters of a model as a flat vector, and losses at them.

    Frozen parameters are left out, tied ones are there once. A call runs the model on
    stand-ins that share the parameters' memory and on copies of its buffers: gradients,
    hooks on parameters and running statistics are not touched.

    Args:
        who: The function that measures, for messages.
        model: In any mode; the mode is kept.

    Raises:
        InputError: The model has no trainable parameters.
    """

    def __init__(self, who: str, model: nn.Module) -> None:
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not trained:
            raise InputError(
                f"{who}: `model` must have trainable parameters, got none.",
                "set requires_grad on those to look at",
            )
        self.who = who
        self.model = model
        self._bound = _Bound(model)
        with torch.inference_mode(False):
            # Hooks sit on the parameter: a noise meter must not count this gradient.
            self.leaves = [p.detach().requires_grad_() for p in trained.values()]
        self._named = dict(
            zip((f"model.{n}" for n in trained), self.leaves, strict=True)
        )

    @property
    def size(self) -> int:
        """Number of trainable parameters."""
        return sum(leaf.numel() for leaf in self.leaves)

    @property
    def point(self) -> Tensor:
        """The parameters as a flat vector, a copy. Shape (n,)."""
        return flatten(leaf.detach() for leaf in self.leaves).clone()

    def evaluate(
        self, function: Callable[[nn.Module, Any], Tensor], batch: Any
    ) -> Tensor:
        """Return ``function(model, batch)``, differentiable in `leaves`.

        Raises:
            InputError: It is not a tensor, or does not depend on the parameters.
        """
        buffers = {f"model.{n}": b.clone() for n, b in self.model.named_buffers()}
        value = functional_call(
            self._bound, {**self._named, **buffers}, (function, batch)
        )
        if not isinstance(value, Tensor):
            raise InputError(
                f"{self.who}: `loss` and `outputs` must return a tensor, "
                f"got {type(value).__name__}."
            )
        if not value.requires_grad:
            raise InputError(
                f"{self.who}: `loss` must depend on the trainable parameters of the "
                "model it is given.",
                "is it detached, under no_grad, or of another model?",
            )
        return value

    def losses(self, loss: Loss, batch: Any) -> Tensor:
        """Return the loss of each example, shape (B,), differentiable in `leaves`.

        Raises:
            InputError: The loss is not one value per example.
        """
        return checked_losses(self.who, self.evaluate(loss, batch))

    def gradient(self, loss: Loss, batch: Any) -> tuple[Tensor, int]:
        """Return the flat gradient of the mean loss, and the number of examples.

        Raises:
            InputError: The loss is not one value per example, or the gradient is not
                finite.
        """
        losses = self.losses(loss, batch)
        parts = torch.autograd.grad(losses.mean(), self.leaves, materialize_grads=True)
        return checked_finite(self.who, "gradient", flatten(parts)), len(losses)


def gradient(model: nn.Module, loss: Loss, batch: Any) -> Tensor:
    """Return the gradient of the mean loss of a batch as a flat vector, shape (n,).

    Args:
        model: Left as it is: parameters, their ``.grad`` and hooks, buffers, random
            numbers.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        batch: What `loss` takes.

    Returns:
        One number per trainable parameter, in the order of ``model.parameters()``; zero
        where the loss does not depend on it.

    Raises:
        InputError: No parameter is trainable, the loss is not one value per example or
            does not depend on the parameters, or the gradient is not finite.

    Example:
        >>> model = nn.Linear(2, 1, bias=False)
        >>> gradient(model, lambda model, x: model(x).squeeze(1), torch.eye(2)).tolist()
        [0.5, 0.5]
    """
    surface = LossSurface("gradient", model)
    with own_differentiation(surface.leaves):
        return surface.gradient(loss, batch)[0]


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """Return the tensors one after the other as a flat vector, shape (n,).

    Example:
        >>> flatten([torch.ones(2, 1), torch.zeros(1)]).tolist()
        [1.0, 1.0, 0.0]
    """
    return torch.cat([t.to_dense().reshape(-1) for t in tensors])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return a flat vector cut into tensors of the shapes and dtypes of `like`.

    Example:
        >>> unflatten(torch.arange(3.0), [torch.ones(2), torch.ones(1, 1)])
        [tensor([0., 1.]), tensor([[2.]])]
    """
    parts = vector.split([t.numel() for t in like])
    return [v.view(t.shape).to(t.dtype) for v, t in zip(parts, like, strict=True)]


@contextmanager
def own_differentiation(
    leaves: Sequence[Tensor], seed: int | None = None
) -> Generator[None]:
    """Differentiate in here whatever the caller's mode, with random numbers apart.

    Args:
        leaves: Their devices' random numbers are put back at the end, the CPU's too.
        seed: Where random numbers start in here; None to go on from the caller's.
    """
    devices = sorted({t.device.index or 0 for t in leaves if t.is_cuda})
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.random.fork_rng(devices),
    ):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
        yield


def checked_losses(who: str, losses: Tensor) -> Tensor:
    """Return the losses if there is one per example.

    Raises:
        InputError: Their shape is not (B,), B at least 1.
    """
    if losses.ndim != 1 or not len(losses):
        raise InputError(
            f"{who}: `loss` must return one value per example, shape (B,), "
            f"got shape {tuple(losses.shape)}.",
            "with reduction='none'",
        )
    return losses


def checked_finite(who: str, name: str, vector: Tensor) -> Tensor:
    """Return the vector if all of it is finite.

    Raises:
        InputError: It is not; says how many numbers are not.
    """
    bad = int((~torch.isfinite(vector)).sum())
    if bad:
        raise InputError(
            f"{who}: `{name}` must be finite, got {bad} of {vector.numel()} numbers "
            "that are not.",
            "leave this batch out, or look at a smaller learning rate",
        )
    return vector


def listed(who: str, batches: Iterable[Any]) -> list[Any]:
    """Return the batches as a list if that is what they are.

    Raises:
        InputError: It is one batch, or there are none.
    """
    if isinstance(batches, (Tensor, tuple, dict, str)):
        raise InputError(
            f"{who}: `batches` must be a list of batches, got a "
            f"{type(batches).__name__}.",
            "put a single batch in a list",
        )
    found = list(batches)
    if not found:
        raise InputError(f"{who}: `batches` must not be empty.")
    return found
