"""scikit-learn's own checks of an estimator."""

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from rightbatch.integrations.sklearn import AdaptiveClassifier, AdaptiveRegressor

# Outputs in single precision have seven digits, and these compare the seventh: a row
# alone and among others, and a weight and repeated rows, are added up in another order.
# They may pass; in double precision they do, see below.
ROUNDED = (
    "check_sample_weight_equivalence_on_dense_data",
    "check_methods_subset_invariance",
    "check_methods_sample_order_invariance",
)
# Fewer epochs than a user has, as scikit-learn's tests of its own networks.
SETTINGS = {"max_epochs": 30, "lr": 0.005}


@pytest.mark.slow
@parametrize_with_checks(
    [AdaptiveClassifier(**SETTINGS), AdaptiveRegressor(**SETTINGS)],
    expected_failed_checks=lambda estimator: dict.fromkeys(
        ROUNDED, "the seventh digit of single precision"
    ),
)
def test_scikit_learn_has_nothing_against_it(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", ROUNDED)
@pytest.mark.parametrize("kind", [AdaptiveClassifier, AdaptiveRegressor])
def test_nothing_is_left_to_say_in_double_precision(kind, name):
    estimator = kind(**SETTINGS, dtype="float64")
    getattr(estimator_checks, name)(kind.__name__, estimator)
