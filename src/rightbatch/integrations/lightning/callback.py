"""A callback through which a Lightning Trainer's batch follows a policy."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rightbatch.controller import Acting, HostedController, Sensing, UpdateRecord
from rightbatch.errors import InputError
from rightbatch.gradients import NoiseReading
from rightbatch.integrations.lightning.loading import counted, first_length, loads_of
from rightbatch.integrations.lightning.refusals import (
    refuse_optimizers,
    refuse_settings,
    refuse_trainer,
)
from rightbatch.integrations.lightning.schedules import Schedules, acting_in
from rightbatch.integrations.logging import Log, log_record, rows_of
from rightbatch.integrations.windows import WindowLength
from rightbatch.policies import Policy, PolicyContext, named_policy
from rightbatch.sampler import CountedStream
from rightbatch.training.columns import RecordColumns, records_from

_WHO = "BatchSizeCallback"


def _lightning_callback() -> Any:
    """Return the class that Lightning's callbacks are made from.

    Raises:
        InputError: Lightning is not installed.
        ModuleNotFoundError: It is, and something that it needs is not.
    """
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return import_module(name).Callback
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0]:
                raise
    raise InputError(
        "rightbatch.integrations.lightning: lightning is not installed.",
        "pip install 'rightbatch[lightning]'",
    )


_Callback: Any = _lightning_callback()


class BatchSizeCallback(_Callback):
    """A Lightning callback that lets the batch follow a policy.

    .. code-block:: python

        callback = BatchSizeCallback("noise-following")
        trainer = Trainer(max_epochs=20, callbacks=[callback])
        trainer.fit(module, DataLoader(train_set, batch_size=16, shuffle=True))

    The loader's batches are the micro-batches, and an update is as many of them as the
    policy asks for: only between updates, and never beyond the end of an epoch. The
    gradient is the mean over the update's examples, however short the last of its
    micro-batches is. Clipping, precision, replicas, validation and checkpoints stay
    Lightning's; ``max_steps`` and ``global_step`` count updates.

    A schedule of interval "step" and frequency 1 goes as far in an update as
    ``Acting(counts=...)`` says; Lightning steps it once, and the callback makes the
    rest. "auto" is "steps" where ``max_steps`` ends the run. Those by epoch and
    ReduceLROnPlateau are left alone.

    Micro-batches whose ``training_step`` returns None are left out of their update.

    Args:
        policy: A policy, or its name as :func:`rightbatch.policies.named_policy` has
            it, beginning with a micro-batch on each replica.
        lr_rule: As :class:`rightbatch.controller.BatchSizeController` has it.
        sensing: What is measured.
        acting: What is done to the optimizer; schedule, clipping and scaler are
            Lightning's.
        micro_batch_size: Examples in a batch of the loader, where that does not say.
        count: ``count(batch)``, how many examples a batch has; the length of its first
            tensor when None.
        log: Told of each update, in the first process. The Trainer's loggers are told
            too, every ``log_every_n_steps`` updates, at the step of Lightning's own
            rows, which count updates from 0.

    Raises:
        InputError: A name is unknown, or a setting of another kind. When ``fit``
            begins: Trainer, strategy, module, optimizer or loader are such that the
            callback cannot say when an update is made. In training: a batch does not
            say how many examples it has, or epochs are not of one length.

    Example:
        >>> callback = BatchSizeCallback("geodamp:delay=2,factor=2")
        >>> callback.batch_size, callback.noise_scale, callback.records
        (0, None, [])
    """

    def __init__(
        self,
        policy: Policy[Any] | str,
        *,
        lr_rule: str = "auto",
        sensing: Sensing | None = None,
        acting: Acting | None = None,
        micro_batch_size: int | None = None,
        count: Callable[[Any], int] | None = None,
        log: Log | None = None,
    ) -> None:
        super().__init__()
        settings = {
            "sensing": sensing,
            "acting": acting,
            "micro_batch_size": micro_batch_size,
            "count": count,
            "log": log,
        }
        refuse_settings(policy, lr_rule, settings)
        self._policy, self._lr_rule = policy, lr_rule
        # What a name stands for, as long as the run lasts.
        self._followed: Policy[Any] | None = None
        self._sensing, self._acting = sensing, acting
        self._micro_batch_size, self._count = micro_batch_size, count
        self._log = log
        self._controller: HostedController | None = None
        self._columns = RecordColumns()
        # Of a checkpoint, until training begins; it may be over already.
        self._state: Mapping[str, Any] | None = None
        self._loads: Any = None
        self._schedules: Any = None
        self._hooks: list[Any] = []
        self._scaler: Any = None
        self._scale = 1.0
        # Of the update under way: the batch after its last, and how a loss counts.
        self._stop, self._is_last = 0, False
        self._share, self._loss, self._loss_scale = 1.0, torch.zeros(()), 1.0
        self._is_inside = self._is_stepped = False
        self._paused = 0.0

    # What is known --------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """Examples of the last update; 0 before the first."""
        records = self.records
        return records[-1].batch_size if records else 0

    @property
    def noise_scale(self) -> NoiseReading | None:
        """The noise scale as measured; None while or where it is not."""
        return None if self._controller is None else self._controller.noise_scale

    @property
    def records(self) -> list[UpdateRecord]:
        """What each update was, of the whole run."""
        if self._state:
            return records_from(self._state["records"])
        return [] if self._controller is None else self._controller.records

    # The run --------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse what cannot be followed, before anything is set up."""
        if stage != "fit":
            return
        refuse_trainer(trainer, pl_module)
        # The same Trainer goes on where it was; another one begins.
        self._state = None
        if trainer.global_step == 0:
            self._controller = self._followed = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the controller, and let it go on from a checkpoint."""
        refuse_optimizers(trainer.optimizers)
        optimizer = trainer.optimizers[0]
        plugin = trainer.precision_plugin
        self._scaler = plugin.scaler if hasattr(plugin, "scaler") else None
        sensing = self._sensing or Sensing()
        if sensing.noise == "auto" and _is_compiled(pl_module):
            sensing = replace(sensing, noise="units")
        state, self._state = self.state_dict(), None
        controller = self._controller = self._made(trainer, optimizer, sensing)
        if state:
            controller.records = records_from(state["records"])
            controller.load_state_dict(state["controller"])
        self._schedules = Schedules(trainer)
        self._hooks = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def _made(
        self, trainer: Any, optimizer: Optimizer, sensing: Sensing
    ) -> HostedController:
        loads = self._loads = loads_of(
            trainer.train_dataloader,
            self._micro_batch_size,
            trainer.num_training_batches,
        )
        replicas, size = trainer.world_size, loads.epoch_size
        stream = CountedStream(
            loads.micro_batch_size,
            dataset_size=size and size * replicas,
            num_replicas=replicas,
            device=next(trainer.model.parameters()).device,
        )
        if self._followed is None:
            self._followed = self._meant(trainer, stream)
        return HostedController(
            trainer.model,
            optimizer,
            self._followed,
            stream,
            lr_rule=self._lr_rule,
            sensing=sensing,
            acting=acting_in(trainer, self._acting or Acting()),
        )

    def _meant(self, trainer: Any, stream: CountedStream) -> Policy[Any]:
        """Return the policy, of a name what it stands for in this run."""
        if not isinstance(self._policy, str):
            return self._policy
        epochs, steps = trainer.max_epochs, trainer.max_steps
        context = PolicyContext(
            dataset_size=stream.dataset_size,
            num_replicas=stream.num_replicas,
            total_steps=steps if steps > 0 else None,
            epochs=epochs if epochs and epochs > 0 else None,
        )
        return named_policy(
            self._policy, initial_batch_size=stream.granule, context=context
        )

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget an update that the last epoch broke off."""
        self._loads.agree_with(trainer.num_training_batches)
        self._running.discard()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave model, optimizer and Trainer as they were."""
        self._leave(trainer)

    def on_exception(self, trainer: Any, pl_module: Any, exception: Any) -> None:
        """Leave model, optimizer and Trainer as they were."""
        self._leave(trainer)

    def _leave(self, trainer: Any) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        if self._schedules is not None:
            self._schedules.release()
            self._schedules = None
        # Also where training was refused, once there was a controller.
        if self._controller is not None:
            self._controller.discard()
            self._controller.close()
        if isinstance(trainer.accumulate_grad_batches, WindowLength):
            trainer.accumulate_grad_batches = 1

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is: plain values and tensors, for a checkpoint."""
        if self._state or self._controller is None:
            return dict(self._state or {})
        self._columns.follow(self._controller.records)
        return {
            "controller": self._controller.state_dict(),
            "records": self._columns.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint, once training begins."""
        self._state = state_dict

    # One update, in the order of its calls --------------------------------------------

    @property
    def _running(self) -> HostedController:
        if self._controller is None:
            raise InputError(
                f"{_WHO}: training has not begun.", "let the Trainer call the callback"
            )
        return self._controller

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin an update with its first micro-batch; count the examples of each."""
        controller, epoch_end = self._running, trainer.num_training_batches
        # Past its last batch where the loader gave None instead: there was no step.
        if not controller.is_open or batch_idx >= self._stop:
            self._begin(trainer, batch_idx, epoch_end)
        after = batch_idx + 1
        self._is_last = trainer.is_last_batch or after in (self._stop, epoch_end)
        count = self._count
        if count is None:
            num_examples = first_length(batch, self._loads.most)
        else:
            num_examples = counted(count, batch)
        self._share = controller.enter(num_examples, batch)
        self._is_inside, self._is_stepped = True, False

    def _begin(self, trainer: Any, batch_idx: int, epoch_end: float) -> None:
        most = None
        if trainer.is_last_batch:
            most = 1
        elif math.isfinite(epoch_end):
            most = int(epoch_end) - batch_idx
        length = self._running.begin(most)
        self._stop = batch_idx + length
        trainer.accumulate_grad_batches = WindowLength(length, batch_idx)
        self._schedules.hold()
        if self._scaler is not None:
            self._scale = self._scaler.get_scale()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Let the loss count for as much as its micro-batch is of the update."""
        divided = int(trainer.accumulate_grad_batches)
        factor = self._share * divided
        self._loss, self._loss_scale = loss.detach(), self._scale / divided
        if loss.requires_grad and not math.isclose(factor, 1.0, rel_tol=1e-12):
            loss.register_hook(partial(torch.mul, other=factor))

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        """Let the gradient be read; after the last one it is the mean."""
        self._is_inside = False
        self._running.leave(
            self._loss,
            loss_scale=self._loss_scale,
            grad_scale=self._scale,
            is_last=self._is_last,
        )

    def on_before_optimizer_step(
        self, trainer: Any, pl_module: Any, optimizer: Any
    ) -> None:
        """Let learning rate and kin follow the batch."""
        self._withdraw_unless_left()
        # A scaler may leave the step out: it is waited for, as is the end of it.
        if self._scaler is None and self._running.is_open:
            self._running.before_step()

    def _before_step(self, *told: Any) -> None:
        if self._scaler is not None and self._running.is_open:
            self._running.before_step()

    def _after_step(self, *told: Any) -> None:
        # Before Lightning moves the schedules, which must find the user's own rates.
        self._running.put_back()
        self._is_stepped = True

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write down what the update was, and move the schedules on."""
        controller = self._running
        if batch is None:
            return
        self._withdraw_unless_left()
        if not self._is_last:
            return
        is_done = controller.is_open
        if is_done:
            controller.after_step(is_made=self._is_made())
        self._schedules.advance(controller.owed_schedule_steps(1))
        if is_done:
            self._tell(trainer)

    def _withdraw_unless_left(self) -> None:
        """Leave a micro-batch out that had no backward pass."""
        if self._is_inside:
            self._is_inside = False
            self._running.withdraw(grad_scale=self._scale, is_last=self._is_last)

    def _is_made(self) -> bool:
        """Return whether the optimizer stepped: a scaler goes down where it did not."""
        scaler = self._scaler
        is_lost = scaler is not None and scaler.get_scale() < self._scale
        return self._is_stepped and not is_lost

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock of the update that a validation interrupts."""
        self._paused = perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Start it again."""
        if self._controller is not None:
            self._controller.excuse(perf_counter() - self._paused)

    def _tell(self, trainer: Any) -> None:
        if not trainer.is_global_zero:
            return
        records = self.records
        before = records[-2] if len(records) > 1 else None
        if self._log is not None:
            log_record(records[-1], self._log, before)
        step = trainer.global_step
        if trainer.loggers and step % trainer.log_every_n_steps == 0:
            rows = rows_of(records[-1], before)
            for logger in trainer.loggers:
                logger.log_metrics(rows, step=step - 1)


def _is_compiled(module: Any) -> bool:
    """Return whether a module's steps are compiled: Lightning keeps the module itself.

    Single examples cannot be read in what is compiled.
    """
    return hasattr(module, "_compiler_ctx") and module._compiler_ctx is not None
