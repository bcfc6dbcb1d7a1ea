"""The linear network of adadamp: w3' W2 W1 x on y = A x + noise; generated.

10,000 rows of 100 normal numbers and a target that is linear in them, plus normal noise
of variance 1, all from numpy's ``RandomState(42)``: A, then x, then the noise, then who
trains (each row with probability .8: 8,051 do, 1,949 are held out). The net is three
linear layers without biases, so it can do no better than least squares, whose loss is
known: .98605 on the rows trained on and 1.0378 on the others.
"""

from collections.abc import Iterable
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset

from rightbatch.experiments.workloads.classification import seeded
from rightbatch.workload import Target, Workload

NUM_ROWS, WIDTH = 10_000, 100
LRS = (0.0003125, 0.000625, 0.00125, 0.0025, 0.005)


class LinearRows(Dataset[tuple[Tensor, Tensor]]):
    """Rows and what is to be told of each, made when first used.

    Args:
        held_out: The 1,949 held out, instead of the 8,051 trained on.

    Example:
        >>> len(LinearRows(held_out=False)), len(LinearRows(held_out=True))
        (8051, 1949)
    """

    # The stream may gather many rows at once.
    rows_are_items = True

    def __init__(self, *, held_out: bool) -> None:
        self._held_out = held_out

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Rows, shape (n, 100); what is to be told, shape (n,); float32."""
        rows, wanted, trains = _drawn()
        chosen = ~trains if self._held_out else trains
        return torch.from_numpy(rows[chosen]), torch.from_numpy(wanted[chosen])

    def __len__(self) -> int:
        return len(self.tensors[1])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        rows, wanted = self.tensors
        return rows[index], wanted[index]


def linear_network() -> Workload:
    """Return linear-network: 100-100-100-1 without biases, to a held-out loss of 1.045.

    Plain SGD; adadamp's learning rate is .0025.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(linear_network())
        20100
    """
    return Workload(
        name="linear-network",
        model=seeded(_network),
        train=LinearRows(held_out=False),
        evaluate_on=LinearRows(held_out=True),
        loss=squared_error,
        optimizer=_sgd,
        target=Target(value=1.045, on="held_out"),
        lrs=LRS,
        example_unit="row",
        source="adadamp's linear network; synthetic, y = A x + noise, generated",
    )


def squared_error(model: nn.Module, batch: Any) -> Tensor:
    """Return the squared error of each row, shape (B,).

    Args:
        model: Rows to one number each, shape (B, 1).
        batch: Rows and what is to be told.
    """
    rows, wanted = batch
    return (model(rows).squeeze(1) - wanted).square()


def least_losses() -> tuple[float, float]:
    """Return the least loss on the rows trained on, and that solution's on the others.

    Example:
        >>> [round(loss, 4) for loss in least_losses()]
        [0.986, 1.0378]
    """
    rows, wanted, trains = _drawn()
    solution = np.linalg.lstsq(rows[trains], wanted[trains], rcond=None)[0]
    squares = np.square(rows @ solution - wanted)
    return float(squares[trains].mean()), float(squares[~trains].mean())


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDTH, WIDTH, bias=False),
        nn.Linear(WIDTH, WIDTH, bias=False),
        nn.Linear(WIDTH, 1, bias=False),
    )


def _sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(parameters, lr=lr)


@cache
def _drawn() -> tuple[
    np.ndarray[Any, np.dtype[np.float32]],
    np.ndarray[Any, np.dtype[np.float32]],
    np.ndarray[Any, np.dtype[np.bool_]],
]:
    draw = np.random.RandomState(42)
    rows = draw.randn(NUM_ROWS, WIDTH)
    wanted = rows @ draw.randn(WIDTH) + draw.randn(NUM_ROWS)
    trains = draw.choice([False, True], size=NUM_ROWS, p=[0.2, 0.8])
    return rows.astype(np.float32), wanted.astype(np.float32), trains
