"""The three-term loss law: closed forms, fits, and what it says of a target."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import loss_law_fit
from scipy import optimize

from rightbatch.convergence.fit import fit_convergence
from rightbatch.convergence.law import ConvergenceLaw
from rightbatch.convergence.losses.fit import fit_loss_law
from rightbatch.convergence.losses.law import LossLaw
from rightbatch.convergence.losses.surface import EXPONENTS
from rightbatch.errors import InputError

PARAMETERS = (
    "irreducible_loss",
    "batch_coefficient",
    "batch_exponent",
    "steps_coefficient",
    "steps_exponent",
)
LAW = LossLaw(
    irreducible_loss=1.8,
    batch_coefficient=6,
    batch_exponent=0.8,
    steps_coefficient=40,
    steps_exponent=0.5,
)
BATCH, STEPS = (
    grid.ravel().astype(float)
    for grid in np.meshgrid([8, 32, 128, 512], [100, 400, 1600, 6400])
)

laws = st.builds(
    LossLaw,
    irreducible_loss=st.floats(0, 5),
    batch_coefficient=st.floats(0.1, 100),
    batch_exponent=st.floats(0.3, 2),
    steps_coefficient=st.floats(0.1, 1000),
    steps_exponent=st.floats(0.3, 2),
)
rooms = st.floats(0.05, 3)


def noisy(seed, noise=0.02):
    generator = np.random.default_rng(seed)
    errors = generator.standard_normal(len(BATCH))
    return LAW.loss(BATCH, STEPS) * np.exp(noise * errors)


# Closed forms ------------------------------------------------------------------------


@given(law=laws, room=rooms, above=st.floats(1.01, 1e3))
def test_after_the_steps_to_a_target_the_loss_is_the_target(law, room, above):
    target = law.irreducible_loss + room
    batch = above * law.min_batch_size(target)
    steps = law.steps(batch, target)
    assert law.loss(batch, steps) == pytest.approx(target, rel=1e-9)


@given(law=laws, batch=st.floats(1, 1e5), steps=st.floats(1, 1e6), more=st.floats(1, 9))
def test_neither_more_steps_nor_larger_batches_raise_the_loss(law, batch, steps, more):
    here = law.loss(batch, steps) * (1 + 1e-12)
    assert law.loss(batch * more, steps) <= here
    assert law.loss(batch, steps * more) <= here


@given(law=laws, room=rooms, batch=st.floats(1, 1e5), more=st.floats(1, 9))
def test_larger_batches_never_take_more_steps(law, room, batch, more):
    target = law.irreducible_loss + room
    assert law.steps(batch * more, target) <= law.steps(batch, target) * (1 + 1e-12)


@given(law=laws, room=rooms)
def test_the_least_batch_size_is_where_the_steps_have_no_end(law, room):
    target = law.irreducible_loss + room
    least = law.min_batch_size(target)
    assert math.isinf(law.steps(least * (1 - 1e-9), target))
    assert math.isfinite(law.steps(least * (1 + 1e-6), target))
    room_at = optimize.brentq(
        lambda u: target - law.loss(math.exp(u), 1e300), -60, 60, xtol=1e-14
    )
    assert math.exp(room_at) == pytest.approx(least, rel=1e-9)


@given(law=laws, room=rooms)
def test_the_data_optimal_batch_size_is_where_the_examples_are_least(law, room):
    target = law.irreducible_loss + room
    curve = law.at_target(target)
    best = curve.data_optimal_batch_size

    def slope(log_batch):  # of ln examples, by a central difference
        h = 1e-4
        at = [math.log(curve.examples(math.exp(log_batch + k * h))) for k in (-2, -1)]
        at += [math.log(curve.examples(math.exp(log_batch + k * h))) for k in (1, 2)]
        return (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h)

    u = math.log(best)
    low = (math.log(curve.min_batch_size) + 3 * u) / 4
    found = optimize.brentq(slope, low, u + 2, xtol=1e-14)
    assert math.exp(found) == pytest.approx(best, rel=1e-9)
    around = curve.examples(best * np.array([0.99, 1, 1.01]))
    assert around[1] == around.min() == pytest.approx(curve.least_examples)


@given(law=laws, room=rooms)
def test_the_fewest_steps_are_those_of_an_endless_batch(law, room):
    curve = law.at_target(law.irreducible_loss + room)
    assert curve.steps(1e300) == pytest.approx(curve.min_steps, rel=1e-9)


@given(
    room=rooms,
    batch_coefficient=st.floats(0.1, 100),
    steps_coefficient=st.floats(0.1, 1000),
    above=st.floats(1.01, 1e3),
)
def test_with_both_exponents_one_it_is_the_inverse_law_with_a_floor(
    room, batch_coefficient, steps_coefficient, above
):
    curve = LossLaw(
        irreducible_loss=2,
        batch_coefficient=batch_coefficient,
        batch_exponent=1,
        steps_coefficient=steps_coefficient,
        steps_exponent=1,
    ).at_target(2 + room)
    law = ConvergenceLaw(
        min_steps=curve.min_steps,
        min_examples=curve.min_steps * curve.min_batch_size,
        min_batch_size=curve.min_batch_size,
    )
    batch = above * curve.min_batch_size
    assert curve.steps(batch) == pytest.approx(law.steps(batch), rel=1e-6)


@settings(max_examples=30)
@given(law=laws, room=rooms)
def test_left_of_the_data_optimal_batch_the_inverse_law_has_a_negative_floor(law, room):
    curve = law.at_target(law.irreducible_loss + room)
    least, best = curve.min_batch_size, curve.data_optimal_batch_size
    batch = np.geomspace(least * (best / least) ** 0.3, best, 5)
    # The weighted line E = E_min + S_min B: examples fall with the batch there.
    line = np.polyfit(batch, curve.examples(batch), 1)
    assert line[0] < 0
    fit = fit_convergence(batch, curve.steps(batch), law="inverse")
    assert fit.law.min_steps < 0


def test_a_negative_floor_does_not_prove_that_all_batches_are_left_of_it():
    curve = LAW.at_target(2.5)
    batch = np.geomspace(0.33, 2.2, 7) * curve.data_optimal_batch_size
    fit = fit_convergence(batch, curve.steps(batch), law="inverse")
    assert fit.law.min_steps < 0


def test_out_of_reach_is_infinite_and_no_noise_needs_no_batch():
    assert LAW.min_batch_size(1.8) == math.inf
    assert LAW.at_target(1.5).min_steps == math.inf
    assert LAW.at_target(1.5).least_examples == math.inf
    assert math.isinf(LAW.steps(1e9, 1.5))
    quiet = LossLaw(
        irreducible_loss=1,
        batch_coefficient=0,
        batch_exponent=1,
        steps_coefficient=10,
        steps_exponent=1,
    )
    assert quiet.min_batch_size(2) == quiet.at_target(2).least_examples == 0
    assert quiet.steps(1, 2) == 10


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("irreducible_loss", math.nan),
        ("batch_coefficient", -1),
        ("batch_exponent", 0),
        ("steps_coefficient", -1),
        ("steps_exponent", -0.5),
    ],
)
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"LossLaw: `{name}` must"):
        LossLaw(**{**dict.fromkeys(PARAMETERS, 1.0), name: value})
    with pytest.raises(InputError, match="`target` must be a finite number"):
        LAW.at_target(math.inf)


# Fits --------------------------------------------------------------------------------


@settings(max_examples=20)
@given(law=laws)
def test_a_table_of_the_law_gives_the_law_back(law):
    fit = fit_loss_law(BATCH, STEPS, law.loss(BATCH, STEPS))
    fitted = fit.law.loss(BATCH, STEPS)
    assert fitted == pytest.approx(law.loss(BATCH, STEPS), rel=1e-4)


def test_a_table_of_the_law_gives_the_parameters_back():
    fit = fit_loss_law(BATCH, STEPS, LAW.loss(BATCH, STEPS))
    for name in PARAMETERS:
        assert getattr(fit.law, name) == pytest.approx(getattr(LAW, name), rel=1e-5)
    assert fit.status == "ok"


@pytest.mark.parametrize("seed", range(4))
def test_no_general_search_from_many_starts_does_better(seed):
    losses = noisy(seed)
    fit = fit_loss_law(BATCH, STEPS, losses)
    _, squares = loss_law_fit(BATCH, STEPS, losses, fit.rows.scale, EXPONENTS)
    assert fit.optimum.squares <= squares * (1 + 1e-7)


def test_the_intervals_cover_the_truth_nine_times_in_ten():
    # 60 tables of 16 rows, 2 % noise: .9 +- 3 s.d. of a binomial, .116.
    names = ("min_batch_size", "data_optimal_batch_size", "min_steps")
    truth = LAW.at_target(2.5)
    covered = dict.fromkeys((*PARAMETERS, *names), 0)
    for seed in range(60):
        fit = fit_loss_law(BATCH, STEPS, noisy(seed))
        found = fit.at_target(2.5)
        for name in PARAMETERS:
            covered[name] += getattr(LAW, name) in getattr(fit, name)
        for name in names:
            covered[name] += getattr(truth, name) in getattr(found, name)
    for name, count in covered.items():
        assert count / 60 == pytest.approx(0.9, abs=0.116), name


def test_draws_repeat_with_their_seed_and_hold_the_fit_in_their_middle():
    fit = fit_loss_law(BATCH, STEPS, noisy(1))
    draws = fit.draws(400, seed=3)
    assert np.array_equal(draws.batch_exponent, fit.draws(400, seed=3).batch_exponent)
    for name in PARAMETERS:
        value = getattr(fit.law, name)
        assert np.median(getattr(draws, name)) == pytest.approx(value, rel=0.05)


def test_the_steps_of_a_draw_are_those_of_its_law():
    draws = fit_loss_law(BATCH, STEPS, noisy(1)).draws(5)
    one = LossLaw(**{name: getattr(draws, name)[2] for name in PARAMETERS})
    curve = one.at_target(2.6)
    assert draws.steps([1, 64, 512], 2.6)[2] == pytest.approx(curve.steps([1, 64, 512]))
    assert draws.min_steps(2.6)[2] == pytest.approx(curve.min_steps)
    assert draws.min_batch_size(2.6)[2] == pytest.approx(curve.min_batch_size)
    best = draws.data_optimal_batch_size(2.6)[2]
    assert best == pytest.approx(curve.data_optimal_batch_size)


def test_losses_of_any_unit_give_the_same_law():
    fit = fit_loss_law(BATCH, STEPS, noisy(2))
    scaled = fit_loss_law(BATCH, STEPS, 1000 * noisy(2))
    assert scaled.law.batch_exponent == pytest.approx(fit.law.batch_exponent, rel=1e-6)
    assert scaled.law.irreducible_loss == pytest.approx(1e3 * fit.law.irreducible_loss)


@pytest.mark.parametrize(
    ("batch", "steps", "message"),
    [
        ([64], [100, 200, 400, 800, 1600, 3200], "one of the batch sizes"),
        ([64, 256], [100, 400, 1600], "two of the batch sizes"),
        ([8, 32, 64, 128, 256, 512], [1000], "one of the numbers of steps"),
    ],
)
def test_too_few_of_either_are_unidentifiable_and_it_is_said(batch, steps, message):
    grid = [axis.ravel() for axis in np.meshgrid(batch, steps)]
    fit = fit_loss_law(*grid, LAW.loss(*grid))
    assert fit.status == "unidentifiable"
    assert message in fit.advice


def test_a_loss_that_does_not_depend_on_the_batch_is_unidentifiable():
    generator = np.random.default_rng(0)
    losses = (1.5 + 40 / STEPS**0.5) * np.exp(0.01 * generator.standard_normal(16))
    fit = fit_loss_law(BATCH, STEPS, losses)
    assert fit.status == "unidentifiable"
    assert "hardly depends on the batch sizes, 8 to 512: run 1 and 8192" in fit.advice
    assert None in (fit.batch_exponent.low, fit.batch_exponent.high)


def test_a_wide_exponent_is_unidentifiable():
    fit = fit_loss_law(BATCH, STEPS, noisy(0, noise=0.2))
    assert fit.status == "unidentifiable"


def test_a_table_that_the_law_does_not_fit_is_a_misfit():
    wave = 1 + 0.2 * np.sin(3 * np.log(BATCH)) * np.cos(2 * np.log(STEPS))
    losses = [LAW.loss(BATCH, STEPS) * wave * (1 + e) for e in (-0.001, 0.001, 0)]
    fit = fit_loss_law(np.tile(BATCH, 3), np.tile(STEPS, 3), np.concatenate(losses))
    assert fit.status in ("misfit", "unidentifiable")
    assert fit.degrees == len(BATCH) - 5  # the residuals alone set the intervals


# A target ----------------------------------------------------------------------------


def test_a_target_below_the_irreducible_loss_is_said_to_be_out_of_reach():
    fit = fit_loss_law(BATCH, STEPS, noisy(0, noise=0.005))
    found = fit.at_target(1.2)
    assert not found.is_reachable
    assert "by this law no batch size and no number of steps" in found.warnings[0]
    assert "an extrapolation: no run came below" in found.warnings[1]
    assert found.min_steps.value is found.min_steps.high is None
    assert set(found.curve()["steps"]) == {None}


def test_a_target_near_the_irreducible_loss_may_be_out_of_reach():
    fit = fit_loss_law(BATCH, STEPS, noisy(0))
    assert fit.irreducible_loss.high is not None
    found = fit.at_target(0.99 * fit.irreducible_loss.high)
    assert "may be out of reach" in found.warnings[0]


def test_a_target_that_runs_reached_needs_no_warning():
    fit = fit_loss_law(BATCH, STEPS, noisy(0))
    found = fit.at_target(2.6)
    assert found.warnings == ()
    assert found.steps(64) == fit.law.steps(64, 2.6)
    entry = fit.to_dict(2.6)
    assert entry["at_target"]["min_batch_size"]["unit"] == "examples"
    assert len(entry["at_target"]["curve"]["steps"]) == 60


def test_units_are_carried():
    fit = fit_loss_law(BATCH, STEPS, noisy(0), example_unit="token")
    assert fit.at_target(2.6).data_optimal_batch_size.unit == "tokens"
    assert fit.to_dict()["at_target"] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([8] * 5, [9] * 5, [1] * 5), "needs six rows or more .* got 5"),
        (([8] * 6, [9] * 6, [1] * 5), "must pair up, got 6, 6 and 5"),
        (([8] * 6, [9] * 6, [1] * 5 + [0]), "`losses` must be positive, got 0 at 5"),
        (([8] * 6, [0] * 6, [1] * 6), "`steps` must be positive, got 0 at 0"),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        fit_loss_law(*rows)


@pytest.mark.parametrize("target", [0.5, 1.5, 2, 50])
def test_flat_rising_and_noiseless_tables_still_have_an_answer(target):
    for losses in (
        np.full(16, 2.0),
        1 + STEPS / 1000,
        1 + 3 / BATCH,
        np.exp(np.random.default_rng(0).standard_normal(16)),
    ):
        fit = fit_loss_law(BATCH, STEPS, losses)
        assert fit.status == "unidentifiable"
        entry = fit.to_dict(target)["at_target"]
        assert not any(
            value is not None and math.isnan(value) for value in entry["curve"]["high"]
        )
