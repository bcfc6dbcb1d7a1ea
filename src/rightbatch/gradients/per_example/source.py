"""Norms of single examples' gradients, read inside the loop's own backward passes."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rightbatch.gradients.ledger import Ledger
from rightbatch.gradients.per_example import captured, entries
from rightbatch.gradients.per_example.captured import Pass
from rightbatch.gradients.per_example.entries import Coverage, Entry
from rightbatch.gradients.per_example.layers import LINEAR
from rightbatch.gradients.per_example.linear import row_norms
from rightbatch.gradients.per_example.watch import watched


class ExampleHooks:
    """Hooks on layers that read squared norms example by example.

    The first update is read slowly: it shows which parameters serve more than once, and
    whether the examples' gradients add up to the one autograd makes. A parameter whose
    gradients do not is left out, with the reason.

    Args:
        model: Its layers are hooked.
        named: Trainable parameters by name, in the ledger's order.
        ledger: Where sums of squared norms go.
        num_examples: Examples of each pass that are read, the first; all when None.

    Attributes:
        problem: What went wrong in the update under way; "" for nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[str, nn.Parameter],
        ledger: Ledger,
        num_examples: int | None,
    ) -> None:
        self._model = model
        self._named = named
        self._ledger = ledger
        self._most = num_examples
        self._coverage = Coverage(entries=[], owners=[])
        self._batch_norms = entries.batch_normalizations(model)
        self._handles: list[RemovableHandle] = []
        self._passes: list[Pass] = []
        self._gradients: dict[int, Tensor] = {}
        self._is_checked = False
        self._examples: float | None = None
        self._came = False
        self._is_spoiled = False
        self.problem = ""

    # What is read -----------------------------------------------------------------

    def use(self, source: str, *, sharded: bool) -> None:
        """Find out what can be read of the model.

        Args:
            source: "examples", or "normalization" for those layers alone.
            sharded: Whether parameters are sharded.

        Raises:
            InputError: Nothing can.
        """
        self._coverage = entries.coverage_of(self._model, self._named, source)
        self._is_checked = False
        entries.check_model(self._model, self._coverage, sharded=sharded)

    @property
    def left_out(self) -> Collection[int]:
        """Columns of the parameters that are not read."""
        return self._coverage.uncovered.keys()

    @property
    def uncovered(self) -> dict[str, str]:
        """Names of the parameters that are not read, with the reason."""
        names = list(self._named)
        return {names[c]: why for c, why in sorted(self._coverage.uncovered.items())}

    def num_read(self, examples: float) -> float:
        """Return of how many examples of a pass the norms are read."""
        return examples if self._most is None else min(examples, self._most)

    # A unit -----------------------------------------------------------------------

    def begin(self, examples: float) -> None:
        """Take what comes next as one unit's.

        Raises:
            InputError: A batch normalization is in training mode.
        """
        entries.check_batch_norm(self._batch_norms)
        self._examples = examples
        self._came = False
        for entry in self._coverage.entries:
            entry.calls = 0

    def end(self) -> bool:
        """End the unit.

        Returns:
            Whether any gradient came.
        """
        examples, self._examples = self._examples, None
        assert examples is not None
        if self._passes:
            self._read_captured(examples)
        self._passes.clear()
        self._gradients.clear()
        return self._came

    def abandon(self) -> None:
        """Forget the unit under way."""
        self._examples = None
        self._passes.clear()
        self._gradients.clear()

    def end_update(self) -> bool:
        """End the update.

        Returns:
            Whether what was read of it has to be left out.
        """
        spoiled, self._is_spoiled = self._is_spoiled, False
        self.problem = ""
        if self._came and not self._is_checked:
            self._is_checked = True
            self.detach()
        return spoiled

    # Hooks ------------------------------------------------------------------------

    def attach(self) -> None:
        """Put the hooks in place."""
        if self._handles:
            return
        for entry in self._coverage.entries:
            module = entry.layer
            if not self._is_checked or self._coverage.is_shared(entry):
                hook = self._capturing(entry)
                self._handles.append(
                    module.register_forward_hook(hook, with_kwargs=True)
                )
                continue
            self._reading(entry)
        if not self._is_checked:
            for column, parameter in enumerate(self._named.values()):
                self._handles.append(parameter.register_hook(self._keeping(column)))

    def detach(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _keeping(self, column: int) -> Callable[[Tensor], None]:
        def keep(gradient: Tensor) -> None:
            known = self._gradients.get(column)
            gradient = gradient.detach()
            self._gradients[column] = gradient if known is None else known + gradient

        return keep

    def _capturing(self, entry: Entry) -> Any:
        def capture(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or not output.requires_grad:
                return
            a = _input(args, kwargs).detach()
            by_rows = entry.kind is LINEAR and a.ndim == 2
            entry.is_by_rows = by_rows and bool(args)

            def seen(g: Tensor) -> None:
                if self._examples is not None:
                    self._came = True
                    self._passes.append(Pass(entry, a, g.detach()))

            output.register_hook(seen)

        return capture

    def _reading(self, entry: Entry) -> None:
        """Hook a layer whose parameters serve once in a pass."""
        module = entry.layer
        if entry.is_by_rows:
            hook = module.register_forward_hook(self._by_rows(entry))
            self._handles.append(hook)
            return
        names = list(entry.columns)
        left_out: list[nn.Parameter] = []

        def before(_module: nn.Module, args: Any, kwargs: Any) -> None:
            if not torch.is_grad_enabled():
                return
            if entry.kind.makes_sums(entry.layer, _input(args, kwargs)):
                left_out[:] = entry.parameters.values()
                for parameter in left_out:
                    parameter.requires_grad_(False)

        def after(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            summed = list(left_out)
            left_out.clear()
            for parameter in summed:
                parameter.requires_grad_(True)
            if not isinstance(output, Tensor) or not torch.is_grad_enabled():
                return None
            if not summed and not output.requires_grad:
                return None
            answer = self._answer(entry, names, makes_sums=bool(summed))
            return watched(output, _input(args, kwargs), answer, summed)

        self._handles += [
            module.register_forward_pre_hook(before, with_kwargs=True),
            # Also after an error: a parameter must not stay out of the graph.
            module.register_forward_hook(after, with_kwargs=True, always_call=True),
        ]

    def _by_rows(self, entry: Entry) -> Any:
        """Return the hook of a linear layer that was seen to get a row per example."""
        columns = entry.columns
        weight, bias = columns.get("weight"), columns.get("bias")
        most, norms, dot = self._most, row_norms, torch.dot

        def after(_module: nn.Module, args: Any, output: Any) -> Any:
            if not output.requires_grad:
                return None
            if args[0].ndim != 2:
                answer = self._answer(entry, list(columns), makes_sums=False)
                return watched(output, args[0], answer)
            # All that the weight's gradients need of the input: the rows may go.
            a = args[0].detach()
            inputs = norms(a if most is None else a[:most])

            def read(g: Tensor) -> None:
                if not self._counts(entry, g):
                    return
                g = g.detach() if most is None else g.detach()[:most]
                outputs = norms(g)
                cells = self._ledger.cells
                if bias is not None:
                    dot(outputs, outputs, out=cells[bias])
                if weight is not None:
                    outputs = inputs * outputs
                    dot(outputs, outputs, out=cells[weight])

            output.register_hook(read)
            return None

        return after

    def _answer(self, entry: Entry, names: Sequence[str], *, makes_sums: bool) -> Any:
        layer, kind = entry.layer, entry.kind

        def answer(a: Tensor, g: Tensor) -> Sequence[Tensor | None]:
            counts = self._counts(entry, g)
            if not makes_sums:
                if counts:
                    part = (a[: self._most].detach(), g[: self._most].detach())
                    self._write(entry, kind.squares(layer, *part, names))
                return ()
            if not counts or torch.is_grad_enabled():
                # A gradient of gradients may be wanted: made so that it has one.
                return [kind.total(layer, a, g, name) for name in names]
            most = self._most
            found = kind.sums(layer, a[:most], g[:most], names)
            self._write(entry, {name: found[name][0] for name in names})
            if most is None or most >= len(g):
                return [found[name][1] for name in names]
            # The other examples' part is made as ever.
            rest = a[most:], g[most:]
            return [
                found[name][1].add_(kind.total(layer, *rest, name)) for name in names
            ]

        return answer

    def _write(self, entry: Entry, squares: Mapping[str, Tensor]) -> None:
        for name, values in squares.items():
            torch.sum(values, dim=0, out=self._ledger.cells[entry.columns[name]])

    def _counts(self, entry: Entry, g: Tensor) -> bool:
        """Return whether a pass is the unit's, the only one, and has its examples."""
        if self._examples is None:
            return False
        self._came = True
        entry.calls += 1
        if entry.calls > 1:
            # Learned late: from the next update on all its passes are taken together.
            self._coverage.shared.update(entry.columns.values())
            self._is_spoiled = True
            self.detach()
        if len(g) != self._examples:
            self.problem = self.problem or (
                f"NoiseMeter.update: {type(entry.layer).__name__} had {len(g)} "
                f"rows in a unit of {self._examples:g} examples. | give "
                "`meter.unit` the number of examples, and keep them first"
            )
            return False
        return True

    # The slow way -----------------------------------------------------------------

    def _read_captured(self, examples: float) -> None:
        most = math.inf if self._most is None else self._most
        for column, uses in captured.passes_by_column(self._passes).items():
            reason = captured.wrong_rows(uses, examples)
            if not reason:
                squares, total = captured.squares_and_sum(uses)
                if not self._is_checked:
                    if len(uses) > 1:
                        self._coverage.shared.add(column)
                    if not captured.adds_up(total, column, self._gradients):
                        reason = "used outside its layer as well, or rows are mixed"
                read = squares if most >= len(squares) else squares[: self._most]
                self._ledger.cells[column].copy_(read.sum())
            if reason:
                self._coverage.leave_out(column, reason)
        if not self._coverage.entries:
            reasons = sorted(set(self._coverage.uncovered.values()))
            self.problem = self.problem or (
                "NoiseMeter.update: no parameter's gradient can be told apart by "
                f"example: {'; '.join(reasons)}. | read units instead: source='units', "
                "with two micro-batches or more"
            )


def _input(args: Any, kwargs: Any) -> Tensor:
    given = args[0] if args else kwargs["input"]
    assert isinstance(given, Tensor)
    return given
