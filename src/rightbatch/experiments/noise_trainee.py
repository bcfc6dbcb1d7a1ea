"""A model that is trained in units, its gradient noise read on the way."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from rightbatch.errors import WorkloadError
from rightbatch.experiments.noise_settings import NoiseSettings
from rightbatch.experiments.randomness import derived_seed
from rightbatch.gradients import NoiseMeter
from rightbatch.sampler import ExampleStream
from rightbatch.workload import Workload


class Trainee:
    """A model with its meter, its data and its optimizer.

    Args:
        workload: What is trained.
        settings: How.
        device: Where.
        stream: Which of the seed's streams of examples it sees.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> settings = NoiseSettings(batch_size=8, lr=0.5, unit_sizes=(4, 4))
        >>> trainee = Trainee(mlp(), settings, torch.device("cpu"), stream=1)
        >>> trainee.update(train=True) > 2, trainee.stream.examples
        (True, 8)
    """

    def __init__(
        self,
        workload: Workload,
        settings: NoiseSettings,
        device: torch.device,
        stream: int,
    ) -> None:
        self.model = workload.model(settings.seed).to(device)
        self.model.train()
        self.optimizer = workload.optimizer_for(self.model)(
            self.model.parameters(), settings.lr
        )
        self.stream = stream_of(workload, settings.seed, stream, device)
        self.meter = NoiseMeter(
            self.model,
            settings.source,
            every=settings.every,
            horizon=None,
            parts="layers",
            dataset_size=settings.dataset_size,
        )
        self._workload = workload
        self._sizes = settings.unit_sizes

    def update(self, *, train: bool) -> float:
        """Read one update, and make it where the model is to be trained.

        Args:
            train: Make it.

        Returns:
            The batch's mean loss before it; what is not finite is neither read nor
            trained on.
        """
        self.optimizer.zero_grad(set_to_none=True)
        units = [self._next(size) for size in self._sizes]
        num_examples = sum(size for size, _ in units)
        total = 0.0
        for size, batch in units:
            with self.meter.unit(examples=size):
                loss = self._losses(size, batch).sum() / num_examples
                loss.backward()
            total += float(loss.detach())
        if not math.isfinite(total):
            return total
        self.meter.update()
        if train:
            self.optimizer.step()
        return total

    def _next(self, size: int) -> tuple[int, Any]:
        before = self.stream.examples
        batch = self.stream.next(size)
        return self.stream.examples - before, batch

    def _losses(self, size: int, batch: Any) -> Tensor:
        losses = self._workload.loss(self.model, batch)
        if losses.shape != (size,):
            raise WorkloadError(
                f"{self._workload.name}: `loss` must return one value per example, "
                f"shape ({size},), got shape {tuple(losses.shape)}.",
                "with reduction='none'",
            )
        return losses


def stream_of(
    workload: Workload, seed: int, stream: int, device: torch.device
) -> ExampleStream:
    """Return the workload's training examples in one of a seed's orders."""
    return ExampleStream(
        workload.train,
        derived_seed(seed, stream),
        collate=workload.collate,
        device=device,
        example_count=workload.example_count,
    )


def is_plain_sgd(optimizer: Optimizer) -> bool:
    """Return whether an optimizer only adds gradients, as CABS has it."""
    extras = ("momentum", "weight_decay", "maximize")
    return type(optimizer) is SGD and not any(
        group[name] for group in optimizer.param_groups for name in extras
    )
