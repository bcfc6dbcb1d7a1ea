"""Losses of all kinds as those of single examples, and what their outputs mean."""

import pickle

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
from torch import nn
from torch.nn import functional

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn.losses import ExampleLoss, criterion_of, entropy


class Nameless:
    """A loss without a name, a signature of its own and a reduction."""

    def __call__(self, outputs, targets):
        return functional.cross_entropy(outputs, targets, reduction="none")


def of_each(outputs, targets):
    return functional.cross_entropy(outputs, targets, reduction="none")


def of_all(outputs, targets):
    return functional.cross_entropy(outputs, targets)


CROSS_ENTROPIES = [
    None,
    nn.CrossEntropyLoss,
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(reduction="sum"),
    functional.cross_entropy,
    Nameless(),
    of_each,
    of_all,
]


@pytest.mark.parametrize("criterion", CROSS_ENTROPIES)
def test_a_loss_is_the_same_however_it_is_given(criterion):
    x, y = blobs()
    usual = classifier(dtype="float64", max_epochs=3).fit(x, y)
    fitted = classifier(dtype="float64", max_epochs=3, criterion=criterion).fit(x, y)
    np.testing.assert_allclose(weights_of(fitted), weights_of(usual), rtol=1e-9)


@pytest.mark.parametrize("criterion", CROSS_ENTROPIES)
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_it_can_be_pickled_and_its_mean_is_that_of_a_loop(criterion, weights):
    made = criterion_of(criterion, {}, functional.cross_entropy)
    loss = pickle.loads(pickle.dumps(ExampleLoss(criterion=made, num_classes=4)))
    module, x, y = nn.Linear(2, 4), torch.randn(3, 2), torch.tensor([0, 3, 1])
    outputs = module(x)
    slow = torch.stack([functional.cross_entropy(outputs[i], y[i]) for i in range(3)])
    share = torch.ones(3) if weights is None else weights
    expected = (slow * share).sum() / share.sum()
    batch = (x, y) if weights is None else (x, y, weights)
    torch.testing.assert_close(loss(module, batch).mean(), expected)
    torch.testing.assert_close(loss.of_each(module, batch), slow * share)


def test_several_values_of_an_example_are_averaged():
    x, y = line(outputs=2)
    one = regressor(criterion=nn.L1Loss, max_epochs=3).fit(x, y)
    first = one.history_[0]
    fresh = regressor(criterion=nn.L1Loss, max_epochs=3, initial_batch_size=48)
    whole = fresh.fit(x, y).history_[0].loss
    assert first.loss == pytest.approx(whole, rel=0.5)
    assert one.score(x, y) < regressor(max_epochs=60).fit(x, y).score(x, y)


