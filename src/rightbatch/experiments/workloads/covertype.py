"""Softmax regression as on forest cover types, adadamp's convex problem; synthetic.

adadamp takes 200,000 rows of covertype (ten measured columns, a wilderness area out
of 4 and a soil out of 40 as zeros and ones), adds the products of all pairs of columns
and leaves out those that never change: 613 columns, and 8 classes, as labels begin
at 1. Here rows of the same make are drawn: ten normal columns, correlated by .5, with
about covertype's ratios of mean to spread; areas at its frequencies; 74 pairs of an
area and a soil, since 10 + 45 + 440 columns that are numbers and 44 + 74 of zeros and
ones are 613. The first kind is brought to mean 0 and variance 1, the second is left,
as there. Labels are drawn from a fixed softmax of the columns; all eight classes occur.

Rows come in pieces of 10,000, each from a seed of its own, so that fewer of them are
the first of more. All 200,000 and the 20,000 held out take 540 MB, made at first use.
"""

from collections.abc import Iterable
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset

from rightbatch._checks import positive_integer
from rightbatch.experiments.workloads.classification import (
    cross_entropy,
    error,
    seeded,
)
from rightbatch.workload import Target, Workload

NUM_ROWS, NUM_COLUMNS, NUM_CLASSES = 200_000, 613, 8
PIECE = 10_000
LRS = (0.0009, 0.003, 0.01, 0.03)

# Mean over spread: elevation, aspect, slope, two distances to water, one to roads,
# light at 9, 12 and 15 o'clock, distance to fire points.
MEANS = np.array([10.5, 1.4, 1.9, 1.3, 0.8, 1.5, 7.9, 11.3, 3.7, 1.5])
CORRELATION = 0.5
AREAS = np.array([0.449, 0.051, 0.436, 0.064])
# The soils of each area, as (first, how many), around the circle of 40: 74 in all.
NUM_SOILS, SOILS_OF = 40, ((0, 20), (8, 14), (16, 24), (30, 16))
# The spread of a logit: with it the least loss is near covertype's, .6.
LOGIT_SPREAD = 4.0

Numbers = NDArray[np.float64]


