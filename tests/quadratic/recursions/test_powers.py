"""Which backend computes, and what an average is made of."""

from importlib import util

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.quadratic.recursions import powers, stepping
from rightbatch.quadratic.recursions.jit import inlined, kernels_of
from rightbatch.quadratic.recursions.powers import (
    compiled,
    moments_after,
    num_averaged,
    walker,
)
from rightbatch.quadratic.recursions.transition import Settings


@pytest.fixture
def without_numba(monkeypatch):
    find = util.find_spec
    hidden = lambda name, *rest: None if name == "numba" else find(name, *rest)  # noqa: E731
    monkeypatch.setattr(util, "find_spec", hidden)
    compiled.cache_clear()
    yield
    compiled.cache_clear()


@pytest.mark.usefixtures("without_numba")
def test_numba_is_refused_where_it_is_not_installed():
    with pytest.raises(InputError, match="`backend` is numba, which is not installed"):
        compiled("numba")
    with pytest.raises(InputError, match="rightbatch\\[fast\\]"):
        walker("numba")


@pytest.mark.usefixtures("without_numba")
def test_numpy_computes_where_numba_is_not_installed():
    assert compiled("auto") is None
    assert walker("auto") is stepping.walk


@pytest.mark.usefixtures("without_numba")
def test_kernels_are_plain_functions_where_numba_is_not_installed():
    def twice(x):
        return 2 * x

    assert inlined(twice) is twice
    assert kernels_of(twice)(twice) is twice


def test_numpy_is_there_for_the_asking():
    assert compiled("numpy") is None
    assert walker("numpy") is stepping.walk


def test_numba_computes_where_it_is_installed():
    pytest.importorskip("numba")
    assert compiled("auto") is compiled("numba") is not None
    assert walker("auto") is not stepping.walk


def test_a_kernel_is_named_after_the_formulas_it_is_made_of():
    pytest.importorskip("numba")

    def old(x):
        return 2 * x

    def new(x):
        return 3 * x

    names = []
    for formula in (old, old, new):

        def kernel(x):
            return x

        names.append(kernels_of(formula)(kernel).py_func.__qualname__)
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("share", "steps", "averaged"),
    [
        (0.5, [1, 2, 5, 10], [1, 1, 2, 5]),
        (1.0, [1, 7], [1, 7]),
        (0.01, [1, 149], [1, 1]),
    ],
)
def test_a_tail_is_a_share_of_the_steps_and_at_least_one(share, steps, averaged):
    assert num_averaged(share, np.array(steps)).tolist() == averaged


def test_a_tail_average_of_all_is_the_average():
    one = np.ones(3)
    settings = Settings(np.array([0.1, 1.0, 1.9]), one, one)
    rates, steps = np.array([1.0, 0.2]), np.array([1, 2, 333])
    whole = moments_after("average", settings, rates, steps)
    tail = moments_after("tail-average", settings, rates, steps, tail_fraction=1.0)
    np.testing.assert_array_equal(whole.mean, tail.mean)
    np.testing.assert_array_equal(whole.variance, tail.variance)


def test_a_ladder_of_sgd_and_averages_doubles_the_steps():
    one = np.ones(2)
    settings = Settings(np.array([0.1, 1.0]), one, one)
    rates = np.array([1.0, 0.2])
    for name in ("sgd", "tail-average"):
        rungs = powers.moments_ladder(name, settings, rates, 5)
        last = moments_after(name, settings, rates, np.full(2, 16))
        np.testing.assert_array_equal(rungs.mean[4], last.mean)
        assert rungs.variance.shape == (5, 2, 2)
