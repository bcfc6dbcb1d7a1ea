"""The examples an estimator learns from: rows of arrays, or items of a data set."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array, check_consistent_length
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from rightbatch.errors import InputError
from rightbatch.sampler.examples import length_of_dataset, tensors_of


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Examples:
    """Inputs, targets and weights; only the inputs of a data set stay where they are.

    Args:
        inputs: A tensor of rows, or a data set of inputs.
        targets: Shape (n, ...), as they were given; None where nobody asked.
        weights: Shape (n,), positive; None for all alike.
        items: Which items of the data set these are; None for a tensor.
    """

    inputs: Any
    targets: NDArray[Any]
    weights: NDArray[np.float64] | None = None
    items: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an example's input; () where it is no tensor or array."""
        first = self.inputs[0 if self.items is None else int(self.items[0])]
        return tuple(np.shape(first)) if hasattr(first, "shape") else ()

    def at(self, places: NDArray[Any]) -> Self:
        """Return some of the examples.

        Args:
            places: Their numbers, or a mask.
        """
        places = np.flatnonzero(places) if places.dtype == bool else places
        return replace(
            self,
            inputs=self.inputs if self.items is not None else self.inputs[places],
            targets=self.targets[places],
            weights=None if self.weights is None else self.weights[places],
            items=None if self.items is None else self.items[places],
        )

    def dataset(self, targets: NDArray[Any], dtype: torch.dtype) -> Dataset[Any]:
        """Return the data set to train on, of (x, y) or (x, y, weight).

        Args:
            targets: In place of those given: numbers.
            dtype: Of floating targets and of the weights.
        """
        columns = [_tensor(targets, dtype)]
        if self.weights is not None:
            columns.append(_tensor(self.weights, dtype))
        if self.items is None:
            return TensorDataset(self.inputs, *columns)
        return ItemExamples(self.inputs, self.items, columns)


class ItemExamples(Dataset[Any]):
    """Items of a data set with other columns beside their input.

    Args:
        inputs: Of all items.
        items: Which of them.
        columns: One row for each.
    """

    def __init__(
        self, inputs: Dataset[Any], items: NDArray[np.int64], columns: list[Tensor]
    ) -> None:
        self._inputs, self._items, self._columns = inputs, items, columns

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        x = self._inputs[int(self._items[index])]
        return (x, *(column[index] for column in self._columns))


def of_arrays(
    x: NDArray[Any], y: NDArray[Any], sample_weight: Any, dtype: torch.dtype
) -> Examples:
    """Return rows of arrays that were checked, without those of weight zero.

    Args:
        x: Inputs.
        y: Targets.
        sample_weight: One number per row, or None.
        dtype: Of the inputs.

    Raises:
        InputError: A weight is negative, or all are zero.
        ValueError: They are not one finite number per row.
    """
    inputs = _tensor(x, dtype)
    if sample_weight is None:
        return Examples(inputs=inputs, targets=y)
    given = _finite_weights(sample_weight)
    if given.ndim != 1:
        raise InputError(
            f"fit: `sample_weight` must be one number per row, got shape {given.shape}."
        )
    check_consistent_length(x, given)
    return _weighted(Examples(inputs=inputs, targets=y), given)


def of_dataset(dataset: Any, dtype: torch.dtype) -> Examples:
    """Return the examples of a data set; items are (x, y) or (x, y, weight).

    Every item is read once for its target.

    Args:
        dataset: Map-style.
        dtype: Of the inputs, where they are a tensor of floating numbers.

    Raises:
        InputError: It has no length or no targets, or holds NaN or infinity.
    """
    columns = _columns(dataset)
    tensors = tensors_of(dataset)
    examples = Examples(
        inputs=_Inputs(dataset, dtype)
        if tensors is None
        else _finite(tensors[0], dtype),
        targets=columns[0],
        items=np.arange(len(columns[0])) if tensors is None else None,
    )
    return examples if len(columns) == 1 else _weighted(examples, _as_weights(columns))


def targets_of(dataset: Any) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """Return the targets of a data set, and its weights; None for all alike.

    Args:
        dataset: Map-style; every item is read.

    Raises:
        InputError: It has no length or no targets.
        ValueError: A weight is no finite number.
    """
    columns = _columns(dataset)
    return columns[0], None if len(columns) == 1 else _as_weights(columns)


