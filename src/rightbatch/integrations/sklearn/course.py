"""A fit from its first update to its end, and what the next one goes on from."""

import copy
import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from rightbatch.controller import BatchSizeController, UpdateRecord
from rightbatch.errors import DivergedError
from rightbatch.integrations.sklearn.gradient_source import GradientSource
from rightbatch.integrations.sklearn.losses import ExampleLoss
from rightbatch.integrations.sklearn.targets import Targets
from rightbatch.policies import Policy
from rightbatch.sampler import Stream
from rightbatch.sampler.draws import generators_put_back
from rightbatch.training.interrupt import patient_interrupt

Status = Literal["finished", "stopped", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settled:
    """Parameters that training goes on with as they were when it began.

    Args:
        criterion: As the estimator was given it.
        optimizer: Its class, name or function.
        optimizer_parameters: Those written ``optimizer__x``.
        lr: Learning rate.
        lr_rule: How it follows the batch.
        dtype: Of module and inputs.
    """

    criterion: Any
    optimizer: Any
    optimizer_parameters: dict[str, Any]
    lr: float
    lr_rule: str
    dtype: torch.dtype


@dataclass(slots=True, kw_only=True, eq=False)
class Trained:
    """What an estimator has learnt, and what training goes on from.

    Args:
        module: The one trained.
        targets: What it predicts.
        loss: Of a batch.
        policy: Followed throughout.
        settled: What else it began with.
        seed: Of the order of examples and all that is drawn.
        optimizer: Its state; None before the first update.
        controller: The controller's state; None before the first update.
        records: One for each update.
        losses: Mean training loss of each epoch.
        scores: On the validation examples after each epoch; empty without.
        status: How the last training ended.
    """

    module: nn.Module
    targets: Targets
    loss: ExampleLoss
    policy: Policy[Any]
    settled: Settled
    seed: int
    optimizer: dict[str, Any] | None = None
    controller: dict[str, Any] | None = None
    records: list[UpdateRecord] = field(default_factory=list[UpdateRecord])
    losses: list[float] = field(default_factory=list[float])
    scores: list[float] = field(default_factory=list[float])
    status: Status = "finished"

    def begun_again(self) -> "Trained":
        """Return a copy to go on with; this one stays as it is whatever happens."""
        return Trained(
            module=copy.deepcopy(self.module),
            targets=self.targets,
            loss=self.loss,
            policy=self.policy,
            settled=self.settled,
            seed=self.seed,
            optimizer=copy.deepcopy(self.optimizer),
            controller=copy.deepcopy(self.controller),
            records=[*self.records],
            losses=[*self.losses],
            scores=[*self.scores],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """When a fit ends.

    Args:
        max_epochs: At most so many, from where it begins.
        tol: An epoch that is better than the best by less is none; None never stops.
        patience: Epochs in a row that were none, and one more ends it.
        score: Of the validation examples; the training loss counts when None.
    """

    max_epochs: int
    tol: float | None = None
    patience: float = math.inf
    score: Callable[[], float] | None = None


class Epochs:
    """Counts a fit's epochs, and says when it no longer gets better.

    Args:
        trained: Takes losses and scores, and has the best weights at the end.
        ends: When.
        say: Called with a sentence after each epoch.
    """

    def __init__(
        self, trained: Trained, ends: Ends, say: Callable[[str], object]
    ) -> None:
        self._trained, self._ends, self._say = trained, ends, say
        self._best, self._without_gain = -math.inf, 0
        self._best_weights: dict[str, Any] | None = None
        self._loss_sum, self._count, self._done = 0.0, 0, 0

    def see(self, record: UpdateRecord) -> bool:
        """Take notice of an update.

        Args:
            record: Its record.

        Returns:
            Whether the fit is to stop.
        """
        self._loss_sum += record.loss * record.batch_size
        self._count += record.batch_size
        done = math.floor(record.epoch or 0)
        if done <= self._done:
            return False
        self._done = done
        return self._ended(record)

    def start(self, epochs: float) -> int:
        """Begin where a stream is.

        Args:
            epochs: Its position.

        Returns:
            The epoch to end with.
        """
        self._done = math.floor(epochs)
        return round(epochs) + self._ends.max_epochs

    def close(self) -> None:
        """Put the best weights back, where a validation chose them."""
        if self._best_weights is not None:
            self._trained.module.load_state_dict(self._best_weights)

    def _ended(self, record: UpdateRecord) -> bool:
        trained, ends = self._trained, self._ends
        loss = self._loss_sum / self._count
        self._loss_sum, self._count = 0.0, 0
        trained.losses.append(loss)
        said, value = "", -loss
        if ends.score is not None:
            check_sane(trained.module, record)
            value = ends.score()
            trained.scores.append(value)
            said = f", validation {value:.4g}"
        self._say(
            f"epoch {len(trained.losses)}: loss {loss:.4g}{said}, "
            f"batch {record.batch_size}, lr {record.lr:.3g}"
        )
        gain = value - self._best
        if ends.score is not None and gain > 0:
            self._best_weights = copy.deepcopy(trained.module.state_dict())
        self._best = max(self._best, value)
        if ends.tol is None:
            return False
        self._without_gain = 0 if gain >= ends.tol else self._without_gain + 1
        return self._without_gain > ends.patience


def run(
    trained: Trained,
    controller: BatchSizeController,
    stream: Stream,
    source: GradientSource,
    *,
    epochs: Epochs,
    on_update: Callable[[UpdateRecord], object],
) -> None:
    """Train from where the stream is to the first end.

    Args:
        trained: Goes on, and is changed.
        controller: Of its module.
        stream: The controller's.
        source: Of gradients.
        epochs: Counts them, and ends it.
        on_update: Called with each update's record.

    Raises:
        DivergedError: The loss is lost.
    """
    trained.status = "finished"
    last = epochs.start(stream.epoch)
    with patient_interrupt() as interrupted:
        for update in controller.updates(epochs=last):
            # 1) The gradient of the batch, and the step.
            try:
                source.accumulate(update)
            except KeyboardInterrupt:
                # It came where an update may never end; the one before is whole.
                trained.status = "interrupted"
                break
            update.step()
            record = controller.records[-1]
            trained.records.append(record)
            on_update(record)

            # 2) End, or go on.
            if epochs.see(record):
                trained.status = "stopped"
                break
            if interrupted.is_set():
                trained.status = "interrupted"
                break
    # The controller sees a loss that is lost at the update after.
    check_sane(trained.module, trained.records[-1])
    epochs.close()
    trained.controller = controller.state_dict()


def check_sane(module: nn.Module, record: UpdateRecord) -> None:
    """Find weights that are not numbers before anybody predicts with them.

    Args:
        module: Trained.
        record: Of the last update.

    Raises:
        DivergedError: The last update was one too many.
    """
    values = [*module.parameters(), *module.buffers()]
    if not all(bool(one.isfinite().all()) for one in values):
        raise DivergedError(
            f"the weights are no longer finite after update {record.step}, batch size "
            f"{record.batch_size}, lr {record.lr:.3g}"
        )


def go_on(
    controller: BatchSizeController, stream: Stream, state: dict[str, Any] | None
) -> None:
    """Put a controller where an earlier one ended, at a new pass over other examples.

    Examples taken and epochs count on; the first of the new ones come next.

    Args:
        controller: At its beginning.
        stream: The controller's.
        state: Of the earlier one; None for no such.
    """
    if state is None:
        return
    own, before = stream.state_dict(), state["stream"]
    epochs = round(before["examples"] / before["dataset_size"])
    taken = before["examples"] - before["skipped"]
    place = epochs * own["dataset_size"]
    placed = own | {"examples": place, "skipped": place - taken}
    controller.load_state_dict({**state, "stream": placed})


@contextmanager
def own_generators(seed: int, device: torch.device) -> Generator[None]:
    """Return a block with random generators of its own; all are put back.

    Args:
        seed: They begin with.
        device: Whose are put back beside the CPU's.
    """
    devices = [device] if device.type == "cuda" else []
    with generators_put_back(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
