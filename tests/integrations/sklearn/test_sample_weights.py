"""What an example weighs: its part of the gradient, beside gradients by hand."""

import numpy as np
import pytest
import torch
from integrations.example_estimators import (
    Items,
    blobs,
    classifier,
    line,
    regressor,
    tensors,
    weights_of,
)
from torch import nn

from rightbatch.errors import InputError
from rightbatch.policies import Constant

FULL = {"policy": Constant(batch_size=48), "initial_batch_size": 48}
LINEAR = {
    "module": nn.Linear(3, 1),
    "optimizer": "sgd",
    "lr": 0.1,
    "dtype": "float64",
    "tol": None,
    "max_epochs": 7,
}


def descended(x, y, weights, steps, start):
    """Return the coefficients after full gradient steps on a weighted mean."""
    x = np.c_[x, np.ones(len(x))]
    theta = start.copy()
    for _ in range(steps):
        residual = x @ theta - y
        theta -= 0.1 * 2 * (weights * residual) @ x / weights.sum()
    return theta


@pytest.mark.parametrize("micro_batch_size", [48, 16, 1])
def test_a_step_is_along_the_weighted_mean_however_it_is_cut(micro_batch_size):
    x, y = line()
    weights = np.random.default_rng(1).exponential(size=48)
    made = regressor(**{**LINEAR, **FULL}, micro_batch_size=micro_batch_size)
    fitted = made.fit(x, y, sample_weight=weights)
    start = torch.cat([p.detach().reshape(-1) for p in made.module.parameters()])
    expected = descended(x, y, weights, 7, start.double().numpy())
    np.testing.assert_allclose(weights_of(fitted), expected, rtol=1e-6)


@pytest.mark.parametrize("made", [classifier, regressor])
def test_an_example_of_weight_zero_is_not_there(made):
    x, y = blobs()
    weights = np.ones(60)
    weights[::4] = 0
    one = made().fit(x, y, sample_weight=weights)
    other = made().fit(x[weights > 0], y[weights > 0], sample_weight=np.ones(45))
    assert np.array_equal(weights_of(one), weights_of(other))


def test_a_class_that_weighs_nothing_is_none():
    x, y = blobs()
    fitted = classifier().fit(x, y, sample_weight=(y != 1).astype(float))
    assert fitted.classes_.tolist() == [0, 2]


@pytest.mark.parametrize("made", [classifier, regressor])
def test_equal_weights_are_as_none(made):
    x, y = blobs()
    one = made(dtype="float64", policy="constant").fit(x, y)
    other = made(dtype="float64", policy="constant").fit(x, y, np.full(60, 3.0))
    np.testing.assert_allclose(weights_of(one), weights_of(other), rtol=1e-9)


def test_noise_is_read_from_weighted_examples_too():
    x, y = blobs(240)
    x = x + np.random.default_rng(0).normal(scale=1.5, size=x.shape)
    settings = {"policy": "noise-following", "initial_batch_size": 8}
    none, equal, unequal = (
        classifier(**settings).fit(x, y, weights)
        for weights in (None, np.full(240, 2.0), 1.0 + y)
    )
    assert equal.batch_size_curve_.tolist() == none.batch_size_curve_.tolist()
    for fitted in (none, unequal):
        assert max(fitted.batch_size_curve_) > 8
        assert fitted.history_[-1].noise_scale > 0


def test_the_loss_that_a_policy_is_shown_is_weighted():
    x, y = line()
    weights = np.random.default_rng(1).exponential(size=48)
    made = regressor(**LINEAR, policy="adadamp:dwell=1", initial_batch_size=48)
    fitted = made.fit(x, y, sample_weight=weights)
    losses = [record.loss for record in fitted.history_]
    seen = [record.eval_loss for record in fitted.history_]
    assert seen == pytest.approx(losses, rel=1e-6)


def test_a_loss_that_says_its_mean_alone_is_asked_for_each_example():
    def mean_loss(outputs, targets):
        return (outputs - targets).square().mean()

    x, y = line()
    weights = np.random.default_rng(1).exponential(size=48)
    one = regressor(**LINEAR).fit(x, y, weights)
    other = regressor(**LINEAR, criterion=mean_loss).fit(x, y, weights)
    np.testing.assert_allclose(weights_of(one), weights_of(other), rtol=1e-9)


@pytest.mark.parametrize("kind", [tensors, Items])
def test_weights_come_with_a_data_set_too(kind):
    x, y = blobs()
    weights = np.random.default_rng(1).integers(0, 3, size=60).astype(np.float32)
    one = classifier().fit(x, y, weights)
    other = classifier().fit(kind(x.astype(np.float32), y, weights))
    assert np.array_equal(weights_of(one), weights_of(other))
    assert one.score(x, y, weights) == other.score(kind(x, y, weights))


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.zeros(60), "must not be zero for every example"),
        (-np.ones(60), "must not be negative, got -1"),
        (np.ones((60, 2)), r"one number per row, got shape \(60, 2\)"),
        (np.ones(59), "inconsistent numbers of samples"),
        (np.full(60, np.nan), "sample_weight contains NaN"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, match):
    with pytest.raises(ValueError, match=match):
        classifier().fit(*blobs(), sample_weight=weights)


def test_weights_beside_a_data_set_are_refused():
    x, y = blobs()
    with pytest.raises(InputError, match="`sample_weight` goes with arrays"):
        classifier().fit(tensors(x, y), sample_weight=np.ones(60))
