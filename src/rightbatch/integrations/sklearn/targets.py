"""What is predicted: labels, or numbers; as the estimator and as torch has them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, r2_score
from torch import Tensor
from torch.nn import functional

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn.losses import (
    Criterion,
    entropy,
    fitting,
    probabilities,
)


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of any kind, as numbers from 0.

    Args:
        classes: Sorted, each once.
    """

    classes: NDArray[Any]

    @property
    def num_outputs(self) -> int:
        """Values a module returns for an example."""
        return len(self.classes)

    @property
    def num_classes(self) -> int | None:
        """How many labels there are."""
        return len(self.classes)

    @property
    def default_loss(self) -> Criterion:
        """Used where none is given."""
        return entropy

    def encoded(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return each label's place among the classes.

        Raises:
            InputError: One is not among them.
        """
        known = np.isin(targets, self.classes)
        if not known.all():
            new = np.unique(targets[~known]).tolist()
            raise InputError(
                f"fit: `y` must hold the classes {self.classes.tolist()} alone, "
                f"got {new} too.",
                "name them all in the first partial_fit(..., classes=...)",
            )
        return np.searchsorted(self.classes, targets).astype(np.int64)

    def probabilities(self, outputs: Tensor, criterion: Any) -> NDArray[Any]:
        """Return the probability of each class, shape (n, classes)."""
        return probabilities(outputs, criterion, len(self.classes)).numpy()

    def predicted(self, outputs: Tensor, criterion: Any) -> NDArray[Any]:
        """Return the likeliest label of each example."""
        return self.classes[self.probabilities(outputs, criterion).argmax(axis=1)]

    def score(
        self, true: NDArray[Any], predicted: NDArray[Any], weights: NDArray[Any] | None
    ) -> float:
        """Return the share of labels that are right."""
        return float(accuracy_score(true, predicted, sample_weight=weights))


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """One number for each example, or several.

    Args:
        shape: Of one example's.
    """

    shape: tuple[int, ...]

    @property
    def num_outputs(self) -> int:
        """Values a module returns for an example."""
        return int(np.prod(self.shape))

    @property
    def num_classes(self) -> int | None:
        """None: these are no labels."""
        return None

    @property
    def default_loss(self) -> Criterion:
        """Used where none is given."""
        return functional.mse_loss

    def encoded(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Return them as floating numbers.

        Raises:
            InputError: They are not finite numbers, or not of the shape as before.
        """
        if targets.shape[1:] != self.shape:
            raise InputError(
                f"fit: `y` must have shape {self.shape} for an example, as before, got "
                f"{targets.shape[1:]}."
            )
        try:
            numbers = targets.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"fit: `y` must hold numbers: {error}.") from error
        if not np.isfinite(numbers).all():
            raise InputError("fit: `y` must not hold NaN or infinity.")
        return numbers

    def predicted(self, outputs: Tensor, criterion: Any) -> NDArray[Any]:
        """Return the numbers in the shape that y had."""
        del criterion
        wanted = torch.empty(len(outputs), *self.shape)
        return fitting(outputs, wanted, None)[0].double().numpy()

    def score(
        self, true: NDArray[Any], predicted: NDArray[Any], weights: NDArray[Any] | None
    ) -> float:
        """Return the coefficient of determination."""
        return float(r2_score(true, predicted, sample_weight=weights))


Targets = Labels | Numbers
