"""Norms of single examples' gradients, read inside the loop's own backward passes."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from rightbatch.batch_norm import batch_normalizations
from rightbatch.gradients.ledger import Ledger, write_square
from rightbatch.gradients.per_example import captured, entries
from rightbatch.gradients.per_example.captured import Pass
from rightbatch.gradients.per_example.entries import Coverage, Entry
from rightbatch.gradients.per_example.layers import LINEAR
from rightbatch.gradients.per_example.linear import row_norms
from rightbatch.gradients.per_example.watch import watched

# Updates read between two that are read slowly and checked: a loop may change.
_CHECK_EVERY = 1000
_NO_ACCOUNT = 1e-5


class ExampleHooks:
    """Hooks on layers that read squared norms example by example.

    The first update is read slowly, and one in a thousand later ones: it shows which
    parameters serve more than once, and whether the examples' gradients add up to the
    one autograd makes. A parameter whose gradients do not is left out, with the reason,
    and so is the update that found it out.

    Args:
        model: Its layers are hooked.
        named: Trainable parameters by name, in the ledger's order.
        ledger: Where sums of squared norms go.
        num_examples: Examples of each pass that are read, the first; all when None.
        on_first: Called when the first gradient of an update is made, with the columns
            that are not read.

    Attributes:
        problem: What went wrong in the update under way; "" for nothing.
        made: Squared norms of what the last unit made, by column; None where that was
            not looked at.
    """

    def __init__(
        self,
        model: nn.Module,
        named: Mapping[str, nn.Parameter],
        ledger: Ledger,
        num_examples: int | None,
        *,
        on_first: Callable[[Collection[int]], None],
    ) -> None:
        self._model = model
        self._named = named
        self._ledger = ledger
        self._most = num_examples
        self._on_first = on_first
        self._coverage = Coverage(entries=[])
        self._batch_norms = batch_normalizations(model)
        self._handles: list[RemovableHandle] = []
        # Parameters that are out of the graph while their layer runs.
        self._out: set[nn.Parameter] = set()
        self._passes: list[Pass] = []
        self._gradients: dict[int, Tensor] = {}
        self._updates_checked_for = 0
        self._examples: float | None = None
        self._is_first = False
        self._came = False
        self._is_spoiled = False
        self.problem = ""
        self.made: list[float] | None = None

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
        self._updates_checked_for = 0
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

    def learned(self) -> dict[str, Any]:
        """Return what was found out of the model, and when to look again."""
        return {**self._coverage.learned(), "checked_for": self._updates_checked_for}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Take over what :meth:`learned` returned: a resumed run reads as it did.

        The slow way gives the same numbers but for their last digits.
        """
        self._coverage.recall(learned)
        self._updates_checked_for = learned["checked_for"]

    @property
    def _is_checked(self) -> bool:
        return self._updates_checked_for > 0

    # A unit -----------------------------------------------------------------------

    def begin(self, examples: float, *, is_first: bool) -> None:
        """Take what comes next as one unit's.

        Args:
            examples: Of the unit.
            is_first: Whether it is the first of its update.

        Raises:
            InputError: A batch normalization is in training mode.
        """
        entries.check_batch_norm(self._batch_norms)
        self._examples = examples
        self._is_first = is_first
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
        self.made = None
        if not self._is_checked:
            self.made = self._squares_made()
        if self._came and (self._passes or not self._is_checked):
            self._read_captured(examples)
        if not self._coverage.entries:
            self._note_that_none_is_read()
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
        if self._is_checked:
            self._updates_checked_for -= 1
        elif self._came and not spoiled:
            self._updates_checked_for = _CHECK_EVERY
        if self._updates_checked_for in (0, _CHECK_EVERY):
            self.detach()  # the next update is read the other way
        return spoiled

    # Hooks ------------------------------------------------------------------------

    def attach(self) -> None:
        """Put the hooks in place, where they are not."""
        if self._handles:
            return
        for entry in self._coverage.entries:
            if not self._is_checked or self._coverage.is_shared(entry):
                hook = self._capturing(entry)
                self._hook_after(entry, hook)
            elif entry.is_by_rows:
                self._hook_after(entry, self._by_rows(entry))
            else:
                self._hook_around(entry)
        if not self._is_checked:
            for column, parameter in enumerate(self._named.values()):
                if parameter.requires_grad:
                    hook = self._keeping(column)
                    self._handles.append(parameter.register_hook(hook))

    def detach(self) -> None:
        """Take all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        # An interrupt inside a layer skips what would have put them back.
        for parameter in self._out:
            parameter.requires_grad_(True)
        self._out.clear()

    def _hook_after(self, entry: Entry, hook: Any) -> None:
        handle = entry.layer.register_forward_hook(hook, with_kwargs=True)
        self._handles.append(handle)

    def _keeping(self, column: int) -> Callable[[Tensor], None]:
        def keep(gradient: Tensor) -> None:
            if self._examples is None:
                return
            self._begin_update()
            known = self._gradients.get(column)
            # A copy: DDP averages what it is given in place.
            made = gradient.detach().clone()
            self._gradients[column] = made if known is None else known + made

        return keep

    def _begin_update(self) -> None:
        if self._is_first:
            self._is_first = False
            self._on_first(self.left_out)

    def _capturing(self, entry: Entry) -> Any:
        """Return the hook that keeps a layer's passes, to be read at the unit's end."""

        def capture(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if not _is_watchable(output) or not entry.is_in_place(module):
                return None
            a = _input(args, kwargs)
            entry.is_by_rows = entry.kind is LINEAR and a.ndim == 2

            def seen(a: Tensor, g: Tensor) -> Sequence[Tensor | None]:
                if self._examples is not None:
                    self._begin_update()
                    self._came = True
                    self._passes.append(Pass(entry, a.detach(), g.detach()))
                return ()

            return watched(output, a, seen)

        return capture

    def _hook_around(self, entry: Entry) -> None:
        """Hook a layer whose own parameters may be left out of its graph."""
        left_out: list[str] = []

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            left_out.clear()
            if not torch.is_grad_enabled() or not entry.is_in_place(module):
                return
            a = _input(args, kwargs)
            some = self._most is not None and self._most < len(a)
            if some and not entry.kind.splits_well:
                return
            if entry.kind.makes_sums(entry.layer, a):
                left_out.extend(self._take_out(entry))

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            summed = list(left_out)
            left_out.clear()
            self._put_back(entry, summed)
            if not torch.is_grad_enabled() or not entry.is_in_place(module):
                return None
            if isinstance(output, Tensor) and (summed or output.requires_grad):
                return self._watch(entry, output, _input(args, kwargs), summed)
            return None

        module = entry.layer
        self._handles += [
            module.register_forward_pre_hook(before, with_kwargs=True),
            # Also after an error: a parameter must not stay out of the graph.
            module.register_forward_hook(after, with_kwargs=True, always_call=True),
        ]

    def _take_out(self, entry: Entry) -> list[str]:
        """Take a layer's parameters out of the graph.

        Returns:
            The names of those taken: none inside a transform of torch.func, where they
            cannot be, and the pass is not the loop's.
        """
        names = entry.trained()
        for name in names:
            parameter = entry.parameters[name]
            try:
                parameter.requires_grad_(False)
            except RuntimeError:
                return []
            self._out.add(parameter)
        return names

    def _put_back(self, entry: Entry, names: Sequence[str]) -> None:
        for name in names:
            entry.parameters[name].requires_grad_(True)
            self._out.discard(entry.parameters[name])

    def _watch(
        self, entry: Entry, output: Tensor, a: Tensor, summed: Sequence[str]
    ) -> Tensor | None:
        answer = self._answer(entry, summed)
        parameters = [entry.parameters[name] for name in summed]
        try:
            return watched(output, a, answer, parameters)
        except RuntimeError:  # inside a transform of torch.func again
            return None

    def _answer(self, entry: Entry, summed: Sequence[str]) -> Any:
        """Return what reads a pass, and gives the gradients of some parameters."""
        layer, kind = entry.layer, entry.kind
        others = [name for name in entry.trained() if name not in summed]

        def answer(a: Tensor, g: Tensor) -> Sequence[Tensor | None]:
            counts, most = self._counts(entry, g), self._most
            if counts and others:
                few = a[:most].detach(), g[:most].detach()
                self._write(entry, kind.squares(layer, *few, others))
            if not counts or torch.is_grad_enabled():
                # A gradient of gradients may be wanted: made so that it has one.
                return [kind.total(layer, a, g, name) for name in summed]
            found = kind.sums(layer, a[:most], g[:most], summed)
            self._write(entry, {name: found[name][0] for name in summed})
            if most is None or most >= len(g):
                return [found[name][1] for name in summed]
            # The other examples' part is made as ever.
            rest = a[most:], g[most:]
            return [
                found[name][1].add_(kind.total(layer, *rest, name)) for name in summed
            ]

        return answer

    def _by_rows(self, entry: Entry) -> Any:
        """Return the hook of a linear layer that was seen to get a row per example."""
        most, norms = self._most, row_norms

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            if not _is_watchable(output) or not entry.is_in_place(module):
                return None
            a = _input(args, kwargs)
            if a.ndim != 2:
                return self._watch(entry, output, a, ())
            # All that the weight's gradients need of the input: the rows may go.
            a = a.detach()
            inputs = norms(a if most is None else a[:most])
            names = entry.trained()

            def read(g: Tensor) -> None:
                if not self._counts(entry, g):
                    return
                g = g.detach() if most is None else g.detach()[:most]
                outputs = norms(g)
                for name in names:
                    product = outputs if name == "bias" else inputs * outputs
                    self._put(entry.columns[name], product)

            output.register_hook(read)
            return None

        return after

    def _put(self, column: int, norms: Tensor) -> None:
        """Write the sum of the squares of some norms into the open row."""
        cell = self._ledger.cells[column]
        try:
            torch.dot(norms, norms, out=cell)
        except RuntimeError:  # the model was moved, or cast, after the meter was made
            cell.copy_(norms.dot(norms))

    def _write(self, entry: Entry, squares: Mapping[str, Tensor]) -> None:
        for name, values in squares.items():
            self._ledger.cells[entry.columns[name]].copy_(values.sum())

    def _counts(self, entry: Entry, g: Tensor) -> bool:
        """Return whether a pass is the unit's, the only one, and has its examples."""
        if self._examples is None:
            return False
        self._begin_update()
        self._came = True
        entry.calls += 1
        if entry.calls > 1:
            # Learned late: this update is lost, and the next one is read slowly.
            self._is_spoiled = True
            self._updates_checked_for = 1
        if len(g) != self._examples:
            self.problem = self.problem or (
                f"NoiseMeter.update: {type(entry.layer).__name__} had {len(g)} rows in "
                f"a unit of {self._examples:g} examples. | give `meter.unit` the "
                "number of examples, and keep them first"
            )
            return False
        return True

    # The slow way -----------------------------------------------------------------

    def _squares_made(self) -> list[float]:
        cell = torch.zeros((), dtype=torch.float64)
        found = [0.0] * len(self._named)
        for column, gradient in self._gradients.items():
            write_square(gradient, cell)
            found[column] = float(cell)
        return found

    def _read_captured(self, examples: float) -> None:
        passes = captured.passes_by_column(self._passes)
        for column, uses in passes.items():
            reason = captured.wrong_rows(uses, examples)
            if not reason:
                squares, total = captured.squares_and_sum(uses)
                if not self._is_checked:
                    reason = self._checked(column, len(uses), squares, total)
                most = math.inf if self._most is None else self._most
                read = squares if most >= len(squares) else squares[: self._most]
                self._ledger.cells[column].copy_(read.sum())
            if reason:
                self._leave_out(column, reason)
        if not self._is_checked:
            for column in self._gradients.keys() - passes.keys() - set(self.left_out):
                self._leave_out(column, "used outside the layers that are read")

    def _note_that_none_is_read(self) -> None:
        reasons = sorted(set(self._coverage.uncovered.values()))
        self.problem = self.problem or (
            "NoiseMeter.update: no parameter's gradient can be told apart by example: "
            f"{'; '.join(reasons)}. | read units instead: source='units', with two "
            "micro-batches or more"
        )

    def _checked(self, column: int, uses: int, squares: Tensor, total: Tensor) -> str:
        """Return why a parameter cannot be read; "" where it can."""
        if uses > 1:
            self._coverage.shared.add(column)
        assert self.made is not None
        # Of no account beside the largest gradient, it may be all rounding.
        slack = _NO_ACCOUNT * max(self.made) ** 0.5
        if captured.adds_up(total, squares, self._gradients.get(column), slack):
            return ""
        return "used outside its layer as well, or rows are mixed"

    def _leave_out(self, column: int, reason: str) -> None:
        self._coverage.leave_out(column, reason)
        # What was read of the update's earlier units was read of more parameters.
        self._is_spoiled = True


def _is_watchable(output: Any) -> bool:
    return isinstance(output, Tensor) and output.requires_grad


def _input(args: Any, kwargs: Any) -> Tensor:
    given = args[0] if args else kwargs["input"]
    assert isinstance(given, Tensor)
    return given
