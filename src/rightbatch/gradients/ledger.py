"""Squared norms of what each unit adds to each parameter's gradient, kept on device."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

_FIRST_ROWS = 16


@dataclass(slots=True)
class _Lane:
    """The parameters of one device and precision, whose numbers lie in one tensor."""

    columns: list[int]
    values: Tensor
    parts: Tensor
    cells: list[list[Tensor]] = field(default_factory=list[list[Tensor]])


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one update, summed over each part, where they were made.

    Args:
        lanes: Numbers of each device and precision, shape (rows, parts).
    """

    lanes: Sequence[Tensor]

    def numbers(self) -> list[list[float]]:
        """Return the sums of each row over each part; waits for the device."""
        first, *others = [lane.tolist() for lane in self.lanes]
        for other in others:
            first = [
                [a + b for a, b in zip(*rows, strict=True)]
                for rows in zip(first, other, strict=True)
            ]
        return first


class Ledger:
    """A table of squared norms: a row for each unit, a column for each parameter.

    Numbers are written in place into memory taken once: a hook that allocates even a
    scalar while a backward pass frees its buffers makes the allocator return memory to
    the system and fault it in again, which costs more than the norms do.

    Args:
        parameters: The columns.
        parts: Columns of each part, over which the rows are summed in the end.

    Attributes:
        cells: Those of the open row, shape () each, by column.

    Example:
        >>> ledger = Ledger([nn.Parameter(torch.zeros(2))], [[0]])
        >>> ledger.open_row()
        >>> write_square(torch.tensor([3.0, 4.0]), ledger.cells[0])
        >>> ledger.take().numbers()
        [[25.0]]
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], parts: Sequence[Sequence[int]]
    ) -> None:
        self._num_columns = len(parameters)
        self._row = -1
        self._rows: list[list[Tensor]] = []
        self.cells: list[Tensor] = []
        lanes: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for column, parameter in enumerate(parameters):
            wide = parameter.dtype == torch.float64
            key = (parameter.device, torch.float64 if wide else torch.float32)
            lanes.setdefault(key, []).append(column)
        chosen = torch.zeros(len(parameters), len(parts), dtype=torch.float64)
        for place, columns in enumerate(parts):
            chosen[columns, place] = 1.0
        self._lanes = [
            _Lane(
                columns,
                torch.zeros(0, len(columns), dtype=dtype, device=device),
                chosen[columns].to(device, dtype),
            )
            for (device, dtype), columns in lanes.items()
        ]

    @property
    def num_rows(self) -> int:
        """How many rows are open or written."""
        return self._row + 1

    def open_row(self) -> None:
        """Begin a row; what is written next goes into it."""
        self._row += 1
        if self._row == len(self._rows):
            self._grow()
        self.cells = self._rows[self._row]

    def drop_row(self) -> None:
        """Forget the open row."""
        for lane in self._lanes:
            lane.values[self._row].zero_()
        self._row -= 1

    def take(self) -> Table:
        """Return the sums of all rows and begin anew, every cell zero."""
        rows, self._row = self.num_rows, -1
        sums: list[Tensor] = []
        for lane in self._lanes:
            used = lane.values[:rows]
            sums.append(used @ lane.parts)
            used.zero_()
        return Table(sums)

    def _grow(self) -> None:
        count = max(_FIRST_ROWS, 2 * len(self._rows))
        for lane in self._lanes:
            larger = lane.values.new_zeros(count, len(lane.columns))
            larger[: len(lane.values)] = lane.values
            lane.values = larger
            # Views made once: making one costs as much as the norm of a small gradient.
            lane.cells = [list(row.unbind()) for row in larger.unbind()]
        self._rows = [self._in_order(row) for row in range(count)]

    def _in_order(self, row: int) -> list[Tensor]:
        cells: dict[int, Tensor] = {}
        for lane in self._lanes:
            cells |= zip(lane.columns, lane.cells[row], strict=True)
        return [cells[column] for column in range(self._num_columns)]


def write_square(gradient: Tensor, cell: Tensor) -> None:
    """Put the squared norm of a gradient into a tensor of shape ().

    Args:
        gradient: Any shape, layout and precision.
        cell: Its precision is that of the sum.
    """
    try:
        # Nearly always that is all, and this is the inner loop.
        if gradient.dtype == cell.dtype and gradient.is_contiguous():
            flat = gradient.view(-1)
            torch.dot(flat, flat, out=cell)
            return
    except RuntimeError:  # sparse, on another device, or with a graph of its own
        pass
    _write_any_square(gradient.detach(), cell)


def _write_any_square(gradient: Tensor, cell: Tensor) -> None:
    """Put the squared norm of a gradient of another layout, precision or place."""
    if gradient.is_sparse:
        gradient = gradient.coalesce().values()
    # Half precision would overflow or lose the sum; other layouts need no copy here.
    wide = torch.float64 if gradient.dtype == torch.float64 else torch.float32
    cell.copy_(torch.linalg.vector_norm(gradient, dtype=wide).square())
