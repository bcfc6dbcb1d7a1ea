"""The compiled steps of a process, by batch size: made once, and used again."""

from collections.abc import Sequence

from rightbatch.engine import CompiledStack, Stack, compile_steps
from rightbatch.engine.compiled import STEPS, Compilation
from rightbatch.errors import InputError
from rightbatch.sampler import ExampleStream, SideBySide
from rightbatch.workload import Workload

# What a gain is measured against, the same function uncompiled, takes up to 1.6 times
# as long as a stack's own steps, which are made in place.
MIN_GAIN = 1.6


class CompiledGraphs:
    """Compiles the steps of stacks, once for each batch size.

    Args:
        workload: What all of them train.
        required: To be told of by an error where it cannot be done, and done where it
            is no faster, as somebody asked for it.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> CompiledGraphs(mlp(), required=True).required
        True
    """

    def __init__(self, workload: Workload, *, required: bool = False) -> None:
        self._workload = workload
        self._required = required
        self._made: dict[int, Compilation] = {}

    @property
    def required(self) -> bool:
        """Whether somebody asked for it."""
        return self._required

    def compiled(
        self, stack: Stack, streams: Sequence[ExampleStream], batch_size: int
    ) -> CompiledStack | None:
        """Return the stack compiled; None where its own steps are to be taken.

        Args:
            stack: Of at least one member.
            streams: Its members'. They are looked ahead at, and stay where they are.
            batch_size: Examples per step of a member.

        Raises:
            InputError: It is required and cannot be done.
        """
        found = self._made.get(batch_size)
        if found is None or (found.steps and found.steps.members < len(stack)):
            found = self._made[batch_size] = self._compile(stack, streams, batch_size)
        steps = found.steps
        if steps is None:
            return None
        if steps.gain < MIN_GAIN and not self._required:
            return None
        # Rows that are nobody's cost as much as others. A stack of fewer is believed to
        # be faster in proportion, which is more than it can be.
        if len(stack) * max(steps.gain, 1.0) < steps.members:
            return None
        return CompiledStack(stack, steps)

    def _compile(
        self, stack: Stack, streams: Sequence[ExampleStream], batch_size: int
    ) -> Compilation:
        # Never settled: the streams do not learn of it.
        ahead = SideBySide(streams, batch_size)
        found = compile_steps(stack, [ahead.next() for _ in range(2 * STEPS)])
        if self._required and found.steps is None:
            raise InputError(
                f"sweep: `tier` compiled cannot be had for {self._workload.name}: "
                f"{found.reason}.",
                "ask for auto or stacked",
            )
        return found
