"""What a policy is told before an update: the clock, and what it asked to know."""

from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from rightbatch.controller.record import UpdateRecord
from rightbatch.controller.sensing import NoiseSensor, Sensing
from rightbatch.errors import InputError
from rightbatch.policies import Decision, Observation, Policy, needs_now
from rightbatch.sampler import Stream, UpdateBatch

_SKIPPED = "no step: the scaled gradient was not finite"


@dataclass(slots=True)
class Memory:
    """What the last update left behind; all a resumed run has to know of it."""

    step: int = 0
    batch_size: int = 0
    lr: float | None = None
    batch_loss: float | None = None
    batch_grad_sq_norm: float | None = None
    inner_product_variance: float | None = None
    tokens: float = 0.0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, for a checkpoint."""
        return asdict(self)


class Observer:
    """Makes the observations of one policy, measuring only what it looks at.

    Args:
        policy: Who asks.
        needs: What it looks at beside the clock.
        sensing: How losses are evaluated.
        stream: The position.
        noise: The noise meter; None where nobody needs it.
    """

    def __init__(
        self,
        policy: Policy[Any],
        needs: frozenset[str],
        sensing: Sensing,
        stream: Stream,
        noise: NoiseSensor | None,
    ) -> None:
        self._policy, self._needs, self._sensing = policy, needs, sensing
        self._stream, self._noise = stream, noise
        # Where nothing that is looked at costs anything, there is nothing to spare.
        self._is_sparing = hasattr(policy, "needs_now") and bool(needs & _COSTLY)
        self._cheap = (needs - _COSTLY) | _SPARING
        self.seconds = 0.0
        self.eval_loss: float | None = None

    def observe(self, memory: Memory, state: Any, num_replicas: int) -> Observation:
        """Return what the policy may know now.

        Args:
            memory: Of the last update.
            state: The policy's.
            num_replicas: Who share the batch.

        Returns:
            The observation; what the policy does not look at is None.
        """
        self.eval_loss = None
        if not self._is_sparing:
            return self._with(memory, num_replicas, self._needs)
        seen = self._with(memory, num_replicas, self._cheap)
        costly = needs_now(self._policy, state, seen) & _COSTLY
        return (
            self._with(memory, num_replicas, self._cheap | costly) if costly else seen
        )

    def record(
        self,
        memory: Memory,
        batch: UpdateBatch,
        decision: Decision,
        *,
        lr_factor: float,
        is_made: bool,
    ) -> UpdateRecord:
        """Return the row of an update that is done.

        Args:
            memory: Of it.
            batch: Its examples.
            decision: Why so many.
            lr_factor: On the rate that the user's own schedule had.
            is_made: False where mixed precision left the step out.
        """
        stream, noise, passes = self._stream, self._noise, batch.passes
        interval = None if noise is None else noise.interval
        moments = None if noise is None else noise.moments
        return UpdateRecord(
            step=memory.step,
            examples=stream.taken,
            batch_size=memory.batch_size,
            micro_batch_size=passes[0].num_examples,
            accumulation_steps=len(passes),
            num_replicas=stream.num_replicas,
            lr=memory.lr or 0.0,
            loss=memory.batch_loss or 0.0,
            reason=decision.reason if is_made else _SKIPPED,
            seconds=memory.seconds,
            wish=decision.batch_size,
            lr_factor=lr_factor,
            epoch=stream.epoch if stream.dataset_size else None,
            tokens=memory.tokens or None,
            noise_scale=interval and interval.value,
            noise_scale_low=interval and interval.low,
            noise_scale_high=interval and interval.high,
            grad_sq_norm=moments and moments.grad_sq_norm,
            grad_variance=moments and moments.grad_variance,
            batch_grad_sq_norm=memory.batch_grad_sq_norm,
            inner_product_variance=memory.inner_product_variance,
            eval_loss=self.eval_loss,
        )

    def _with(
        self, memory: Memory, num_replicas: int, looks: frozenset[str]
    ) -> Observation:
        stream = self._stream
        told: dict[str, Any] = {name: self._read(name, memory) for name in looks}
        return Observation(
            step=memory.step,
            examples=stream.taken,
            batch_size=memory.batch_size,
            num_replicas=num_replicas,
            **told,
        )

    def _read(self, name: str, memory: Memory) -> Any:
        if name in _COSTLY:
            return self._measured(name, memory)
        match name:
            case "epoch":
                return self._stream.epoch if self._stream.dataset_size else None
            case "dataset_size":
                return self._stream.dataset_size
            case "moments":
                return None if self._noise is None else self._noise.moments
            case "noise_scale":
                return None if self._noise is None else self._noise.interval
            case _:
                return getattr(memory, name)

    def _measured(self, name: str, memory: Memory) -> float | None:
        begin = perf_counter()
        evaluate, measure = self._sensing.evaluate, self._sensing.inner_product_variance
        if name == "eval_loss":
            found = None if evaluate is None else _number("evaluate", evaluate())
            self.eval_loss = found
        else:
            if measure is not None and memory.step % self._sensing.every == 0:
                memory.inner_product_variance = _number(name, measure())
            found = memory.inner_product_variance
        self.seconds += perf_counter() - begin
        return found


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(
            f"Sensing: `{name}` must return a number, got {value!r}."
        ) from None


_COSTLY = frozenset({"eval_loss", "inner_product_variance"})
_SPARING = frozenset({"epoch", "dataset_size", "tokens", "seconds"})