def test_parameters_go_to_the_class_and_to_the_function():
    x, y = blobs()
    smooth = {"criterion__label_smoothing": 0.2}
    one = classifier(criterion=nn.CrossEntropyLoss, **smooth).fit(x, y)
    other = classifier(criterion=functional.cross_entropy, **smooth).fit(x, y)
    assert np.array_equal(weights_of(one), weights_of(other))
    assert not np.array_equal(weights_of(one), weights_of(classifier().fit(x, y)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_class_weights_are_of_whatever_precision(dtype, kind):
    x, y = blobs()
    weight = torch.tensor([1.0, 2.0, 0.5], dtype=kind)
    given = [
        {"criterion": nn.CrossEntropyLoss(weight=weight)},
        {"criterion": functional.cross_entropy, "criterion__weight": weight},
    ]
    one, other = (
        classifier(dtype=dtype, max_epochs=2, **settings).fit(x, y)
        for settings in given
    )
    assert np.array_equal(weights_of(one), weights_of(other))


# What outputs mean --------------------------------------------------------------------


class Ended(Net):
    def __init__(self, end, outputs=2):
        super().__init__(outputs=outputs)
        self.end = end

    def forward(self, x):
        return self.end(super().forward(x))


@pytest.mark.parametrize(
    ("criterion", "module"),
    [
        (nn.CrossEntropyLoss, net(outputs=2)),
        (nn.BCEWithLogitsLoss, net(outputs=1)),
        (nn.BCEWithLogitsLoss(), net(Ended, end=nn.Flatten(0), outputs=1)),
        (nn.BCELoss, net(Ended, end=nn.Sigmoid(), outputs=1)),
        (functional.binary_cross_entropy, net(Ended, end=nn.Sigmoid(), outputs=1)),
        (nn.NLLLoss(), net(Ended, end=nn.LogSoftmax(1))),
        (functional.nll_loss, net(Ended, end=nn.LogSoftmax(1))),
        (nn.MultiMarginLoss, net(outputs=2)),
        (None, net(outputs=1)),
        (nn.MSELoss, net(outputs=1)),
        (functional.huber_loss, net(outputs=1)),
        (nn.SoftMarginLoss(), net(outputs=1)),
    ],
)
def test_outputs_become_probabilities_as_their_loss_reads_them(criterion, module):
    x, y = blobs(classes=2)
    words = np.array(["no", "yes"])[y]
    fitted = classifier(criterion=criterion, module=module, max_epochs=40)
    chances = fitted.fit(x, words).predict_proba(x)
    assert chances.shape == (60, 2)
    assert chances.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert fitted.score(x, words) > 0.9
    # The likelihood of the labels is what was learnt.
    assert chances[np.arange(60), y].mean() > 0.6


# Refused ------------------------------------------------------------------------------


def one_by_one(outputs, targets):
    return (outputs - targets).square()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"criterion": "mse"}, "criterion: must be a loss module.* got 'mse'"),
        (
            {"criterion": nn.MSELoss(), "criterion__x": 1},
            "`criterion__x` needs a class.*criterion=MSELoss",
        ),
        (
            {"criterion": nn.MSELoss, "criterion__power": 3},
            "MSELoss cannot be made with criterion__power",
        ),
        (
            {"criterion": nn.HuberLoss, "criterion__deltaa": 3},
            "did you mean delta",
        ),
        ({"criterion": lambda o, t: 3.0}, "must return a tensor, got float"),
        (
            {"criterion": one_by_one, "criterion__power": 3},
            "one_by_one takes no parameter 'power'",
        ),
        ({"module": nn.Linear(3, 2)}, "must give 1 values for an example.*got 2"),
    ],
)
def test_a_loss_that_cannot_be_is_refused(settings, match):
    with pytest.raises(InputError, match=match):
        regressor(**settings).fit(*line())


@pytest.mark.parametrize(
    ("criterion", "outputs", "match"),
    [
        (nn.CrossEntropyLoss, 1, "needs an output for each of 2 classes, got one"),
        (functional.cross_entropy, 1, "nn.BCEWithLogitsLoss or None"),
        (nn.MultiMarginLoss(), 1, "needs an output for each"),
        (nn.MSELoss, 2, "a loss of numbers needs .* a single output.* got 2"),
    ],
)
def test_a_loss_that_cannot_read_the_outputs_is_refused(criterion, outputs, match):
    made = classifier(criterion=criterion, module=net(outputs=outputs))
    with pytest.raises(InputError, match=match):
        made.fit(*blobs(classes=2))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 3.0])])
def test_one_logit_is_the_difference_of_two(smoothing, weight):
    logit, labels = torch.randn(5, 1), torch.tensor([0, 1, 1, 0, 1])
    how = {"label_smoothing": smoothing, "reduction": "none"}
    single = entropy(logit, labels[:, None].float(), weight=weight, **how)
    two = torch.cat([torch.zeros_like(logit), logit], dim=1)
    expected = functional.cross_entropy(two, labels, **how)
    if weight is not None:
        expected = expected * weight[labels]
    if weight is None or not smoothing:  # torch weighs smoothed classes one by one
        torch.testing.assert_close(single[:, 0], expected)


def test_a_module_with_other_outputs_than_classes_is_refused():
    with pytest.raises(InputError, match=r"each of 3 classes, got shape \(2,\)"):
        classifier(module=net(outputs=2)).fit(*blobs())


def test_a_function_in_c_that_does_not_say_its_arguments_is_called_as_it_is():
    made = criterion_of(torch.sub, {}, torch.sub)
    assert made is torch.sub
