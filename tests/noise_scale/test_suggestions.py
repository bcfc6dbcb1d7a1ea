"""The batch by each definition, and the identities between them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_scale.known_gradients import known_gradients, sq_norm

from rightbatch.lr_scaling import rules
from rightbatch.noise_scale import (
    GradientMoments,
    cabs_batch,
    gain,
    half_batch_similarity,
    similarity_batch,
    suggested_batch_sizes,
)

positive = st.floats(1e-2, 1e5)
MOMENTS = GradientMoments(grad_sq_norm=0.5, grad_variance=350.0)
HIDDEN = GradientMoments(grad_sq_norm=-0.1, grad_variance=2.0)


@given(phi=positive, start=st.floats(1, 1e4), ratio=st.floats(1 / 64, 64))
def test_the_gain_is_adascale_s(phi, start, ratio):
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=phi)
    expected = rules.adascale_gain(start, ratio * start, phi)
    assert gain(moments, start, ratio * start) == pytest.approx(expected)


@given(square=st.floats(-10, 10), variance=st.floats(-10, 10), ratio=st.floats(1, 64))
def test_the_gain_stays_between_one_and_the_ratio_of_batches(square, variance, ratio):
    moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
    found = gain(moments, 8, 8 * ratio)
    if square <= 0 and variance <= 0:
        assert math.isnan(found)
    else:
        assert 1 - 1e-9 <= found <= ratio * (1 + 1e-9)


@given(phi=positive, similarity=st.floats(0.01, 0.99))
def test_halves_of_the_batch_found_agree_as_asked(phi, similarity):
    moments = GradientMoments(grad_sq_norm=2.0, grad_variance=2 * phi)
    batch_size = similarity_batch(moments, similarity)
    found = half_batch_similarity(moments, batch_size)
    assert found == pytest.approx(similarity)


def test_the_similarity_is_that_of_drawn_halves():
    known = known_gradients(50.0)
    draws = known.examples(np.random.default_rng(0), 20_000, 2, 16).mean(2)
    product = (draws[:, 0] * draws[:, 1]).sum(-1).mean()
    found = product / sq_norm(draws).mean()
    assert found == pytest.approx(half_batch_similarity(known.moments, 32), rel=0.03)


@given(phi=positive, lr=st.floats(1e-4, 1))
def test_cabs_is_the_batch_of_the_most_progress_per_example(phi, lr):
    # A quadratic of curvature 1/lr, its minimum at 0: F = lr |G|^2/2, and a step gains
    # lr/2 (|G|^2 - T/B). Over B that is largest at B = 2 T/|G|^2 = lr T/F.
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=phi)
    found = cabs_batch(moments, lr, lr / 2)
    assert found == pytest.approx(2 * phi)
    progress = [(1 - phi / b) / b for b in (0.9 * found, found, 1.1 * found)]
    assert max(progress) == progress[1]


def test_every_definition_is_told_with_its_source():
    found = suggested_batch_sizes(
        MOMENTS, lr=0.1, loss=2.0, inner_product_variance=4.0, theta=0.5, similarity=0.8
    )
    assert {name: one.batch_size for name, one in found.items()} == pytest.approx(
        {
            "noise_scale": 700,
            "diversity": 701,
            "norm_test": 2800,
            "similarity": 5600,
            "inner_product_test": 64,
            "cabs": 17.5,
        }
    )
    assert "theta = 0.5" in found["norm_test"].definition
    assert "s = 0.8" in found["similarity"].definition
    assert all("(20" in one.source for one in found.values())


def test_what_is_not_known_is_not_suggested():
    assert set(suggested_batch_sizes(MOMENTS)) == {
        "noise_scale",
        "diversity",
        "norm_test",
        "similarity",
    }
    found = suggested_batch_sizes(HIDDEN, lr=0.1, loss=2.0, inner_product_variance=4.0)
    assert found.pop("cabs").batch_size == pytest.approx(0.1)
    assert {one.batch_size for one in found.values()} == {None}
    assert half_batch_similarity(HIDDEN, 64) == 0
    nothing = GradientMoments(grad_sq_norm=0.0, grad_variance=0.0)
    assert math.isnan(half_batch_similarity(nothing, 64))


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="cabs_batch: `lr` must be positive"):
        cabs_batch(MOMENTS, 0, 1.0)
    with pytest.raises(ValueError, match="cabs_batch: `loss` must be positive"):
        cabs_batch(MOMENTS, 0.1, 0.0)
    with pytest.raises(ValueError, match="gain: `from_batch` must be positive"):
        gain(MOMENTS, 0, 8)
    with pytest.raises(ValueError, match="gain: `to_batch` must be positive"):
        gain(MOMENTS, 8, 0)
    with pytest.raises(ValueError, match="half_batch_similarity: `batch_size` must be"):
        half_batch_similarity(MOMENTS, 0)
    for similarity in (0, 1, math.nan):
        with pytest.raises(ValueError, match="`similarity` must be between 0 and 1"):
            similarity_batch(MOMENTS, similarity)
