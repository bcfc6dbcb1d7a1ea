"""Sums over units: identities, and what they refuse."""

import math
import pickle
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.noise_scale import UnitSums, unit_moments

seeds = st.integers(0, 2**32 - 1)


@st.composite
def updates(draw):
    """Return contributions (R, d), examples and weights of the units of one update."""
    generator = np.random.default_rng(draw(seeds))
    num = draw(st.integers(2, 12))
    gradients = generator.normal(0.3, 1, size=(num, 5))
    examples = generator.integers(1, 64, size=num).astype(float)
    weights = generator.uniform(0.2, 3, size=num)
    contributions = gradients * (weights / weights.sum())[:, None]
    return contributions, examples, weights


def squares(vectors):
    return (vectors**2).sum(-1)


def total_of(contributions):
    return float(squares(contributions.sum(0)))


@given(seed=seeds, num=st.integers(2, 20), size=st.integers(1, 100))
def test_of_equal_units_it_is_their_sample_variance_and_their_mean_inner_product(
    seed, num, size
):
    units = np.random.default_rng(seed).normal(0.3, 1, size=(num, 5))
    found = unit_moments(squares(units), total_of(units / num), size)
    centred = units - units.mean(0)
    products = units @ units.T
    between = (products.sum() - np.trace(products)) / (num * (num - 1))
    assert found.grad_variance == pytest.approx(
        size * squares(centred).sum() / (num - 1)
    )
    assert found.grad_sq_norm == pytest.approx(between, abs=1e-12)


@given(seed=seeds, num=st.integers(2, 20), size=st.integers(1, 100))
def test_of_equal_units_the_ratio_needs_no_scale(seed, num, size):
    added = np.random.default_rng(seed).normal(2, 1, size=(num, 5))
    norms, total = squares(added).sum(), total_of(added)
    ratio = size * (num * norms - total) / (total - norms)
    found = UnitSums.of(squares(added), size).moments(total)
    if found.grad_sq_norm > 0:
        assert found.simple_noise_scale == pytest.approx(ratio)


@given(update=updates())
def test_it_is_the_pair_of_equations_solved(update):
    contributions, examples, weights = update
    shares = weights / weights.sum()
    found = UnitSums.of(squares(contributions), examples, weights).moments(
        total_of(contributions)
    )
    mean = (squares(contributions) / shares).sum()
    k1, k2 = (shares / examples).sum(), (shares**2 / examples).sum()
    t, q = found.grad_variance, found.grad_sq_norm
    assert q + k1 * t == pytest.approx(mean)
    assert q + k2 * t == pytest.approx(total_of(contributions))


@given(update=updates(), at=st.integers(1, 11))
def test_sums_of_parts_are_the_sums_of_the_whole_in_any_order(update, at):
    contributions, examples, weights = update
    norms = squares(contributions)
    whole = UnitSums.of(norms, examples, weights)
    at = min(at, norms.size - 1)
    first = UnitSums.of(norms[:at], examples[:at], weights[:at])
    second = UnitSums.of(norms[at:], examples[at:], weights[at:])
    for sums in (first + second, second + first, UnitSums() + first + second):
        assert sums.num_units == whole.num_units
        assert sums.to_vector() == pytest.approx(whole.to_vector())
    turned = UnitSums.of(norms[::-1], examples[::-1], weights[::-1])
    assert turned.to_vector() == pytest.approx(whole.to_vector())


@given(update=updates(), factor=st.floats(1e-3, 1e3))
def test_weights_count_up_to_a_factor_and_sizes_are_the_usual_ones(update, factor):
    contributions, examples, weights = update
    norms, total = squares(contributions), total_of(contributions)
    found = UnitSums.of(norms, examples, weights).moments(total)
    scaled = UnitSums.of(norms, examples, factor * weights).moments(total)
    assert scaled.grad_variance == pytest.approx(found.grad_variance, rel=1e-9)
    assert scaled.grad_sq_norm == pytest.approx(found.grad_sq_norm, abs=1e-9)
    assert UnitSums.of(norms, examples) == UnitSums.of(norms, examples, examples)


@given(update=updates())
def test_a_loss_scale_of_a_thousand_cancels(update):
    contributions, examples, weights = update
    norms, total = squares(contributions), total_of(contributions)
    plain = UnitSums.of(norms, examples, weights).moments(total)
    loud = UnitSums.of(1e6 * norms, examples, weights)
    scaled = loud.moments(1e6 * total)
    assert scaled.grad_variance == pytest.approx(1e6 * plain.grad_variance)
    back = loud.scaled(1e-3).moments(total)
    assert back.grad_variance == pytest.approx(plain.grad_variance)
    assert back.grad_sq_norm == pytest.approx(plain.grad_sq_norm, abs=1e-9)


