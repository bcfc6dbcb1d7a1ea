"""Both estimators: what they learn, predict, keep, and where they fit in."""

import copy
import io
import pickle
import random

import joblib
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
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn import AdaptiveClassifier, AdaptiveRegressor
from rightbatch.policies import Constant, GeoDamp

# What they learn ----------------------------------------------------------------------


def test_a_classifier_learns_and_its_probabilities_go_with_its_labels():
    x, y = blobs()
    fitted = classifier(max_epochs=40).fit(x, y)
    chances = fitted.predict_proba(x)
    assert fitted.score(x, y) == accuracy_score(y, fitted.predict(x)) > 0.9
    assert chances.shape == (60, 3)
    assert chances.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (fitted.classes_[chances.argmax(axis=1)] == fitted.predict(x)).all()


def test_labels_may_be_words():
    x, y = blobs()
    words = np.array(["oak", "ash", "elm"])[y]
    fitted = classifier(max_epochs=40).fit(x, words)
    assert fitted.classes_.tolist() == ["ash", "elm", "oak"]
    assert fitted.score(x, words) > 0.9
    numbers = classifier(max_epochs=40).fit(x, np.array([2, 0, 1])[y])
    assert np.array_equal(numbers.predict_proba(x), fitted.predict_proba(x))


@pytest.mark.parametrize("module", [None, net(outputs=2)])
def test_where_there_is_one_class_it_is_what_is_predicted(module):
    x, _ = blobs(20)
    fitted = classifier(module=module).fit(x, np.full(20, "only"))
    assert fitted.predict(x).tolist() == ["only"] * 20
    assert fitted.predict_proba(x).tolist() == [[1.0]] * 20


def test_linear_least_squares_is_found_by_full_batches():
    x, y = line(outputs=2)
    fitted = regressor(
        module=nn.Linear(3, 2),
        optimizer="sgd",
        lr=0.3,
        policy=Constant(batch_size=48),
        initial_batch_size=48,
        max_epochs=300,
        tol=None,
        dtype="float64",
    ).fit(x, y)
    exact = LinearRegression().fit(x, y)
    np.testing.assert_allclose(fitted.predict(x), exact.predict(x), atol=1e-9)
    assert fitted.score(x, y) == pytest.approx(r2_score(y, exact.predict(x)))
    assert fitted.predict(x).shape == (48, 2)


def test_images_go_to_a_module_in_their_shape():
    x, y = blobs()
    module = nn.Sequential(nn.Conv2d(1, 4, 2), nn.Flatten(), nn.Linear(4, 3))
    fitted = classifier(module=module).fit(x.reshape(-1, 1, 2, 2), y)
    assert fitted.predict(x.reshape(-1, 1, 2, 2)).shape == (60,)


def test_whole_numbers_are_inputs_like_any():
    x, y = blobs()
    whole = np.round(10 * x).astype(np.int16)
    one, other = classifier().fit(whole, y), classifier().fit(whole.astype(float), y)
    assert np.array_equal(weights_of(one), weights_of(other))


# The batch ----------------------------------------------------------------------------


def test_the_batch_follows_the_policy_and_the_history_says_so():
    x, y = blobs()
    policy = GeoDamp(initial_batch_size=4, factor=2, delay=1)
    fitted = classifier(policy=policy, micro_batch_size=4, max_epochs=3, tol=None)
    fitted.fit(x, y)
    sizes = [4] * 15 + [8] * 7 + [4] + [16] * 3 + [12]
    assert fitted.batch_size_curve_.tolist() == sizes
    assert [record.batch_size for record in fitted.history_] == sizes
    assert fitted.history_[-1].examples == 180
    assert (fitted.n_iter_, len(fitted.loss_curve_), fitted.status_) == (
        3,
        3,
        "finished",
    )


def test_a_policy_may_be_a_text_and_is_capped():
    x, y = blobs()
    text = "geodamp:factor=4,delay=1"
    fitted = classifier(policy=text, initial_batch_size=4, max_batch_size=16).fit(x, y)
    assert max(fitted.batch_size_curve_) == 16
    value = GeoDamp(initial_batch_size=4, factor=4, delay=1)
    other = classifier(policy=value, micro_batch_size=4, max_batch_size=16).fit(x, y)
    assert np.array_equal(weights_of(fitted), weights_of(other))


def test_a_policy_that_looks_at_the_loss_is_shown_it():
    x, y = blobs()
    fitted = classifier(policy="adadamp:dwell=5", initial_batch_size=4, lr=0.05)
    fitted.fit(x, y)
    seen = [one.eval_loss for one in fitted.history_ if one.eval_loss is not None]
    assert seen[0] > seen[-1]
    assert fitted.batch_size_curve_[-1] > 4


