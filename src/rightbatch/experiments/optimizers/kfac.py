"""K-FAC (Martens and Grosse, 2015), compact, for networks that classify.

Linear layers and convolutions are preconditioned by the Kronecker factors of
:mod:`rightbatch.experiments.optimizers.factors`; what else a model has (biases of
other layers, normalisation, embeddings, layers too large to invert) follows its
gradient.

The factors are those of the true Fisher matrix: labels are drawn from the model's own
predictions. The empirical Fisher, of the labels given, would need no second backward
pass, but it vanishes as the examples are learned, and steps grow without bound where
the loss gets small. Labels can be drawn only of a model that returns logits, shape
(B, classes), and whose loss is their cross entropy; other outputs are refused.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.optim import Optimizer

from rightbatch._checks import nonnegative, positive, positive_integer
from rightbatch.errors import InputError, WorkloadError
from rightbatch.experiments.optimizers.factors import (
    Layer,
    damped_inverses,
    input_factor,
    layers_of,
    output_factor,
)

# The running averages start as plain ones and take this decay when they are longer.
FACTOR_DECAY = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class KfacSettings:
    """What K-FAC does, beside the learning rate.

    Args:
        momentum: Of the heavy ball that follows the preconditioned gradient; below 1.
        damping: Added to the Fisher matrix, shared between its factors.
        weight_decay: L2 penalty, part of the gradient before it is preconditioned.
        clip: Largest squared length of a step in the metric of the damped Fisher
            matrix, before momentum; longer ones are shortened (Ba et al., 2017). 0 for
            none.
        factor_every: Updates from one measurement of the factors to the next.
        inverse_every: Updates from one inversion to the next, after as many updates
            that each have their own.

    Raises:
        InputError: A value is out of its range.
    """

    momentum: float = 0.9
    damping: float = 0.03
    weight_decay: float = 0.0
    clip: float = 0.001
    factor_every: int = 1
    inverse_every: int = 10

    def __post_init__(self) -> None:
        if nonnegative("kfac", "momentum", self.momentum) >= 1:
            raise InputError(
                f"kfac: `momentum` must be below 1, got {self.momentum:g}."
            )
        positive("kfac", "damping", self.damping)
        nonnegative("kfac", "weight_decay", self.weight_decay)
        nonnegative("kfac", "clip", self.clip)
        positive_integer("kfac", "factor_every", self.factor_every)
        positive_integer("kfac", "inverse_every", self.inverse_every)


@dataclass(frozen=True, slots=True)
class KfacFor:
    """Makes K-FAC for a model: what a workload has as its `optimizer`.

    Args:
        settings: Beside the learning rate.

    Example:
        >>> made = KfacFor(KfacSettings(damping=0.1)).for_model(nn.Linear(2, 3), 0.5)
        >>> made.defaults["lr"], made.defaults["damping"]
        (0.5, 0.1)
    """

    settings: KfacSettings = KfacSettings()

    def __call__(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Refuse: the parameters alone are not enough.

        Args:
            parameters: Of the model.
            lr: Learning rate.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "kfac: needs the model, not its parameters alone.",
            "make it with `for_model`",
        )

    def for_model(self, model: nn.Module, lr: float) -> "Kfac":
        """Return K-FAC for a model.

        Args:
            model: Whose parameters it is to change.
            lr: Learning rate.
        """
        return Kfac(model, lr, self.settings)


class Kfac(Optimizer):
    r"""K-FAC on all trained parameters of a model, for a classification loss.

    The loss must be the cross entropy of the model's outputs, taken as logits. Another
    loss of such outputs cannot be told apart here: its curvature would be taken for
    theirs.

    With the gradient :math:`M` of a layer, shape (m, n), the direction is
    :math:`U = (G + \sqrt\lambda/\pi\,I)^{-1} M (A + \pi\sqrt\lambda\,I)^{-1}`, the
    update :math:`v \leftarrow \mu v + U`, :math:`\theta \leftarrow \theta - \eta v`.

    Args:
        model: Returns logits; hooks on it are taken off by :meth:`remove_hooks`.
        lr: Learning rate.
        settings: Beside the learning rate.

    Raises:
        InputError: The learning rate is not positive.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model, images = nn.Linear(4, 3), torch.randn(64, 4)
        >>> labels = images[:, :3].argmax(1)
        >>> kfac = Kfac(model, 1.0, KfacSettings(clip=0.1))
        >>> for _ in range(20):
        ...     kfac.zero_grad()
        ...     functional.cross_entropy(model(images), labels).backward()
        ...     kfac.step()
        >>> bool(functional.cross_entropy(model(images), labels) < 0.2)
        True
    """

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        settings: KfacSettings = KfacSettings(),  # noqa: B008 - it is frozen
    ) -> None:
        positive("kfac", "lr", lr)
        trained = [p for p in model.parameters() if p.requires_grad]
        super().__init__(trained, {"lr": lr, **asdict(settings)})
        self._layers = layers_of(model)
        self._used: dict[Layer, list[tuple[Tensor, GradientEdge]]] = {}
        self._updates = 0
        self._has_seen_model = not self._layers
        self._handles = [
            layer.register_forward_hook(self._keep_use) for layer in self._layers
        ]
        # Last, so that a model that is itself a layer has been seen before.
        self._handles.append(model.register_forward_hook(self._measure))

    def remove_hooks(self) -> None:
        """Leave the model alone; the factors stay as they are."""
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one update.

        Args:
            closure: Computes the loss and its gradients anew, as for any optimizer.

        Returns:
            What the closure returned; None without one.

        Raises:
            WorkloadError: The loss was not computed by calling the model.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._has_seen_model:
            raise WorkloadError(
                "kfac: the loss must call the model in training mode, once or more "
                "per update; its curvature was not seen.",
                "choose another --optimizer",
            )
        group = self.param_groups[0]
        directions: dict[Tensor, Tensor] = {}
        inner = 0.0
        for layer in self._layers:
            # A layer whose weights are used but which is not called has no factors.
            measured = "input_factor" in self.state[layer.weight]
            if measured and layer.weight.grad is not None:
                inner += self._precondition(layer, group, directions)
        length = group["lr"] ** 2 * inner
        shortened = (
            (group["clip"] / length) ** 0.5 if length > group["clip"] > 0 else 1.0
        )
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            if parameter in directions:
                direction = directions[parameter].mul_(shortened)
            else:
                direction = parameter.grad + group["weight_decay"] * parameter
            self._move(parameter, direction, group)
        self._updates += 1
        return loss

    def _move(
        self, parameter: nn.Parameter, direction: Tensor, group: dict[str, Any]
    ) -> None:
        if group["momentum"]:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            direction = state["momentum_buffer"].mul_(group["momentum"]).add_(direction)
        parameter.add_(direction, alpha=-group["lr"])

    def _precondition(
        self,
        layer: Layer,
        group: dict[str, Any],
        directions: dict[Tensor, Tensor],
    ) -> float:
        weight, bias = layer.weight, layer.bias
        a, g = self._inverses(weight, group)
        gradient = _matrix(weight.grad, None if bias is None else bias.grad)
        if group["weight_decay"]:
            gradient += group["weight_decay"] * _matrix(weight, bias)
        direction = g @ gradient @ a
        if bias is not None:
            directions[bias] = direction[:, -1].contiguous()
            directions[weight] = direction[:, :-1].reshape(weight.shape)
        else:
            directions[weight] = direction.reshape(weight.shape)
        return float((direction * gradient).sum()) if group["clip"] else 0.0

    def _inverses(self, weight: Tensor, group: dict[str, Any]) -> tuple[Tensor, Tensor]:
        state, every = self.state[weight], group["inverse_every"]
        fresh = "input_inverse" not in state
        if fresh or self._updates < every or self._updates % every == 0:
            state["input_inverse"], state["output_inverse"] = damped_inverses(
                state["input_factor"], state["output_factor"], group["damping"]
            )
        return state["input_inverse"], state["output_inverse"]

    def _keep_use(self, layer: Any, inputs: Any, output: Tensor) -> None:
        due = self._updates % self.param_groups[0]["factor_every"] == 0
        if due and layer.training and output.requires_grad:
            # The edge is that of this output even if an in-place ReLU follows.
            use = (inputs[0].detach(), get_gradient_edge(output))
            self._used.setdefault(layer, []).append(use)

    def _measure(self, model: nn.Module, inputs: Any, output: Any) -> None:
        del model, inputs
        used, self._used = self._used, {}
        if not used:
            return
        self._has_seen_model = True
        logits = _logits(output)
        chances = logits.detach().softmax(1)
        # What is not finite has no labels; the run ends on its loss all the same.
        if not chances.isfinite().all():
            return
        labels = torch.multinomial(chances, 1).squeeze(1)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        edges = [edge for uses in used.values() for _, edge in uses]
        gradients = list(torch.autograd.grad(loss, edges, retain_graph=True))
        for layer, uses in used.items():
            own, gradients = gradients[: len(uses)], gradients[len(uses) :]
            a = input_factor(layer, [given for given, _ in uses], len(logits))
            g = output_factor(layer, own)
            if a.isfinite().all() and g.isfinite().all():
                self._average(layer, a, g)

    def _average(self, layer: Layer, a: Tensor, g: Tensor) -> None:
        state = self.state[layer.weight]
        count = state["num_factors"] = state.get("num_factors", 0) + 1
        if count == 1:
            state["input_factor"], state["output_factor"] = a, g
            return
        share = max(1 / count, 1 - FACTOR_DECAY)
        state["input_factor"].lerp_(a, share)
        state["output_factor"].lerp_(g, share)


def _logits(output: Any) -> Tensor:
    is_tensor = isinstance(output, Tensor)
    if is_tensor and output.ndim == 2 and output.shape[1] > 1:
        return output
    found = f"shape {tuple(output.shape)}" if is_tensor else type(output).__name__
    raise WorkloadError(
        "kfac: the model must return logits, shape (B, classes), of which labels can "
        f"be drawn, got {found}.",
        "choose another --optimizer",
    )


def _matrix(weight: Tensor | None, bias: Tensor | None) -> Tensor:
    assert weight is not None
    rows = weight.reshape(len(weight), -1)
    return rows.clone() if bias is None else torch.cat([rows, bias[:, None]], 1)
