"""The reference training loop: a model, a loss, and a controller that serves batches.

Read :func:`train` from top to bottom: it is all that an adaptive batch size asks of a
loop. What keeps a run, and what replicas tell each other, stands beside this file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from rightbatch import _checks
from rightbatch.controller import BatchSizeController, Update, UpdateRecord
from rightbatch.errors import DivergedError, InputError
from rightbatch.timing import is_out_of_memory
from rightbatch.training.checkpoints import Checkpoint, Files
from rightbatch.training.interrupt import patient_interrupt
from rightbatch.training.together import Signs, seen_by_any

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

    With several replicas all call it, and an end that one of them sees, `on_update` or
    Ctrl-C or the clock, is the end of all after the same update.

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
        InputError: A checkpoint cannot be written, or is of another run.

    Example:
        >>> import torch
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
    files = Files(checkpoint, controller)
    status: Status = "finished"
    said: tuple[str, ...] = ()
    with patient_interrupt() as interrupted:
        try:
            for update in controller.updates(
                epochs=until.epochs,
                max_steps=until.max_steps,
                max_examples=until.max_examples,
            ):
                # 1) The gradient of the batch, and the step.
                accumulate(update, controller.model, loss)
                update.step()

                # 2) What now? With several replicas, the same for all of them.
                record = controller.records[-1]
                own = Signs(
                    stop=on_update is not None and bool(on_update(record)),
                    interrupt=interrupted.is_set(),
                    time_is_up=record.seconds >= (until.max_seconds or math.inf),
                    write=files.are_due,
                )
                signs = seen_by_any(controller, own)

                # 3) End, or write what there is and go on.
                if signs.stop or signs.interrupt:
                    status = "stopped" if signs.stop else "interrupted"
                    break
                if signs.time_is_up:
                    break
                if signs.write:
                    files.write()
        except DivergedError as error:
            status, said = "diverged", (str(error),)
        files.write()
    return TrainingEnd(
        status=status,
        step=controller.step,
        examples=controller.examples,
        seconds=controller.seconds,
        evaluating_seconds=controller.evaluating_seconds,
        said=(*said, *files.said),
    )


def accumulate(update: Update, model: nn.Module, loss: Loss) -> None:
    """Add up the gradient of an update, in smaller passes where memory runs out.

    Args:
        update: From a controller.
        model: Called by `loss`.
        loss: Of each example or their mean.

    Raises:
        Exception: What the loss raised, but for memory that ran out.
    """
    while True:
        try:
            for part in update:
                update.backward(loss(model, part.batch))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        else:
            return
        # Outside of the handler: the error holds on to the tensors of the pass.
        update.in_smaller_passes()
