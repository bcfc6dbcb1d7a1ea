"""The callback under which a Hugging Face Trainer's batch size follows a policy."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from transformers import TrainerCallback

from rightbatch.controller import Acting, HostedController, Sensing, UpdateRecord
from rightbatch.errors import InputError
from rightbatch.integrations.logging import Log, UpdateLog, rows_of
from rightbatch.integrations.transformers.following import Following
from rightbatch.integrations.transformers.refusals import refuse
from rightbatch.integrations.transformers.run import TrainerRun
from rightbatch.policies import Policy

_WHO = "BatchSizeCallback"
# Of a Trainer's methods that a callback has wrapped.
_MARK = "is_of_batch_size_callback"


class BatchSizeCallback(TrainerCallback):
    """Serves a Hugging Face Trainer batches whose size follows a policy.

    .. code-block:: python

        trainer = Trainer(model, args, train_dataset=data)
        trainer.add_callback(BatchSizeCallback(trainer, PadaDamp(...)))
        trainer.train()

    ``per_device_train_batch_size`` is the micro-batch; the policy says how many of them
    make an update, which is all that changes from one update to the next. The gradient
    is the mean over the update's examples, or over its tokens where the Trainer weighs
    by them (``num_items_in_batch``), however ragged the micro-batches are.

    Training for epochs sees each example as often as ever, in fewer updates, and the
    learning-rate schedule counts examples: it is that of a run that keeps the first
    batch size, warm-up included. With ``max_steps`` both count updates.

    Checkpoints hold what the run goes on from, in the Trainer's own state. At each of
    its ``logging_steps`` the Trainer reports ``batch/...``, ``noise/...``, ``cost/...``
    and ``optim/...`` of the last update beside its own numbers.

    Methods of `trainer` are wrapped, and are its own again after :meth:`close`.

    Args:
        trainer: Not accumulating by itself: it trains on one or several replicas, by
            DistributedDataParallel.
        policy: A policy, or its name as :func:`rightbatch.policies.named_policy` has
            it, beginning with a micro-batch on each replica.
        lr_rule: As :class:`rightbatch.BatchSizeController` has it.
        sensing: What is measured. Its `tokens`, where given, says what a micro-batch's
            loss is a mean over, instead of the items of its labels.
        acting: What is done to the optimizer; clipping, mixed precision and the
            schedule are the Trainer's.
        log: Called with numbers and step after each update, on the first replica.

    Raises:
        InputError: Something else says how the Trainer accumulates, it has such a
            callback already, there is no such policy or rule; or as for the controller.

    Example:
        >>> import torch
        >>> from transformers import Trainer, TrainingArguments
        >>> from rightbatch.policies import GeoDamp
        >>> class Model(torch.nn.Linear):
        ...     def forward(self, x):
        ...         return {"loss": super().forward(x).square().mean()}
        >>> data = [{"x": torch.randn(2)} for _ in range(16)]
        >>> args = TrainingArguments(
        ...     "unused",
        ...     per_device_train_batch_size=4,
        ...     num_train_epochs=2,
        ...     save_strategy="no",
        ...     report_to=[],
        ...     use_cpu=True,
        ...     disable_tqdm=True,
        ...     logging_strategy="no",
        ... )
        >>> trainer = Trainer(Model(2, 1), args, train_dataset=data)
        >>> policy = GeoDamp(initial_batch_size=4, delay=1, factor=2)
        >>> callback = BatchSizeCallback(trainer, policy, lr_rule="none")
        >>> trainer.add_callback(callback)
        >>> trainer.train().global_step
        {'train_runtime': ...
        6
        >>> [record.batch_size for record in callback.records]
        [4, 4, 4, 4, 8, 8]
    """

    def __init__(
        self,
        trainer: Any,
        policy: Policy[Any] | str,
        *,
        lr_rule: str = "auto",
        sensing: Sensing | None = None,
        acting: Acting | None = None,
        log: Log | None = None,
    ) -> None:
        refuse(trainer)
        if any(hasattr(getattr(trainer, name), _MARK) for name in self._around):
            raise InputError(
                f"{_WHO}: `trainer` must have no other {_WHO}, got one that has.",
                "close() the other first",
            )
        self._trainer = trainer
        self._following = Following(
            policy=policy,
            lr_rule=lr_rule,
            sensing=Sensing() if sensing is None else sensing,
            acting=Acting() if acting is None else acting,
            log=log,
        )
        self._updates: UpdateLog | None = None
        self._run: TrainerRun | None = None
        self._controller: HostedController | None = None
        self._own: dict[str, Any] = {}
        for name, replacement in self._around.items():
            self._wrap(name, replacement)

    # What is known --------------------------------------------------------------------

    @property
    def controller(self) -> HostedController | None:
        """The present run's, or the last one's; None before training begins."""
        return self._controller

    @property
    def records(self) -> list[UpdateRecord]:
        """What each update of this call of ``train`` was."""
        return [] if self._controller is None else self._controller.records

    def close(self) -> None:
        """Give the Trainer its methods back; it trains as it did without this.

        Once more does nothing.
        """
        self._end()
        for name, own in self._own.items():
            if own is None:
                delattr(self._trainer, name)
            else:
                setattr(self._trainer, name, own)
        self._own.clear()
        if self in self._trainer.callback_handler.callbacks:
            self._trainer.remove_callback(self)

    # What the Trainer calls -----------------------------------------------------------

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Make the controller."""
        if self._run is not None:
            self._run.start(rest["optimizer"])
            self._controller = self._run.controller
            log = self._following.log
            if log is not None and state.is_world_process_zero:
                self._updates = UpdateLog(log)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Count the epoch's micro-batches from nought."""
        if self._run is not None:
            self._run.begin_epoch()

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, **rest: Any
    ) -> None:
        """Let the learning rate follow the batch, for one step."""
        if self._controller is not None and self._controller.is_open:
            self._controller.before_step()

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, **rest: Any
    ) -> None:
        """Put the optimizer's settings back."""
        if self._run is not None:
            self._run.after_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Move the schedule as far as the batch goes, and log the update."""
        if self._run is None:
            return
        due, scheduler = self._run.owed_schedule_steps(), rest["lr_scheduler"]
        # One that steps on a measurement is moved where there is one.
        if due and "metrics" not in inspect.signature(scheduler.step).parameters:
            for _ in range(due):
                scheduler.step()
        if self._updates is not None and self.records:
            self._updates(self.records[-1])

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Give the Trainer and its model back as they were."""
        self._end()

    # Around the Trainer's methods -----------------------------------------------------

    @property
    def _around(self) -> dict[str, Callable[..., Any]]:
        return {
            "train": self._run_through,
            "set_initial_training_values": self._plan,
            "create_scheduler": self._schedule,
            "get_batch_samples": self._fetch,
            "training_step": self._train,
            "compute_loss": self._compute_loss,
            "save_model": self._save,
            "log": self._report,
        }

    def _wrap(self, name: str, replacement: Callable[..., Any]) -> None:
        original = getattr(self._trainer, name)

        @wraps(original)
        def method(*args: Any, **kwargs: Any) -> Any:
            return replacement(original, *args, **kwargs)

        setattr(method, _MARK, True)
        self._own[name] = self._trainer.__dict__.get(name)
        setattr(self._trainer, name, method)

    def _run_through(
        self, original: Callable[..., Any], *rest: Any, **named: Any
    ) -> Any:
        try:
            return original(*rest, **named)
        finally:
            # A run that an error ends has no on_train_end.
            self._end()

    def _plan(
        self,
        original: Callable[..., Any],
        args: Any,
        loader: Any,
        *rest: Any,
        **named: Any,
    ) -> Any:
        self._end()
        if self not in self._trainer.callback_handler.callbacks:
            raise InputError(
                f"{_WHO}: the Trainer trains without it.",
                "trainer.add_callback(it), or close() it",
            )
        refuse(self._trainer)
        values = original(args, loader, *rest, **named)
        end = None if args.max_steps > 0 else int(values[6])
        self._run = TrainerRun(self._trainer, self._following, loader, end)
        return self._run.values(values)

    def _schedule(
        self,
        original: Callable[..., Any],
        num_training_steps: int,
        *rest: Any,
        **named: Any,
    ) -> Any:
        if self._run is not None:
            num_training_steps = self._run.schedule_length(num_training_steps)
            self._trainer.state.max_steps = num_training_steps
        return original(num_training_steps, *rest, **named)

    def _fetch(self, original: Callable[..., Any], *rest: Any, **named: Any) -> Any:
        if self._run is None:
            return original(*rest, **named)
        batches, _, *others = rest
        return self._run.fetch(original, batches, *others, **named)

    def _train(self, original: Callable[..., Any], *rest: Any, **named: Any) -> Any:
        if self._run is None:
            return original(*rest, **named)
        return self._run.train(original, *rest, **named)

    def _compute_loss(
        self, original: Callable[..., Any], *rest: Any, **named: Any
    ) -> Any:
        if self._run is None:
            return original(*rest, **named)
        return self._run.loss(original, *rest, **named)

    def _save(self, original: Callable[..., Any], *rest: Any, **named: Any) -> Any:
        if self._run is not None:
            self._run.save()
        return original(*rest, **named)

    def _report(
        self, original: Callable[..., Any], logs: Any, *rest: Any, **named: Any
    ) -> Any:
        run, records = self._run, self.records
        if run is not None and records:
            if "loss" in logs:
                before = records[-2] if len(records) > 1 else None
                logs.update(rows_of(records[-1], before))
            elif "train_samples_per_second" in logs:
                # The Trainer takes every update for one of a micro-batch.
                examples = records[-1].examples - run.first_example
                speed = examples / max(logs["train_runtime"], 1e-9)
                logs["train_samples_per_second"] = round(speed, 3)
        return original(logs, *rest, **named)

    def _end(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish()
        self._updates = None
