"""Estimators with a client: what adadamp's Dask estimator promised, and did not do."""

import pickle

import numpy as np
import pytest
import torch
from integrations.dask.example_cluster import kill, pids
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score

from rightbatch.errors import InputError
from rightbatch.integrations.dask import Workers
from rightbatch.integrations.sklearn import AdaptiveClassifier, AdaptiveRegressor
from rightbatch.policies import PadaDamp

GROWING = PadaDamp(initial_batch_size=16, rate=1.0)
TWO = Workers(grads_per_worker=32, maximum=2, follow="none")


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return x[:600] / 16, y[:600]


def classifier(client=None, **settings):
    settings = {"policy": GROWING, "max_epochs": 3, "workers": TWO, **settings}
    settings = {"micro_batch_size": 8, "lr": 0.01, "noise": "units", **settings}
    return AdaptiveClassifier(
        client=client, dtype="float64", random_state=3, **settings
    )


def test_weights_change_and_are_those_of_one_process(client, digits):
    alone, shared = classifier().fit(*digits), classifier(client).fit(*digits)
    sizes = [record.batch_size for record in shared.history_]
    assert sizes == [record.batch_size for record in alone.history_]
    assert max(sizes) > 3 * sizes[0]
    assert shared.loss_curve_[-1] < 0.7 * shared.loss_curve_[0]
    own, other = shared.predict_proba(digits[0]), alone.predict_proba(digits[0])
    np.testing.assert_allclose(own, other, atol=1e-6)
    assert shared.score(*digits) == alone.score(*digits) > 0.5


def test_each_epoch_uses_every_row_in_a_new_order(client, digits):
    # Rows have nothing in common: one that is never used would not be known.
    x, y = np.eye(40), np.arange(40) // 2
    found = classifier(client, lr=0.1, max_epochs=12).fit(x, y)
    assert found.score(x, y) == 1


def test_the_cap_on_the_batch_is_kept(client, digits):
    found = classifier(client, max_batch_size=32, max_epochs=2).fit(*digits)
    assert max(record.batch_size for record in found.history_) == 32


def test_two_threads_of_one_worker_do_not_count_a_gradient_twice(threads, digits):
    # Both parts are computed by the one worker there is.
    alone, shared = classifier().fit(*digits), classifier(threads).fit(*digits)
    own, other = shared.predict_proba(digits[0]), alone.predict_proba(digits[0])
    np.testing.assert_allclose(own, other, atol=1e-6)


def test_weights_of_samples_count_on_the_workers(client, digits):
    weights = np.random.default_rng(0).integers(0, 4, 600).astype(float)
    alone = classifier().fit(*digits, sample_weight=weights)
    shared = classifier(client).fit(*digits, sample_weight=weights)
    own, other = shared.predict_proba(digits[0]), alone.predict_proba(digits[0])
    np.testing.assert_allclose(own, other, atol=1e-6)


def test_a_regressor_trains_there_too(client):
    x = np.random.default_rng(0).normal(size=(200, 3))
    y = x @ [1.0, 2.0, 3.0]
    settings = {"policy": GROWING, "noise": "units", "random_state": 0, "lr": 0.05}
    settings["max_epochs"] = 8
    found = AdaptiveRegressor(client=client, workers=TWO, **settings).fit(x, y)
    assert found.score(x, y) > 0.9


@pytest.mark.slow
def test_a_fit_goes_on_when_a_worker_is_killed(client, digits):
    victim = max(pids(client).values())
    steps = []

    def log(numbers, step):
        steps.append(step)
        if step == 20:
            kill(victim)

    shared = classifier(client, log=log, max_epochs=2).fit(*digits)
    alone = classifier(max_epochs=2).fit(*digits)
    assert steps[-1] > 20
    own, other = shared.predict_proba(digits[0]), alone.predict_proba(digits[0])
    np.testing.assert_allclose(own, other, atol=1e-6)
    client.wait_for_workers(2, timeout=60)


def test_partial_fit_goes_on_with_a_client(client, digits):
    alone, shared = classifier(), classifier(client)
    for _ in range(3):
        alone.partial_fit(*digits, classes=range(10))
        shared.partial_fit(*digits, classes=range(10))
    own, other = shared.predict_proba(digits[0]), alone.predict_proba(digits[0])
    np.testing.assert_allclose(own, other, atol=1e-6)


def test_a_client_is_shared_by_clones_and_left_out_of_pickles(threads, digits):
    estimator = classifier(threads, max_epochs=1)
    assert clone(estimator).client is threads
    scores = cross_val_score(estimator, *digits, cv=2)
    assert len(scores) == 2
    fitted = estimator.fit(*digits)
    other = pickle.loads(pickle.dumps(fitted))
    assert other.client is None
    assert np.array_equal(other.predict(digits[0]), fitted.predict(digits[0]))


def test_a_cluster_that_cannot_be_used_is_refused(threads, digits):
    with pytest.raises(InputError, match="`workers` must be Workers, got 3"):
        classifier(threads, workers=3).fit(*digits)
    with pytest.raises(InputError, match="`noise` cannot be 'examples' with a client"):
        AdaptiveClassifier(client=threads, noise="examples").fit(*digits)
    threads.close()
    with pytest.raises(InputError, match="must be connected, got one that is closed"):
        classifier(threads).fit(*digits)
    with pytest.raises(InputError, match="`client` must be a distributed.Client, got"):
        classifier("tcp://localhost:8786").fit(*digits)


def test_a_module_of_main_trains_there(client, digits):
    namespace = {"__name__": "__main__", "torch": torch}
    exec(
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Linear(64, 10))",
        namespace,
    )
    found = classifier(client, module=namespace["Net"], max_epochs=1).fit(*digits)
    assert len(found.history_) > 5
