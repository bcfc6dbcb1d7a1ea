"""Where decide, measure and act meet: the batch of a training loop follows a policy."""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from rightbatch import _checks
from rightbatch.controller.accumulation import Accumulation
from rightbatch.controller.acting import Acting, Follower
from rightbatch.controller.guard import Rescue
from rightbatch.controller.observing import Memory, Observer
from rightbatch.controller.record import UpdateRecord, trace_of
from rightbatch.controller.sensing import NoiseSensor, Sensing, needs_noise
from rightbatch.controller.shared import GradientSharing, check_places
from rightbatch.controller.stepping import Stepper, StepTaken
from rightbatch.controller.update import Update
from rightbatch.errors import DivergedError, InputError
from rightbatch.gradients import NoiseReading
from rightbatch.policies import (
    Decision,
    Policy,
    ask,
    check_policy,
    pack_state,
    policy_name,
    policy_signature,
    unpack_state,
)
from rightbatch.sampler import Stream, UpdateBatch
from rightbatch.simulation import Trace

_WHO = "BatchSizeController"


class BatchSizeController:
    """Serves a training loop batches whose size follows a policy.

    .. code-block:: python

        stream = MicroBatchStream(train_set, 16, seed=0)
        controller = BatchSizeController(
            model, optimizer, AdaDamp(...), stream, lr_rule="adascale"
        )
        for update in controller.updates(epochs=20):
            for part in update:
                update.backward(cross_entropy(model(part.batch[0]), part.batch[1]))
            update.step()

    Before each update the policy is asked for a batch size, which is rounded to what
    the stream can serve; what the policy needs to know is measured, and nothing else;
    while the step is made, the learning rate and its kin follow the batch.

    Args:
        model: As the loop calls it: plain, compiled, in DistributedDataParallel or
            sharded by ``fully_shard``.
        optimizer: Of its parameters.
        policy: Decides.
        stream: Of examples; cut for as many replicas as share the model.
        lr_rule: Of :data:`rightbatch.lr_scaling.LR_RULES`; ``auto``, which is AdaScale
            for SGD; or ``none``.
        sensing: What is measured, and how.
        acting: What is done to the optimizer.

    Raises:
        InputError: The policy needs what the loop cannot measure, the rule is unknown,
            or model and stream are on different devices or of different replicas.

    Example:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from rightbatch.policies import GeoDamp
        >>> from rightbatch.sampler import MicroBatchStream
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> data = TensorDataset(torch.randn(64, 2))
        >>> controller = BatchSizeController(
        ...     model,
        ...     optimizer,
        ...     GeoDamp(initial_batch_size=8, delay=1, factor=2),
        ...     MicroBatchStream(data, 8, seed=0),
        ... )
        >>> for update in controller.updates(epochs=2):
        ...     for part in update:
        ...         update.backward(model(part.batch[0]).square().mean())
        ...     update.step()
        >>> [record.batch_size for record in controller.records]
        [8, 8, 8, 8, 8, 8, 8, 8, 16, 16, 16, 16]
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        policy: Policy[Any],
        stream: Stream,
        *,
        lr_rule: str = "none",
        sensing: Sensing | None = None,
        acting: Acting | None = None,
    ) -> None:
        sensing, acting = sensing or Sensing(), acting or Acting()
        needs = check_policy(_WHO, policy)
        sensing.refuse(policy_name(policy), needs, stream.dataset_size is not None)
        self._model, self._optimizer = model, optimizer
        self._policy, self._stream, self._acting = policy, stream, acting
        self._sharing = GradientSharing(model)
        check_places(self._sharing, stream)
        measures = sensing.noise != "off"
        self._follower = Follower(optimizer, lr_rule, acting, noise=measures)
        self._stepper = Stepper(
            optimizer,
            self._follower,
            acting,
            wants_norm="batch_grad_sq_norm" in needs,
        )
        self._noise: NoiseSensor | None = None
        if needs_noise(needs) or self._follower.needs_noise_scale:
            self._noise = NoiseSensor(model, sensing, stream.dataset_size)
        self._gradient = Accumulation(
            optimizer, stream, self._sharing, self._noise, sensing, acting
        )
        self._memory = Memory()
        self._observer = Observer(policy, needs, sensing, stream, self._noise)
        self._rescue: Rescue | None = None
        if acting.guard is not None:
            parts = (model, optimizer, acting.scheduler, acting.scaler)
            self._rescue = Rescue(acting.guard, [one for one in parts if one])
        self._pending: Update | None = None
        self._before: dict[str, Any] = {}
        self._state: Any = policy.init()
        self._decision = Decision(1.0)
        self._wish, self._served = 0.0, 0
        self._lap = (0.0, 0.0)
        self.records: list[UpdateRecord] = []

    # In the loop ------------------------------------------------------------------

    def updates(
        self,
        *,
        epochs: float | None = None,
        max_steps: int | None = None,
        max_examples: int | None = None,
    ) -> Iterator[Update]:
        """Return the updates to make, until the first of the limits.

        Limits are those of the whole run: after a resume it goes on to the same end.

        Args:
            epochs: Passes over the data set.
            max_steps: Updates.
            max_examples: Examples.

        Raises:
            InputError: A limit is not positive, or the data set's length, which epochs
                need, is unknown.
        """
        for name, value in (
            ("epochs", epochs),
            ("max_steps", max_steps),
            ("max_examples", max_examples),
        ):
            if value is not None:
                _checks.positive(f"{_WHO}.updates", name, value)
        end = math.inf
        if epochs is not None:
            size = self._stream.dataset_size
            if size is None:
                raise InputError(
                    f"{_WHO}.updates: `epochs` needs the length of the data set, which "
                    "is unknown.",
                    "give max_steps or max_examples",
                )
            end = epochs * size
        return self._updates(max_steps or math.inf, max_examples or math.inf, end)

    def _updates(
        self, max_steps: float, max_examples: float, end: float
    ) -> Generator[Update]:
        stream = self._stream
        while (
            self._memory.step < max_steps
            and stream.taken < max_examples
            and stream.examples < end
        ):
            update = self._next_update(end)
            if update is None:
                return
            yield update
            if self._pending is not None:
                raise InputError(
                    f"{_WHO}: an update was not made.",
                    "call update.step() once its parts are through",
                )

    # What is known ----------------------------------------------------------------

    @property
    def step(self) -> int:
        """Updates done."""
        return self._memory.step

    @property
    def examples(self) -> int:
        """Examples they took."""
        return self._stream.taken

    @property
    def batch_size(self) -> int:
        """Examples of the last update; 0 before the first."""
        return self._memory.batch_size

    @property
    def noise_scale(self) -> NoiseReading | None:
        """The noise scale as measured; None while or where it is not."""
        return None if self._noise is None else self._noise.reading

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        return self._model

    @property
    def is_first_replica(self) -> bool:
        """Whether this process writes what all know."""
        return self._sharing.is_first

    @property
    def num_replicas(self) -> int:
        """How many replicas share the batch."""
        return self._sharing.num_replicas

    def sum_over_replicas(self, numbers: Sequence[float]) -> list[float]:
        """Return sums over the replicas, in one exchange; all of them must ask."""
        return self._sharing.sum(numbers)

    @property
    def seconds(self) -> float:
        """Seconds of all updates, evaluations apart."""
        return self._memory.seconds

    @property
    def evaluating_seconds(self) -> float:
        """Seconds of what a policy had evaluated; training does not count them."""
        return self._observer.seconds

    @property
    def warnings(self) -> tuple[str, ...]:
        """Conditions of the learning-rate rule that do not hold."""
        return self._follower.warnings

    def trace(self) -> Trace:
        """Return the run so far as simulations have it and ``replay`` reads it."""
        return trace_of(self.records)

    # Life -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is: plain values, beside the model's and optimizer's.

        Position is in examples, so a run may go on with another micro-batch size or
        number of replicas. While an update is under way, it is the state before it.
        """
        clock = self._stepper.clock
        now = self._place() if self._pending is None else self._before
        return {
            "policy": policy_signature(self._policy),
            "state": pack_state(now["state"]),
            "memory": self._memory.to_dict(),
            "stream": now["stream"],
            "lr_batch_size": self._follower.lr_batch_size,
            "noise": None if self._noise is None else self._noise.state_dict(),
            "clock": None if clock is None else clock.state_dict(),
            "watch": None if self._rescue is None else self._rescue.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            InputError: It is of another policy, of other data, or is no such state.
        """
        self._check_policy(state)
        self._stream.load_state_dict(state["stream"])
        self._state = unpack_state(self._policy, state["state"])
        self._memory = Memory(**state["memory"])
        # What the user says now counts more than what was so then.
        if self._acting.lr_batch_size is None:
            self._follower.lr_batch_size = state["lr_batch_size"]
        for part, name in (
            (self._noise, "noise"),
            (self._stepper.clock, "clock"),
            (self._rescue, "watch"),
        ):
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])
            elif part is not None:
                part.reset()
        self._pending = None
        # A run put back is at an earlier step; one begun elsewhere has no records here.
        self.records = [one for one in self.records if one.step <= self.step]

    def _check_policy(self, state: Mapping[str, Any]) -> None:
        who = f"{_WHO}.load_state_dict"
        missing = [key for key in self.state_dict() if key not in state]
        if missing:
            raise InputError(f"{who}: the state lacks {missing[0]!r}.")
        own = policy_signature(self._policy)
        if state["policy"] != own:
            raise InputError(
                f"{who}: the state is of another policy, {state['policy']}, not {own}.",
                "go on with the same one, or begin anew",
            )

    def training_state(self) -> dict[str, Any]:
        """Return all that training goes on from: this, model, optimizer, scheduler.

        Of a sharded model the whole, on the CPU; all replicas must ask.
        """
        model, optimizer = self._sharing.state(self._model, self._optimizer)
        acting = self._acting
        return {
            "controller": self.state_dict(),
            "model": model,
            "optimizer": optimizer,
            "scheduler": acting.scheduler and acting.scheduler.state_dict(),
            "scaler": acting.scaler and acting.scaler.state_dict(),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`training_state` returned.

        Raises:
            InputError: It is of another policy, model or optimizer.
        """
        self._check_policy(state["controller"])
        try:
            self._sharing.load(
                self._model, self._optimizer, state["model"], state["optimizer"]
            )
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{_WHO}: the state is of another model or optimizer: {reason}"
            ) from None
        self.load_state_dict(state["controller"])
        for part, name in (
            (self._acting.scheduler, "scheduler"),
            (self._acting.scaler, "scaler"),
        ):
            if part is not None and state[name] is not None:
                part.load_state_dict(state[name])

    def close(self) -> None:
        """Take the noise meter's hooks off the model."""
        if self._noise is not None:
            self._noise.close()

    # One update -------------------------------------------------------------------

    def _place(self) -> dict[str, Any]:
        return {"state": self._state, "stream": self._stream.state_dict()}

    def _next_update(self, end: float) -> Update | None:
        """Return the next update; None where its examples would lie past the end."""
        self._lap = (perf_counter(), self._observer.seconds)
        self._gradient.start()
        if self._pending is None:
            # An update that is broken off has taken no examples, and is served again.
            self._before = self._place()
            batch = self._next_batch(end)
            if batch is None:
                self._state = self._before["state"]
                return None
        else:
            batch = self._pending.batch
        self._pending = Update(self._gradient, batch, self._finish)
        return self._pending

    def _decide(self) -> int:
        """Return the batch size to serve next, as the policy wants it."""
        memory, replicas = self._memory, self._sharing.num_replicas
        seen = self._observer.observe(memory, self._state, replicas)
        decision, self._state = ask(self._policy, self._state, seen)
        if replicas > 1:
            # Clocks and last digits may differ between replicas; the first one decides.
            size, factor = self._sharing.agree(decision[:2])
            decision = Decision(size, factor, decision.reason)
        self._decision = decision
        if decision.batch_size != self._wish:
            self._wish = decision.batch_size
            self._served = self._stream.served(self._wish)
        return self._served

    def _next_batch(self, end: float) -> UpdateBatch | None:
        size = self._decide()
        if self._stream.begins_at(size) >= end:
            return None  # the rest of the epoch is too little for a batch that grew
        if self._noise is None:
            return self._stream.next(size)
        units = self._noise.units_of(size, self._stream.micro_batch_size)
        batch = self._stream.next(size, min_units=units)
        self._noise.look_at(batch)
        return batch

    def _finish(self, update: Update, closure: Callable[[], Tensor] | None) -> None:
        """Make the step of an update, and write down what it was."""
        size = update.batch_size
        noise_scale = None if self._noise is None else self._noise.usable
        factor = self._decision.lr_factor
        losses: list[float] = []
        if closure is None:
            losses.append(self._checked_loss(update))
        else:
            closure = self._watched(update, closure, losses)
        taken = self._stepper.step(size, noise_scale, factor, closure)
        self._pending = None
        self._note(update.batch, losses[0] if losses else math.nan, taken)
        if taken.is_made:
            self._stepper.advance(size, noise_scale)
        if self._rescue is not None and self._rescue.is_due(self.step):
            self._rescue.keep(self.state_dict())

    def _note(self, batch: UpdateBatch, loss: float, taken: StepTaken) -> None:
        """Write down what an update was."""
        memory = self._memory
        memory.step += 1
        memory.batch_size, memory.lr = batch.num_examples, taken.lr
        memory.batch_loss, memory.batch_grad_sq_norm = loss, taken.grad_sq_norm
        memory.tokens += self._gradient.tokens
        begin, evaluated = self._lap
        memory.seconds += perf_counter() - begin - (self._observer.seconds - evaluated)
        factor = self._decision.lr_factor * self._follower.last_factor
        self.records.append(
            self._observer.record(
                memory, batch, self._decision, lr_factor=factor, is_made=taken.is_made
            )
        )

    def _watched(
        self, update: Update, closure: Callable[[], Tensor], losses: list[float]
    ) -> Callable[[], Tensor]:
        """Return a closure whose first loss, that before the step, is looked at."""

        def evaluate() -> Tensor:
            loss = closure()
            if not losses:
                losses.append(self._checked_loss(update))
            return loss

        return evaluate

    def _checked_loss(self, update: Update) -> float:
        """Return the mean loss over the batch, unless the run is lost with it.

        Raises:
            DivergedError: It is.
        """
        loss = float(update.loss)
        if self._sharing.num_replicas > 1:
            loss = self._sharing.sum([loss])[0] / self._sharing.num_replicas
        step = self._memory.step + 1
        if self._rescue is None or not self._rescue.is_lost(
            loss, step, update.batch_size
        ):
            return loss
        lr, size = self._memory.lr or 0.0, update.batch_size
        self._optimizer.zero_grad(set_to_none=True)
        self._pending, said = None, "nothing is put back"
        position = self._rescue.put_back()
        if position is not None:
            self.load_state_dict(position)
            said = f"model, optimizer and position are back after update {self.step}"
        raise DivergedError(
            f"{_WHO}: training is lost at update {step}: a loss of {loss:g} at batch "
            f"size {size}, last lr {lr:g}; {said}.",
            "use a smaller learning rate",
        )
