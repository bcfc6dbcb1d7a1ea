"""Arrays and data sets of all kinds, and those that are refused."""

import numpy as np
import pytest
import torch
from integrations.example_estimators import (
    Items,
    Net,
    blobs,
    classifier,
    line,
    regressor,
    tensors,
    weights_of,
)
from scipy.sparse import csr_array
from torch import nn
from torch.utils.data import IterableDataset, TensorDataset

from rightbatch.errors import InputError


@pytest.mark.parametrize("kind", [tensors, Items])
def test_a_data_set_trains_as_the_arrays_it_is_made_of(kind):
    x, y = blobs()
    one, other = classifier().fit(x, y), classifier().fit(kind(x, y))
    assert np.array_equal(weights_of(one), weights_of(other))
    assert np.array_equal(other.predict(kind(x, y)), one.predict(x))
    assert np.array_equal(other.predict_proba(kind(x, y)), one.predict_proba(x))
    assert other.score(kind(x, y)) == one.score(x, y)
    assert other.n_features_in_ == 4


@pytest.mark.parametrize("kind", [tensors, Items])
def test_a_data_set_of_inputs_alone_is_predicted(kind):
    x, y = blobs()
    fitted = classifier().fit(x, y)
    assert np.array_equal(fitted.predict(tensors(x)), fitted.predict(x))
    assert np.array_equal(fitted.predict(list_of(x)), fitted.predict(x))


def list_of(x):
    class Inputs(Items):
        def __getitem__(self, index):
            return super().__getitem__(index)[0]

    return Inputs(x)


def test_items_may_have_words_for_labels():
    x, y = blobs()
    fitted = classifier().fit(Items(x, np.array(["a", "b", "c"])[y]))
    assert fitted.classes_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("shape", [(48,), (48, 1), (48, 2)])
@pytest.mark.parametrize("kind", [tensors, Items])
def test_numbers_are_predicted_in_the_shape_they_have(kind, shape):
    x, y = line(outputs=2)
    y = y[:, : shape[1]] if len(shape) > 1 else y[:, 0]
    fitted = regressor().fit(kind(x, y))
    assert fitted.predict(x).shape == shape
    assert np.array_equal(weights_of(fitted), weights_of(regressor().fit(x, y)))


def test_items_drawn_by_chance_are_the_same_for_the_same_seed():
    class Noisy(Items):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + np.random.normal() + torch.randn(4), y

    one, other = (classifier().fit(Noisy(*blobs())) for _ in range(2))
    assert np.array_equal(weights_of(one), weights_of(other))
    assert not np.array_equal(weights_of(one), weights_of(classifier().fit(*blobs())))


def test_whole_numbers_of_a_data_set_stay_so_for_an_embedding():
    codes = torch.arange(60).reshape(-1, 1) % 6
    words = TensorDataset(codes, codes[:, 0] % 3)
    module = nn.Sequential(nn.Embedding(6, 4), nn.Flatten(), nn.Linear(4, 3))
    fitted = classifier(module=module, max_epochs=60, lr=0.05).fit(words)
    assert fitted.score(words) == 1


@pytest.mark.parametrize("kind", [tensors, Items])
def test_single_and_double_precision_are_what_is_asked_for(kind):
    x, y = blobs()
    for dtype in ("float32", "float64"):
        fitted = classifier(dtype=dtype, module=Net).fit(x.astype("float32"), y)
        assert str(fitted.module_.first.weight.dtype) == f"torch.{dtype}"
        assert str(fitted.predict_proba(x).dtype) == dtype
        fitted.fit(kind(x, y))
        assert str(fitted.predict_proba(kind(x, y)).dtype) == dtype


@pytest.mark.parametrize("made", [classifier, regressor])
def test_more_rows_than_go_through_the_module_at_once_are_all_predicted(made):
    x, y = blobs()
    fitted = made().fit(x, y)
    many = np.tile(x, (80, 1))
    assert np.allclose(fitted.predict(many), np.tile(fitted.predict(x), 80), atol=1e-5)
    assert np.array_equal(fitted.predict(tensors(many)), fitted.predict(many))
    assert np.allclose(fitted.predict(Items(many)), fitted.predict(many), atol=1e-5)