def inputs_of(dataset: Any, dtype: torch.dtype) -> Examples:
    """Return the inputs of a data set alone; items may be just that.

    Args:
        dataset: Map-style.
        dtype: Of the inputs, where they are a tensor of floating numbers.

    Raises:
        InputError: It has no length, or holds NaN or infinity.
    """
    length = _length(dataset)
    nothing = np.zeros(length)
    tensors = tensors_of(dataset)
    if tensors is not None:
        return Examples(inputs=_finite(tensors[0], dtype), targets=nothing)
    inputs = _Inputs(dataset, dtype)
    return Examples(inputs=inputs, targets=nothing, items=np.arange(length))


def is_dataset(x: Any) -> bool:
    """Return whether these are the items of a data set, not an array.

    Example:
        >>> is_dataset(TensorDataset(torch.ones(2))), is_dataset([[1.0]])
        (True, False)
    """
    return isinstance(x, Dataset)


class _Inputs(Dataset[Any]):
    """The inputs of items, whether they stand alone or before others.

    Args:
        dataset: Map-style.
        dtype: Of tensors of floating numbers; other inputs are left as they are.
    """

    def __init__(self, dataset: Any, dtype: torch.dtype) -> None:
        self._dataset, self._dtype = dataset, dtype

    def __getitem__(self, index: int) -> Any:
        row = self._dataset[index]
        x = row[0] if _is_pair(row) else row
        if isinstance(x, np.ndarray):
            x = torch.as_tensor(x)
        if not isinstance(x, Tensor) or not x.is_floating_point():
            return x
        if not bool(x.isfinite().all()):
            raise InputError(
                f"data set: the input of item {index} holds NaN or infinity.",
                "clean or drop such items",
            )
        return x.to(self._dtype)


def _length(dataset: Any) -> int:
    if isinstance(dataset, IterableDataset):
        raise InputError(
            "fit: a data set must have a length and items by number, got an "
            f"{type(dataset).__name__}, which can only be gone through.",
            "BatchSizeController with IterableStream trains on one",
        )
    return length_of_dataset(dataset)


def _is_pair(row: Any) -> bool:
    return isinstance(row, (tuple, list)) and not isinstance(row, Mapping)


def _columns(dataset: Any) -> list[NDArray[Any]]:
    """Return what items hold beside the input: targets, and perhaps weights.

    Raises:
        InputError: They are not (x, y) or (x, y, weight).
    """
    length = _length(dataset)
    tensors = tensors_of(dataset)
    if tensors is not None:
        columns = [column.detach().cpu().numpy() for column in tensors[1:]]
    else:
        rows: list[Any] = []
        for item in range(length):
            row = dataset[item]
            rows.append(row[1:] if _is_pair(row) else ())
        widths = sorted({len(row) for row in rows})
        if len(widths) > 1:
            raise InputError(
                "fit: all items of a data set must be alike, got some of "
                f"{' and some of '.join(str(1 + width) for width in widths)} values."
            )
        width = widths[0]
        columns = [np.asarray([row[place] for row in rows]) for place in range(width)]
    if len(columns) not in (1, 2):
        raise InputError(
            "fit: an item of the data set must be (x, y) or (x, y, weight), got "
            f"{len(columns)} values beside x."
        )
    return columns


def _as_weights(columns: list[NDArray[Any]]) -> NDArray[np.float64]:
    given = _finite_weights(columns[1])
    if given.size != len(columns[0]):
        raise InputError(
            "fit: a weight must be one number per example, got shape "
            f"{given.shape[1:]}."
        )
    return given.reshape(-1)


def _finite_weights(weights: Any) -> NDArray[np.float64]:
    check: Any = check_array
    checked: Any = check(
        weights,
        ensure_2d=False,
        allow_nd=True,
        dtype=np.float64,
        input_name="sample_weight",
    )
    return checked


def _weighted(examples: Examples, weights: NDArray[np.float64]) -> Examples:
    """Return the examples with their weights, without those that weigh nothing.

    Raises:
        InputError: A weight is negative, or all are zero.
    """
    if not np.all(weights >= 0):
        raise InputError(
            f"fit: `sample_weight` must not be negative, got {weights.min():g}."
        )
    if not weights.any():
        raise InputError(
            "fit: `sample_weight` must not be zero for every example.",
            "some example has to count",
        )
    weighted = replace(examples, weights=weights)
    return weighted if weights.all() else weighted.at(weights > 0)


def _finite(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    if not bool(tensor.isfinite().all()):
        raise InputError(
            "fit: the data set's inputs hold infinity.", "clean or drop such rows"
        )
    return tensor.detach().to(dtype)


def _tensor(values: ArrayLike, dtype: torch.dtype) -> Tensor:
    """Return a copy as a tensor; whole numbers stay so."""
    array = cast(Any, np.array(values))
    if array.dtype.kind == "f":
        return torch.as_tensor(array, dtype=dtype)
    return torch.as_tensor(array)
