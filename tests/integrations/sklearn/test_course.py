"""How a fit ends: early, late, by Ctrl-C, or lost."""

import signal

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
from sklearn.model_selection import train_test_split
from torch import nn

from rightbatch.errors import DivergedError, InputError


def test_a_fit_ends_when_the_loss_no_longer_falls():
    x, y = line()
    fitted = regressor(max_epochs=500, tol=0.05, n_iter_no_change=3).fit(x, y)
    losses = fitted.loss_curve_
    assert fitted.status_ == "stopped"
    assert fitted.n_iter_ < 500
    best = np.minimum.accumulate(losses)
    assert all(losses[-4 + k] > best[-5 + k] - 0.05 for k in range(4))


def test_without_a_tolerance_every_epoch_is_made():
    fitted = regressor(max_epochs=30, tol=None).fit(*line())
    assert (fitted.n_iter_, fitted.status_) == (30, "finished")


@pytest.mark.parametrize("made", [classifier, regressor])
def test_early_stopping_keeps_the_weights_that_scored_best(made):
    x, y = blobs()
    y = np.random.default_rng(3).permutation(y)
    fitted = made(
        early_stopping=True, validation_fraction=0.3, max_epochs=300, lr=0.05
    ).fit(x, y)
    scores = fitted.validation_scores_
    assert len(scores) == fitted.n_iter_ < 300
    assert fitted.status_ == "stopped"
    # The same split, taken by whoever knows the seed.
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    labels = y if made is classifier else None
    held_out = train_test_split(
        np.arange(60), test_size=0.3, random_state=seed, stratify=labels
    )[1]
    assert fitted.score(x[held_out], y[held_out]) == pytest.approx(max(scores))
    assert max(scores) > scores[-1]


def test_a_part_held_out_is_in_proportion_and_not_learnt_from():
    x, y = blobs(50, classes=2)
    fitted = classifier(early_stopping=True, validation_fraction=0.2, max_epochs=1)
    assert fitted.fit(x, y).history_[-1].examples == 40
    one = classifier(early_stopping=True).fit(x, y)
    for kind in (tensors, Items):
        other = classifier(early_stopping=True).fit(kind(x, y))
        assert np.array_equal(weights_of(one), weights_of(other))
        assert one.validation_scores_ == other.validation_scores_


def test_nothing_can_be_held_out_of_too_little():
    x, y = blobs(9)
    with pytest.raises(InputError, match="nothing can be held out.*early_stopping=Fal"):
        classifier(early_stopping=True).fit(x, y)
    with pytest.raises(InputError, match="0.1 of 9 examples must be two at least"):
        regressor(early_stopping=True).fit(x, y)


def test_after_ctrl_c_the_weights_so_far_are_kept():
    def press(row, step):
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    x, y = blobs()
    made = classifier(log=press, initial_batch_size=8)
    with pytest.warns(UserWarning, match="interrupted after update 3; the weights so"):
        made.fit(x, y)
    assert (len(made.history_), made.status_) == (3, "interrupted")
    assert made.predict(x).shape == (60,)
    other = classifier(policy="constant", initial_batch_size=8)
    other.set_params(max_epochs=1).fit(x[:0:-1], y[:0:-1])
    assert made.partial_fit(x, y).status_ == "finished"


def test_ctrl_c_before_the_first_update_waits_for_what_torch_imports():
    made = []

    def pressed(parameters, lr):
        signal.raise_signal(signal.SIGINT)
        made.append(torch.optim.SGD(parameters, lr=lr))
        return made[0]

    estimator = classifier(optimizer=pressed)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(*blobs())
    assert made
    assert not hasattr(estimator, "module_")


def test_a_lost_fit_names_the_learning_rate():
    x, y = line()
    made = regressor(optimizer="sgd", lr=1e6)
    with pytest.raises(DivergedError, match="lost with `lr` 1e.06.*scale inputs"):
        made.fit(x, y)
    assert not hasattr(made, "module_")


@pytest.mark.parametrize("part", [False, True])
def test_a_model_that_is_lost_at_the_very_last_update_is_not_kept(part):
    x, y = line()
    made = regressor(optimizer="sgd", lr=1e30, initial_batch_size=48, max_epochs=1)
    with pytest.raises(DivergedError, match="`lr` 1e.30: the weights are no longer fi"):
        made.partial_fit(1e10 * x, y) if part else made.fit(1e10 * x, y)
    assert not hasattr(made, "module_")


@pytest.mark.parametrize(("lr", "match"), [(1e30, "weights"), (1e10, "outputs for")])
def test_nothing_is_scored_with_a_model_that_is_lost(lr, match):
    x, y = line()
    made = regressor(optimizer="sgd", lr=lr, early_stopping=True, max_epochs=1)
    made.set_params(initial_batch_size=48, module=nn.Linear(3, 1))
    with pytest.raises(DivergedError, match=f"`lr` 1e.*: the {match}.*smaller lr"):
        made.fit(1e10 * x, y)


def test_one_that_is_lost_later_keeps_what_was_learnt():
    x, y = line()
    fitted = regressor(optimizer="sgd", lr=0.01).fit(x, y)
    before = weights_of(fitted)
    with pytest.raises(DivergedError, match="is lost"):
        fitted.partial_fit(1e6 * x, y)
    assert np.array_equal(weights_of(fitted), before)


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples():
    x, y = line(50)
    fitted = regressor(initial_batch_size=16, policy="constant", max_epochs=2, tol=None)
    records = fitted.fit(x, y).history_
    for epoch, losses in enumerate(fitted.loss_curve_):
        mine = records[4 * epoch : 4 * epoch + 4]
        assert [one.batch_size for one in mine] == [16, 16, 16, 2]
        total = sum(one.loss * one.batch_size for one in mine)
        assert losses == pytest.approx(total / 50)