def test_noise_is_not_asked_of_the_one_example_an_epoch_ends_with():
    fitted = classifier(policy="noise-following", max_epochs=8, tol=None)
    fitted.fit(*blobs(65))
    # Every tenth update is read: the 21st would be, and has one example.
    assert fitted.batch_size_curve_[20] == 1
    assert len(fitted.history_) == 24


def test_whoever_logs_gets_every_update():
    rows = []
    x, y = blobs()
    fitted = classifier(log=lambda row, step: rows.append((step, row["batch/size"])))
    fitted.fit(x, y)
    steps = range(1, len(fitted.history_) + 1)
    assert rows == list(zip(steps, fitted.batch_size_curve_, strict=True))


def test_a_line_is_printed_for_each_epoch_where_one_asks(capsys):
    classifier(verbose=True, max_epochs=2).fit(*blobs())
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1: loss 0.")
    assert second.startswith("epoch 2: ")


# Seeds --------------------------------------------------------------------------------


def test_a_seed_decides_everything_and_leaves_no_trace():
    x, y = blobs()
    module = {"module": Net, "module__dropout": 0.5, "early_stopping": True}
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    one = classifier(**module).fit(x, y)
    torch.rand(3)
    other = classifier(**module).fit(x, y)
    assert np.array_equal(one.predict_proba(x), other.predict_proba(x))
    torch.set_rng_state(before[2])
    classifier(**module).fit(x, y)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    third = classifier(**module | {"random_state": 1}).fit(x, y)
    assert not np.array_equal(one.predict_proba(x), third.predict_proba(x))


def test_dropout_is_off_in_predictions_and_modes_are_put_back():
    x, y = blobs()
    fitted = classifier(module=net(dropout=0.5, norm=True)).fit(x, y)
    mean = fitted.module_.norm.running_mean.clone()
    assert np.array_equal(fitted.predict_proba(x), fitted.predict_proba(x))
    assert np.allclose(fitted.predict_proba(x)[:1], fitted.predict_proba(x[:1]))
    assert fitted.module_.drop.training
    assert torch.equal(mean, fitted.module_.norm.running_mean)


def test_a_module_that_is_given_is_copied_not_trained():
    module = net()
    before = copy.deepcopy(module.state_dict())
    x, y = blobs()
    fitted = classifier(module=module).fit(x, y)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert not torch.equal(fitted.module_.first.weight, module.first.weight)


def test_batch_normalization_never_meets_a_single_example():
    x, y = blobs(33)
    fitted = classifier(module=net(norm=True), max_epochs=5).fit(x, y)
    assert min(fitted.batch_size_curve_) == 32


# Going on -----------------------------------------------------------------------------


def saved(estimator, how):
    if how == "deepcopy":
        return copy.deepcopy(estimator)
    if how == "pickle":
        return pickle.loads(pickle.dumps(estimator))
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    return joblib.load(file)


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_a_saved_estimator_predicts_and_goes_on_as_the_one_saved(how):
    x, y = blobs()
    settings = {"module": Net, "module__dropout": 0.3, "optimizer": "adam"}
    policy = "geodamp:factor=2,delay=3"
    one = classifier(policy=policy, initial_batch_size=4, **settings).fit(x, y)
    other = saved(one, how)
    assert np.array_equal(one.predict_proba(x), other.predict_proba(x))
    for part in (slice(0, 40), slice(20, 60)):
        one.partial_fit(x[part], y[part])
        other.partial_fit(x[part], y[part])
    assert np.array_equal(one.predict_proba(x), other.predict_proba(x))
    assert other.batch_size_curve_.tolist() == one.batch_size_curve_.tolist()


def test_partial_fit_counts_on_with_the_same_policy_and_optimizer():
    x, y = line(40)
    policy = GeoDamp(initial_batch_size=4, factor=2, delay=1)
    parts = regressor(policy=policy, micro_batch_size=4, optimizer__betas=(0.8, 0.9))
    for _ in range(3):
        parts.partial_fit(x, y)
    whole = regressor(
        policy=policy,
        micro_batch_size=4,
        optimizer__betas=(0.8, 0.9),
        max_epochs=3,
        tol=None,
    ).fit(x, y)
    assert parts.batch_size_curve_.tolist() == [4] * 10 + [8] * 5 + [16, 16, 8]
    assert parts.batch_size_curve_.tolist() == whole.batch_size_curve_.tolist()
    assert np.array_equal(weights_of(parts), weights_of(whole))
    assert [one.step for one in parts.history_] == list(range(1, 19))
    assert parts.loss_curve_ == whole.loss_curve_
    assert parts.n_iter_ == 3


