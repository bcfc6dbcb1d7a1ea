"""The layers whose parameters' gradients can be told apart by example.

Each kind of layer has three forms: squared norms alone; squared norms with the summed
gradient made on the way, so that autograd need not make it again; and each example's
gradient itself, for parameters that serve more than once in a pass.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rightbatch.batch_norm import BATCH_NORMALIZATIONS
from rightbatch.gradients.per_example import convolution, embedding, linear
from rightbatch.gradients.per_example import normalization as norm
from rightbatch.gradients.per_example.uses import Use

Squares = dict[str, Tensor]
Sums = dict[str, tuple[Tensor, Tensor]]
Names = Iterable[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is known of a kind of layer, as functions of the layer and one pass of it.

    `a` is the layer's input and `g` the gradient of its output, examples first.

    Args:
        makes_sums: ``(layer, a)``: whether `sums` is the quickest form.
        squares: ``(layer, a, g, names)``: squared norms per example, shape (B,), by
            name of the parameter.
        sums: ``(layer, a, g, names)``: the same with the summed gradient.
        total: ``(layer, a, g, name)``: the summed gradient alone, as autograd has it.
        each: ``(layer, a, g, name)``: each example's gradient, shape (B, ...).
        splits_well: Whether `sums` of some examples and `total` of the others take no
            longer than a `total` of all.
        use: ``(layer, a, g)``: what the weight was used for, where it is a matrix that
            may serve twice; None where `each` is to be added up.
    """

    makes_sums: Callable[[Any, Tensor], bool]
    squares: Callable[[Any, Tensor, Tensor, Names], Squares]
    sums: Callable[[Any, Tensor, Tensor, Names], Sums]
    total: Callable[[Any, Tensor, Tensor, str], Tensor]
    each: Callable[[Any, Tensor, Tensor, str], Tensor]
    splits_well: bool = True
    use: Callable[[Any, Tensor, Tensor], Use] | None = None


def kind_of(module: nn.Module) -> Kind | None:
    """Return what is known of a module; None where nothing is.

    A subclass may compute something else, so that the exact type counts.

    Args:
        module: Any.

    Example:
        >>> kind_of(nn.Linear(2, 1)) is LINEAR, kind_of(nn.LSTM(2, 1))
        (True, None)
    """
    if isinstance(module, nn.Embedding):
        # A table that is clipped or scaled by use has another gradient than this one.
        odd = (module.max_norm, module.scale_grad_by_freq, module.sparse)
        return None if any(odd) else _KINDS.get(type(module))
    if isinstance(module, norm.INSTANCE_NORMALIZATIONS) and module.track_running_stats:
        return None
    return _KINDS.get(type(module))


def own_parameters(module: nn.Module) -> Mapping[str, nn.Parameter]:
    """Return a module's own trainable parameters, by their names in it."""
    named = module.named_parameters(recurse=False)
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def sum_of(parts: list[Tensor]) -> Tensor:
    """Return the sum of some tensors of one shape."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _summed(each: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared norms and the sum of each example's gradients."""
    return linear.squares_of(each), each.sum(0)


# Linear -----------------------------------------------------------------------------


def _linear_makes_sums(layer: nn.Linear, a: Tensor) -> bool:
    rows = a.numel() // max(1, len(a) * a.shape[-1])
    wide = (layer.in_features, layer.out_features)
    return rows > 1 and not linear.gram_is_cheaper(rows, *wide)


def _linear_squares(layer: nn.Linear, a: Tensor, g: Tensor, names: Names) -> Squares:
    a, g = _rows(a, g)
    found: Squares = {}
    for name in names:
        if name == "bias":
            found[name] = linear.row_squares(g.sum(1))
        elif linear.gram_has_fewer_products(a.shape[1], a.shape[2], g.shape[2]):
            found[name] = linear.gram_squares(a, g)
        else:
            found[name] = linear.summed(a, g)[0]
    return found


def _linear_sums(layer: nn.Linear, a: Tensor, g: Tensor, names: Names) -> Sums:
    del layer
    a, g = _rows(a, g)
    return {
        name: _summed(g.sum(1)) if name == "bias" else linear.summed(a, g)
        for name in names
    }


def _linear_total(layer: nn.Linear, a: Tensor, g: Tensor, name: str) -> Tensor:
    del layer
    g = g.reshape(-1, g.shape[-1])
    if name == "bias":
        return g.sum(0)
    return g.t() @ a.reshape(-1, a.shape[-1]).to(g.dtype)


def _linear_each(layer: nn.Linear, a: Tensor, g: Tensor, name: str) -> Tensor:
    del layer
    a, g = _rows(a, g)
    return g.sum(1) if name == "bias" else g.transpose(1, 2) @ a


def _linear_use(layer: nn.Linear, a: Tensor, g: Tensor) -> Use:
    del layer
    a, g = _rows(a, g)
    return Use(g, a)