@given(update=updates())
def test_one_vector_carries_the_sums_over_replicas(update):
    contributions, examples, weights = update
    sums = UnitSums.of(squares(contributions), examples, weights)
    assert UnitSums.from_vector(sums.to_vector()) == sums
    reduced = [2 * value for value in sums.to_vector()]
    assert UnitSums.from_vector(reduced) == sums + sums
    assert list(UnitSums.reduces) == [one.name for one in fields(UnitSums)]
    assert set(UnitSums.reduces.values()) == {"sum"}
    assert pickle.loads(pickle.dumps(sums)) == sums


@given(value=st.floats(1e-6, 1e6), num=st.integers(2, 9), size=st.floats(1, 1e3))
def test_units_that_agree_have_no_variance_at_all(value, num, size):
    # n^2 values that are summed in another order than their square differ by rounding
    contributions = [value / num**2] * num
    found = UnitSums.of(contributions, size).moments(value)
    assert found.grad_variance == 0
    assert found.grad_sq_norm == value


def test_of_unequal_sizes_the_usual_formula_reads_half_as_much_again():
    # E|g_j|^2 = 1 + T/b_j with T = 100 put in for the norms themselves
    sizes = np.array([16, 16, 16, 13, 3])
    norms = 1 + 100 / sizes
    weighted, plain = 1 + 100 / 64, 1 + 100 * (1 / sizes).sum() / 25
    assert unit_moments(norms, weighted, sizes).grad_variance == pytest.approx(100)
    equal = np.ones(5)
    found = unit_moments(norms, plain, sizes, equal)
    assert found.grad_variance == pytest.approx(100)
    assert found.grad_sq_norm == pytest.approx(1)
    for total, off in ((plain, 1.530), (weighted, 1.663)):
        usual = unit_moments(norms, total, 64 / 5, equal).grad_variance
        assert usual / 100 == pytest.approx(off, abs=1e-3)


def test_norms_of_some_examples_stand_for_all():
    read = UnitSums.of([3.0, 5.0], 1.0)
    assert read.extended_to(8).moments(1.0).grad_variance == pytest.approx(
        UnitSums.of([4.0] * 8, 1.0).moments(1.0).grad_variance
    )
    assert read.extended_to(2) == read
    assert UnitSums.of([1e-6, 1e-6], 1.0).extended_to(8).moments(1.0).grad_variance < 0


def test_an_overflow_is_carried_to_where_it_can_be_told_to_all():
    for bad in (math.inf, math.nan):
        sums = UnitSums.of([1.0, bad], 8.0) + UnitSums.of([1.0, 2.0], 8.0)
        assert not sums.is_finite
        assert not UnitSums.from_vector(sums.to_vector()).is_finite
        with pytest.raises(ValueError, match="`norms` is not finite.*skip the update"):
            sums.moments(1.0)
    assert UnitSums.of([1.0, 2.0], 8.0).is_finite


def test_one_unit_is_refused_with_what_would_do():
    way_out = "per-example gradient norms, accumulate .* two micro-batches, or .* repl"
    for sums in (UnitSums(), UnitSums.of(4.0, 64.0)):
        with pytest.raises(ValueError, match=f"one unit alone.*{way_out}"):
            sums.moments(1.0)


def test_a_unit_that_outweighs_all_others_is_one_unit():
    with pytest.raises(ValueError, match="one of 2 units has all the weight"):
        UnitSums.of([1.0, 0.0], 8, [1.0, 1e-18]).moments(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], 8), "squared norms must be a list"),
        (([[1.0]], 8), "squared norms must be a list"),
        (([1.0, -1.0], 8), "squared norms must not be negative, got -1"),
        (([1.0, 1.0], [8, 8, 8]), "`examples` must be one number or one for each of 2"),
        (([1.0, 1.0], 0), "`examples` must be positive"),
        (([1.0, 1.0], 8, [1.0, math.nan]), "`weights` must be positive"),
        (([1.0, 1.0, 1.0], 8, [1.0, 1.0]), "`weights` must be one number or one"),
    ],
)
def test_units_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"UnitSums.of: {message}"):
        UnitSums.of(*arguments)
    norms, *rest = arguments
    with pytest.raises(ValueError, match=f"unit_moments: {message}"):
        unit_moments(norms, 1.0, *rest)


def test_sums_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="UnitSums: `weight` must not be negative"):
        UnitSums(num_units=1, weight=-1.0)
    with pytest.raises(ValueError, match="UnitSums: `norms` must not be negative"):
        UnitSums(num_units=1, norms=-1.0)
    with pytest.raises(ValueError, match="from_vector: `values` must be 6 numbers"):
        UnitSums.from_vector([1.0] * 5)
    sums = UnitSums.of([1.0, 2.0], 8)
    with pytest.raises(ValueError, match=r"UnitSums.scaled: `factor` must be positive"):
        sums.scaled(0)
    with pytest.raises(ValueError, match="`total_sq_norm` must not be negative"):
        sums.moments(math.nan)
    with pytest.raises(ValueError, match="extended_to: of 1 units .* got 2"):
        sums.extended_to(1)
    with pytest.raises(ValueError, match="extended_to: of 8 units .* got 0"):
        UnitSums().extended_to(8)
    with pytest.raises(ValueError, match="`num_units` must be a whole number"):
        sums.extended_to(2.5)
