"""Watches one model's backward passes and says what each update's units added."""

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType

from torch import nn

from rightbatch.errors import InputError
from rightbatch.gradients.integrity import Integrity
from rightbatch.gradients.ledger import Ledger, write_square
from rightbatch.gradients.parts import plain_name
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
    "call backward inside the block, on a loss of the model the meter was given; a "
    "model compiled after the meter was made needs source='units'"
)
_IN_PARTS = (
    "NoiseMeter.update: the gradient of {name} came in several parts within one unit. "
    "| add the losses and call backward once per unit; with activation checkpointing, "
    "use_reentrant=False"
)


class Sensor:
    """Hooks on a model, and what they read of the update under way.

    Args:
        model: As the loop calls it.
        named: Its trainable parameters by name, in the order of all columns.
        replicas: Who shares the gradient.
        num_examples: Examples of each pass whose norms are read; all when None.
        parts: Columns of each part, the whole first.

    Attributes:
        examples: What reads single examples.
        source: What is read, as :class:`rightbatch.gradients.NoiseMeter` has it.
        is_on: Whether the update under way is measured.
        sizes: Examples of the units seen so far, each number once.
    """

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[str, nn.Parameter],
        replicas: Replicas,
        num_examples: int | None,
        parts: Sequence[Sequence[int]],
    ) -> None:
        self._model = model
        self._names = list(named)
        self._parameters = list(named.values())
        self._ledger = Ledger(self._parameters, parts)
        self._replicas = replicas
        self._integrity = Integrity(self._parameters, replicas)
        self._leaves = LeafHooks(
            model,
            self._parameters,
            self._ledger,
            sharded=replicas.sharded,
            on_first=self._integrity.at_first_gradient,
        )
        self.examples = ExampleHooks(
            model,
            named,
            self._ledger,
            num_examples,
            on_first=self._integrity.at_first_gradient,
        )
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

    @property
    def left_out(self) -> Collection[int]:
        """Columns of the parameters that are not read."""
        return () if self.source == "units" else self.examples.left_out

    def coverage(self) -> tuple[float, dict[str, str]]:
        """Return the share of the parameters trained now that is read.

        Returns:
            The share, and the names of those that are not read, with the reason.
        """
        known = {id(p): column for column, p in enumerate(self._parameters)}
        missing = self.left_out
        read = trained = 0
        uncovered = {} if self.source == "units" else self.examples.uncovered
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            trained += parameter.numel()
            column = known.get(id(parameter))
            if column is None:
                uncovered[plain_name(name)] = "not trained when the meter was made"
            elif column not in missing:
                read += parameter.numel()
        return read / trained if trained else 0.0, uncovered

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
        self._inside = False
        if self._ledger.num_rows:
            self._ledger.take()
        self._integrity.clear(looks_closely=looks_closely)
        self._looks_closely = looks_closely

    def begin(self, unit: Unit) -> None:
        """Take what comes next as one unit's.

        Raises:
            InputError: A unit is under way, or the model is in a mode in which its
                examples cannot be read.
        """
        if self._inside:
            raise InputError(
                "NoiseMeter.unit: a unit inside a unit.",
                "one `with meter.unit(...)` around each backward",
            )
        if self.is_on:
            self._integrity.before_unit()
            is_first = not self._units
            if self.source == "units":
                self._leaves.begin(is_first=is_first)
            else:
                self.examples.begin(unit.examples, is_first=is_first)
            self._ledger.open_row()
        self._inside = True

    def end(self, unit: Unit) -> None:
        """End the unit."""
        self._inside = False
        if not self.is_on:
            return
        made = None
        if self.source == "units":
            came, twice = self._leaves.end()
            if twice is not None:
                self._integrity.note(_IN_PARTS.format(name=self._names[twice]))
            elif self._looks_closely and not self._units:
                made = [float(cell) for cell in self._ledger.cells]
        else:
            came = self.examples.end()
            if self._looks_closely and not self._units:
                made = self.examples.made
            unit = unit.with_known(self.examples.num_read(unit.examples))
        if not came and not self.examples.problem:
            self._integrity.note(_NOTHING_CAME)
        self._units.append(unit)
        self.sizes.add(unit.examples)
        self._integrity.after_unit(made)

    def abandon(self) -> None:
        """Forget the unit under way: its backward pass raised."""
        self._inside = False
        if self.is_on:
            self._leaves.end()
            self.examples.abandon()
            self._ledger.drop_row()
            self._integrity.after_failure()

    def take(self) -> Update:
        """Return what was read of the update, its gradient included."""
        if not self._units:
            self._integrity.note(_NO_BACKWARD)
        self._integrity.before_reading()
        if self.examples.problem:
            self._integrity.note(self.examples.problem)
        spoiled = self.source != "units" and self.examples.end_update()
        left_out = self.left_out
        self._write_totals(left_out)
        table = self._ledger.take()
        problem = self._integrity.problem
        return Update(self._units, table, problem, spoiled, tuple(left_out))

    def _write_totals(self, left_out: Collection[int]) -> None:
        """Write a row of the gradient's own squares."""
        self._ledger.open_row()
        cells = self._ledger.cells
        for column, parameter in enumerate(self._parameters):
            gradient = parameter.grad
            if gradient is None or column in left_out or not parameter.requires_grad:
                continue
            if self._replicas.sharded:
                gradient, copies = local_part(gradient)
                write_square(gradient, cells[column])
                cells[column].div_(copies)
            else:
                write_square(gradient, cells[column])

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
