"""A controller in somebody else's loop: a framework loads, goes backward and steps."""

import math
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from rightbatch.controller.acting import Acting
from rightbatch.controller.controller import BatchSizeController
from rightbatch.controller.guard import LossWatch
from rightbatch.controller.record import UpdateRecord
from rightbatch.controller.sensing import Sensing
from rightbatch.controller.stepping import StepTaken
from rightbatch.controller.update import Update
from rightbatch.controller.window import Window, shrink
from rightbatch.errors import DivergedError, InputError
from rightbatch.policies import Policy
from rightbatch.sampler import CountedStream

_WHO = "HostedController"
_NO_WEIGHT = 1e-9


class HostedController(BatchSizeController):
    """Serves a framework's own training loop batches whose size follows a policy.

    The framework loads micro-batches of one size, calls backward and steps; it has to
    let an update begin and end where this says, and to call, in order:

    .. code-block:: python

        count = controller.begin(most=batches_left_in_epoch)
        for batch in islice(loader, count):
            share = controller.enter(len(batch), batch)
            loss = ...
            (loss * share).backward()
            controller.leave(loss)
        controller.before_step()
        optimizer.step()
        controller.after_step()

    The gradient at the step is the mean over the update's examples on all replicas, as
    :class:`BatchSizeController` makes it, and policy, noise scale, learning rate and
    records are its own. Clipping, mixed precision, the schedule and the exchange
    between replicas are the framework's.

    Args:
        model: As the framework calls it; wrapped, where it wraps it.
        optimizer: torch's own, inside of whatever the framework puts around it.
        policy: Decides.
        stream: Counts what the framework serves.
        lr_rule: As :class:`BatchSizeController` has it.
        sensing: What is measured. Noise in "units" needs two micro-batches an update,
            replicas counted; others are not read.
        acting: What is done; scheduler, scaler and clipping are the framework's. The
            guard says when a run is lost, and puts nothing back.

    Raises:
        InputError: As for :class:`BatchSizeController`; `acting` has what is the
            framework's, or the optimizer asks for the loss again.

    Example:
        >>> import torch
        >>> from rightbatch.policies import GeoDamp
        >>> model = nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> policy = GeoDamp(initial_batch_size=4, delay=1, factor=2)
        >>> stream = CountedStream(4, dataset_size=8)
        >>> controller = HostedController(model, optimizer, policy, stream)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     for _ in range(controller.begin()):
        ...         batch = torch.randn(4, 2)
        ...         share = controller.enter(len(batch))
        ...         loss = model(batch).square().mean()
        ...         (loss * share).backward()
        ...         is_complete = controller.leave(loss)
        ...     lr = controller.before_step()
        ...     optimizer.step()
        ...     record = controller.after_step()
        >>> [record.batch_size for record in controller.records]
        [4, 4, 8]
    """

    _stream: CountedStream

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        policy: Policy[Any],
        stream: CountedStream,
        *,
        lr_rule: str = "none",
        sensing: Sensing | None = None,
        acting: Acting | None = None,
    ) -> None:
        acting = acting or Acting()
        for name in ("scheduler", "scaler", "max_grad_norm"):
            if getattr(acting, name) is not None:
                raise InputError(
                    f"{_WHO}: Acting({name}=...) is the framework's here.",
                    "give it to the framework, and leave it out",
                )
        if isinstance(optimizer, LBFGS):
            raise InputError(
                f"{_WHO}: LBFGS asks for the loss several times in one step, which a "
                "framework's loop cannot tell from several batches.",
                "use rightbatch.train",
            )
        super().__init__(
            model,
            optimizer,
            policy,
            stream,
            lr_rule=lr_rule,
            sensing=sensing,
            acting=replace(acting, guard=None),
        )
        self._tokens = (sensing or Sensing()).tokens
        self._watch = None if acting.guard is None else LossWatch(acting.guard)
        self._window: Window | None = None
        self._owed = 0.0
        #: Steps of the schedule for an update at `lr_batch_size`: above 1 where it was
        #: made for epochs whose last, shorter update counts as a whole one.
        self.schedule_steps = 1.0
        if self._noise is not None:
            self._noise.cuts_passes = False

    # One update, in the order of its calls ------------------------------------------

    def begin(self, most: int | None = None) -> int:
        """Ask the policy, and begin an update; one that was broken off is forgotten.

        Args:
            most: Micro-batches of this replica that are left in the epoch; None where
                nobody knows. All replicas must have as many.

        Returns:
            Micro-batches of this replica in the update.

        Raises:
            InputError: `most` is not positive.
        """
        if most is not None and most < 1:
            raise InputError(f"{_WHO}.begin: `most` must be positive, got {most}.")
        self.discard()
        self._lap = (perf_counter(), self._observer.seconds)
        self._gradient.start()
        self._gradient.empty_others()
        self._before = self._place()
        size, stream = self._decide(), self._stream
        if most is not None:
            size = min(size, most * stream.granule)
        if self._noise is not None:
            self._noise.units_of(size, stream.micro_batch_size)
        batch = stream.next(size)
        self._window = Window(batch)
        self._pending = Update(self._gradient, batch, self._finish)
        return len(batch.passes)

    @property
    def is_open(self) -> bool:
        """Whether an update has begun and its step is not made."""
        return self._window is not None

    def expect(self, weight: float) -> None:
        """Say what the update's micro-batches weigh together, where that is known.

        Then :meth:`enter` returns what is right from the first one on, whatever they
        hold, and nobody has to put the gradient right afterwards.

        Args:
            weight: Their examples, or their tokens where those count; of all replicas.

        Raises:
            InputError: No token of them counts.
        """
        window = self._opened("expect")
        if not weight > 0:
            self._refuse_empty()
        window.expected, window.is_told = float(weight), True

    def enter(self, num_examples: int, batch: Any = None) -> float:
        """Begin the forward pass of a micro-batch.

        Args:
            num_examples: In it.
            batch: What ``Sensing(tokens=...)`` counts the tokens of, where it is given.

        Returns:
            What its mean loss (over its tokens, where those count) is to be multiplied
            by before its backward.
        """
        window = self._opened("enter")
        weight = None if self._tokens is None else float(self._tokens(batch))
        replicas, told = self._sharing.num_replicas, weight
        if weight is not None and replicas > 1 and window.is_unknown:
            # The factor must be everybody's, whatever each begins with.
            told = self._sharing.sum([weight])[0] / replicas
        window.enter(num_examples, weight, replicas, told)
        if self._noise is not None and self._noise.is_measuring:
            # Where no token of it counts it is still one of the noise meter's units.
            counted = None if weight is None else weight or _NO_WEIGHT
            window.block = self._noise.unit(num_examples, counted)
            window.block.__enter__()
        return window.share

    def leave(
        self,
        loss: Tensor | float,
        *,
        loss_scale: float = 1.0,
        grad_scale: float = 1.0,
        is_last: bool | None = None,
    ) -> bool:
        """End a micro-batch, after its backward.

        Args:
            loss: Its mean loss, without the factor of :meth:`enter`.
            loss_scale: What `loss` is larger by, where a framework scales or divides.
            grad_scale: What the gradient is larger by in mixed precision.
            is_last: Whether the update is complete, where the framework knows better
                than by the number of its micro-batches.

        Returns:
            Whether it is: the gradient is the mean over the batch now.

        Raises:
            InputError: No token of the batch counts.
            DivergedError: The loss is lost.
        """
        window = self._opened("leave")
        window.end_unit(None)
        window.losses.append(loss.detach() if isinstance(loss, Tensor) else loss)
        window.factors.append(window.share / loss_scale)
        if is_last is None:
            is_last = window.is_full
        if is_last:
            self._complete(window, grad_scale)
        return is_last

    def withdraw(self, *, grad_scale: float = 1.0, is_last: bool | None = None) -> bool:
        """Take back the micro-batch that was entered: the loop left its loss out.

        The update is the mean over the others; where there are none, it is forgotten.

        Args:
            grad_scale: What the gradient is larger by in mixed precision.
            is_last: As for :meth:`leave`.

        Returns:
            Whether the gradient is complete.
        """
        window = self._opened("withdraw")
        window.withdraw()
        if self._noise is not None:
            self._noise.leave_out()
        if is_last is None:
            is_last = window.is_full
        if is_last and window.passes:
            self._complete(window, grad_scale)
        elif is_last:
            self.discard()
        return is_last and bool(window.passes)

    def excuse(self, seconds: float) -> None:
        """Count some time of the update under way as none of training's.

        Args:
            seconds: Of a validation in its midst, say.
        """
        begin, evaluated = self._lap
        self._lap = (begin + seconds, evaluated)

    def before_step(self) -> float:
        """Let learning rate and kin follow the batch, until :meth:`after_step`.

        Returns:
            The learning rate of the first group.
        """
        window = self._opened("before_step")
        if window.step is None and not window.is_restored:
            factor = self._decision.lr_factor
            window.step = self._follower.applied(
                window.size, window.noise_scale, factor
            )
            window.lr = window.step.__enter__()
        return window.lr

    def put_back(self) -> None:
        """Put the optimizer's settings back, where that cannot wait for after_step.

        A framework that steps its schedules by itself must find the user's own rates.
        """
        if self._window is not None:
            self._restore(self._window)

    def after_step(self, *, is_made: bool = True) -> UpdateRecord:
        """Put the optimizer's settings back, and write down what the update was.

        Args:
            is_made: False where mixed precision left the step out.

        Returns:
            The record, the last of :attr:`records`.
        """
        window = self._opened("after_step")
        self.before_step()
        self._restore(window)
        taken = StepTaken(window.lr, window.grad_sq_norm, is_made)
        batch = replace(
            window.batch, passes=tuple(window.passes), num_examples=window.size
        )
        self._window = self._pending = None
        self._note(batch, window.loss, taken)
        if is_made:
            progress = self._follower.progress(window.size, window.noise_scale)
            self._owed += progress * self.schedule_steps
        return self.records[-1]

    def owed_schedule_steps(self, made: int) -> int:
        """Return how many more steps of the schedule the updates amount to by now.

        Args:
            made: Steps that the framework itself made since it was last asked.

        Returns:
            Steps to make now, as ``Acting(counts=...)`` counts; what the framework was
            early by is waited for.
        """
        self._owed -= made
        due = max(0, math.floor(self._owed + 1e-9))
        self._owed -= due
        return due

    def discard(self) -> None:
        """Forget an update that is under way; its examples have not been taken."""
        window, self._window, self._pending = self._window, None, None
        if window is None:
            return
        self._restore(window)
        if self._noise is not None:
            self._noise.discard()
        self._stream.load_state_dict(self._before["stream"])
        self._state = self._before["state"]

    # Life -----------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is: plain values, beside the framework's own."""
        watch = None if self._watch is None else self._watch.state_dict()
        return {**super().state_dict(), "watch": watch, "owed": self._owed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        Raises:
            InputError: It is of another policy or kind of stream, or no such state.
        """
        self.discard()
        super().load_state_dict(state)
        self._owed = float(state["owed"])
        if self._watch is not None and state["watch"] is not None:
            self._watch.load_state_dict(state["watch"])

    # ----------------------------------------------------------------------------------

    def _opened(self, name: str) -> Window:
        if self._window is None:
            raise InputError(
                f"{_WHO}.{name}: no update has begun.", "call begin() before it"
            )
        return self._window

    def _restore(self, window: Window) -> None:
        if window.step is not None:
            window.step.__exit__(None, None, None)
            window.step, window.is_restored = None, True

    def _complete(self, window: Window, grad_scale: float) -> None:
        """Make the gradient the mean over what came, and have it read.

        Raises:
            InputError: No token of it counts.
        """
        replicas = self._sharing.num_replicas
        sums = [sum(window.weights), window.examples, window.weighed_loss() / replicas]
        weight, examples, loss = sums if replicas == 1 else self._sharing.sum(sums)
        if not weight > 0:
            self._refuse_empty()
        if self._tokens is not None:
            self._gradient.tokens = weight
        window.size = round(examples)
        self._stream.correct(window.size - window.batch.num_examples)
        larger_by = weight / window.expected
        if self._noise is not None:
            scale = grad_scale * larger_by
            self._noise.update(window.size, self._stream.taken, scale)
            window.noise_scale = self._noise.usable
        if not math.isclose(larger_by, 1.0, rel_tol=1e-12):
            shrink(self._optimizer, larger_by)
        window.loss = loss / larger_by
        norm = self._stepper.measured()
        window.grad_sq_norm = None if norm is None else norm / grad_scale**2
        self._refuse_lost(window)

    def _refuse_empty(self) -> None:
        self.discard()
        raise InputError(
            f"{_WHO}: an update must hold a token that counts, got none.",
            "drop such examples, or count at least one",
        )

    def _refuse_lost(self, window: Window) -> None:
        step = self._memory.step + 1
        if self._watch is None:
            return
        if self._watch.is_lost(window.loss, step, window.size):
            self.discard()
            raise DivergedError(
                f"{_WHO}: training is lost at update {step}: a loss of "
                f"{window.loss:g} at batch size {window.size}.",
                "use a smaller learning rate, and go on from a checkpoint",
            )