class CovertypeLike(Dataset[tuple[Tensor, Tensor]]):
    """Rows and their classes, drawn when first used.

    Args:
        rows: How many; the first of those of a larger number.
        held_out: Others, of the same make.

    Raises:
        InputError: `rows` is not a positive whole number.

    Example:
        >>> columns, label = CovertypeLike(rows=5)[4]
        >>> columns.shape, 0 <= int(label) < 8
        (torch.Size([613]), True)
    """

    # The stream may gather many rows at once.
    rows_are_items = True

    def __init__(self, *, rows: int = NUM_ROWS, held_out: bool = False) -> None:
        self._rows = positive_integer("CovertypeLike", "rows", rows)
        self._held_out = held_out

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Columns, shape (n, 613), float32; classes, shape (n,), int64."""
        columns = torch.empty(self._rows, NUM_COLUMNS)
        classes = torch.empty(self._rows, dtype=torch.int64)
        for first in range(0, self._rows, PIECE):
            part = slice(first, min(first + PIECE, self._rows))
            x, y = _piece(first // PIECE, held_out=self._held_out)
            columns[part] = torch.from_numpy(x[: part.stop - first])
            classes[part] = torch.from_numpy(y[: part.stop - first])
        return columns, classes

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        columns, classes = self.tensors
        return columns[index], classes[index]


def covertype_softmax(rows: int = NUM_ROWS) -> Workload:
    """Return covertype-softmax, 4,912 parameters, to a held-out loss.

    SGD with Nesterov's momentum .9 and weight decay 1e-6, as adadamp's, whose learning
    rate is .0009.

    Args:
        rows: To train on; a tenth as many are held out.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(covertype_softmax(rows=100))
        4912
    """
    return Workload(
        name="covertype-softmax" + ("" if rows == NUM_ROWS else f"-{rows}"),
        model=seeded(_softmax),
        train=CovertypeLike(rows=rows),
        evaluate_on=CovertypeLike(rows=max(1, rows // 10), held_out=True),
        loss=cross_entropy,
        optimizer=_nesterov,
        target=Target(value=0.8, on="held_out"),
        lrs=LRS,
        example_unit="row",
        source="adadamp's convex problem on synthetic rows like covertype's, generated",
        metrics={"error": error},
    )


def least_loss(columns: Tensor, classes: Tensor, *, steps: int = 200) -> float:
    """Return the least mean loss of a softmax regression on some rows, by L-BFGS.

    Columns are combined so as to be uncorrelated, which leaves the least loss as it is
    and takes fewer steps.

    Args:
        columns: Shape (n, p).
        classes: Shape (n,), in 0..7.
        steps: Of L-BFGS at most; 200 come within .0005 of the least on 20,000 rows.

    Example:
        >>> least_loss(*CovertypeLike(rows=50).tensors) < 1e-3
        True
    """
    x = torch.cat([columns, torch.ones(len(columns), 1)], 1).double()
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    kept = values > 1e-10 * values[-1]
    x = (x @ (vectors[:, kept] / values[kept].sqrt())).float()

    def loss_and_gradient(flat: Numbers) -> tuple[float, Numbers]:
        weights = torch.from_numpy(flat.reshape(NUM_CLASSES, -1)).float()
        weights.requires_grad_()
        # One row per class: the other way round its gradient takes ten times as long.
        loss = nn.functional.cross_entropy(nn.functional.linear(x, weights), classes)
        (gradient,) = torch.autograd.grad(loss, weights)
        return float(loss.detach()), gradient.double().numpy().ravel()

    found: Any = minimize(
        loss_and_gradient,
        np.zeros(x.shape[1] * NUM_CLASSES),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps, "ftol": 1e-9, "gtol": 1e-7, "maxcor": 20},
    )
    return float(found.fun)


def _softmax() -> nn.Module:
    return nn.Linear(NUM_COLUMNS, NUM_CLASSES)


def _nesterov(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-6)


def _piece(
    number: int, *, held_out: bool
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    draw = np.random.RandomState([7, number, int(held_out)])
    shared = np.sqrt(CORRELATION) * draw.standard_normal((PIECE, 1))
    own = np.sqrt(1 - CORRELATION) * draw.standard_normal((PIECE, len(MEANS)))
    pairs, chances = _area_soil_pairs()
    chosen = pairs[draw.choice(len(pairs), size=PIECE, p=chances)]
    columns = _columns(MEANS + shared + own, chosen)
    weights, biases = _teacher()
    # The largest of logits with Gumbel noise falls on a class with its probability.
    logits = columns @ weights + biases + draw.gumbel(size=(PIECE, NUM_CLASSES))
    return columns.astype(np.float32), logits.argmax(1)


def _columns(measured: Numbers, chosen: NDArray[np.int64]) -> Numbers:
    """Return all 613 columns of rows whose area and soil are `chosen`."""
    pairs, chances = _area_soil_pairs()
    is_pair = (chosen[:, None] == pairs).all(2).astype(float)
    is_kind = is_pair @ _kinds_of_pairs()
    first, second = np.triu_indices(len(MEANS), 1)
    by_kind = (measured[:, :, None] * is_kind[:, None]).reshape(len(measured), -1)
    numbers = np.hstack(
        [measured, measured[:, first] * measured[:, second], by_kind],
    )
    # Moments of the law the rows are drawn from: none of them depends on the others.
    one, two, both = MEANS[first], MEANS[second], CORRELATION
    share = chances @ _kinds_of_pairs()
    mean = np.concatenate([MEANS, one * two + both, np.outer(MEANS, share).ravel()])
    variance = np.concatenate(
        [
            np.ones(len(MEANS)),
            one**2 + two**2 + 2 * one * two * both + 1 + both**2,
            (np.outer(1 + MEANS**2, share) - np.outer(MEANS, share) ** 2).ravel(),
        ]
    )
    return np.hstack([(numbers - mean) / np.sqrt(variance), is_kind, is_pair])


@cache
def _area_soil_pairs() -> tuple[NDArray[np.int64], Numbers]:
    """Return the pairs of area and soil that occur, and how often each does."""
    pairs: list[tuple[int, int]] = []
    chances: list[float] = []
    for area, (first, count) in enumerate(SOILS_OF):
        shares = 1 / np.arange(1, count + 1)
        chances += list(AREAS[area] * shares / shares.sum())
        pairs += [(area, (first + place) % NUM_SOILS) for place in range(count)]
    return np.array(pairs), np.array(chances)


@cache
def _kinds_of_pairs() -> Numbers:
    """Return which of the 4 areas and 40 soils each pair is of, shape (74, 44)."""
    pairs, _ = _area_soil_pairs()
    areas, soils = np.eye(len(AREAS)), np.eye(NUM_SOILS)
    return np.hstack([areas[pairs[:, 0]], soils[pairs[:, 1]]])


@cache
def _teacher() -> tuple[Numbers, Numbers]:
    draw = np.random.RandomState(7)
    weights = draw.standard_normal((NUM_COLUMNS, NUM_CLASSES))
    biases = draw.standard_normal(NUM_CLASSES)
    return LOGIT_SPREAD * weights / np.sqrt(NUM_COLUMNS), biases
