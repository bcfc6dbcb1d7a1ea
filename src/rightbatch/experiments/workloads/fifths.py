"""The two random fifths on which Perrone et al. record losses.

"Training and cross-validation losses were recorded ... using two distinct randomly
selected sets of 20% of the available data" (Perrone et al., image recognition task).
Whether the second set was trained on is not said; here it is not, as the word
cross-validation has it. One permutation, numpy's ``RandomState(0)``, gives both.
"""

import numpy as np
import torch
from torch import Tensor

FRACTION = 0.2


def training_subset(num_rows: int) -> Tensor:
    """Return the rows whose loss is the training loss; they are trained on.

    Example:
        >>> training_subset(10).tolist()
        [2, 8]
    """
    return _shuffled(num_rows)[: _count(num_rows)]


def cross_validation(num_rows: int) -> Tensor:
    """Return the rows whose loss is the cross-validation loss; none is trained on.

    Example:
        >>> cross_validation(10).tolist()
        [4, 9]
    """
    return _shuffled(num_rows)[_count(num_rows) : 2 * _count(num_rows)]


def trained_on(num_rows: int) -> Tensor:
    """Return all rows but those of :func:`cross_validation`, in their own order.

    Example:
        >>> trained_on(10).tolist()
        [0, 1, 2, 3, 5, 6, 7, 8]
    """
    kept = torch.ones(num_rows, dtype=torch.bool)
    kept[cross_validation(num_rows)] = False
    return kept.nonzero().squeeze(1)


def _count(num_rows: int) -> int:
    return max(1, round(FRACTION * num_rows))


def _shuffled(num_rows: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(0).permutation(num_rows))
