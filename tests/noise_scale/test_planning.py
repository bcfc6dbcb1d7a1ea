"""How far one update is off and how many it takes: against simulated updates."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from noise_scale.known_gradients import known_gradients, sq_norm

from rightbatch.noise_scale import (
    GradientMoments,
    MomentAverage,
    RatioLimits,
    UnitSums,
    relative_sds,
    steps_for,
)
from rightbatch.noise_scale.planning import relative_half_width, steps_to_narrow
from rightbatch.noise_scale.scatter import Covariance

DRAWS = 20_000


def simulate(batch_size, num_units, num_read, seed=0):
    """Return T and Q of updates of normal gradients, and what is said of them."""
    known = known_gradients(50.0, dims=6)
    generator = np.random.default_rng(seed)
    examples = batch_size // num_units
    noise = known.examples(generator, DRAWS, num_units, is_normal=True) - known.mean
    units = known.mean + noise / math.sqrt(examples)
    norms, totals = sq_norm(units) / num_units**2, sq_norm(units.mean(1))
    found = [
        UnitSums.of(one[:num_read], examples).extended_to(num_units).moments(total)
        for one, total in zip(norms, totals, strict=True)
    ]
    covariance, mean = known.covariance, known.mean
    said = relative_sds(
        known.moments.simple_noise_scale,
        batch_size,
        num_units,
        np.trace(covariance) ** 2 / np.trace(covariance @ covariance),
        num_read=num_read,
        alignment=mean @ covariance @ mean / (mean @ mean) ** 2,
    )
    t = np.array([one.grad_variance for one in found]) / np.trace(covariance)
    q = np.array([one.grad_sq_norm for one in found]) / (mean @ mean)
    return t, q, said


@pytest.mark.parametrize(
    ("batch_size", "num_units", "num_read"),
    [(64, 8, 8), (64, 8, 1), (64, 8, 3), (16, 16, 16), (256, 2, 2), (8, 4, 2)],
)
def test_one_update_of_normal_gradients_scatters_as_said(
    batch_size, num_units, num_read
):
    t, q, said = simulate(batch_size, num_units, num_read)
    # a variance of 20,000 draws with long tails is known to some percent
    assert t.std() == pytest.approx(said.grad_variance, rel=0.03)
    assert q.std() == pytest.approx(said.grad_sq_norm, rel=0.03)
    assert np.cov(t, q)[0, 1] == pytest.approx(said.covariance, rel=0.12)


def test_averages_of_a_hundred_have_a_ratio_that_scatters_as_said():
    t, q, said = simulate(256, 8, 8)
    ratios = t.reshape(-1, 100).mean(1) / q.reshape(-1, 100).mean(1)
    assert ratios.std() * 10 == pytest.approx(said.noise_scale, rel=0.12)


def test_known_answers():
    # the norm of one unit of eight costs nine times the updates for T
    every, one = (relative_sds(1e-9, 8, 8, 50, num_read=m) for m in (8, 1))
    assert one.grad_variance**2 > 9 * every.grad_variance**2
    noise = relative_sds(1000, 64, 8, 50, alignment=0.0)
    part = relative_sds(1000, 64, 8, 50, num_read=1, alignment=0.0)
    assert (part.grad_variance / noise.grad_variance) ** 2 == pytest.approx(9)
    assert noise.grad_variance == pytest.approx(math.sqrt(2 / (50 * 7)))
    assert noise.grad_sq_norm == pytest.approx(
        math.sqrt(2 * (1000 / 64) ** 2 * 8 / 7 / 50)
    )


@given(
    phi=st.floats(1, 1e5),
    batch_size=st.floats(8, 1e5),
    num_units=st.integers(2, 64),
    dims=st.floats(1, 1e4),
)
def test_more_units_and_larger_batches_tell_no_less(phi, batch_size, num_units, dims):
    here = relative_sds(phi, batch_size, num_units, dims)
    more = relative_sds(phi, batch_size, 2 * num_units, dims)
    larger = relative_sds(phi, 2 * batch_size, num_units, dims)
    assert more.grad_variance < here.grad_variance
    assert more.grad_sq_norm < here.grad_sq_norm
    assert larger.grad_sq_norm < here.grad_sq_norm
    assert larger.grad_variance == pytest.approx(here.grad_variance)


def test_after_the_steps_planned_the_interval_is_as_narrow_as_planned():
    t, q, said = simulate(64, 8, 8, seed=1)
    steps = round(steps_for(0.25, said))
    widths = []
    for window in range(40):
        average = MomentAverage()
        rows = slice(window * steps, (window + 1) * steps)
        for variance, square in zip(t[rows], q[rows], strict=True):
            moments = GradientMoments(
                grad_sq_norm=float(square), grad_variance=float(variance)
            )
            average = average.add(moments, 64)
        widths.append(average.noise_scale().relative_error)
    assert 40 * steps < DRAWS
    assert np.median(widths) == pytest.approx(0.25, rel=0.15)


def test_a_scatter_of_nothing_takes_two_steps_and_no_gradient_takes_forever():
    nothing = Covariance(0.0, 0.0, 0.0)
    assert steps_to_narrow(1.0, 1.0, nothing, 0.1, level=0.95) == 2
    assert steps_to_narrow(1.0, 0.0, nothing, 0.1, level=0.95) == math.inf
    assert steps_to_narrow(0.0, 1.0, nothing, 0.1, level=0.95) == math.inf
    assert relative_half_width(0.0, RatioLimits(0.0, 0.0)) == 0
    assert relative_half_width(0.0, RatioLimits(0.0, 1.0)) == math.inf


def test_plans_that_make_no_sense_are_refused():
    who = "relative_sds"
    with pytest.raises(ValueError, match=f"{who}: `num_units` must be at least 2"):
        relative_sds(100, 64, 1, 50)
    with pytest.raises(ValueError, match="`num_read` must be at most .* got 9 of 8"):
        relative_sds(100, 64, 8, 50, num_read=9)
    with pytest.raises(ValueError, match="`num_read` must be a whole number >= 1"):
        relative_sds(100, 64, 8, 50, num_read=0)
    with pytest.raises(ValueError, match="`noise_scale` must be positive"):
        relative_sds(0, 64, 8, 50)
    with pytest.raises(ValueError, match="`batch_size` must be positive"):
        relative_sds(100, 0, 8, 50)
    with pytest.raises(ValueError, match="`effective_dims` must be positive"):
        relative_sds(100, 64, 8, 0)
    with pytest.raises(ValueError, match="`alignment` must not be negative"):
        relative_sds(100, 64, 8, 50, alignment=-1)
    said = relative_sds(100, 64, 8, 50)
    with pytest.raises(ValueError, match="steps_for: `relative_error` must be posit"):
        steps_for(0, said)
    with pytest.raises(ValueError, match="steps_for: `level` must be between 0 and 1"):
        steps_for(0.2, said, level=95)
