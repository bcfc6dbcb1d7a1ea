"""Records of a run as columns of numbers: small files, read fast, exact to the bit."""

import gc
import json
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from itertools import compress, repeat
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rightbatch.controller import UpdateRecord

_NONE, _INT, _FLOAT, _TEXT = range(4)
_FIELDS = UpdateRecord._fields

Column = tuple[NDArray[np.uint8], NDArray[np.int64]]


class RecordColumns:
    """The records of a run, kept as columns while they grow.

    A column has the kind of each value (none, whole number, number, text) and its 64
    bits; those of a text are its place among the different texts. A column of one value
    holds it once. What was made columns before is not made again.

    Example:
        >>> record = UpdateRecord(1, 8, 8, 8, 1, 1, 0.1, 2.5, "constant", 0.01, 8.0)
        >>> columns = RecordColumns()
        >>> columns.follow([record])
        >>> records_from(columns.state_dict()) == [record]
        True
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._blocks: list[list[Column]] = []
        self._count = 0
        self._last: UpdateRecord | None = None

    def follow(self, records: Sequence[UpdateRecord]) -> None:
        """Take in what is new in a list of records; all of it where the run went back.

        Args:
            records: Of the whole run, in order.
        """
        known = self._count
        if known and (len(records) < known or records[known - 1] is not self._last):
            self._places, self._blocks, self._count = {}, [], 0
        new = records[self._count :]
        if new:
            with _no_collecting():
                columns = zip(*new, strict=True)
                self._blocks.append([self._column(values) for values in columns])
            self._count, self._last = len(records), records[-1]

    def state_dict(self) -> dict[str, Any]:
        """Return the columns as tensors and one text, for a file."""
        if len(self._blocks) > 1:
            by_column = zip(*self._blocks, strict=True)
            self._blocks = [[_joined(column) for column in by_column]]
        columns = self._blocks[0] if self._blocks else []
        return {
            "count": self._count,
            "fields": list(_FIELDS),
            "texts": json.dumps(list(self._places)),
            "columns": [(_packed(kinds), _packed(bits)) for kinds, bits in columns],
        }

    def _column(self, values: Sequence[Any]) -> Column:
        kind_of = {one: _kind(one) for one in set(map(type, values))}
        bits = np.zeros(len(values), np.int64)
        present = set(kind_of.values())
        if len(present) == 1:
            kind = present.pop()
            self._fill(bits, kind, values)
            return np.full(len(values), kind, np.uint8), bits
        kinds = np.array([kind_of[type(value)] for value in values], np.uint8)
        for kind in present:
            own = kinds == kind
            part = np.zeros(own.sum(), np.int64)
            self._fill(part, kind, list(compress(values, own.tolist())))
            bits[own] = part
        return kinds, bits

    def _fill(self, bits: NDArray[np.int64], kind: int, values: Sequence[Any]) -> None:
        if kind == _INT:
            bits[:] = values
        elif kind == _FLOAT:
            # Into a view of the same bits: nothing is rounded, a NaN stays what it is.
            bits.view(np.float64)[:] = values
        elif kind == _TEXT:
            places = self._places
            for value in dict.fromkeys(values):
                places.setdefault(value, len(places))
            bits[:] = [places[value] for value in values]


def records_from(state: dict[str, Any]) -> list[UpdateRecord]:
    """Return the records that :meth:`RecordColumns.state_dict` made columns of.

    Args:
        state: Read from a file.

    Raises:
        ValueError: It has other columns than records have here.
    """
    count: int = state["count"]
    if state["fields"] != list(_FIELDS):
        raise ValueError(f"records have other columns: {state['fields']}")
    if not count:
        return []
    texts = json.loads(state["texts"])
    with _no_collecting():
        columns = [
            _values(kinds, bits, count, texts) for kinds, bits in state["columns"]
        ]
        return list(map(UpdateRecord._make, zip(*columns, strict=True)))


def _kind(one: type) -> int:
    if one is type(None):
        return _NONE
    if issubclass(one, str):
        return _TEXT
    if issubclass(one, Integral):
        return _INT
    if issubclass(one, Real):
        return _FLOAT
    raise TypeError(f"a record holds numbers and text, got a {one.__name__}")


def _joined(blocks: Sequence[Column]) -> Column:
    kinds, bits = zip(*blocks, strict=True)
    return np.concatenate(kinds), np.concatenate(bits)


def _packed(values: NDArray[Any]) -> torch.Tensor:
    """Return a column as a tensor: one value where all are the same; 4 bytes if so."""
    if (values == values[0]).all():
        values = values[:1]
    if values.dtype == np.int64 and (values.astype(np.int32) == values).all():
        values = values.astype(np.int32)
    return torch.from_numpy(values.copy())


def _values(
    kinds: torch.Tensor, bits: torch.Tensor, count: int, texts: list[str]
) -> Iterable[Any]:
    kind, wide = kinds.numpy(), bits.numpy().astype(np.int64)
    if len(kind) == 1:
        values = _of_kind(int(kind[0]), wide, texts)
        return repeat(values[0], count) if len(wide) == 1 else values
    mixed = np.full(count, None, dtype=object)
    wide = np.broadcast_to(wide, (count,))
    for one in (_INT, _FLOAT, _TEXT):
        own = kind == one
        mixed[own] = np.array(_of_kind(one, wide[own], texts), dtype=object)
    return mixed.tolist()


def _of_kind(kind: int, bits: NDArray[np.int64], texts: list[str]) -> list[Any]:
    if kind == _NONE:
        return [None] * len(bits)
    if kind == _FLOAT:
        return bits.view(np.float64).tolist()
    whole = bits.tolist()
    return [texts[place] for place in whole] if kind == _TEXT else whole


@contextmanager
def _no_collecting() -> Generator[None]:
    # Python looks for cycles again and again while many tuples are made: 6x the time.
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
