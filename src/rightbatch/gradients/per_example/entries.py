"""Which layers of a model are read example by example, and which parameters are not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from rightbatch.batch_norm import batch_normalizations, mixes_examples
from rightbatch.errors import InputError
from rightbatch.gradients.per_example.layers import (
    NORMALIZATION,
    Kind,
    kind_of,
    own_parameters,
)

# What layers call what they learn; weight_norm and the like put others there.
_NAMES = {"weight", "bias"}
_WAY_OUT = "read units instead: source='units', with two micro-batches or more"


@dataclass(eq=False, slots=True)
class Entry:
    """A layer that is read.

    Args:
        layer: The module.
        kind: What is known of its gradients.
        columns: Column of each of its own trainable parameters, by name.
        parameters: The parameters themselves.
        calls: Backward passes through it in the unit under way.
        is_by_rows: Whether it is a linear layer that was seen to get one row for each
            example.
    """

    layer: nn.Module
    kind: Kind
    columns: dict[str, int]
    parameters: dict[str, nn.Parameter]
    calls: int = 0
    is_by_rows: bool = False

    def is_in_place(self, module: nn.Module) -> bool:
        """Return whether a pass is of the layer and its parameters as they were found.

        It is not where the pass is of a copy of the model, or made with other numbers
        in the place of its parameters.

        Args:
            module: Whose pass it is.
        """
        if module is not self.layer:
            return False
        own = self.parameters.items()
        return all(getattr(module, name) is parameter for name, parameter in own)

    def trained(self) -> list[str]:
        """Return the names of the parameters that are trained now."""
        return [n for n, p in self.parameters.items() if p.requires_grad]


@dataclass(slots=True)
class Coverage:
    """What is read of a model, and why the rest is not.

    Args:
        entries: Layers that are read.
        uncovered: Reason by column.
        shared: Columns of parameters that serve more than once in a pass.
    """

    entries: list[Entry]
    uncovered: dict[int, str] = field(default_factory=dict[int, str])
    shared: set[int] = field(default_factory=set[int])

    def leave_out(self, column: int, reason: str) -> None:
        """Read a parameter no longer.

        Args:
            column: Of the parameter.
            reason: In a few words.
        """
        self.uncovered.setdefault(column, reason)
        for entry in self.entries:
            names = [name for name, where in entry.columns.items() if where == column]
            for name in names:
                del entry.columns[name], entry.parameters[name]
        self.entries = [entry for entry in self.entries if entry.columns]

    def is_shared(self, entry: Entry) -> bool:
        """Return whether any of a layer's parameters serves more than once."""
        return not self.shared.isdisjoint(entry.columns.values())

    def learned(self) -> dict[str, Any]:
        """Return what the slow way found out, as plain values for a checkpoint."""
        return {
            "uncovered": {str(column): why for column, why in self.uncovered.items()},
            "shared": sorted(self.shared),
            "by_rows": [min(e.columns.values()) for e in self.entries if e.is_by_rows],
        }

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Take over what :meth:`learned` returned, of the same model.

        Args:
            learned: From a checkpoint.
        """
        for column, reason in learned["uncovered"].items():
            self.leave_out(int(column), reason)
        self.shared = set(learned["shared"])
        for entry in self.entries:
            entry.is_by_rows = min(entry.columns.values()) in learned["by_rows"]


def coverage_of(
    model: nn.Module, named: Mapping[str, nn.Parameter], source: str
) -> Coverage:
    """Return what can be read of a model, judged by its layers.

    Args:
        model: Any.
        named: Its trainable parameters by name, in the order of the columns.
        source: "examples", or "normalization" for those layers alone.

    Returns:
        The layers, and the parameters of no layer that is understood.
    """
    places = {id(parameter): column for column, parameter in enumerate(named.values())}
    found, owners = Coverage(entries=[]), [0] * len(named)
    for module in model.modules():
        own = own_parameters(module)
        columns = {n: places[id(p)] for n, p in own.items() if id(p) in places}
        if not columns:
            continue
        kind = kind_of(module) if own.keys() <= _NAMES else None
        if source == "normalization" and kind is not NORMALIZATION:
            kind = None
        for column in columns.values():
            if kind is None:
                found.uncovered[column] = _why_not(module, source)
            else:
                owners[column] += 1
        if kind is not None:
            entry = Entry(module, kind, columns, {n: own[n] for n in columns})
            found.entries.append(entry)
    # Parametrized weights and the like belong to no module's own parameters.
    for column in range(len(named)):
        if not owners[column]:
            found.uncovered.setdefault(column, "in no layer that is understood")
    for column in list(found.uncovered):
        # One of its owners is not understood, so that the sum would lack a part.
        found.leave_out(column, found.uncovered[column])
    found.shared = {c for c, count in enumerate(owners) if count > 1}
    return found


def _why_not(module: nn.Module, source: str) -> str:
    if source == "normalization":
        return "not of a normalization layer"
    return f"in {type(module).__name__}, which is not read by example"


def check_model(model: nn.Module, coverage: Coverage, *, sharded: bool) -> None:
    """Refuse a model whose gradients cannot be read example by example.

    Args:
        model: Any.
        coverage: What can be read of it.
        sharded: Whether its parameters are sharded.

    Raises:
        InputError: They cannot; says what to do instead.
    """
    who = "NoiseMeter"
    if sharded:
        raise InputError(
            f"{who}: norms of single examples cannot be read of sharded parameters.",
            "replicas are units already: source='units'",
        )
    if any(type(m).__name__ == "OptimizedModule" for m in model.modules()):
        raise InputError(
            f"{who}: norms of single examples cannot be read inside a compiled model.",
            f"{_WAY_OUT}, or give the meter the model before torch.compile",
        )
    check_batch_norm(batch_normalizations(model))
    if not coverage.entries:
        reasons = sorted(set(coverage.uncovered.values()))
        raise InputError(
            f"{who}: no parameter's gradient can be told apart by example: "
            f"{'; '.join(reasons)}.",
            _WAY_OUT,
        )


def check_batch_norm(layers: list[nn.Module]) -> None:
    """Refuse batch normalizations that mix the examples of a batch.

    Args:
        layers: Batch normalizations.

    Raises:
        InputError: One does: an example has no gradient of its own.
    """
    if any(mixes_examples(layer) for layer in layers):
        raise InputError(
            "NoiseMeter: a batch normalization in training mode mixes the examples of "
            "a batch, so that none has a gradient of its own.",
            "read micro-batches of one size as units, source='units'; or put the "
            "layer in evaluation mode; or use GroupNorm",
        )


def looks_unbatched(entry: Entry, a: Tensor) -> bool:
    """Return whether an embedding was given positions instead of examples.

    As many positions as examples cannot be told by their number.

    Args:
        entry: A layer.
        a: Its input.
    """
    if not isinstance(entry.layer, nn.Embedding) or a.ndim != 1:
        return False
    return len(a) > 1 and bool((a.diff() == 1).all())
