"""Modules, optimizers and policies of all kinds, and parameters that are refused."""

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
)
from torch import nn

from rightbatch.errors import InputError
from rightbatch.integrations.sklearn import AdaptiveClassifier
from rightbatch.policies import Constant


def net_of(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"module__hidden": 5},
        {"module": Net},
        {"module": Net, "module__hidden": 5, "module__dropout": 0.1},
        {"module": net(hidden=5)},
        {"module": net_of, "module__width": 5},
        {"module": lambda: net_of(5)},
    ],
)
def test_a_module_is_a_class_a_function_or_a_module(settings):
    fitted = classifier(**settings, max_epochs=1).fit(*blobs())
    hidden = 100 if not settings else 8 if settings == {"module": Net} else 5
    assert len(next(fitted.module_.parameters())) == hidden


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "SGD", "optimizer__momentum": 0.9},
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        {"optimizer": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)},
    ],
)
def test_an_optimizer_is_a_name_a_class_or_a_function(settings):
    x, y = blobs()
    fitted = classifier(**settings).fit(x, y)
    usual = classifier(optimizer=torch.optim.SGD, optimizer__momentum=0.9).fit(x, y)
    assert np.array_equal(fitted.predict_proba(x), usual.predict_proba(x))


def test_a_frozen_parameter_is_left_alone():
    module = net()
    module.first.requires_grad_(False)
    x, y = blobs()
    fitted = classifier(module=module, optimizer__weight_decay=0.5).fit(x, y)
    assert torch.equal(fitted.module_.first.weight, module.first.weight)
    assert not torch.equal(fitted.module_.last.weight, module.last.weight)


