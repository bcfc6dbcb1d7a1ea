"""Steps against batch size, and the laws fitted to them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.convergence import ConvergenceLaw, fit_convergence
from rightbatch.errors import InputError
from rightbatch.quadratic import NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.curves import (
    BATCH_SIZES,
    Break,
    SteppingCurve,
    fit_curve,
    steps_curve,
)
from rightbatch.quadratic.search import Found

PUBLISHED = published_bins(Spectrum.inverse(10_000))


def made_up(steps, sizes=BATCH_SIZES):
    """Return a curve with given steps, as if it had been searched."""
    cells = [
        Found(name="sgd", batch_size=size, steps=None if one is None else int(one))
        for size, one in zip(sizes, steps, strict=True)
    ]
    return SteppingCurve(
        name="sgd", target=0.01, preconditioner_power=0.0, cells=tuple(cells)
    )


def fewest_by_stepping(problem, batch_size, target):
    """Return the fewest steps of SGD over a fine grid of rates, all steps taken."""
    lrs = np.geomspace(1e-3, 1.999, 1500)[:, None] / problem.rates.max()
    keep, noise = 1 - lrs * problem.rates, lrs**2 * problem.step_noise / batch_size
    moments = np.tile(problem.start, (lrs.size, 1))
    for step in range(1, 10_000):
        moments = keep**2 * moments + noise
        if (moments @ problem.loss_weights).min() <= target:
            return step
    return None


def test_a_curve_of_sgd_is_that_of_stepping_through_many_rates():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(30), preconditioner_power=0.25)
    curve = steps_curve(problem, "sgd", [4, 32, 256], 0.02)
    slow = [fewest_by_stepping(problem, size, 0.02) for size in (4, 32, 256)]
    assert curve.steps.tolist() == slow


def test_batch_sizes_come_out_in_order_and_once():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(20))
    curve = steps_curve(problem, "sgd", [64, 4, 64], 0.02)
    assert curve.batch_sizes.tolist() == [4, 64]
    assert curve.examples.tolist() == (curve.batch_sizes * curve.steps).tolist()


def test_what_nothing_reaches_is_infinite_none_and_said_in_words():
    curve = made_up([None, 100], [1, 4])
    assert curve.steps.tolist() == [math.inf, 100]
    assert curve.to_dict()["cells"][0]["steps"] is None
    assert "          1  unreachable" in str(curve)


# Critical batch sizes of the reference: least squares on log steps at 4^1 to 4^10.
# Momentum's are of slightly more steps than the search finds: they lie a bit lower.
KNOWN = [
    ("sgd", 0.0, 821, 0.002),
    ("sgd", 0.25, 3147, 0.002),
    ("sgd", 0.5, 18.0e3, 0.004),
    ("sgd", 0.75, 121e3, 0.005),
    ("ema", 0.0, 108, 0.005),
    ("ema", 0.25, 1072, 0.002),
    ("ema", 0.5, 9.9e3, 0.006),
    ("ema", 0.75, 85.7e3, 0.002),
    ("momentum", 0.0, 36.5e3, 0.02),
    ("momentum", 0.25, 45.7e3, 0.02),
    ("momentum", 0.5, 85.4e3, 0.02),
    ("momentum", 0.75, 217e3, 0.005),
]


@pytest.mark.parametrize(("name", "power", "phi", "tolerance"), KNOWN)
def test_the_critical_batch_size_is_the_known_one(name, power, phi, tolerance):
    problem = NoisyQuadratic(spectrum=PUBLISHED, preconditioner_power=power)
    fit = fit_curve(steps_curve(problem, name, BATCH_SIZES, 0.01))
    assert fit.critical_batch_size == pytest.approx(phi, rel=tolerance)
    assert 0.15 < fit.misfit < 0.47
    assert fit.knee.knee_exponent > 1.3
    assert fit.knee_misfit < 0.1


@settings(max_examples=12, deadline=None)
@given(
    st.floats(1e4, 1e6), st.floats(2, 4), st.sampled_from([1.0, 1.5, 2.5]), st.data()
)
def test_a_curve_that_follows_a_law_gives_that_law_back(least, decades, knee, data):
    law = ConvergenceLaw(
        min_steps=least, min_examples=least * 10**decades, knee_exponent=knee
    )
    gaps = data.draw(st.lists(st.none(), max_size=2))
    steps = [*gaps, *np.round(law.steps(BATCH_SIZES))[len(gaps) :]]
    fit = fit_curve(made_up(steps))
    assert fit.knee.knee_exponent == pytest.approx(knee, rel=0.01)
    assert fit.knee.critical_batch_size == pytest.approx(10**decades, rel=0.01)
    assert fit.knee_misfit < 1e-3
    assert (fit.misfit < 1e-3) == (knee == 1)


def test_the_inverse_law_is_the_least_squares_one():
    steps = np.array([9000.0, 2300, 600, 200, 120, 100, 98, 97, 97, 97])
    fit = fit_curve(made_up(steps))

    def squares(law):
        return float((np.log(law.steps(BATCH_SIZES) / steps) ** 2).sum())

    least = squares(fit.inverse)
    for factor in (0.99, 1.01):
        for field in ("min_steps", "min_examples"):
            values = {
                "min_steps": fit.inverse.min_steps,
                "min_examples": fit.inverse.min_examples,
            }
            values[field] *= factor
            assert squares(ConvergenceLaw(**values)) > least
    # The fit of measured runs weighs equal runs equally: it is the same law.
    runs = fit_convergence(BATCH_SIZES, steps, law="inverse")
    assert runs.law.critical_batch_size == pytest.approx(fit.critical_batch_size)


def test_the_law_breaks_at_the_corner_where_it_has_too_many_steps():
    problem = NoisyQuadratic(spectrum=PUBLISHED, preconditioner_power=0.5)
    fit = fit_curve(steps_curve(problem, "sgd", BATCH_SIZES, 0.01))
    worst = max(fit.breaks(0.1), key=lambda one: abs(one.error))
    assert worst.batch_size == 4**7
    assert worst.error == pytest.approx(fit.misfit)
    assert 0 < np.log2(fit.critical_batch_size / worst.batch_size) < 1
    assert fit.breaks(0.5) == ()
    assert len(fit.breaks(0)) == len(BATCH_SIZES)


def test_a_break_names_the_batch_size_and_the_error():
    steps = np.round(ConvergenceLaw(min_steps=1e5, min_examples=1e8).steps(BATCH_SIZES))
    steps[4] *= 2
    (broken,) = [one for one in fit_curve(made_up(steps)).breaks(0.3)]
    assert isinstance(broken, Break)
    assert broken.batch_size == BATCH_SIZES[4]
    assert broken.error < 0


def test_steps_that_never_flatten_have_no_critical_batch_size():
    steps = [10**9 / size**1.05 for size in BATCH_SIZES]
    fit = fit_curve(made_up(steps))
    assert fit.critical_batch_size is None
    assert fit.to_dict()["critical_batch_size"] is None
    assert "no critical batch size" in str(fit)


def test_a_fit_as_a_dictionary_holds_laws_errors_and_cells():
    steps = [
        None,
        *ConvergenceLaw(min_steps=1e5, min_examples=1e8).steps(BATCH_SIZES)[1:],
    ]
    found = fit_curve(made_up(steps)).to_dict()
    assert found["inverse"]["name"] == "inverse"
    assert found["knee"]["knee_exponent"] == pytest.approx(1, abs=0.01)
    assert found["errors"][0] is None
    assert abs(found["errors"][1]) < 1e-3
    assert len(found["cells"]) == len(BATCH_SIZES)


def test_fewer_than_four_batch_sizes_are_refused():
    with pytest.raises(InputError, match="four batch sizes or more, got 3"):
        fit_curve(made_up([None, 900, 300, 100], [1, 4, 16, 64]))


def test_a_tolerance_below_zero_is_refused():
    fit = fit_curve(made_up([900, 300, 100, 90], [1, 4, 16, 64]))
    with pytest.raises(InputError, match="`tolerance` must not be negative"):
        fit.breaks(-0.1)


def test_batch_sizes_that_are_none_are_refused():
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(20))
    with pytest.raises(InputError, match="steps_curve: `batch_sizes` must be positive"):
        steps_curve(problem, "sgd", [4, 0], 0.02)
