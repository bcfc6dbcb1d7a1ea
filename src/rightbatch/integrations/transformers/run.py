"""One call of ``Trainer.train`` whose updates are a controller's."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from transformers import ProgressCallback

from rightbatch.controller import HostedController
from rightbatch.errors import InputError
from rightbatch.integrations.transformers.following import Following
from rightbatch.integrations.transformers.loader import (
    epoch_size,
    length_of,
    micro_batch_size,
)
from rightbatch.integrations.transformers.losses import TrainerLosses
from rightbatch.integrations.transformers.micro_batches import MicroBatches
from rightbatch.integrations.transformers.position import Position, UpdatesPerEpoch
from rightbatch.integrations.windows import WindowLength
from rightbatch.policies import Observation, Policy, PolicyContext, ask
from rightbatch.sampler import CountedStream

_WHO = "BatchSizeCallback"
# Of what is saved with the state of the Trainer.
_KEY = "rightbatch"


class TrainerRun:
    """A run of a Trainer, from its first look at the data to its end.

    Args:
        trainer: Whose.
        following: What is followed, and how.
        loader: Of its training data.
        end: Micro-batches at which it ends; None where updates are counted.
    """

    def __init__(
        self, trainer: Any, following: Following, loader: Any, end: int | None
    ) -> None:
        self._trainer = trainer
        replicas = int(trainer.args.world_size)
        length = length_of(loader)
        micro = micro_batch_size(loader, trainer.args, replicas)
        device = next(trainer.model.parameters()).device
        self._stream = CountedStream(
            micro,
            dataset_size=None
            if length is None
            else epoch_size(trainer, loader, length, micro * replicas),
            num_replicas=replicas,
            device=device,
        )
        self._following = following.in_a_run(self._stream.granule, self._context())
        self.position = Position(length, end)
        self._losses = TrainerLosses(trainer)
        self._update: MicroBatches | None = None
        self._has_begun = False
        self._stretch = 1.0
        self._made_steps = 0
        self.first_example = 0
        self.controller: HostedController | None = None

    # Before the first update ----------------------------------------------------------

    def values(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what the Trainer plans with, made true of updates of any size.

        Args:
            values: Epochs, updates per epoch, ..., micro-batches per epoch, updates; as
                ``set_initial_training_values`` returns them.

        Returns:
            The same, in order.

        Raises:
            InputError: Of data of unknown length the Trainer cannot be told so.
        """
        planned, length = list(values), self.position.per_epoch
        per_epoch = int(planned[1])
        if length is None:
            # An epoch, and an update, end where the loader says so.
            per_epoch = sys.maxsize
            if planned[5] is None:
                raise InputError(
                    f"{_WHO}: data of unknown length needs transformers 5, as earlier "
                    "ones step after `max_steps` micro-batches, come what may.",
                    "upgrade it, or give the data set a __len__",
                )
            planned[5] = sys.maxsize
        elif self.position.in_all is None:
            # As many epochs as it takes: each has an update at least.
            planned[0] = planned[6]
        planned[1] = UpdatesPerEpoch(per_epoch, self._where)
        return tuple(planned)

    def schedule_length(self, updates: int) -> int:
        """Return the steps of the learning-rate schedule.

        Where training is counted in epochs they are the updates of a run that keeps
        the batch size the rate was chosen for.

        Args:
            updates: As the Trainer counts.
        """
        position, examples = self.position, self._stream.dataset_size
        if position.in_all is None or position.per_epoch is None or examples is None:
            return updates
        saved = self._trainer.state.stateful_callbacks.get(_KEY)
        base = saved and saved["controller"]["lr_batch_size"]
        base = self._following.acting.lr_batch_size or base or self._first_batch_size()
        exact = examples / base
        # An epoch's last update is shorter, and a whole one to the Trainer's schedule.
        per_epoch = math.ceil(exact - 1e-9)
        self._stretch = per_epoch / exact
        epochs = position.in_all / position.per_epoch
        return math.ceil(epochs * per_epoch - 1e-9)

    def start(self, optimizer: Any) -> None:
        """Make the controller, now that model and optimizer are ready.

        Args:
            optimizer: As accelerate wraps it.
        """
        given, trainer = self._following, self._trainer
        acting, sensing = given.acting, given.sensing
        if acting.counts == "auto" and self.position.in_all is None:
            acting = replace(acting, counts="steps")
        if self._losses.counts_items or sensing.tokens is not None:
            # They are counted when an update is fetched, and handed on.
            sensing = replace(sensing, tokens=float)
        self.controller = HostedController(
            trainer.model_wrapped,
            getattr(optimizer, "optimizer", optimizer),
            self._policy,
            self._stream,
            lr_rule=given.lr_rule,
            sensing=sensing,
            acting=acting,
        )
        self.controller.schedule_steps = self._stretch
        self._update = MicroBatches(
            trainer, self.controller, self._losses, given.sensing.tokens
        )
        state = self._saved("controller")
        if state is not None:
            self.controller.load_state_dict(state)
            self.position.epoch, self.position.batches = self._where()
        self.first_example = self._stream.examples

    # Updates --------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """Take notice that the Trainer begins an epoch."""
        # Some versions plan the epoch with it.
        self._trainer.args.gradient_accumulation_steps = 1
        if self._has_begun:
            self.position.next_epoch()
        elif self._trainer.args.ignore_data_skip:
            self.position.batches = 0
        self._has_begun = True

    def fetch(
        self, original: Callable[..., Any], batches: Any, *rest: Any, **named: Any
    ) -> tuple[list[Any], Any]:
        """Fetch the micro-batches of an update: as many as the policy wants.

        Args:
            original: The Trainer's ``get_batch_samples``.
            batches: The epoch's.
            *rest: The rest of its arguments.
            **named: The same, by name.

        Returns:
            What that returns; no micro-batches where the epoch is over.
        """
        position, controller = self.position, self._made()
        left = position.left
        if left == 0:
            return self._end_epoch()
        count = controller.begin(most=left)
        found, num_items = original(batches, count, *rest, **named)
        position.is_over = len(found) < count
        if not found:
            controller.discard()
            return self._end_epoch()
        self._opened().open(found, num_items)
        trainer = self._trainer
        trainer.args.gradient_accumulation_steps = WindowLength(
            len(found), start=position.batches
        )
        if position.in_all is not None:
            self._tell_end((position.in_all - position.done) / len(found))
        return found, num_items

    def train(self, original: Callable[..., Any], *rest: Any, **named: Any) -> Any:
        """Train on a micro-batch.

        Args:
            original: The Trainer's ``training_step``.
            *rest: Its arguments.
            **named: The same, by name.

        Returns:
            What that returns.
        """
        return self._opened().train(original, *rest, **named)

    def loss(self, original: Callable[..., Any], *rest: Any, **named: Any) -> Any:
        """Compute a loss; in training, one whose gradient has its share.

        Args:
            original: The Trainer's ``compute_loss``.
            *rest: Its arguments.
            **named: The same, by name.

        Returns:
            What that returns.
        """
        if self._update is None:
            return original(*rest, **named)
        return self._update.loss(original, *rest, **named)

    def after_step(self) -> None:
        """Take notice that the optimizer's step was made, or left out."""
        skipped = self._trainer.accelerator.optimizer_step_was_skipped
        count, fell = self._opened().close()
        if count:
            self._made().after_step(is_made=not (skipped or fell))
            self.position.batches += count
            self._made_steps = int(not skipped)

    def owed_schedule_steps(self) -> int:
        """Return the steps the schedule is behind by, once the Trainer made its own."""
        return self._made().owed_schedule_steps(self._made_steps)

    # After ----------------------------------------------------------------------------

    def save(self) -> None:
        """Put where the run is into the Trainer's state, which checkpoints hold."""
        if self.controller is None:
            return
        epoch, batches = self.position.to_go_on_from
        self._trainer.state.stateful_callbacks[_KEY] = {
            "controller": self.controller.state_dict(),
            "epoch": epoch,
            "examples": batches * self._stream.granule,
        }

    def finish(self) -> None:
        """Give the Trainer and its model back as they were."""
        self._update = None
        self._trainer.args.gradient_accumulation_steps = 1
        if self.controller is not None:
            self.controller.discard()
            self.controller.close()

    # ----------------------------------------------------------------------------------

    def _context(self) -> PolicyContext:
        """Return what is known of the run, for a policy that is only named."""
        args, stream = self._trainer.args, self._stream
        updates, epochs = int(args.max_steps), float(args.num_train_epochs)
        return PolicyContext(
            dataset_size=stream.dataset_size,
            num_replicas=stream.num_replicas,
            total_steps=updates if updates > 0 else None,
            epochs=epochs if updates <= 0 < epochs else None,
        )

    @property
    def _policy(self) -> Policy[Any]:
        policy = self._following.policy
        assert not isinstance(policy, str), "a name stands for a policy in a run"
        return policy

    def _opened(self) -> MicroBatches:
        assert self._update is not None, "on_train_begin comes before any update"
        return self._update

    def _made(self) -> HostedController:
        assert self.controller is not None, "on_train_begin comes before any update"
        return self.controller

    def _tell_end(self, updates: float) -> None:
        """Let the Trainer know the last update when it makes it, and show how far."""
        state, handler = self._trainer.state, self._trainer.callback_handler
        state.max_steps = state.global_step + math.ceil(updates)
        for one in handler.callbacks:
            if isinstance(one, ProgressCallback) and one.training_bar is not None:
                one.training_bar.total = state.max_steps

    def _end_epoch(self) -> tuple[list[Any], None]:
        self.position.is_over = True
        # The Trainer would ask for all the updates it had planned.
        self._trainer.control.should_epoch_stop = True
        return [], None

    def _first_batch_size(self) -> int:
        """Return the batch size that is served first, as far as nothing is measured."""
        policy, stream = self._policy, self._stream
        known = {"epoch": 0.0, "dataset_size": stream.dataset_size, "seconds": 0.0}
        seen = Observation(
            step=0,
            examples=0,
            batch_size=0,
            num_replicas=stream.num_replicas,
            **{name: known[name] for name in policy.needs if name in known},  # pyright: ignore
        )
        decision, _ = ask(policy, policy.init(), seen)
        return stream.served(decision.batch_size)

    def _saved(self, name: str) -> Any:
        """Return what a checkpoint that is gone on from holds; None without one.

        Raises:
            InputError: It was written without this callback.
        """
        state = self._trainer.state
        if not state.global_step:
            return None
        saved: Mapping[str, Any] | None = state.stateful_callbacks.get(_KEY)
        if saved is None:
            raise InputError(
                f"{_WHO}: the checkpoint was written without this callback, and does "
                "not say which examples were trained on.",
                "begin a new run from its weights: from_pretrained(checkpoint)",
            )
        return saved[name]

    def _where(self) -> tuple[int, int]:
        """Return the epoch and the micro-batches of it, where a checkpoint was.

        Raises:
            InputError: It is inside one of the present micro-batches.
        """
        examples, granule = self._saved("examples"), self._stream.granule
        if examples % granule:
            raise InputError(
                f"{_WHO}: the checkpoint is {examples} examples into an epoch, which "
                f"is no multiple of the {granule} of a micro-batch for each replica.",
                "go on with the micro-batch and the replicas it was written with",
            )
        return self._saved("epoch"), examples // granule
