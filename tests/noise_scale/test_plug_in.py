"""The usual short cuts: what they read, and what they must not be taken for."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.noise_scale import (
    GradientMoments,
    naive_diversity_bound,
    plug_in_noise_scale,
)

positive = st.floats(1e-3, 1e4)


@given(phi=positive, batch_size=st.floats(1, 1e4))
def test_exact_moments_read_as_a_scale_below_the_batch_and_invert(phi, batch_size):
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=phi)
    found = plug_in_noise_scale(phi, moments.batch_grad_sq_norm(batch_size), batch_size)
    assert found.at_least == pytest.approx(phi * batch_size / (phi + batch_size))
    assert found.at_least < min(phi, batch_size) * (1 + 1e-9)
    assert found.is_censored
    assert found.inverted == pytest.approx(phi, rel=1e-6)


def test_at_the_batch_itself_anything_larger_is_possible():
    found = plug_in_noise_scale(200.0, 1.0, 100)
    assert found.inverted == math.inf
    assert found.to_dict() == {
        "at_least": 200.0,
        "batch_size": 100,
        "is_censored": True,
        "inverted": None,
    }
    json.dumps(found.to_dict(), allow_nan=False)
    assert str(found) == "noise scale at least 200 examples, read from a batch of 100"


@given(phi=positive, batch_size=st.integers(2, 1000))
def test_the_naive_diversity_of_averages_is_below_the_batch(phi, batch_size):
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=phi)
    norms = np.full(batch_size, moments.batch_grad_sq_norm(1))
    naive = naive_diversity_bound(norms, moments.batch_grad_sq_norm(batch_size))
    assert naive == pytest.approx((1 + phi) / (1 + phi / batch_size))
    assert naive < batch_size
    assert naive < moments.diversity_batch_bound


def test_what_no_batch_can_read_is_refused():
    who = "plug_in_noise_scale"
    with pytest.raises(ValueError, match=f"{who}: `grad_variance` must not be neg"):
        plug_in_noise_scale(-1.0, 1.0, 64)
    with pytest.raises(ValueError, match="`batch_grad_sq_norm` must be positive"):
        plug_in_noise_scale(1.0, 0.0, 64)
    with pytest.raises(ValueError, match="`batch_size` must be positive"):
        plug_in_noise_scale(1.0, 1.0, 0)
    who = "naive_diversity_bound"
    for norms in ([], [-1.0], [math.nan], 3.0):
        with pytest.raises(ValueError, match=f"{who}: `example_sq_norms` must be num"):
            naive_diversity_bound(norms, 1.0)
    with pytest.raises(ValueError, match="`mean_sq_norm` must be positive"):
        naive_diversity_bound([1.0], 0.0)
