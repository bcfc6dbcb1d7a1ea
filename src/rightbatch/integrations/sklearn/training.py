"""One fit of an estimator: its data split, its controller made, its end."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset

from rightbatch import _checks
from rightbatch.controller import (
    Acting,
    BatchSizeController,
    Guard,
    MeanLoss,
    Sensing,
    UpdateRecord,
)
from rightbatch.errors import InputError
from rightbatch.integrations.logging import log_record
from rightbatch.integrations.sklearn.course import Ends, Epochs, Trained, go_on, run
from rightbatch.integrations.sklearn.examples import Examples
from rightbatch.integrations.sklearn.gradient_source import (
    GradientSource,
    LocalGradients,
    is_tail_tiny,
    normalizes_rows,
    tail_of,
)
from rightbatch.integrations.sklearn.making import first_wish, optimizer_of
from rightbatch.training.interrupt import patient_interrupt

# A policy that looks at the loss looks at so many examples at most.
_EVALUATED = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """One fit, or one pass of ``partial_fit``.

    Args:
        owner: The estimator, whose parameters say how.
        examples: All that it was given.
        seed: Of split, order and random layers.
        score: ``score(trained, examples)``, for early stopping.
        part: A single pass, without looking at its gain.
    """

    owner: Any
    examples: Examples
    seed: int
    score: Callable[[Trained, Examples], float]
    part: bool

    @property
    def device(self) -> torch.device:
        """Where the module is trained.

        Raises:
            InputError: There is no such place.
        """
        given, who = self.owner.device, type(self.owner).__name__
        try:
            return torch.device(given)
        except (RuntimeError, TypeError) as error:
            raise InputError(
                f"{who}: `device` cannot be {given!r}.", "cpu or cuda"
            ) from error

    def check(self) -> None:
        """Find parameters of the owner that would be met too late.

        Raises:
            InputError: One cannot be.
        """
        owner, who = self.owner, type(self.owner).__name__
        if not isinstance(owner.lr_rule, str):
            raise InputError(
                f"{who}: `lr_rule` must be a text, got {owner.lr_rule!r}.", "none, auto"
            )
        if owner.log is not None and not callable(owner.log):
            raise InputError(
                f"{who}: `log` must be callable, got {owner.log!r}.", "log(dict, step)"
            )
        if owner.workers is None:
            return
        dask = import_module("rightbatch.integrations.dask")
        if not isinstance(owner.workers, dask.Workers):
            raise InputError(
                f"{who}: `workers` must be Workers, got {owner.workers!r}.",
                "from rightbatch.integrations.dask import Workers",
            )

    @cached_property
    def split(self) -> tuple[Examples, Examples | None]:
        """What is learnt from, and what is held out; None where nothing is.

        Raises:
            InputError: The part to hold out is no part, or too small.
        """
        owner, examples = self.owner, self.examples
        if self.part or not owner.early_stopping:
            return examples, None
        who, fraction = type(owner).__name__, owner.validation_fraction
        if not 0 < _checks.finite(who, "validation_fraction", fraction) < 1:
            raise InputError(
                f"{who}: `validation_fraction` must be between 0 and 1, got {fraction}."
            )
        try:
            parts: Any = train_test_split(
                np.arange(len(examples)),
                test_size=fraction,
                random_state=self.seed,
                stratify=examples.targets if owner.is_stratified else None,
            )
        except ValueError as error:
            raise InputError(
                f"{who}: nothing can be held out: {error}",
                "set early_stopping=False, or give more data",
            ) from error
        kept, held_out = parts
        if len(held_out) < 2:
            raise InputError(
                f"{who}: `validation_fraction` {fraction:g} of {len(examples)} "
                "examples must be two at least.",
                "hold out more, or set early_stopping=False",
            )
        return examples.at(kept), examples.at(held_out)

    @cached_property
    def initial_batch_size(self) -> int:
        """Examples of the first update: no more than there are."""
        return self._size("initial_batch_size")

    def micro_batch_size(self, trained: Trained) -> int:
        """Return the examples of the least forward pass: no more than there are.

        Args:
            trained: Whose policy begins with it where the owner does not say.

        Raises:
            InputError: It is one, and the module normalizes over its examples.
        """
        owner, count = self.owner, len(self.split[0])
        if owner.micro_batch_size is not None:
            size = self._size("micro_batch_size")
        else:
            size = max(1, round(min(first_wish(trained.policy, count), count)))
            if isinstance(owner.policy, str | None) and size < count:
                # A text may begin above the size that it was given.
                size = min(size, self.initial_batch_size)
        if self.part and tail_of(trained.module, count, size) == "carry":
            # A single pass is each example once: no batch may go on behind its end.
            fits = (m for m in range(size, count) if not is_tail_tiny(count, m))
            size = next(fits, count)
        if size == 1 and normalizes_rows(trained.module):
            raise InputError(
                f"{type(owner).__name__}: batch normalization needs two examples in a "
                f"forward pass at least, got one of {count}.",
                "raise initial_batch_size or micro_batch_size, give more examples, or "
                "use nn.LayerNorm",
            )
        return size

    @cached_property
    def max_epochs(self) -> int:
        """Passes over the data at most."""
        owner = self.owner
        who = type(owner).__name__
        return _checks.positive_integer(who, "max_epochs", owner.max_epochs)

    def run(self, trained: Trained) -> None:
        """Train, from the beginning or from where it was.

        Args:
            trained: Is changed.
        """
        learnt_from = self.split[0]
        self.check()
        targets = trained.targets.encoded(learnt_from.targets)
        dataset = learnt_from.dataset(targets, trained.settled.dtype)
        source = self._source(trained, dataset)
        try:
            self._course(trained, source, dataset)
        finally:
            source.close()

    def _course(
        self, trained: Trained, source: GradientSource, dataset: Dataset[Any]
    ) -> None:
        owner, module, settled = self.owner, trained.module, trained.settled
        # The first optimizer of a process has torch import a good part of itself: half
        # of that cannot be gone on with.
        with patient_interrupt() as interrupted:
            optimizer = optimizer_of(
                settled.optimizer, module, settled.lr, settled.optimizer_parameters
            )
        if interrupted.is_set():
            raise KeyboardInterrupt
        if trained.optimizer is not None:
            optimizer.load_state_dict(trained.optimizer)
        stream = source.stream()
        controller = BatchSizeController(
            module,
            optimizer,
            trained.policy,
            stream,
            lr_rule=settled.lr_rule,
            sensing=self._sensing(trained, dataset),
            # A fit that is lost ends with an error, and nothing is put back.
            acting=Acting(guard=Guard(keep_every=None)),
        )
        go_on(controller, stream, trained.controller)
        epochs = Epochs(trained, self._ends(trained), self._say)

        def note(record: UpdateRecord) -> None:
            if owner.log is not None:
                before = trained.records[-2] if len(trained.records) > 1 else None
                log_record(record, owner.log, before)

        try:
            run(trained, controller, stream, source, epochs=epochs, on_update=note)
        finally:
            controller.close()
        trained.optimizer = optimizer.state_dict()

    def _source(self, trained: Trained, dataset: Dataset[Any]) -> GradientSource:
        """Return where gradients come from."""
        owner = self.owner
        given: dict[str, Any] = {
            "module": trained.module,
            "loss": trained.loss,
            "dataset": dataset,
        }
        how: dict[str, Any] = {
            "micro_batch_size": self.micro_batch_size(trained),
            "seed": self.seed,
        }
        if owner.client is None:
            return LocalGradients(**given, **how, device=self.device)
        dask = import_module("rightbatch.integrations.dask")
        workers = dask.Workers() if owner.workers is None else owner.workers
        weigh = None if self.split[0].weights is None else total_weight
        work = dask.Work(**given, weigh=weigh)
        return dask.DaskGradients(owner.client, workers, work, **how)

    def _sensing(self, trained: Trained, dataset: Dataset[Any]) -> Sensing:
        weights = self.split[0].weights
        evaluate = None
        if "eval_loss" in trained.policy.needs:
            mean_loss = MeanLoss(
                trained.module,
                trained.loss.of_each,
                dataset,
                fraction=min(1.0, _EVALUATED / len(self.split[0])),
                seed=self.seed,
            )
            scale = 1.0 if weights is None else float(weights.mean())
            evaluate = lambda: mean_loss() / scale  # noqa: E731
        return Sensing(
            noise=self._noise(),
            evaluate=evaluate,
            tokens=self._weight_of(weights),
        )

    def _weight_of(
        self, weights: NDArray[np.float64] | None
    ) -> Callable[[Any], float] | None:
        """Return what tells the weight of a batch, as the controller sees it."""
        if weights is None or self.owner.client is None:
            return None if weights is None else total_weight
        # Batches for a cluster are the numbers of their examples.
        return lambda batch: float(weights[batch[0].numpy()].sum())

    def _noise(self) -> Any:
        """Return where noise is read: gradients from elsewhere pass no layer here.

        Raises:
            InputError: It is to be read there.
        """
        given = self.owner.noise
        if self.owner.client is None:
            return given
        if given == "examples":
            raise InputError(
                f"{type(self.owner).__name__}: `noise` cannot be 'examples' with a "
                "client, whose workers send no gradients of single examples.",
                "units",
            )
        return "units" if given == "auto" else given

    def _ends(self, trained: Trained) -> Ends:
        owner, held_out = self.owner, self.split[1]
        if self.part:
            return Ends(max_epochs=1)
        who, epochs = type(owner).__name__, self.max_epochs
        tol = owner.tol
        if tol is not None:
            _checks.nonnegative(who, "tol", tol)
        patience = _checks.positive(who, "n_iter_no_change", owner.n_iter_no_change)
        if held_out is None:
            return Ends(max_epochs=epochs, tol=tol, patience=patience)
        return Ends(
            max_epochs=epochs,
            tol=tol,
            patience=patience,
            score=lambda: self.score(trained, held_out),
        )

    def _say(self, sentence: str) -> None:
        if self.owner.verbose:
            print(sentence)

    def _size(self, name: str) -> int:
        given = getattr(self.owner, name)
        who = type(self.owner).__name__
        return min(_checks.positive_integer(who, name, given), len(self.split[0]))


def total_weight(batch: Any) -> float:
    """Return what the examples of a batch weigh, its last column."""
    return float(batch[-1].sum())
