"""The reference training loop: a model, a loss, and a controller that serves batches.

Read :func:`train` from top to bottom: it is all that an adaptive batch size asks of a
loop. The rest of the file keeps what was done: checkpoints, and Ctrl-C.
"""

import math
import os
import random
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rightbatch import _checks
from rightbatch.controller import BatchSizeController, Update, UpdateRecord
from rightbatch.errors import DivergedError, InputError
from rightbatch.timing import is_out_of_memory

Status = Literal["finished", "stopped", "diverged", "interrupted"]
Loss = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """When training ends: at the first of these that is there.

    Args:
        epochs: Passes over the data set.
        max_steps: Updates.
        max_examples: Examples.
        max_seconds: Seconds of training, evaluations apart.

    Raises:
        InputError: None is given, or one is not positive.

    Example:
        >>> Until(epochs=20).max_steps is None
        True
    """

    epochs: float | None = None
    max_steps: int | None = None
    max_examples: int | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        names = ("epochs", "max_steps", "max_examples", "max_seconds")
        given = [name for name in names if getattr(self, name) is not None]
        if not given:
            raise InputError(
                "Until: an end must be given.", f"one of {', '.join(names)}"
            )
        for name in given:
            _checks.positive("Until", name, getattr(self, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where and how often the state of a run is written.

    Args:
        path: The file; replaced whole or not at all.
        every_seconds: Between two writings; the end is always written.
        resume: Go on from the file where there is one.

    Raises:
        InputError: `every_seconds` is negative.

    Example:
        >>> Checkpoint(path=Path("run.pt")).every_seconds
        30.0
    """

    path: Path
    every_seconds: float = 30.0
    resume: bool = False

    def __post_init__(self) -> None:
        _checks.nonnegative("Checkpoint", "every_seconds", self.every_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingEnd:
    """How training ended.

    Args:
        status: "finished": the end that was asked for; "stopped": by `on_update`;
            "diverged": the loss is lost, and model and optimizer are back where it was
            sane; "interrupted": by Ctrl-C, after the update under way.
        step: Updates done.
        examples: Examples they took.
        seconds: Of training, evaluations apart.
        evaluating_seconds: Of what the policy had evaluated.
        said: What went wrong on the way, one sentence each.
    """

    status: Status
    step: int
    examples: int
    seconds: float
    evaluating_seconds: float
    said: tuple[str, ...] = ()


def train(
    controller: BatchSizeController,
    loss: Loss,
    *,
    until: Until,
    on_update: Callable[[UpdateRecord], bool | None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> TrainingEnd:
    """Train the controller's model until an end is reached.

    Args:
        controller: With model, optimizer, policy and stream.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,), or
            their mean, shape ().
        until: When to end.
        on_update: Called with the record of each update; True ends training.
        checkpoint: Where the state is written; nowhere when None.

    Returns:
        How it ended; what happened is in ``controller.records``.

    Raises:
        InputError: A checkpoint is of another run.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> from rightbatch.policies import Constant
        >>> from rightbatch.sampler import MicroBatchStream
        >>> model = nn.Linear(2, 1)
        >>> controller = BatchSizeController(
        ...     model,
        ...     torch.optim.SGD(model.parameters(), lr=0.1),
        ...     Constant(batch_size=8),
        ...     MicroBatchStream(TensorDataset(torch.randn(64, 2)), 8),
        ... )
        >>> loss = lambda model, batch: model(batch[0]).square().squeeze(1)
        >>> end = train(controller, loss, until=Until(epochs=2))
        >>> end.status, end.step, end.examples
        ('finished', 16, 128)
    """
    files = None if checkpoint is None else _Files(checkpoint, controller)
    status: Status = "finished"
    said: tuple[str, ...] = ()
    with _patient_interrupt() as interrupted:
        try:
            for update in controller.updates(
                epochs=until.epochs,
                max_steps=until.max_steps,
                max_examples=until.max_examples,
            ):
                accumulate(update, controller.model, loss)
                update.step()

                record = controller.records[-1]
                if on_update is not None and on_update(record):
                    status = "stopped"
                    break
                if interrupted.is_set():
                    status = "interrupted"
                    break
                if record.seconds >= (until.max_seconds or math.inf):
                    break
                if files is not None:
                    files.write_if_due()
        except DivergedError as error:
            status, said = "diverged", (str(error),)
    if files is not None:
        files.write()
        said = (*said, *files.said)
    return TrainingEnd(
        status=status,
        step=controller.step,
        examples=controller.examples,
        seconds=controller.seconds,
        evaluating_seconds=controller.evaluating_seconds,
        said=said,
    )


def accumulate(update: Update, model: nn.Module, loss: Loss) -> None:
    """Add up the gradient of an update; what does not fit is begun anew, smaller.

    Args:
        update: From a controller.
        model: Called by `loss`.
        loss: Of each example or their mean.

    Raises:
        RuntimeError: The loss raised it, and not for want of memory.
        MemoryError: Never; in smaller passes it is another try.
    """
    while True:
        try:
            for part in update:
                update.backward(loss(model, part.batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        # Outside of the handler: the error holds on to the tensors of the pass.
        update.in_smaller_passes()


# Checkpoints --------------------------------------------------------------------------


class _Files:
    """Writes the state of a run now and then, and goes on from it."""

    def __init__(self, checkpoint: Checkpoint, controller: BatchSizeController) -> None:
        self._settings, self._controller = checkpoint, controller
        self.said: list[str] = []
        if checkpoint.resume and checkpoint.path.exists():
            load_checkpoint(checkpoint.path, controller)
        self._last = monotonic()

    def write_if_due(self) -> None:
        if monotonic() - self._last >= self._settings.every_seconds:
            self.write()

    def write(self) -> None:
        try:
            save_checkpoint(self._settings.path, self._controller)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter
            # A full disk is no reason to lose the run; the last file is still there.
            reason = str(error).partition("\n")[0]
            text = f"the checkpoint {self._settings.path} was not written: {reason}"
            if text not in self.said:
                self.said.append(text)
        self._last = monotonic()


def save_checkpoint(path: Path, controller: BatchSizeController) -> None:
    """Write all that a run is: weights, optimizer, position, generators, records.

    With several replicas all must call it, and the first one writes.

    Args:
        path: The file; replaced whole or not at all.
        controller: Between two updates.

    Raises:
        OSError: The file cannot be written; an earlier one is as it was.
    """
    state = {
        **controller.training_state(),
        "records": [tuple(record) for record in controller.records],
        "generators": _generators(),
    }
    if not controller.is_first_replica:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_checkpoint(path: Path, controller: BatchSizeController) -> None:
    """Put a run back to where it was written.

    Args:
        path: Written by :func:`save_checkpoint`.
        controller: Made as it was then; micro-batch size and replicas may differ.

    Raises:
        InputError: There is no such file, it is no checkpoint, or of another run.
    """
    who = "load_checkpoint"
    try:
        # Nothing but numbers is in it: a file from elsewhere must not run code.
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{who}: there is no file {path}.") from None
    except Exception as error:
        raise InputError(
            f"{who}: {path} is not a checkpoint of rightbatch ({type(error).__name__})."
        ) from None
    if not isinstance(state, dict) or "records" not in state:
        raise InputError(f"{who}: {path} is not a checkpoint of rightbatch.")
    controller.load_training_state(state)  # pyright: ignore[reportUnknownArgumentType]
    controller.records = [UpdateRecord(*one) for one in state["records"]]
    _restore_generators(state["generators"])


def _generators() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "random": random.getstate(),
    }


def _restore_generators(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    random.setstate(states["random"])


# Ctrl-C -------------------------------------------------------------------------------


@contextmanager
def _patient_interrupt() -> Generator[threading.Event]:
    """Let the update under way end before Ctrl-C is heard; a second one is heard now.

    Half an update is a state nobody could go on from.

    Yields:
        Set once Ctrl-C was pressed.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        if asked.is_set():
            signal.default_int_handler(number, frame)
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