def test_images_of_a_data_set_are_predicted_as_an_array_too():
    x, y = blobs()
    images = x.reshape(-1, 1, 2, 2)
    fitted = classifier().fit(tensors(images, y))
    assert np.array_equal(fitted.predict(images), fitted.predict(tensors(images)))


def test_an_input_may_be_anything_that_its_module_takes():
    class Parts(Items):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return {"left": x[:2], "right": x[2:]}, y

    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 3)

        def forward(self, x):
            return self.last(torch.cat([x["left"], x["right"]], dim=1))

    x, y = blobs()
    fitted = classifier(module=Joined, max_epochs=40, lr=0.05).fit(Parts(x, y))
    assert fitted.score(Parts(x, y)) > 0.9
    assert not hasattr(fitted, "n_features_in_")


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


class Mixed(Items):
    def __getitem__(self, index):
        row = super().__getitem__(index)
        return row if index % 2 else (*row, 1.0)


X, Y = blobs()
HOLED = np.where(np.eye(60, 4) > 0, np.nan, X)
ENDLESS = np.where(np.eye(60, 4) > 0, np.inf, X)


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        ((csr_array(X), Y), TypeError, r"[Ss]parse.*toarray"),
        ((HOLED, Y), ValueError, "contains NaN"),
        ((ENDLESS, Y), ValueError, "contains infinity"),
        ((X, Y + 0.5), ValueError, "Unknown label type"),
        ((X,), ValueError, "requires y to be passed"),
        ((tensors(HOLED, Y),), InputError, "holds NaN: tensor 0, row 0"),
        ((tensors(ENDLESS, Y),), InputError, "inputs hold infinity"),
        ((tensors(X),), InputError, r"must be \(x, y\) or .* got 0 values beside x"),
        ((Items(X, Y, Y, Y),), InputError, "got 3 values beside x"),
        ((list_of(X),), InputError, "got 0 values beside x"),
        ((tensors(X, np.c_[Y, Y]),), InputError, r"one label per .* shape \(60, 2\)"),
        ((Endless(),), InputError, "got an Endless, which can only be gone through"),
        ((Items(HOLED, Y),), InputError, "the input of item 0 holds NaN or infinity"),
        ((tensors(X, Y + 0.5),), ValueError, "Unknown label type"),
        ((Items(X, [None, *Y[1:]]),), InputError, "a label for each .* got None"),
        ((Mixed(X, Y),), InputError, "alike, got some of 2 and some of 3 values"),
        ((tensors(X, Y, ENDLESS[:, 0]),), ValueError, "sample_weight contains infin"),
        ((Items(X, Y, np.c_[Y, Y]),), InputError, r"one number per .* shape \(2,\)"),
        ((tensors(X, Y), Y), InputError, "`y` goes with arrays, not with a data set"),
    ],
)
def test_data_that_cannot_be_learnt_is_refused(data, error, match):
    with pytest.raises(error, match=match):
        classifier().fit(*data)


def test_targets_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="contains NaN"):
        regressor().fit(X, HOLED[:, 0])
    with pytest.raises(InputError, match="`y` must not hold NaN or infinity"):
        regressor().fit(Items(X, HOLED[:, 0]))
    with pytest.raises(InputError, match="`y` must hold numbers: could not convert"):
        regressor().fit(Items(X, ["a"] * 60))


@pytest.mark.parametrize("kind", [tensors, Items])
def test_items_are_predicted_if_they_are_like_those_learnt_from(kind):
    fitted = classifier(max_epochs=1).fit(kind(X, Y))
    with pytest.raises(InputError, match="must have 4 features, .*, got 3"):
        fitted.predict(kind(X[:, :3]))
    with pytest.raises(InputError, match="must have 4 features, .*, got 3"):
        fitted.partial_fit(kind(X[:, :3], Y))
    with pytest.raises(InputError, match="NaN"):
        fitted.predict(kind(HOLED))
