"""Theory bounds: against the recursion they solve, and their limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.convergence.bounds import ConvexBound, LinearRateBound
from rightbatch.errors import InputError


def bound_of(contraction=0.01, initial_gap=2.0, target_gap=0.1, noise=0.05):
    return ConvexBound(
        contraction=contraction,
        initial_gap=initial_gap,
        target_gap=target_gap,
        noise=noise,
    )


def steps_of_the_recursion(bound: ConvexBound, batch_size: float) -> int:
    """Return the first k at which the recursion itself is at the target."""
    gap, steps = bound.initial_gap, 0
    while gap > bound.target_gap:
        gap += bound.contraction * (bound.noise / batch_size - gap**2)
        steps += 1
    return steps


# The recursion needs 1 - lambda (Delta + sigma) >= 0, and ends soon enough to iterate.
gaps = st.floats(0.05, 0.9)
points = st.tuples(
    st.floats(1e-3, 0.2),  # contraction
    st.floats(1.0, 4.0),  # initial gap
    gaps,  # target gap
    st.floats(1.05, 1e4),  # batch over the floor
)


@given(point=points)
def test_the_exact_form_suffices_for_the_recursion_it_solves(point):
    contraction, initial, target, above = point
    bound = bound_of(contraction, initial, target * initial, 1.0)
    batch = bound.min_batch_size * above
    needed = steps_of_the_recursion(bound, batch)
    assert needed <= np.ceil(bound.steps(batch) * (1 + 1e-9))


@pytest.mark.parametrize("above", [1.2, 2.0, 10.0, 1e3])
def test_for_a_small_contraction_the_exact_form_is_what_the_recursion_needs(above):
    bound = bound_of(contraction=2e-4, target_gap=0.3, noise=1.0)
    batch = bound.min_batch_size * above
    assert bound.steps(batch) == pytest.approx(
        steps_of_the_recursion(bound, batch), rel=5e-3
    )


@given(point=points)
def test_a_larger_batch_never_needs_more_steps_than_the_bound_of_a_smaller(point):
    contraction, initial, target, _ = point
    bound = bound_of(contraction, initial, target * initial, 1.0)
    batches = bound.min_batch_size * np.geomspace(1.0001, 1e6, 50)
    # True of the gap's recursion; the exact form gives it up by its log(1 + 2 l sigma).
    slack = np.log1p(2 * contraction * np.sqrt(1 / batches)) / (
        2 * contraction * np.sqrt(1 / batches)
    )
    assert np.all(np.diff(bound.steps(batches) * slack) <= 1e-6)


@given(point=points)
def test_for_little_noise_the_bound_is_its_expansion_an_inverse_law(point):
    contraction, initial, target, _ = point
    bound = bound_of(contraction * 1e-4, initial, target * initial, 1.0)
    batch = bound.min_batch_size * 1e4
    assert bound.steps(batch) == pytest.approx(bound.expanded().steps(batch), rel=1e-4)


@given(point=points)
def test_the_critical_batch_size_of_the_bound_is_a_third_to_all_of_its_floor(point):
    contraction, initial, target, _ = point
    bound = bound_of(contraction, initial, target * initial, 1.0)
    share = bound.expanded().critical_batch_size / bound.min_batch_size
    assert 1 / 3 <= share <= 1


def test_the_target_is_out_of_reach_up_to_the_floor():
    bound = bound_of()
    floor = bound.min_batch_size
    assert floor == pytest.approx(0.05 / 0.1**2)
    assert np.isinf(bound.steps([0.5 * floor, floor * (1 - 1e-9)])).all()
    assert np.isfinite(bound.steps(floor * 1.001))


def linear_rate(noise_gap=1.0, contraction=0.5, initial_gap=2.0, target_gap=0.1):
    return LinearRateBound(
        noise_gap=noise_gap,
        contraction=contraction,
        initial_gap=initial_gap,
        target_gap=target_gap,
    )


@given(batch=st.floats(10.1, 1e5))
def test_the_linear_rate_bound_is_met_with_equality_at_its_steps(batch):
    bound = linear_rate()
    floor = bound.noise_gap / batch
    rate = 1 - bound.contraction / batch
    steps = bound.steps(batch)
    gap = floor + rate ** (steps - 1) * (bound.initial_gap - floor)
    assert gap == pytest.approx(bound.target_gap, rel=1e-6)


def test_the_linear_rate_bound_grows_in_proportion_to_large_batches():
    bound = linear_rate()
    small, large = bound.steps([1e5, 2e5])
    assert large / small == pytest.approx(2, rel=1e-3)
    assert np.isinf(bound.steps(bound.min_batch_size))


@pytest.mark.parametrize("make", [bound_of, linear_rate])
def test_a_target_that_is_not_below_the_start_is_refused(make):
    with pytest.raises(InputError, match="`target_gap` must be below `initial_gap`"):
        make(initial_gap=0.1, target_gap=0.1)
    with pytest.raises(InputError, match="`contraction` must be positive"):
        make(contraction=0)
