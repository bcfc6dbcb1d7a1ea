"""The meter: the gradient noise scale of a training loop, in three lines of it."""

import math
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Literal, Self

from torch import nn

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.gradients.notes import notes_on
from rightbatch.gradients.parts import Parts, columns_of, named_trainable
from rightbatch.gradients.reading import NoiseReading
from rightbatch.gradients.readout import (
    PartSums,
    Unit,
    Update,
    check_alone,
    read_update,
)
from rightbatch.gradients.replicas import replicas_of
from rightbatch.gradients.sensor import Sensor, UnitBlock
from rightbatch.noise_scale import GradientMoments, MomentAverage

Source = Literal["auto", "units", "examples", "normalization"]
SOURCES = ("auto", "units", "examples", "normalization")
# Measured updates the default memory is long: a noise scale of ten times the batch size
# is resolved by then, and training has not moved far.
AUTO_HORIZON_UPDATES = 200
# What a loop does to its gradients in the first updates it does in all of them.
_LOOKS_CLOSELY = 2
_TOTAL = ""
_MOST_PENDING = 32
_IDLE = nullcontext()


class NoiseMeter:
    r"""Reads the gradient noise scale off a training loop.

    .. code-block:: python

        meter = NoiseMeter(model)
        for batch in loader:
            for part in split(batch):
                with meter.unit(examples=len(part)):
                    (loss(model, part) * len(part) / len(batch)).backward()
            meter.update()          # after the last backward, before clipping
            optimizer.step()

    A *unit* is what one backward pass adds to the gradient: a micro-batch, on one
    replica. From the norms of the units and of their sum come unbiased :math:`|G|^2`
    and :math:`\mathrm{tr}\,\Sigma`, averaged apart over updates (McCandlish et al.,
    2018, appendix A; docs/theory/noise-scale.md). With one backward pass per update on
    one process, norms of single examples are read inside it instead.

    Args:
        model: As the loop calls it: plain, compiled, in DistributedDataParallel, or
            sharded by ``fully_shard``.
        source: "units": micro-batches and replicas; "examples": norms of single
            examples, layer by layer, whose tensors have the examples first;
            "normalization": those of the parameters of normalization layers alone,
            which follow the whole (Gray et al., 2024); "auto": units where the first
            update has two or more, else examples.
        every: Measure every so many updates; the hooks are off in between.
        horizon: Examples the average remembers; "auto" for 200 measured updates'
            worth, None to forget nothing.
        num_examples: Examples of each backward pass whose norms are read, the first
            ones; all when None. Rows have to be in random order.
        parts: Noise scales of parts as well: "layers", "parameters", or parameters by
            name, as :func:`optimizer_parts` has them.
        dataset_size: Examples in the data set, where each is seen once per epoch and
            its own gradient is meant.

    Raises:
        InputError: Nothing is trained, or an argument is out of range.

    Example:
        >>> import torch
        >>> model = nn.Linear(3, 1)
        >>> _ = torch.manual_seed(0)
        >>> with NoiseMeter(model) as meter:
        ...     for _ in range(200):
        ...         model.zero_grad()
        ...         for _ in range(4):
        ...             with meter.unit(examples=8):
        ...                 loss = (model(torch.randn(8, 3)) - 1).square().mean()
        ...                 (loss / 4).backward()
        ...         meter.update()
        >>> meter.noise_scale.status, meter.noise_scale.coverage
        ('resolved', 1.0)
    """

    def __init__(
        self,
        model: nn.Module,
        source: Source = "auto",
        *,
        every: int = 1,
        horizon: float | Literal["auto"] | None = "auto",
        num_examples: int | None = None,
        parts: Parts | None = None,
        dataset_size: int | None = None,
    ) -> None:
        who = "NoiseMeter"
        _checks.one_of(who, "source", source, SOURCES)
        self._every = _checks.positive_integer(who, "every", every)
        for name, value in (
            ("num_examples", num_examples),
            ("dataset_size", dataset_size),
        ):
            if value is not None:
                _checks.positive_integer(who, name, value)
        self._wants_auto_horizon = self._auto_horizon = isinstance(horizon, str)
        if isinstance(horizon, str):
            _checks.one_of(who, "horizon", horizon, ("auto",))
        self._source: Source = source
        self._dataset_size = dataset_size
        self._model = model
        named = named_trainable(model)
        self._replicas = replicas_of(model)
        columns = {_TOTAL: list(range(len(named)))}
        if parts is not None:
            columns |= columns_of(named, parts)
        memory = None if isinstance(horizon, str) else horizon
        self._averages = {name: MomentAverage(horizon=memory) for name in columns}
        self._num_updates = 0
        self._num_units = 0
        self._waiting = 0.0
        self._last: GradientMoments | None = None
        self._pending: list[_Pending] = []
        self._columns = columns
        every_part = list(columns.values())
        self._sensor = Sensor(model, named, self._replicas, num_examples, every_part)
        self._sensor.use("units" if source == "auto" else source)
        self._sensor.switch(on=True)
        # Hooks go when the meter does, whether or not anyone closed it.
        self._detach = weakref.finalize(self, self._sensor.detach)

    # In the loop ------------------------------------------------------------------

    def unit(
        self, examples: float, weight: float | None = None
    ) -> AbstractContextManager[None]:
        """Return a block that takes the one backward pass inside it as a unit.

        Args:
            examples: How many examples the loss of this pass is about.
            weight: Of this unit's mean gradient in the update, up to a common factor.
                By default units weigh as their examples do, which is right where the
                update is the mean over the batch; give 1 where the loop averages the
                means of ragged micro-batches.

        Returns:
            A context manager.

        Raises:
            InputError: `examples` or `weight` is not positive, or the meter is closed.
        """
        who = "NoiseMeter.unit"
        if type(examples) is not int or examples < 1:
            _checks.positive(who, "examples", examples)
        if weight is not None:
            _checks.positive(who, "weight", weight)
        self._waiting += examples
        if self._sensor.is_on:
            return UnitBlock(self._sensor, Unit(examples, weight))
        self._check_open(who)
        return _IDLE

    def update(self, *, grad_scale: float = 1.0) -> None:
        """Read the update: after its last backward, before clipping and unscaling.

        Args:
            grad_scale: What the gradient is larger by than the batch's mean gradient:
                ``scaler.get_scale()`` under a GradScaler. A constant one may be left
                out, as the noise scale does not depend on it.

        Raises:
            InputError: No backward ran since the last update, one ran outside a unit,
                or in several parts; the gradient was changed since; there is one unit
                only; replicas disagree; the meter is closed. The update is forgotten.
        """
        who = "NoiseMeter.update"
        self._check_open(who)
        self._num_updates += 1
        is_next = self._num_updates % self._every == 0
        if not self._sensor.is_on:
            # Most updates of a meter that measures now and then: next to nothing.
            if is_next:
                self._begin_update(on=True)
            return
        try:
            _checks.positive(who, "grad_scale", grad_scale)
            self._measure(1 / grad_scale)
        finally:
            self._begin_update(on=is_next)

    def _begin_update(self, *, on: bool) -> None:
        looks = self._num_updates < _LOOKS_CLOSELY * self._every
        self._sensor.clear(looks_closely=looks)
        self._sensor.switch(on=on)

    def discard(self) -> None:
        """Forget the update under way, as where it is begun anew after an error."""
        self._sensor.clear()

    def log(self, log: Callable[[dict[str, float], int], Any], step: int) -> None:
        """Give the numbers to a logger, under ``noise/...`` keys.

        Args:
            log: Called once, with a dict and the step.
            step: Passed on.
        """
        log(self.noise_scale.to_log(), step)

    # What was measured ------------------------------------------------------------

    @property
    def noise_scale(self) -> NoiseReading:
        """The noise scale as it stands, with interval, unit and what limits it."""
        self._settle()
        size, missing = self._dataset_size, set(self._sensor.left_out)
        estimates = {
            name: average.noise_scale(dataset_size=size)
            for name, average in self._averages.items()
            if name == _TOTAL or not missing.issuperset(self._columns[name])
        }
        source = self._sensor.source
        coverage, uncovered = self._sensor.coverage()
        return NoiseReading(
            estimate=estimates.pop(_TOTAL),
            source=source,
            coverage=coverage,
            uncovered=uncovered,
            num_units=self._num_units,
            num_skipped=self._averages[_TOTAL].num_skipped,
            notes=notes_on(self._model, source, self._sensor.sizes),
            parts=estimates,
        )

    @property
    def moments(self) -> GradientMoments | None:
        """Both averages, in the units of the gradient; None before the first update."""
        self._settle()
        average = self._averages[_TOTAL]
        return average.moments if average.num_steps else None

    @property
    def last_moments(self) -> GradientMoments | None:
        """Both moments of the last update that was read, unbiased, not averaged."""
        self._settle()
        return self._last

    @property
    def is_measuring(self) -> bool:
        """Whether the update now under way is measured."""
        return self._sensor.is_on

    def reset(self) -> None:
        """Forget what was measured, as where a new window begins."""
        self._settle()
        self._averages = {name: one.reset() for name, one in self._averages.items()}
        self._waiting = 0.0
        self._last = None

    def remember(self, examples: float) -> None:
        """Set how many examples the averages remember, from the next update on.

        For a run whose batch grows: 200 updates of the first size are soon too few.

        Args:
            examples: The new horizon.

        Raises:
            InputError: It is not positive.
        """
        _checks.positive("NoiseMeter.remember", "examples", examples)
        self._settle()
        self._wants_auto_horizon = self._auto_horizon = False
        self._averages = {
            name: replace(one, horizon=examples) for name, one in self._averages.items()
        }

    # Life -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what the meter knows, for a checkpoint: plain numbers only."""
        self._settle()
        return {
            "source": self._sensor.source,
            "num_updates": self._num_updates,
            "waiting": self._waiting,
            "learned": self._sensor.examples.learned(),
            "averages": {n: one.state_dict() for n, one in self._averages.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned.

        A `source` and a `horizon` given to this meter stay as they are.

        Raises:
            InputError: It is of a meter of other parts, or is no such state.
        """
        who = "NoiseMeter.load_state_dict"
        for key in ("source", "num_updates", "waiting", "learned", "averages"):
            if key not in state:
                raise InputError(f"{who}: the state lacks {key!r}.")
        _checks.one_of(who, "source", state["source"], SOURCES[1:])
        if state["averages"].keys() != self._averages.keys():
            raise InputError(f"{who}: the state is of a meter with other `parts`.")
        known = {
            name: MomentAverage.from_state_dict(one)
            for name, one in state["averages"].items()
        }
        if self._wants_auto_horizon:
            self._auto_horizon = known[_TOTAL].horizon is None
        else:
            memory = self._averages[_TOTAL].horizon
            known = {n: replace(one, horizon=memory) for n, one in known.items()}
        self._averages = known
        self._num_updates = int(state["num_updates"])
        self._waiting = float(state["waiting"])
        self._pending.clear()
        self._sensor.clear()
        self._sensor.switch(on=False)
        if self._source == "auto":
            self._sensor.use(state["source"])
        if self._sensor.source != "units" and state["source"] != "units":
            self._sensor.examples.recall(state["learned"])
        self._sensor.switch(on=self._num_updates % self._every == 0)

    def close(self) -> None:
        """Take all hooks off the model; what was measured can still be read."""
        self._detach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_open(self, who: str) -> None:
        if not self._detach.alive:
            raise InputError(f"{who}: the meter is closed.", "make another one")

    # Reading ----------------------------------------------------------------------

    def _measure(self, factor: float) -> None:
        update = self._sensor.take()
        if self._replicas.num == 1:
            check_alone(update)
            if update.num_units < 2:
                self._read_alone()
                return
        self._pending.append(_Pending(update, factor, self._waiting))
        self._waiting = 0.0
        # Read late, and many at once: the numbers are on their way from the device,
        # and of a small model's step this is a part that would be seen. Replicas have
        # to exchange theirs while all of them are here.
        if self._replicas.num > 1 or len(self._pending) >= _MOST_PENDING:
            self._settle()

    def _read_alone(self) -> None:
        """Deal with an update of one unit, which tells no noise.

        Where "auto" has read nothing yet, examples are read from now on; a lone unit
        after others, as the tail of an epoch may be, is left out.

        Raises:
            InputError: It is not for "auto" to choose, or examples cannot be read.
        """
        if self._source != "auto" or self._sensor.source != "units":
            raise InputError(
                "NoiseMeter.update: the update had one unit, which tells no noise.",
                "accumulate over two micro-batches or more, or use two replicas, or "
                "read norms of single examples, of two or more: source='examples'",
            )
        self._settle()
        if self._averages[_TOTAL].num_steps:
            for name, average in self._averages.items():
                self._averages[name] = average.skip()
            return
        try:
            self._sensor.use("examples")
        except InputError as error:
            raise InputError(
                "NoiseMeter.update: the update had one unit, which tells no noise, and "
                f"its examples cannot be read. {error}"
            ) from None

    def _settle(self) -> None:
        """Put what was read into the averages."""
        pending, self._pending = self._pending, []
        for one in pending:
            found, elapsed = read_update(one.update, self._replicas, one.examples)
            if self._auto_horizon:
                self._auto_horizon = False
                memory = AUTO_HORIZON_UPDATES * found[0].sums.examples * self._every
                self._averages = {
                    name: replace(average, horizon=memory)
                    for name, average in self._averages.items()
                }
            for name, part in zip(list(self._averages), found, strict=True):
                self._add(name, part, one.factor, elapsed)

    def _add(self, name: str, part: PartSums, factor: float, elapsed: float) -> None:
        average, sums = self._averages[name], part.sums
        if not (sums.is_finite and math.isfinite(part.total)):
            self._averages[name] = average.skip()
            return
        if factor != 1:
            sums = sums.scaled(factor)
        moments = sums.moments(part.total * factor**2)
        elapsed = max(sums.examples, elapsed)
        self._averages[name] = average.add(moments, sums.examples, elapsed=elapsed)
        if name == _TOTAL:
            self._num_units, self._last = sums.num_units, moments


@dataclass(frozen=True, slots=True)
class _Pending:
    """An update that was read and is not in the averages yet."""

    update: Update
    factor: float
    examples: float
