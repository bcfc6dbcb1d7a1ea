"""Estimators with the manners of scikit-learn whose batch follows a policy.

===================  =============================================================
``classifier``       :class:`AdaptiveClassifier`
``regressor``        :class:`AdaptiveRegressor`
``estimator``        what both have: parameters, ``fit``, outputs, copies
``parameters``       those that are passed on: ``module__x``
``making``           module, optimizer and policy, made of the parameters
``losses``           any loss as that of each example, weighed; probabilities
``targets``          labels and numbers, as torch has them and back
``examples``         arrays and data sets
``training``         one fit: data split, controller, end
``course``           its updates, epochs and end, and what the next goes on from
``gradient_source``  where gradients come from: this process, or others
===================  =============================================================
"""

from rightbatch.integrations.sklearn.classifier import AdaptiveClassifier
from rightbatch.integrations.sklearn.estimator import AdaptiveEstimator
from rightbatch.integrations.sklearn.gradient_source import (
    BatchLoss,
    GradientSource,
    LocalGradients,
    seed_pass,
    tail_of,
)
from rightbatch.integrations.sklearn.regressor import AdaptiveRegressor

__all__ = [
    "AdaptiveClassifier",
    "AdaptiveEstimator",
    "AdaptiveRegressor",
    "BatchLoss",
    "GradientSource",
    "LocalGradients",
    "seed_pass",
    "tail_of",
]
