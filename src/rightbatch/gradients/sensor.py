"""Watches one model's backward passes and says what each update's units added."""

from collections.abc import Mapping, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn

from rightbatch.errors import InputError
from rightbatch.gradients.ledger import Ledger, write_square
from rightbatch.gradients.per_example.source import ExampleHooks
from rightbatch.gradients.readout import Unit, Update
from rightbatch.gradients.replicas import Replicas, local_part
from rightbatch.gradients.units import LeafHooks

# What went wrong, and the way out behind the bar. Kept until `update`, where all
# replicas are told: one that raised alone would leave the others waiting.
_NO_BACKWARD = (
    "NoiseMeter.update: no backward has run in a unit since the last update. | "
    "wrap each backward pass in `with meter.unit(examples=n):`"
)
_NOTHING_CAME = (
    "NoiseMeter.update: no gradient reached the parameters inside a unit. | "
    "call backward inside the block, on a loss of the model the meter was given"
)
_IN_PARTS = (
    "NoiseMeter.update: the gradient of {name} came in several parts within one unit. "
    "| add the losses and call backward once per unit; with activation checkpointing, "
    "use_reentrant=False"
)
_STRAY = (
    "NoiseMeter.update: a backward pass ran outside `meter.unit(...)`, so its gradient "
    "belongs to no unit. | wrap it too, or call it before the meter is made"
)
_DIRTY = (
    "NoiseMeter.update: gradients were not zero before the first unit. | call "
    "zero_grad() after each optimizer step"
)
_CHANGED = (
    "NoiseMeter.update: the gradients were changed after the last backward pass, by "
    "clipping or unscaling for instance. | call update() right after the last backward"
)


class Sensor:
    """Hooks on a model, and what they read of the update under way.

    Args:
        model: As the loop calls it.
        named: Its trainable parameters by name, in the order of all columns.
        replicas: Who shares the gradient.
        num_examples: Examples of each pass whose norms are read; all when None.
        parts: Columns of each part, the whole first.
    """

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[str, nn.Parameter],
        replicas: Replicas,
        num_examples: int | None,
        parts: Sequence[Sequence[int]],
    ) -> None:
        self._names = list(named)
        self._parameters = list(named.values())
        self._ledger = Ledger(self._parameters, parts)
        self._replicas = replicas
        sharded = replicas.sharded
        self._leaves = LeafHooks(model, self._parameters, self._ledger, sharded=sharded)
        self.examples = ExampleHooks(model, named, self._ledger, num_examples)
        self.source = "units"
        self.is_on = False
        self.sizes: set[float] = set()
        self.clear()

    def use(self, source: str) -> None:
        """Read from a source from the next update on.

        Raises:
            InputError: The model's gradients cannot be read that way.
        """
        if source != "units":
            self.examples.use(source, sharded=self._replicas.sharded)
        self.source = source

    def switch(self, *, on: bool) -> None:
        """Put the hooks of the source in place, or take all off."""
        self.is_on = on
        if on and self.source == "units":
            self._leaves.attach()
        else:
            self._leaves.detach()
        if on and self.source != "units":
            self.examples.attach()
        else:
            self.examples.detach()

    def clear(self, *, looks_closely: bool = True) -> None:
        """Forget the update under way.

        Args:
            looks_closely: Whether to look at the gradient before and after the next.
        """
        self._units: list[Unit] = []
        self._versions: list[int | None] = []
        self._problem = ""
        self._inside = False
        if self._ledger.num_rows:
            self._ledger.take()
        self._leaves.stray = self._leaves.dirty = False
        self._leaves.looks_at_start = self._looks_closely = looks_closely
        self._kept: tuple[Tensor, Tensor] | None = None

    def begin(self, unit: Unit) -> None:
        """Take what comes next as one unit's.

        Raises:
            InputError: A unit is under way.
        """
        if self._inside:
            raise InputError(
                "NoiseMeter.unit: a unit inside a unit.",
                "one `with meter.unit(...)` around each backward",
            )
        self._inside = True
        if self.is_on:
            self._ledger.open_row()
            if self.source == "units":
                self._leaves.begin()
            else:
                self.examples.begin(unit.examples)

    def end(self, unit: Unit) -> None:
        """End the unit."""
        self._inside = False
        if not self.is_on:
            return
        if self.source == "units":
            came, twice = self._leaves.end()
            if twice is not None:
                self._note(_IN_PARTS.format(name=self._names[twice]))
        else:
            came = self.examples.end()
            unit = unit.with_known(self.examples.num_read(unit.examples))
        if not came:
            self._note(_NOTHING_CAME)
        self._units.append(unit)
        self.sizes.add(unit.examples)
        self._versions = self._grad_versions()
        if self._looks_closely:
            self._keep_smallest()

    def abandon(self) -> None:
        """Forget the unit under way: its backward pass raised."""
        self._inside = False
        if self.is_on:
            self._leaves.end()
            self.examples.abandon()
            self._ledger.drop_row()

    def take(self) -> Update:
        """Return what was read of the update, its gradient included."""
        if not self._units:
            self._note(_NO_BACKWARD)
        if self._leaves.stray:
            self._note(_STRAY)
        if self._grad_versions() != self._versions or self._is_rescaled():
            self._note(_CHANGED)
        if self._leaves.dirty:
            self._note(_DIRTY)
        if self.examples.problem:
            self._note(self.examples.problem)
        self._write_totals()
        spoiled = self.source != "units" and self.examples.end_update()
        return Update(self._units, self._ledger.take(), self._problem, spoiled)

    def _note(self, problem: str) -> None:
        self._problem = self._problem or problem

    def _write_totals(self) -> None:
        """Write a row of the gradient's own squares."""
        self._ledger.open_row()
        cells = self._ledger.cells
        left_out = () if self.source == "units" else self.examples.left_out
        for column, parameter in enumerate(self._parameters):
            gradient = parameter.grad
            if gradient is None or column in left_out:
                continue
            if self._replicas.sharded:
                gradient, copies = local_part(gradient)
                write_square(gradient, cells[column])
                cells[column].div_(copies)
            else:
                write_square(gradient, cells[column])

    def _is_rescaled(self) -> bool:
        # A GradScaler leaves versions as they are. One gradient, the smallest, is
        # compared with what it was, in the first updates only.
        kept = self._kept
        if kept is None:
            return False
        return not torch.allclose(kept[0], kept[1], rtol=0, atol=0, equal_nan=True)

    def _keep_smallest(self) -> None:
        grads = [p.grad for p in self._parameters if p.grad is not None]
        if grads and not self._replicas.sharded:
            smallest = min(grads, key=lambda g: g.numel())
            self._kept = (smallest.clone(), smallest)

    def _grad_versions(self) -> list[int | None]:
        # Every change in place moves a tensor's version on: nothing is read for it.
        grads = (parameter.grad for parameter in self._parameters)
        return [None if g is None else g._version for g in grads]  # pyright: ignore[reportPrivateUsage]

    def detach(self) -> None:
        """Take all hooks off the model, for good."""
        self.switch(on=False)


class UnitBlock:
    """A block around one backward pass.

    Args:
        sensor: Told when it begins and ends.
        unit: What the pass is about.
    """

    def __init__(self, sensor: Sensor, unit: Unit) -> None:
        self._sensor = sensor
        self._unit = unit

    def __enter__(self) -> None:
        self._sensor.begin(self._unit)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._sensor.end(self._unit)
        else:
            self._sensor.abandon()