def test_parameters_are_told_and_set_by_name():
    made = classifier(module__hidden=3, optimizer__eps=0.1, criterion__weight=None)
    told = made.get_params()
    assert (told["module__hidden"], told["optimizer__eps"]) == (3, 0.1)
    assert made.set_params(module__hidden=4, lr=0.5, module__deep=1) is made
    told = made.get_params()
    assert (told["module__hidden"], told["lr"], told["module__deep"]) == (4, 0.5, 1)
    assert "module__hidden=4" in repr(made)
    with pytest.raises(ValueError, match="Invalid parameter 'momentum'"):
        made.set_params(momentum=0.9)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("learning_rate", "no parameter 'learning_rate'"),
        ("max_epoch", "did you mean max_epochs"),
        ("net__hidden", "begin with module__, optimizer__, criterion__"),
        ("module__", "no parameter 'module__'"),
    ],
)
def test_an_unknown_parameter_is_refused_by_name(name, match):
    with pytest.raises(InputError, match=match):
        AdaptiveClassifier(**{name: 1})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"module": 3}, "module: must be an nn.Module, its class or a function"),
        ({"module": net(), "module__x": 1}, "`module__x` needs a class.*module=Net"),
        ({"module": Net, "module__depth": 1}, "Net cannot be made with module__depth"),
        ({"module__depth": 1}, "OneHiddenLayer cannot be made with module__depth"),
        ({"module__hidden": 0}, "`module__hidden` must be a whole number"),
        ({"module": lambda: 3}, "the function must return an nn.Module, got int"),
        ({"module": nn.Identity()}, "Identity has nothing to train"),
        ({"module": nn.LSTM(4, 3)}, "must return a tensor with a row .* got tuple"),
        ({"optimizer": "sdg"}, "did you mean sgd"),
        ({"optimizer": 3}, "optimizer: must be a class of torch.optim or its name"),
        ({"optimizer__lr": 1.0}, "the learning rate must be given as `lr`"),
        ({"optimizer__momenta": 1}, "cannot be made with optimizer__momenta"),
        ({"module": Net, "module__hiden": 1}, "did you mean hidden"),
        ({"module__hiden": 1}, "did you mean hidden"),
        ({"optimizer": "sgd", "optimizer__momentm": 1}, "did you mean momentum"),
        ({"optimizer__betas": "x"}, "cannot be made with optimizer__betas"),
        ({"optimizer": "lbfgs"}, "LBFGS asks for the loss again within a step"),
        ({"optimizer": torch.optim.SparseAdam}, "SparseAdam takes sparse gradients"),
        ({"optimizer": "muon"}, "Muon only supports 2D parameters"),
        ({"optimizer": lambda p, lr: 3}, "must return a torch optimizer, got int"),
        ({"policy": 5}, "`policy` must have needs, init and update, got 5"),
        ({"policy": Constant}, "must be a policy, got the class Constant"),
        ({"lr_rule": None}, "`lr_rule` must be a text, got None"),
        ({"log": 3}, "`log` must be callable, got 3"),
        ({"workers": 3}, "`workers` must be Workers, got 3"),
        ({"device": "cudaa"}, "`device` cannot be 'cudaa'"),
        ({"lr": 0}, "optimizer: `lr` must be positive, got 0"),
        ({"policy": "geo-damp:speed=3"}, "geodamp has no parameter 'speed'"),
        ({"policy": "inner-product-test"}, "needs `inner_product_variance`"),
        ({"max_batch_size": 4}, "`max_batch_size` must be >= `initial_batch_size`"),
        (
            {"policy": Constant(batch_size=8), "max_batch_size": 0},
            "`max_batch_size` must be a whole number",
        ),
        ({"noise": "loud"}, "`noise` cannot be 'loud'"),
        ({"lr_rule": "cubic"}, "`lr_rule` cannot be 'cubic'"),
        ({"initial_batch_size": 0}, "`initial_batch_size` must be a whole number"),
        ({"micro_batch_size": 1.5}, "`micro_batch_size` must be a whole number"),
        ({"max_epochs": 0}, "`max_epochs` must be a whole number"),
        ({"tol": -1.0}, "`tol` must not be negative"),
        ({"n_iter_no_change": 0}, "`n_iter_no_change` must be positive"),
        ({"dtype": "float16"}, "`dtype` cannot be 'float16'"),
        (
            {"early_stopping": True, "validation_fraction": 1.0},
            "`validation_fraction` must be between 0 and 1, got 1.0",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_in_fit(settings, match):
    made = classifier(**settings)
    with pytest.raises(InputError, match=match):
        made.fit(*blobs())


def test_an_error_of_a_module_s_own_shows_itself():
    class Broken(Net):
        def __init__(self):
            super().__init__()
            len(3)

    with pytest.raises(TypeError, match=r"has no len\(\)") as caught:
        classifier(module=Broken).fit(*blobs())
    assert not isinstance(caught.value, InputError)


def test_a_module_that_returns_no_tensor_is_refused():
    class Pair(Net):
        def forward(self, x):
            out = super().forward(x)
            return out if self.training else (out, out)

    with pytest.raises(InputError, match="must return a tensor .* got tuple"):
        classifier(module=Pair()).fit(*blobs()).predict(blobs()[0])


def test_a_network_of_the_estimator_s_own_takes_its_sizes_from_the_data():
    x, y = line(outputs=2)
    module = regressor(max_epochs=1).fit(x, y).module_
    assert (module[1].in_features, module[3].out_features) == (3, 2)


@pytest.mark.parametrize(
    "later",
    [
        {"optimizer": "rmsprop"},
        {"optimizer__momentum": 0.0, "optimizer__dampening": 0.5},
        {"criterion": nn.MultiMarginLoss},
        {"dtype": "float64"},
        {"lr": 5.0, "lr_rule": "linear"},
    ],
)
def test_what_a_fit_began_with_is_settled_until_the_next_begins(later):
    x, y = blobs()
    settings = {"optimizer": "sgd", "optimizer__momentum": 0.9}
    one, other = (classifier(**settings).fit(x, y) for _ in range(2))
    other.set_params(**later)
    assert np.array_equal(other.predict_proba(x), one.predict_proba(x))
    one.partial_fit(x, y)
    other.partial_fit(x, y)
    assert np.array_equal(other.predict_proba(x), one.predict_proba(x))
    assert not np.array_equal(other.fit(x, y).predict_proba(x), one.predict_proba(x))


@pytest.mark.parametrize("dtype", [np.float64, np.dtype("float64"), torch.float64])
def test_a_type_of_numbers_may_be_given_as_numpy_or_torch_have_it(dtype):
    fitted = classifier(dtype=dtype, max_epochs=1).fit(*blobs())
    assert fitted.predict_proba(blobs()[0]).dtype == np.float64
