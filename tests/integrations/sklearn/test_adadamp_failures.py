"""What adadamp's estimators and dampers failed at, one test each, on ours.

Those of its Dask estimator on a cluster are in ``tests/integrations/dask``.
"""

import numpy as np
import pytest
import torch
from integrations.example_estimators import (
    Net,
    blobs,
    classifier,
    line,
    net,
    regressor,
    weights_of,
)
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn import AdaptiveClassifier
from rightbatch.policies import AdaDamp, Constant, Dwell, RadaDamp


def test_estimators_that_train_as_the_batch_grows_are_shown():
    """P9: all that is asked of an estimator, in one go."""
    x, y = blobs(96)
    made = AdaptiveClassifier(
        module=Net,
        module__hidden=16,
        optimizer="sgd",
        optimizer__momentum=0.9,
        lr=0.05,
        policy="geodamp:factor=2,delay=2",
        initial_batch_size=4,
        max_epochs=10,
        random_state=0,
    )
    fitted = clone(made).fit(x, y)
    assert fitted.score(x, y) > 0.9
    assert sorted(set(fitted.batch_size_curve_)) == [4, 8, 16, 32, 64]
    assert np.array_equal(fitted.predict_proba(x).argmax(1), fitted.predict(x))
    assert fitted.partial_fit(x, y).n_iter_ == 11
    search = GridSearchCV(made, {"module__hidden": [4, 8]}, cv=2).fit(x, y)
    assert search.best_score_ > 0.8


def test_weights_change():
    x, y = blobs()
    fitted = classifier(module=net()).fit(x, y)
    start = torch.cat([p.detach().reshape(-1) for p in fitted.module.parameters()])
    # A unit that no example lights up stays as it was.
    assert np.mean(weights_of(fitted) != start.numpy()) > 0.5


def test_all_rows_are_used_not_the_first_of_the_batch_size():
    x, y = blobs()
    settings = {"policy": Constant(batch_size=8), "initial_batch_size": 8}
    fitted = classifier(**settings, max_epochs=1).fit(x, y)
    for row in (8, 30, 59):
        moved = x.copy()
        moved[row] += 1
        other = classifier(**settings, max_epochs=1).fit(moved, y)
        assert not np.array_equal(weights_of(other), weights_of(fitted))


def test_the_cap_is_kept():
    fitted = classifier(policy="padadamp:rate=10", max_batch_size=40)
    sizes = fitted.set_params(initial_batch_size=4).fit(*blobs()).batch_size_curve_
    assert max(sizes) == 40


def test_the_defaults_run():
    x, y = blobs()
    assert AdaptiveClassifier().set_params(max_epochs=2).fit(x, y).predict(x).size == 60


def test_a_batch_is_never_larger_than_the_data():
    policy = AdaDamp(initial_batch_size=8)
    fitted = regressor(policy=Dwell(policy, updates=5), initial_batch_size=8, lr=0.05)
    fitted.set_params(max_epochs=100).fit(*line())
    assert max(fitted.batch_size_curve_) == 48


def test_unknown_keywords_are_refused():
    with pytest.raises(InputError, match="no parameter 'batch_growth_rate'"):
        AdaptiveClassifier(batch_growth_rate=1)


def test_the_best_loss_is_not_ignored():
    x, y = line()
    text = "adadamp:dwell=1,best_loss="
    near, far = (
        regressor(policy=text + best, initial_batch_size=4).fit(x, y)
        for best in ("0.5", "0")
    )
    assert len(near.history_) < len(far.history_)


@pytest.mark.parametrize("targets", ["integers", "vectors", "words"])
def test_targets_of_any_kind_train(targets):
    x, y = blobs()
    made = regressor() if targets == "vectors" else classifier()
    y = {"integers": y, "vectors": np.eye(3)[y], "words": np.array(["a", "b", "c"])[y]}
    assert made.fit(x, y[targets]).predict(x).shape == y[targets].shape


def test_a_frozen_parameter_with_accumulation_trains():
    module = net()
    module.first.bias.requires_grad_(False)
    policy = Constant(batch_size=48)
    fitted = classifier(module=module, policy=policy, micro_batch_size=4)
    fitted.fit(*blobs())
    assert torch.equal(fitted.module_.first.bias, module.first.bias)


def test_two_learning_rates_train():
    def two_rates(parameters, lr):
        first, *others = parameters
        groups = [{"params": [first], "lr": 10 * lr}, {"params": others}]
        return torch.optim.SGD(groups, lr=lr)

    fitted = classifier(optimizer=two_rates, policy="padadamp:rate=1", lr=0.05)
    x, y = blobs()
    assert fitted.set_params(max_epochs=40).fit(x, y).score(x, y) > 0.9


def test_a_loss_module_without_a_name_trains():
    made = nn.CrossEntropyLoss()
    assert not hasattr(made, "__name__")
    assert classifier(criterion=made).fit(*blobs()).n_iter_ > 0


def test_radadamp_runs_when_dwell_does_not_divide_wait():
    policy = RadaDamp(initial_batch_size=4, dwell=3, wait=10)
    fitted = classifier(policy=policy, micro_batch_size=4).fit(*blobs())
    assert len(fitted.history_) > 20


def test_a_loss_of_zero_divides_nothing():
    x, _ = blobs(20)
    fitted = regressor(policy="adadamp:dwell=1", initial_batch_size=4)
    module = nn.Linear(4, 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    fitted.set_params(module=module).fit(x, np.zeros(20))
    assert fitted.predict(x).tolist() == [0.0] * 20


def test_an_evaluation_leaves_batch_normalization_and_modes_alone():
    x, y = blobs(64)
    settings = {"module": net(norm=True), "initial_batch_size": 8, "lr": 1e-9}
    seen, unseen = (
        classifier(policy=policy, max_batch_size=8, **settings).fit(x, y)
        for policy in ("adadamp:dwell=1", "constant")
    )
    means = [one.module_.norm.running_mean for one in (seen, unseen)]
    torch.testing.assert_close(*means)
    assert seen.module_.norm.num_batches_tracked == len(seen.history_)
    assert seen.module_.training


def test_a_run_can_be_put_away_and_gone_on_with():
    x, y = blobs()
    fitted = classifier(policy="adadamp:dwell=3", initial_batch_size=4).fit(x, y)
    state = fitted.__getstate__()
    other = AdaptiveClassifier()
    other.__setstate__(state)
    fitted.partial_fit(x, y)
    other.partial_fit(x, y)
    assert np.array_equal(weights_of(fitted), weights_of(other))
