"""The regressor."""

from typing import Any, Self

from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from rightbatch.integrations.sklearn.estimator import AdaptiveEstimator
from rightbatch.integrations.sklearn.targets import Numbers


class AdaptiveRegressor(RegressorMixin, AdaptiveEstimator):
    """A regressor trained with a batch that follows a policy.

    Its parameters are those of :class:`AdaptiveEstimator`; the loss is the mean squared
    error unless told. Targets may be several numbers for an example, and are learnt as
    they are: scale them, or use scikit-learn's ``TransformedTargetRegressor``.

    Example:
        >>> import numpy as np
        >>> X = np.linspace(-1, 1, 64).reshape(-1, 1)
        >>> regressor = AdaptiveRegressor(lr=0.01, random_state=0).fit(X, X[:, 0] ** 2)
        >>> regressor.score(X, X[:, 0] ** 2) > 0.9
        True
    """

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train on rows with numbers, or on a data set.

        Args:
            X: Array of inputs, shape (n, ...); or a map-style torch data set of (x, y)
                or (x, y, weight).
            y: Numbers, shape (n,) or (n, k); None with a data set.
            sample_weight: One number per row: an example of weight 2 counts as if it
                were there twice, one of weight 0 as if it were not.

        Returns:
            This estimator.

        Raises:
            ValueError: Data or a parameter cannot be.
            DivergedError: The loss is lost.
        """
        return self._fit(X, y, sample_weight, part=False)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Go over some more data once, with optimizer, batch and policy as they are.

        Args:
            X: As for `fit`.
            y: Numbers.
            sample_weight: One number per row, or None.

        Returns:
            This estimator.

        Raises:
            ValueError: Data or a parameter cannot be.
            DivergedError: The loss is lost.
        """
        return self._fit(X, y, sample_weight, part=True)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the coefficient of determination, R^2.

        Args:
            X: Inputs, or a data set that holds the targets too.
            y: Numbers; None with a data set.
            sample_weight: One number per row, or None.
        """
        y, sample_weight = self._with_targets(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def _arrays(self, x: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        checked: Any = validate_data(
            self,
            x,
            y,
            reset=reset,
            dtype=self._numpy_dtype(reset),
            allow_nd=True,
            multi_output=True,
            y_numeric=True,
        )
        return checked

    def _targets(self, targets: NDArray[Any], classes: Any) -> Numbers:
        del classes
        return Numbers(targets.shape[1:])