def _rows(a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return input and output gradient as (B, T, p) and (B, T, q), in one precision."""
    batch = len(a)
    return (
        a.reshape(batch, -1, a.shape[-1]).to(g.dtype),
        g.reshape(batch, -1, g.shape[-1]),
    )


# Embedding --------------------------------------------------------------------------


def _embedding_squares(
    layer: nn.Embedding, a: Tensor, g: Tensor, names: Names
) -> Squares:
    squares = embedding.table_squares(*_looked_up(layer, a, g))
    return dict.fromkeys(names, squares)


def _embedding_sums(layer: nn.Embedding, a: Tensor, g: Tensor, names: Names) -> Sums:
    ids, rows = _looked_up(layer, a, g)
    squares = embedding.table_squares(ids, rows)
    total = _embedding_total(layer, a, g, "weight")
    return dict.fromkeys(names, (squares, total))


def _embedding_total(layer: nn.Embedding, a: Tensor, g: Tensor, name: str) -> Tensor:
    del name
    return embedding.table_gradient(*_looked_up(layer, a, g), layer.num_embeddings)


def _embedding_each(layer: nn.Embedding, a: Tensor, g: Tensor, name: str) -> Tensor:
    del name
    ids, rows = _looked_up(layer, a, g)
    table = rows.new_zeros(len(ids), layer.num_embeddings, rows.shape[-1])
    return table.scatter_add(1, ids.unsqueeze(-1).expand_as(rows), rows)


def _looked_up(layer: nn.Embedding, a: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    ids = a.reshape(len(a), -1)
    rows = g.reshape(*ids.shape, -1)
    return ids, embedding.row_gradients(ids, rows, layer.padding_idx)


def _embedding_use(layer: nn.Embedding, a: Tensor, g: Tensor) -> Use:
    return Use(*_looked_up(layer, a, g))


# Convolution ------------------------------------------------------------------------


def _convolution_sums(
    layer: convolution.Convolution, a: Tensor, g: Tensor, names: Names
) -> Sums:
    return {
        name: _summed(g.flatten(2).sum(2))
        if name == "bias"
        else convolution.summed(layer, a.to(g.dtype), g)
        for name in names
    }


def _convolution_total(
    layer: convolution.Convolution, a: Tensor, g: Tensor, name: str
) -> Tensor:
    if name == "bias":
        return g.transpose(0, 1).flatten(1).sum(1)
    return convolution.weight_gradient(a.to(g.dtype), g, convolution.Geometry.of(layer))


def _convolution_each(
    layer: convolution.Convolution, a: Tensor, g: Tensor, name: str
) -> Tensor:
    if name == "bias":
        return g.flatten(2).sum(2)
    geometry = convolution.Geometry.of(layer)
    return convolution.weight_gradients(a.to(g.dtype), g, geometry)


# Normalization ----------------------------------------------------------------------


def _normalization_each(layer: nn.Module, a: Tensor, g: Tensor, name: str) -> Tensor:
    values = g
    if name == "weight":
        values = g * norm.normalized(layer, a.to(g.dtype))
    return norm.summed_over_places(layer, values)


def _normalization_total(layer: nn.Module, a: Tensor, g: Tensor, name: str) -> Tensor:
    return _normalization_each(layer, a, g, name).sum(0)


def _normalization_sums(layer: nn.Module, a: Tensor, g: Tensor, names: Names) -> Sums:
    return {name: _summed(_normalization_each(layer, a, g, name)) for name in names}


def _always(layer: nn.Module, a: Tensor) -> bool:
    del layer, a
    return True


def _never(layer: nn.Module, a: Tensor) -> bool:
    del layer, a
    return False


def _squares_of_sums(
    sums: Callable[[Any, Tensor, Tensor, Names], Sums],
) -> Callable[[Any, Tensor, Tensor, Names], Squares]:
    def squares(layer: nn.Module, a: Tensor, g: Tensor, names: Names) -> Squares:
        return {name: found for name, (found, _) in sums(layer, a, g, names).items()}

    return squares


LINEAR = Kind(
    makes_sums=_linear_makes_sums,
    squares=_linear_squares,
    sums=_linear_sums,
    total=_linear_total,
    each=_linear_each,
    use=_linear_use,
)
EMBEDDING = Kind(
    makes_sums=_never,
    squares=_embedding_squares,
    sums=_embedding_sums,
    total=_embedding_total,
    each=_embedding_each,
    use=_embedding_use,
)
CONVOLUTION = Kind(
    makes_sums=_always,
    squares=_squares_of_sums(_convolution_sums),
    sums=_convolution_sums,
    total=_convolution_total,
    each=_convolution_each,
    splits_well=False,
)
NORMALIZATION = Kind(
    makes_sums=_always,
    squares=_squares_of_sums(_normalization_sums),
    sums=_normalization_sums,
    total=_normalization_total,
    each=_normalization_each,
)
_KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: LINEAR,
    nn.Embedding: EMBEDDING,
    nn.Conv1d: CONVOLUTION,
    nn.Conv2d: CONVOLUTION,
    nn.Conv3d: CONVOLUTION,
    **dict.fromkeys(norm.NORMALIZATIONS, NORMALIZATION),
    # Read where they use what they learned instead of the batch, refused elsewhere.
    **dict.fromkeys(BATCH_NORMALIZATIONS, NORMALIZATION),
}
