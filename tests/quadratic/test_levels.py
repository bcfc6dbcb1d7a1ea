"""Levels of a measured problem, calibrated on runs."""

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.levels import (
    CAVEAT,
    LossCurve,
    MeasuredRun,
    fit_levels_to_curves,
    fit_levels_to_runs,
    with_levels,
)

PROBLEM = NoisyQuadratic(spectrum=Spectrum.inverse(200), irreducible_loss=0.05)
TRUTH = with_levels(PROBLEM, noise=3.0, start=0.4, irreducible_loss=0.2)
SGD = Optimizer(name="sgd", lr=0.3)
STEPS = (1, 3, 10, 30, 100, 300, 1000, 3000)


def curve_of(problem, batch_size, scatter=0.0, optimizer=SGD):
    losses = loss_after(problem, optimizer, batch_size, STEPS)
    generator = np.random.default_rng(int(batch_size))
    losses = losses * np.exp(scatter * generator.normal(size=len(STEPS)))
    return LossCurve(
        optimizer=optimizer, batch_size=batch_size, steps=STEPS, losses=losses.tolist()
    )


def steps_of(problem, optimizer, batch_size, target):
    """Return steps as a real number: where a fine curve crosses, in logarithms."""
    grid = np.unique(np.round(np.geomspace(1, 1e5, 300))).astype(int)
    losses = loss_after(problem, optimizer, batch_size, grid)
    below = np.flatnonzero(losses <= target)
    if not below.size:
        return np.inf
    last = int(below[0])
    if last == 0:
        return 1.0
    logs = np.log(losses[last - 1 : last + 1])
    share = (logs[0] - np.log(target)) / (logs[0] - logs[1])
    return float(grid[last - 1] ** (1 - share) * grid[last] ** share)


def runs_of(problem, target, batch_sizes=(16, 64, 256, 1024, 4096)):
    return [
        MeasuredRun(
            optimizer=SGD, batch_size=size, steps=steps_of(problem, SGD, size, target)
        )
        for size in batch_sizes
    ]


def test_levels_multiply_what_was_measured():
    assert (TRUTH.noise_variances == 3 * PROBLEM.noise_variances).all()
    assert (TRUTH.start == 0.4).all()
    assert TRUTH.irreducible_loss == 0.2
    assert with_levels(PROBLEM).irreducible_loss == 0.05


def test_curves_of_the_model_itself_give_its_levels_back():
    curves = [curve_of(TRUTH, size) for size in (4, 64)]
    fit = fit_levels_to_curves(PROBLEM, curves)
    assert fit.levels["noise"].value == pytest.approx(3.0, rel=1e-5)
    assert fit.levels["start"].value == pytest.approx(0.4, rel=1e-5)
    assert fit.levels["irreducible_loss"].value == pytest.approx(0.2, rel=1e-5)
    assert fit.misfit < 1e-6
    assert fit.num_points == 16
    np.testing.assert_allclose(fit.problem.start, TRUTH.start, rtol=1e-5)


def test_intervals_cover_the_levels_of_scattered_curves():
    curves = [curve_of(TRUTH, size, scatter=0.05) for size in (2, 8, 32, 128)]
    fit = fit_levels_to_curves(PROBLEM, curves, level=0.99)
    assert 3.0 in fit.levels["noise"]
    assert 0.4 in fit.levels["start"]
    assert 0.2 in fit.levels["irreducible_loss"]
    assert fit.misfit == pytest.approx(0.05, rel=0.4)
    assert all(level.is_bounded for level in fit.levels.values())


def test_a_level_that_is_not_free_stays():
    curves = [curve_of(TRUTH, 16)]
    known = with_levels(PROBLEM, start=0.4, irreducible_loss=0.2)
    fit = fit_levels_to_curves(known, curves, free=("noise",))
    assert list(fit.levels) == ["noise"]
    assert fit.levels["noise"].value == pytest.approx(3.0, rel=1e-6)
    assert fit.problem.irreducible_loss == 0.2


def test_steps_of_the_model_itself_give_its_levels_back():
    known = with_levels(PROBLEM, irreducible_loss=0.2)
    fit = fit_levels_to_runs(known, runs_of(TRUTH, 0.35), 0.35, steps_of)
    assert fit.levels["noise"].value == pytest.approx(3.0, rel=0.01)
    assert fit.levels["start"].value == pytest.approx(0.4, rel=0.01)
    assert fit.misfit < 1e-3


def test_one_factor_can_be_fitted_to_one_run_but_has_no_interval():
    known = with_levels(PROBLEM, start=0.4, irreducible_loss=0.2)
    runs = runs_of(TRUTH, 0.35, [16])
    fit = fit_levels_to_runs(known, runs, 0.35, steps_of, free=["noise"])
    assert fit.levels["noise"].value == pytest.approx(3.0, rel=0.01)
    assert not fit.levels["noise"].is_bounded
    assert any("as many levels as measurements" in text for text in fit.warnings)


