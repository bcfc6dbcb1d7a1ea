"""The examples a target is a mean over, and how to check them cheaply.

Checks, not training, dominate the cost of a run to a target: 12,000 examples after
every update are 500 times the training at a batch size of 8.
"""

from collections.abc import Callable, Generator, Sized
from contextlib import contextmanager
from functools import cached_property
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rightbatch.errors import InputError, WorkloadError
from rightbatch.sampler import chunks
from rightbatch.sampler.image_layout import layout_for
from rightbatch.workload import Workload, failing_as

CHECK_CHUNK = 128
# Activations of 32 images stay in a core's cache, and in memory that the allocator does
# not give back to the system: of 128, LeNet takes 1.3 to 1.9 times as long.
IMAGE_CHUNK = 32
# A small set is checked in one go: there the overhead of a pass outweighs the cache.
ONE_CHUNK = 512
# Channels, height, width.
IMAGE_DIMENSIONS = 3
# Sixteen parts: the hardest holds most of the loss, and small ones do not pay.
RANKED_PARTS = 16
RANKED_MIN_CHUNK = 32
# Above what rounding can do to a sum of float32 losses.
ABORT_MARGIN = 1 + 1e-6


class Evaluation:
    """The workload's examples to check on, read once for all runs of a process.

    Args:
        workload: Whose `evaluate_on`, metric and loss are meant.

    Raises:
        InputError: There is no such metric, or the examples hold NaN.
        WorkloadFailedError: Reading the examples raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> Evaluation(mlp()).values(mlp().model(0)).shape
        torch.Size([359])
    """

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        name = workload.target.metric
        self._of_corpus = workload.corpus_metrics.get(name)
        self._metric = workload.metric("loss" if self._of_corpus else name)
        self._ranked: tuple[Any, ...] = ()
        self._layout: Callable[[Any], Any] | None = None
        with failing_as(f"{workload.name}: `evaluate_on`"):
            self._chunks = self._read(workload.evaluate_on)

    @cached_property
    def _held_out(self) -> tuple[Any, ...]:
        workload = self._workload
        if workload.held_out is None:
            raise InputError(
                f"{workload.name}: has no held-out set to record a loss on.",
                "leave --record-held-out away",
            )
        with failing_as(f"{workload.name}: `held_out`"):
            return self._read(workload.held_out)

    @property
    def of_corpus(self) -> bool:
        """Whether the metric is one number of the whole set, no mean over examples."""
        return self._of_corpus is not None

    def value(self, model: nn.Module) -> float:
        """Return the metric of the set.

        Raises:
            WorkloadError: The metric does not give one value per example, or one
                number for the set.
        """
        if self._of_corpus is None:
            return float(self.values(model).mean())
        return self._corpus_value(model, self._of_corpus, self._workload.evaluate_on)

    def held_out_value(self, model: nn.Module) -> float:
        """Return the metric of the held-out set.

        Raises:
            InputError: The workload has none.
            WorkloadError: As for :meth:`value`.
        """
        if self._of_corpus is not None and self._workload.held_out is not None:
            return self._corpus_value(model, self._of_corpus, self._workload.held_out)
        layout = self.layout(model)
        with evaluating(model):
            values = torch.cat([self.metric(model, layout(c)) for c in self._held_out])
        return float(values.mean())

    def _corpus_value(
        self,
        model: nn.Module,
        metric: Callable[[nn.Module, Dataset[Any]], float],
        dataset: Dataset[Any],
    ) -> float:
        with evaluating(model):
            value: Any = metric(model, dataset)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise WorkloadError(
                f"{self._workload.name}: a corpus metric must return one number, got "
                f"{type(value).__name__}."
            )
        return float(value)

    def values(self, model: nn.Module) -> Tensor:
        """Return the metric of each example, in the set's order: float64, shape (n,).

        Raises:
            WorkloadError: The metric does not give one value per example.
        """
        self.layout(model)
        with evaluating(model):
            return torch.cat([self.metric(model, chunk) for chunk in self._chunks])

    def layout(self, model: nn.Module) -> Callable[[Any], Any]:
        """Return what lays out batches so that the workload's model is fast on them.

        Args:
            model: One of the workload's; it is tried once, on the first chunk.
        """
        if self._layout is None:
            workload = self._workload
            others = [] if self._metric is workload.loss else [self._metric]
            self._layout = layout_for(model, workload.loss, self._chunks[0], others)
            self._chunks = tuple(map(self._layout, self._chunks))
        return self._layout

    def metric(self, model: nn.Module, batch: Any) -> Tensor:
        """Return the metric of each example of a batch: float64, shape (b,).

        Raises:
            WorkloadError: The metric does not give one value per example.
        """
        return self._per_example(self._metric, model, batch)

    def mean_loss(self, model: nn.Module) -> float:
        """Return the mean loss, whatever the target's metric is."""
        loss = self._workload.loss
        with evaluating(model):
            parts = [self._per_example(loss, model, chunk) for chunk in self._chunks]
        return float(torch.cat(parts).mean())

    def ranked(self, values: Tensor) -> tuple[Any, ...]:
        """Return the examples as small batches, the hardest first.

        Args:
            values: Of a full evaluation, shape (n,).

        Returns:
            The batches; none where an item has several values (a sentence's words),
            which do not tell whose they are.
        """
        if len(values) != len(cast(Sized, self._workload.evaluate_on)):
            return ()
        size = max(RANKED_MIN_CHUNK, len(values) // RANKED_PARTS)
        workload = self._workload
        if workload.collate is None and hasattr(workload.evaluate_on, "tensors"):
            order = values.argsort(descending=True)
            read = self._read(workload.evaluate_on, size, order)
            return read if self._layout is None else tuple(map(self._layout, read))
        # Items are costly to fetch and collate anew: rank whole batches instead.
        if not self._ranked:
            self._ranked = self._read(workload.evaluate_on, size)
        means = [float(part.mean()) for part in values.split(size)]
        hardest_first = sorted(range(len(means)), key=lambda part: -means[part])
        return tuple(self._ranked[part] for part in hardest_first)

    def _read(
        self,
        dataset: Dataset[Any],
        chunk_size: int | None = None,
        order: Tensor | None = None,
    ) -> tuple[Any, ...]:
        if chunk_size is None:
            chunk_size = _chunk_size(dataset)
        collate = self._workload.collate
        return chunks(dataset, chunk_size, order=order, collate=collate)

    def _per_example(
        self, metric: Callable[[nn.Module, Any], Tensor], model: nn.Module, batch: Any
    ) -> Tensor:
        values = metric(model, batch)
        if values.ndim != 1:
            raise WorkloadError(
                f"{self._workload.name}: a loss or metric must return one value per "
                f"example, shape (B,), got shape {tuple(values.shape)}.",
                "leave the mean out: reduction='none'",
            )
        return values.double()


def _chunk_size(dataset: Dataset[Any]) -> int:
    size = len(cast(Sized, dataset))
    # An empty set is refused by the reader, in its own words.
    if size == 0:
        return 1
    item = dataset[0]
    first = item[0] if isinstance(item, (tuple, list)) and item else item
    if isinstance(first, Tensor) and first.ndim == IMAGE_DIMENSIONS:
        return IMAGE_CHUNK
    return size if size <= ONE_CHUNK else CHECK_CHUNK


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Put a model into evaluation for a while: no dropout, no gradients.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluating(model):
        ...     model.training, torch.is_grad_enabled()
        (False, False)
        >>> model.training
        True
    """
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()


class HardestFirst:
    """Tells whether a mean of non-negative values may be within a bound, cheaply.

    The hardest examples come first, and the sum is given up once it exceeds what the
    whole may be: the same answer as evaluating everything. Where an example's value
    was negative at the last ranking nothing is given up, nor saved.

    Args:
        evaluation: The examples.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> evaluation, model = Evaluation(mlp()), mlp().model(0)
        >>> hardest_first = HardestFirst(evaluation)
        >>> hardest_first.rank(evaluation.values(model))
        >>> hardest_first.may_be_within(model, 0.1)
        False
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._chunks: tuple[Any, ...] = ()
        self._count = 0

    def rank(self, values: Tensor) -> None:
        """Take the order from the values of a full evaluation, shape (n,)."""
        self._count = len(values)
        applies = bool((values >= 0).all())
        self._chunks = self._evaluation.ranked(values) if applies else ()

    def may_be_within(self, model: nn.Module, bound: float) -> bool:
        """Return False only when the mean is above `bound`."""
        limit = bound * self._count * ABORT_MARGIN
        total = 0.0
        with evaluating(model):
            for chunk in self._chunks:
                total += float(self._evaluation.metric(model, chunk).sum())
                if total > limit:
                    return False
        return True
