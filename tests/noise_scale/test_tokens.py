"""Means over tokens: identities, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.noise_scale import (
    UnitSums,
    token_mean_moments,
    token_residual_moments,
    unit_moments,
)

seeds = st.integers(0, 2**32 - 1)


def sequences(seed, num):
    """Return what each sequence adds, shape (R, d), and lengths."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 100, size=num)
    sums = lengths[:, None] * generator.normal(0.3, 1, size=(num, 5))
    return sums / lengths.sum(), lengths


def squares(vectors):
    return (vectors**2).sum(-1)


@given(seed=seeds, num=st.integers(2, 12))
def test_a_sequence_is_a_unit_of_one_with_an_equal_weight(seed, num):
    added, _ = sequences(seed, num)
    norms, total = squares(added), float(squares(added.sum(0)))
    found = token_mean_moments(norms, total)
    assert found.grad_variance == pytest.approx(
        num * (num * norms.sum() - total) / (num - 1)
    )
    assert found.grad_sq_norm == pytest.approx(total - found.grad_variance / num)
    assert found == UnitSums.of(norms, 1.0, 1.0).moments(total)


@given(seed=seeds, num=st.integers(2, 12))
def test_with_equal_lengths_both_forms_are_the_usual_one(seed, num):
    generator = np.random.default_rng(seed)
    means = generator.normal(0.3, 1, size=(num, 5))
    gradient = means.mean(0)
    added = means / num
    total = float(squares(gradient))
    usual = unit_moments(squares(means), total, 1.0)
    plain = token_mean_moments(squares(added), total)
    residual = token_residual_moments(
        squares(added), added @ gradient, total, [7] * num
    )
    for found in (plain, residual):
        assert found.grad_variance == pytest.approx(usual.grad_variance)
        assert found.grad_sq_norm == pytest.approx(usual.grad_sq_norm, abs=1e-9)


@given(seed=seeds, num=st.integers(2, 12))
def test_the_residual_form_is_what_the_lengths_do_not_explain(seed, num):
    added, lengths = sequences(seed, num)
    gradient = added.sum(0)
    rest = added - np.outer(lengths / lengths.sum(), gradient)
    found = token_residual_moments(
        squares(added), added @ gradient, float(squares(gradient)), lengths
    )
    assert found.grad_variance == pytest.approx(
        num**2 * squares(rest).sum() / (num - 1)
    )


def test_sequences_of_like_tokens_have_no_noise_however_long_they_are():
    lengths = np.array([3, 50, 7])
    added = np.outer(lengths / 60, [2.0, 1.0])
    norms, total = squares(added), 5.0
    products = added @ np.array([2.0, 1.0])
    found = token_residual_moments(norms, products, total, lengths)
    assert found.grad_variance == pytest.approx(0, abs=1e-12)
    assert found.grad_sq_norm == pytest.approx(5)
    assert token_mean_moments(norms, total).grad_variance > 1


def test_sequences_that_make_no_sense_are_refused():
    who = "token_residual_moments"
    with pytest.raises(ValueError, match=f"{who}: one sequence alone tells no noise"):
        token_residual_moments([1.0], [1.0], 1.0, [8])
    with pytest.raises(ValueError, match="`contribution_sq_norms` must be 2 finite"):
        token_residual_moments([1.0], [1.0, 1.0], 1.0, [8, 8])
    with pytest.raises(ValueError, match="`total_products` must be 2 finite numbers"):
        token_residual_moments([1.0, 1.0], [1.0, math.nan], 1.0, [8, 8])
    with pytest.raises(ValueError, match="`lengths` must be positive"):
        token_residual_moments([1.0, 1.0], [1.0, 1.0], 1.0, [8, 0])
    with pytest.raises(ValueError, match="`total_sq_norm` must not be negative"):
        token_residual_moments([1.0, 1.0], [1.0, 1.0], -1.0, [8, 8])
    with pytest.raises(ValueError, match="one unit alone tells no noise"):
        token_mean_moments([1.0], 1.0)