def test_the_caveat_always_comes_along():
    fit = fit_levels_to_curves(PROBLEM, [curve_of(TRUTH, 16)])
    assert fit.warnings[0] == CAVEAT
    document = fit.to_dict()
    assert document["warnings"][0] == CAVEAT
    assert set(document["levels"]) == {"noise", "start", "irreducible_loss"}
    assert "noise 3 times as measured" in str(fit)


def test_levels_that_cannot_be_told_apart_are_warned_of():
    # After very few small steps nearly everything is the start, and the noise shows
    # in the last digits alone.
    slow = Optimizer(name="sgd", lr=1e-5)
    curve = curve_of(TRUTH, 1e6, optimizer=slow, scatter=1e-9)
    fit = fit_levels_to_curves(PROBLEM, [curve], free=("noise", "start"))
    assert len(fit.warnings) > 1
    assert not fit.levels["noise"].is_bounded
    constant = fit_levels_to_curves(
        PROBLEM, [curve], free=("start", "irreducible_loss")
    )
    assert any("hardly tell start from irreducible" in w for w in constant.warnings)


def test_a_run_without_noise_is_fitted_with_next_to_none():
    truth = with_levels(PROBLEM, noise=0.0)
    fit = fit_levels_to_curves(PROBLEM, [curve_of(truth, 4)], free=("noise",))
    assert fit.levels["noise"].value < 1e-3
    assert fit.misfit < 1e-3


def test_a_level_at_the_end_of_its_range_has_no_interval():
    truth = with_levels(PROBLEM, irreducible_loss=-0.02)
    fit = fit_levels_to_curves(PROBLEM, [curve_of(truth, 8), curve_of(truth, 16)])
    floor = fit.levels["irreducible_loss"]
    assert floor.value == pytest.approx(0, abs=1e-4)
    assert not floor.is_bounded
    assert any("irreducible_loss ran to the end" in text for text in fit.warnings)


CURVE = curve_of(TRUTH, 16)
RUN = MeasuredRun(optimizer=SGD, batch_size=4, steps=100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: with_levels(PROBLEM, noise=-1), "`noise` must not be negative"),
        (lambda: with_levels(PROBLEM, start=-1), "`start` must not be negative"),
        (lambda: fit_levels_to_curves(PROBLEM, []), "`curves` must not be empty"),
        (
            lambda: fit_levels_to_curves(PROBLEM, [CURVE], free=()),
            r"`free` must name levels, each once, got \(\)",
        ),
        (
            lambda: fit_levels_to_curves(PROBLEM, [CURVE], free=("noise", "noise")),
            "each once",
        ),
        (
            lambda: fit_levels_to_curves(PROBLEM, [CURVE], free=("nois",)),
            "did you mean noise",
        ),
        (
            lambda: fit_levels_to_curves(PROBLEM, [CURVE], level=90),
            "`level` must be between 0 and 1",
        ),
        (
            lambda: fit_levels_to_curves(
                NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0), [CURVE]
            ),
            "must have no label noise",
        ),
        (
            lambda: fit_levels_to_curves(
                PROBLEM,
                [
                    LossCurve(
                        optimizer=Optimizer(name="sgd", lr=30.0),
                        batch_size=1,
                        steps=[10**6],
                        losses=[1.0],
                    )
                ],
                free=("noise",),
            ),
            "must be of runs that are stable in the model",
        ),
        (
            lambda: fit_levels_to_runs(PROBLEM, [], 0.3, steps_of),
            "`runs` must not be empty",
        ),
        (
            lambda: fit_levels_to_runs(PROBLEM, [RUN], 0.3, steps_of),
            "at least as many measurements as levels, got 1",
        ),
        (
            lambda: fit_levels_to_runs(PROBLEM, [RUN, RUN], 0.01, steps_of),
            "`target` must be above the irreducible loss 0.05",
        ),
        (
            lambda: MeasuredRun(optimizer=SGD, batch_size=0, steps=1),
            "MeasuredRun: `batch_size` must be positive",
        ),
        (
            lambda: MeasuredRun(optimizer=SGD, batch_size=1, steps=0),
            "MeasuredRun: `steps` must be positive",
        ),
        (
            lambda: LossCurve(optimizer=SGD, batch_size=-1, steps=[1], losses=[1.0]),
            "LossCurve: `batch_size` must be positive",
        ),
        (
            lambda: LossCurve(optimizer=SGD, batch_size=1, steps=[1], losses=[0.0]),
            "LossCurve: `losses` must be positive, got 0 at 0",
        ),
        (
            lambda: LossCurve(optimizer=SGD, batch_size=1, steps=[1, 2], losses=[1.0]),
            "`losses` must be as many as `steps`, got 1 and 2",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
