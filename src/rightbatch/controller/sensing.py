"""Measure: what a policy or a learning-rate rule needs to know, and nothing else."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from rightbatch import _checks
from rightbatch.batch_norm import batch_normalizations, mixes_examples
from rightbatch.errors import InputError
from rightbatch.fitting import Interval
from rightbatch.gradients import NoiseMeter, NoiseReading
from rightbatch.gradients.replicas import replicas_of
from rightbatch.noise_scale import GradientMoments
from rightbatch.sampler import UpdateBatch

NOISE = ("auto", "units", "examples", "off")
_NOISE_NEEDS = frozenset({"moments", "noise_scale"})
# The average forgets what is older than a fifth of the run, as the noise scale grows
# in training, but keeps this many measured updates: fewer leave a wide interval.
_MEMORY_SHARE = 0.2
_MEMORY_UPDATES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensing:
    """What is measured, and how; only what somebody needs is.

    Args:
        noise: Where the gradient noise is read: "examples", norms of single examples in
            the normal backward pass; "units", `min_units` forward passes or more at
            every measured update; "auto", examples where all layers can be read so,
            else units; "off", nowhere.
        every: Measure the noise every so many updates.
        horizon: Examples its average remembers; "auto" for a fifth of the run so far,
            and 32 measured updates at least.
        min_units: Forward passes, over all replicas, of an update measured in units.
        evaluate: Called for the evaluated loss, such as :class:`MeanLoss`.
        inner_product_variance: Called for the variance of single examples' gradients
            along the gradient, as of :mod:`rightbatch.curvature`.
        tokens: ``tokens(batch)``, how many tokens the loss of a forward pass is a mean
            over; passes then weigh by them instead of by examples, and they are
            counted.

    Raises:
        InputError: A setting is not one of its choices or out of its range.

    Example:
        >>> Sensing(noise="off").every
        10
    """

    noise: Literal["auto", "units", "examples", "off"] = "auto"
    every: int = 10
    horizon: float | Literal["auto"] = "auto"
    min_units: int = 8
    evaluate: Callable[[], float] | None = None
    inner_product_variance: Callable[[], float] | None = None
    tokens: Callable[[Any], float] | None = None

    def __post_init__(self) -> None:
        _checks.one_of("Sensing", "noise", self.noise, NOISE)
        _checks.positive_integer("Sensing", "every", self.every)
        _checks.positive_integer("Sensing", "min_units", self.min_units)
        if self.min_units < 2:
            raise InputError(
                f"Sensing: `min_units` must be 2 at least, got {self.min_units}.",
                "one forward pass tells no noise",
            )
        if isinstance(self.horizon, str):
            _checks.one_of("Sensing", "horizon", self.horizon, ("auto",))
        else:
            _checks.positive("Sensing", "horizon", self.horizon)

    def refuse(self, policy: str, needs: frozenset[str], knows_size: bool) -> None:
        """Refuse a policy that needs what a loop with these settings cannot measure.

        Args:
            policy: Its name.
            needs: What it looks at.
            knows_size: Whether the size of the data set is known.

        Raises:
            InputError: It does; what would provide it is named.
        """
        cures = {
            "eval_loss": (self.evaluate is not None, "Sensing(evaluate=MeanLoss(...))"),
            "moments": (self.noise != "off", "Sensing(noise='auto')"),
            "noise_scale": (self.noise != "off", "Sensing(noise='auto')"),
            "inner_product_variance": (
                self.inner_product_variance is not None,
                "Sensing(inner_product_variance=...), see rightbatch.curvature",
            ),
            "tokens": (self.tokens is not None, "Sensing(tokens=...)"),
            "epoch": (knows_size, "a data set that knows its length"),
            "dataset_size": (knows_size, "a data set that knows its length"),
        }
        for need in sorted(needs):
            measured, cure = cures.get(need, (True, ""))
            if not measured:
                raise InputError(
                    f"BatchSizeController: {policy} needs `{need}`, which this loop "
                    "does not measure.",
                    f"give {cure}",
                )


class NoiseSensor:
    """The noise meter as a controller uses it: now and then, the memory growing along.

    Args:
        model: As the loop calls it.
        sensing: How.
        dataset_size: Examples in the data set; None where unknown.

    Example:
        >>> sensor = NoiseSensor(nn.Linear(2, 1), Sensing(), dataset_size=None)
        >>> sensor.is_measuring, sensor.units_of(64, micro_batch_size=16)
        (True, 1)
    """

    def __init__(
        self, model: nn.Module, sensing: Sensing, dataset_size: int | None
    ) -> None:
        self._model, self._sensing, self._dataset_size = model, sensing, dataset_size
        self._may_change = sensing.noise == "auto"
        self._reading: NoiseReading | None = None
        self._horizon: float | None = None
        self._is_read = True
        # False in a loop whose forward passes are what they are.
        self.cuts_passes = True
        source = "units" if sensing.noise == "units" else "examples"
        if self._may_change and replicas_of(model).num > 1:
            source = "units"
        try:
            self._meter = self._metered(source)
        except InputError:
            if not self._may_change:
                raise
            self._meter = self._metered("units")

    @property
    def is_measuring(self) -> bool:
        """Whether the update now under way is measured."""
        return self._meter.is_measuring and self._is_read

    def units_of(self, batch_size: int, micro_batch_size: int) -> int:
        """Return how many forward passes the update now begun is cut into at least.

        An update that cannot tell noise (one example; or, where batch normalization
        mixes examples and no pass may be smaller than a micro-batch, one micro-batch)
        is not read, and the next one is.

        Args:
            batch_size: Of the update, over all replicas.
            micro_batch_size: What the loop cuts its batches into.
        """
        if not self._meter.is_measuring:
            return 1
        least, most = 1, batch_size
        if self._source == "units":
            least = self._sensing.min_units
            if not self.cuts_passes or self._mixes_examples():
                # Smaller passes would be normalized over fewer examples.
                most = batch_size // micro_batch_size
        self._is_read = most >= 2
        return max(1, min(least, most)) if self._is_read else 1

    def look_at(self, batch: UpdateBatch) -> None:
        """Leave an update out that came out too short to tell noise.

        The last one of an epoch may have fewer examples than were asked for.

        Args:
            batch: Of the update now begun.
        """
        told = batch.num_examples
        if self._source == "units":
            told = min(told, len(batch.passes) * replicas_of(self._model).num)
        if self._meter.is_measuring and told < 2:
            self.leave_out()

    def _mixes_examples(self) -> bool:
        return any(map(mixes_examples, batch_normalizations(self._model)))

    @property
    def reading(self) -> NoiseReading | None:
        """The noise scale as known; None before the first measured update."""
        return self._reading

    @property
    def moments(self) -> GradientMoments | None:
        """Both averages; None before the first measured update."""
        return None if self._reading is None else self._reading.moments

    @property
    def interval(self) -> Interval | None:
        """The noise scale with its interval; None before the first."""
        return None if self._reading is None else self._reading.interval

    @property
    def usable(self) -> float | None:
        """The noise scale a rule may act on, what it surely exceeds; None for nothing.

        A rate grows with it: after one reading of a small batch the value itself may be
        ten times too large, and a run does not come back from such a rate.
        """
        return None if self._reading is None else self._reading.lower_bound or None

    def unit(
        self, examples: float, weight: float | None
    ) -> AbstractContextManager[None]:
        """Return the block that one forward and backward pass runs in."""
        return self._meter.unit(examples=examples, weight=weight)

    def update(self, examples: int, examples_so_far: int, grad_scale: float) -> None:
        """Read the update after its last backward pass.

        Args:
            examples: Of this update.
            examples_so_far: Of the run, this update included.
            grad_scale: What the gradient is larger by.
        """
        was_read = self._meter.is_measuring
        if was_read and not self._is_read:
            self._meter.discard()
            return
        self._meter.update(grad_scale=grad_scale)
        if was_read:
            self._read(examples, examples_so_far)

    def leave_out(self) -> None:
        """Leave the update under way unread; the next one is read."""
        self._is_read = False

    def discard(self) -> None:
        """Forget the update under way."""
        self._meter.discard()

    def reset(self) -> None:
        """Forget all that was measured."""
        self._meter.discard()
        self._meter.reset()
        self._reading, self._horizon = None, None

    def close(self) -> None:
        """Take the hooks off the model."""
        self._meter.close()

    def state_dict(self) -> dict[str, Any]:
        """Return what is known, for a checkpoint."""
        return {
            "source": self._source,
            "horizon": self._horizon,
            "meter": self._meter.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        if state["source"] != self._source and self._may_change:
            self._meter.close()
            self._meter = self._metered(state["source"])
        self._meter.load_state_dict(state["meter"])
        self._horizon = state["horizon"]
        if self._horizon is not None:
            self._meter.remember(self._horizon)
        reading = self._meter.noise_scale
        self._reading = reading if reading.moments is not None else None

    def _metered(self, source: Literal["units", "examples"]) -> NoiseMeter:
        horizon = self._sensing.horizon
        self._source = source
        return NoiseMeter(
            self._model,
            source,
            every=self._sensing.every,
            horizon=None if isinstance(horizon, str) else horizon,
            dataset_size=self._dataset_size,
        )

    def _read(self, examples: int, examples_so_far: int) -> None:
        if self._sensing.horizon == "auto":
            least = _MEMORY_UPDATES * self._sensing.every * examples
            self._horizon = max(least, _MEMORY_SHARE * examples_so_far)
            self._meter.remember(self._horizon)
        reading = self._meter.noise_scale
        if self._may_change and self._source == "examples" and reading.coverage < 1:
            # Layers that cannot be read would be missing from the noise scale.
            self._meter.close()
            self._meter = self._metered("units")
            return
        if reading.moments is not None:
            self._reading = reading


def needs_noise(needs: frozenset[str]) -> bool:
    """Return whether somebody who needs these fields needs the noise meter.

    Example:
        >>> needs_noise(frozenset({"eval_loss"})), needs_noise(frozenset({"moments"}))
        (False, True)
    """
    return bool(needs & _NOISE_NEEDS)
