"""The classifier."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn.estimator import AdaptiveEstimator
from rightbatch.integrations.sklearn.targets import Labels


class AdaptiveClassifier(ClassifierMixin, AdaptiveEstimator):
    """A classifier trained with a batch that follows a policy.

    Its parameters are those of :class:`AdaptiveEstimator`; the loss is the cross
    entropy unless told. A module returns one logit for each class, or a single one for
    two classes.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> classifier = AdaptiveClassifier(lr=0.01, random_state=0).fit(X, y)
        >>> classifier.score(X, y) > 0.9, int(classifier.batch_size_curve_[0])
        (True, 32)
    """

    is_stratified = True

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted."""
        targets = self._learnt().targets
        assert isinstance(targets, Labels)
        return targets.classes

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Train on rows with labels, or on a data set.

        Args:
            X: Array of inputs, shape (n, ...); or a map-style torch data set of (x, y)
                or (x, y, weight).
            y: Labels of any kind, shape (n,); None with a data set.
            sample_weight: One number per row: an example of weight 2 counts as if it
                were there twice, one of weight 0 as if it were not.

        Returns:
            This estimator.

        Raises:
            ValueError: Data or a parameter cannot be.
            DivergedError: The loss is lost.
        """
        return self._fit(X, y, sample_weight, part=False)

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None
    ) -> Self:
        """Go over some more data once, with optimizer, batch and policy as they are.

        Args:
            X: As for `fit`.
            y: Labels.
            classes: All labels there will be; needed in the first call.
            sample_weight: One number per row, or None.

        Returns:
            This estimator.

        Raises:
            ValueError: Data or a parameter cannot be, or `classes` are missing.
            DivergedError: The loss is lost.
        """
        self._check_classes(classes)
        return self._fit(X, y, sample_weight, classes=classes, part=True)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Return the probability of each class.

        Args:
            X: Inputs, or a data set.

        Returns:
            Shape (n, classes), in the order of `classes_`.
        """
        outputs = self._outputs(X)
        learnt = self._learnt()
        assert isinstance(learnt.targets, Labels)
        return learnt.targets.probabilities(outputs, learnt.settled.criterion)

    def _check_classes(self, classes: Any) -> None:
        """Refuse labels that are missing or new.

        Raises:
            InputError: They are.
        """
        who = type(self).__name__
        if not self.__sklearn_is_fitted__():
            if classes is None:
                raise InputError(
                    f"{who}: `classes` must be passed on the first call to "
                    "partial_fit.",
                    "np.unique of all labels there will be",
                )
            return
        given = self.classes_ if classes is None else np.unique(classes)
        if not np.array_equal(given, self.classes_):
            raise InputError(
                f"{who}: `classes` must be those of the first call, "
                f"{self.classes_.tolist()}, got {given.tolist()}."
            )

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the share of labels that are right.

        Args:
            X: Inputs, or a data set that holds the targets too.
            y: Labels; None with a data set.
            sample_weight: One number per row, or None.
        """
        y, sample_weight = self._with_targets(X, y, sample_weight)
        return float(super().score(X, y, sample_weight))

    def _arrays(self, x: Any, y: Any, *, reset: bool) -> tuple[Any, Any]:
        x, y = validate_data(
            self, x, y, reset=reset, dtype=self._numpy_dtype(reset), allow_nd=True
        )
        check_classification_targets(y)
        return x, y

    def _targets(self, targets: NDArray[Any], classes: Any) -> Labels:
        if targets.ndim > 1:
            raise InputError(
                f"fit: `y` must be one label per example, got shape {targets.shape}."
            )
        if targets.dtype == object and any(one is None for one in targets):
            raise InputError(
                "fit: `y` must have a label for each example, got None.",
                "drop these, or give them a label of their own",
            )
        check_classification_targets(targets)
        return Labels(np.unique(targets if classes is None else classes))
