"""Curvatures and how many directions share each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.quadratic import NoisyQuadratic, Spectrum


def test_the_standard_curvatures_are_one_over_the_index():
    spectrum = Spectrum.inverse(10_000)
    assert spectrum.curvatures[[0, 1, 9_999]].tolist() == [1.0, 0.5, 1e-4]
    assert spectrum.num_dims == 10_000
    assert spectrum.trace == pytest.approx(9.787606, rel=1e-6)


def test_a_power_law_of_exponent_one_is_the_inverse_one():
    power, inverse = Spectrum.power_law(500), Spectrum.inverse(500)
    np.testing.assert_allclose(power.curvatures, inverse.curvatures, rtol=1e-14)
    assert Spectrum.power_law(16, 1.5).curvatures[3] == pytest.approx(1 / 8)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_curvatures_come_in_decreasing_order_with_their_weights(values):
    weights = [2.0 * value for value in values]
    spectrum = Spectrum(curvatures=values, weights=weights)
    assert (np.diff(spectrum.curvatures) <= 0).all()
    assert (spectrum.weights == 2 * spectrum.curvatures).all()
    assert sorted(values, reverse=True) == spectrum.curvatures.tolist()


@given(st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 5)), min_size=1))
def test_a_weight_is_so_many_directions_of_one_curvature(pairs):
    values, counts = zip(*pairs, strict=True)
    weighted = Spectrum(curvatures=values, weights=counts)
    repeated = Spectrum(curvatures=np.repeat(values, counts))
    assert weighted.num_dims == repeated.num_dims == repeated.curvatures.size
    assert weighted.trace == pytest.approx(repeated.trace, rel=1e-12)
    first, second = (NoisyQuadratic(spectrum=s) for s in (weighted, repeated))
    assert first.initial_loss == pytest.approx(second.initial_loss, rel=1e-12)


def test_a_spectrum_cannot_be_written_to_and_keeps_no_tie_to_what_was_given():
    values = np.array([1.0, 0.5])
    spectrum = Spectrum(curvatures=values)
    values[0] = 7.0
    assert spectrum.curvatures[0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        spectrum.curvatures[0] = 3.0


@pytest.mark.parametrize(
    ("curvatures", "weights", "message"),
    [
        ([1.0, -0.5], None, r"`curvatures` must be positive, got -0.5 at 1"),
        ([1, 0], None, r"`curvatures` must be positive, got 0 at 1"),
        ([1.0, np.nan], None, r"`curvatures` must be positive, got nan at 1"),
        ([1.0, np.inf], None, r"`curvatures` must be positive, got inf at 1"),
        ([], None, r"`curvatures` must be a list of numbers"),
        ([[1.0], [2.0]], None, r"`curvatures` must be a list of numbers"),
        (["a", "b"], None, r"`curvatures` must be numbers"),
        ([1.0, 0.5], [1.0], r"`weights` must be as many as `curvatures`, got 1 and 2"),
        ([1.0, 0.5], [1.0, 0.0], r"`weights` must be positive, got 0 at 1"),
        ([1.0], ["many"], r"`weights` must be numbers"),
    ],
)
def test_what_is_no_spectrum_is_refused(curvatures, weights, message):
    given_weights = {} if weights is None else {"weights": weights}
    with pytest.raises(InputError, match=message):
        Spectrum(curvatures=curvatures, **given_weights)


def test_flat_directions_are_to_be_left_out():
    with pytest.raises(InputError, match="leave directions of zero curvature out"):
        Spectrum(curvatures=np.array([1.0, 0.0]))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Spectrum.inverse(0), r"inverse: `num_dims` must be a whole number"),
        (lambda: Spectrum.inverse(2.5), r"inverse: `num_dims` must be a whole number"),
        (lambda: Spectrum.power_law(0), r"power_law: `num_dims` must be a whole"),
        (lambda: Spectrum.power_law(3, 0), r"`exponent` must be positive, got 0"),
    ],
)
def test_a_law_of_curvatures_needs_a_size_and_a_falling_exponent(build, message):
    with pytest.raises(InputError, match=message):
        build()