def test_partial_fit_takes_parts_of_any_length_each_example_once():
    x, y = line(50)
    fitted = regressor(initial_batch_size=8, policy="constant")
    for part in (slice(0, 30), slice(30, 33), slice(33, 50)):
        fitted.partial_fit(x[part], y[part])
    assert fitted.batch_size_curve_.tolist() == [8, 8, 8, 6, 3, 8, 8, 1]
    assert fitted.history_[-1].examples == 50
    assert fitted.history_[-1].epoch == 3


def test_partial_fit_knows_the_classes_it_was_told():
    x, y = blobs()
    fitted = classifier().partial_fit(x[y < 2], y[y < 2], classes=[0, 1, 2])
    assert fitted.classes_.tolist() == [0, 1, 2]
    fitted.partial_fit(x[y > 0], y[y > 0])
    with pytest.raises(
        InputError, match=r"hold the classes \[0, 1, 2\] alone, got \[9"
    ):
        fitted.partial_fit(x, y + 7 * (y == 2))
    with pytest.raises(InputError, match="must be those of the first call"):
        fitted.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(InputError, match="`classes` must be passed on the first call"):
        classifier().partial_fit(x, y)


def test_fit_begins_anew_and_with_a_warm_start_goes_on():
    x, y = blobs()
    one = classifier(max_epochs=4, tol=None).fit(x, y)
    again = copy.deepcopy(one).fit(x, y)
    assert np.array_equal(weights_of(one), weights_of(again))
    warm = classifier(max_epochs=2, tol=None, warm_start=True).fit(x, y).fit(x, y)
    assert np.array_equal(weights_of(one), weights_of(warm))
    assert warm.n_iter_ == 4


def test_a_fit_that_fails_leaves_what_was_learnt_before():
    x, y = line()
    fitted = regressor().fit(x, y)
    before = weights_of(fitted)
    with pytest.raises(InputError, match="`y` must have shape"):
        fitted.partial_fit(x, np.c_[y, y])
    assert np.array_equal(weights_of(fitted), before)


# In the company of scikit-learn -------------------------------------------------------


def test_a_grid_search_goes_over_parameters_that_are_passed_on():
    x, y = blobs()
    grid = {"module__hidden": [2, 16], "optimizer__momentum": [0.0, 0.9]}
    search = GridSearchCV(classifier(optimizer="sgd", max_epochs=3), grid, cv=2)
    search.fit(x, y)
    best = search.best_estimator_
    assert len(search.cv_results_["params"]) == 4
    assert best.module_[1].out_features == search.best_params_["module__hidden"]
    assert best.get_params()["optimizer__momentum"] in (0.0, 0.9)


@pytest.mark.slow
def test_a_grid_search_on_two_processes_finds_what_it_finds_on_one():
    x, y = blobs()
    grid = {"module__hidden": [2, 16]}
    one, two = (
        GridSearchCV(classifier(max_epochs=3), grid, cv=2, n_jobs=n).fit(x, y)
        for n in (1, 2)
    )
    scores = [one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]]
    assert np.array_equal(*scores)


def test_they_stand_in_pipelines_and_are_cross_validated():
    x, y = blobs(90)
    chain = make_pipeline(StandardScaler(), classifier(max_epochs=30))
    assert cross_val_score(chain, 100 * x + 50, y, cv=3).min() > 0.8


def test_a_clone_has_the_parameters_and_shares_client_and_logger():
    class Client:
        def __deepcopy__(self, memo):
            raise AssertionError("a connection cannot be copied")

    rows = []
    made = classifier(client=Client(), log=rows.append, module__hidden=7, workers=2)
    twin = clone(made)
    assert twin.get_params() == made.get_params()
    assert twin.client is made.client
    assert copy.deepcopy(made).client is made.client
    assert clone(twin.set_params(module__hidden=9)).module__hidden == 9


def test_a_pickle_has_no_client():
    made = classifier(client=object())
    assert pickle.loads(pickle.dumps(made)).client is None
    assert made.client is not None


@pytest.mark.parametrize("kind", [AdaptiveClassifier, AdaptiveRegressor])
def test_nothing_is_known_before_a_fit(kind):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        kind().predict([[1.0]])
    with pytest.raises(AttributeError, match="not fitted yet"):
        kind().history_  # noqa: B018
