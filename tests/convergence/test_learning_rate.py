"""The best learning rate against the batch size: optima, exponents, saturation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.convergence.learning_rate import fit_learning_rate
from rightbatch.convergence.lr_optimum import lr_optimum, pooled_noise
from rightbatch.convergence.tuning import fit_tuned
from rightbatch.errors import InputError

BATCHES = [8 * 4**i for i in range(6)]


def sweep(best_lr, batches, rates, *, noise=0.0, seeds=1, seed=0, skew=0.1):
    """Return batch sizes, rates and steps of a sweep with a skewed valley."""
    generator = np.random.default_rng(seed)
    rows = []
    for batch in batches:
        for rate in rates:
            off = math.log(rate / best_lr(batch))
            height = 0.45 * off**2 + skew * max(off, -1.5) ** 3
            steps = (100 + 5000 / batch) * math.exp(height)
            errors = np.exp(noise * generator.standard_normal(seeds))
            rows += [(batch, rate, steps * error) for error in errors]
    return tuple(zip(*rows, strict=True))


def power(exponent):
    return lambda batch: 0.02 * (batch / 8) ** exponent


def saturating(exponent, phi):
    return lambda batch: (1 + phi / batch) ** -exponent


RATES = [0.003 * 2**i for i in range(14)]


# One batch size ----------------------------------------------------------------------


@given(
    log_lr=st.floats(math.log(0.02), math.log(5)),
    bend=st.floats(0.1, 3),
    factor=st.floats(1.3, 3),
)
def test_the_floor_of_a_parabola_is_found_between_the_rates(log_lr, bend, factor):
    rates = np.geomspace(0.01, 10, 1 + round(math.log(1000) / math.log(factor)))
    cells = {
        rate: [100 * math.exp(bend * (math.log(rate) - log_lr) ** 2)] for rate in rates
    }
    found = lr_optimum(8, cells, noise=0.001)
    if not found.excluded:
        assert math.log(found.lr) == pytest.approx(log_lr, abs=1e-6)


def test_an_optimum_at_the_edge_is_a_bound():
    cells = {0.1: [100.0], 0.2: [150.0], 0.4: [300.0]}
    assert lr_optimum(8, cells, 0.05).excluded == "edge"
    rising = {0.1: [300.0], 0.2: [150.0], 0.4: [100.0]}
    assert lr_optimum(8, rising, 0.05).excluded == "edge"


def test_steps_that_hardly_depend_on_the_rate_have_no_optimum():
    cells = {rate: [100.0 + rate] for rate in (0.1, 0.2, 0.4, 0.8)}
    assert lr_optimum(8, cells, 0.05).excluded == "flat"
    one_side = {0.1: [300.0], 0.2: [104.0], 0.4: [100.0], 0.8: [103.0]}
    assert lr_optimum(8, one_side, 0.05).excluded == "flat"


def test_two_rates_enclose_nothing():
    assert lr_optimum(8, {0.1: [100.0], 0.2: [90.0]}, 0.05).excluded == "few rates"


def test_a_rate_that_misses_is_a_side_of_the_valley():
    cells = {0.1: [180.0], 0.2: [100.0], 0.4: [math.nan, 90.0]}
    found = lr_optimum(8, cells, 0.05)
    assert (found.lr, found.excluded) == (pytest.approx(0.2), "")
    assert found.log_error == pytest.approx(math.log(2) / math.sqrt(12))
    assert lr_optimum(8, {0.1: [math.nan]}, 0.05).excluded == "unreached"


def test_noise_widens_the_error_of_an_optimum():
    cells = {rate: [100 * (1 + math.log(rate / 0.2) ** 2)] for rate in RATES}
    errors = [lr_optimum(8, cells, noise).log_error for noise in (0.01, 0.05, 0.2)]
    assert errors == sorted(errors)


def test_the_noise_of_repeats_outweighs_what_is_usual():
    generator = np.random.default_rng(0)
    runs = (100 * (1 + 0.03 * generator.standard_normal(400))).tolist()
    assert pooled_noise({8: {0.1: runs}}) == pytest.approx(0.03, rel=0.1)
    assert pooled_noise({8: {0.1: [math.nan, 3.0]}}) == pytest.approx(0.1)


# The line ----------------------------------------------------------------------------


@given(exponent=st.floats(-0.5, 1.2))
def test_a_sweep_of_a_power_law_gives_its_exponent_back(exponent):
    rates = [0.002 * 2**i for i in range(20)] if exponent > 0 else RATES
    rates = [rate / 64 for rate in rates] + rates[-8:] if exponent < 0 else rates
    table = sweep(power(exponent), [8, 16, 32, 64, 128], sorted(set(rates)), skew=0)
    fit = fit_learning_rate(*table)
    assert fit.exponent.value == pytest.approx(exponent, abs=1e-6)
    assert exponent in fit.exponent


def test_rates_in_other_units_do_not_change_the_exponent():
    batch, rates, steps = sweep(power(0.7), BATCHES, RATES, noise=0.1, seeds=2)
    one = fit_learning_rate(batch, rates, steps)
    other = fit_learning_rate(batch, [1000 * rate for rate in rates], steps)
    assert other.exponent.value == pytest.approx(one.exponent.value)
    assert other.lr_at(50) == pytest.approx(1000 * one.lr_at(50))


@pytest.mark.parametrize(
    ("exponent", "noise", "seeds"), [(0.5, 0.1, 3), (0.7, 0.1, 3), (1.0, 0.2, 2)]
)
def test_nine_intervals_in_ten_cover_the_exponent(exponent, noise, seeds):
    # 300 tables, the grid of rates laid at random: .90 +- 2.3 binomial s.d. is .86-.94.
    generator = np.random.default_rng(7)
    covered = 0
    for seed in range(300):
        shift = math.exp(generator.uniform(0, math.log(2)))
        rates = [0.002 * shift * 2**i for i in range(17)]
        near = sweep(
            power(exponent), BATCHES, rates, noise=noise, seeds=seeds, seed=seed
        )
        covered += exponent in fit_learning_rate(*near).exponent
    assert 0.86 <= covered / 300 <= 0.94


def test_saturation_is_seen_where_it_is_and_only_there():
    batches = [2**i for i in range(10)]
    rates = [0.02 * 2**i for i in range(9)]
    found = power_found = covered = 0
    for seed in range(40):
        table = sweep(
            saturating(0.8, 45), batches, rates, noise=0.1, seeds=3, seed=seed
        )
        fit = fit_learning_rate(*table)
        found += fit.form == "saturating"
        covered += 45 in fit.plateau_batch_size
        table = sweep(power(0.6), BATCHES, RATES, noise=0.1, seeds=3, seed=seed)
        power_found += fit_learning_rate(*table).form == "power"
    assert found == 40
    assert power_found >= 38
    assert covered >= 33  # .9 of 40 less 1.6 s.d.


def test_a_saturating_law_is_flat_at_large_batches_and_a_power_at_small_ones():
    table = sweep(
        saturating(1, 45), [2**i for i in range(11)], [0.01 * 2**i for i in range(10)]
    )
    fit = fit_learning_rate(*table)
    assert fit.form == "saturating"
    assert fit.lr_at(1e9) == pytest.approx(fit.lr_at(1e8), rel=1e-3)
    ratio = fit.lr_at(0.02) / fit.lr_at(0.01)
    assert math.log2(ratio) == pytest.approx(fit.exponent.value, abs=0.01)


def test_without_saturation_its_batch_size_has_a_lower_end_alone():
    table = sweep(power(0.6), BATCHES, RATES, noise=0.05, seeds=3)
    found = fit_learning_rate(*table).plateau_batch_size
    assert found.value is found.high is None
    assert found.low > BATCHES[2]


# digits-mlp to a loss of .15, SGD, three seeds, by batch size and rate; empty where no
# seed arrived.
DIGITS = {
    4: {0.05: [], 0.1: [1420, 1420, 1420], 0.2: [1142, 816, 1420], 0.5: []},
    8: {0.1: [1055, 1055], 0.2: [754, 710, 710], 0.5: [754, 348, 769], 1: []},
    16: {0.1: [], 0.2: [528, 606, 528], 0.5: [362, 264, 355], 1: [442]},
    32: {0.2: [488], 0.5: [239, 264, 259], 1: [185, 212, 212], 2: []},
    64: {0.2: [], 0.5: [212, 212, 234], 1: [124, 127, 115], 2: []},
    128: {0.2: [], 0.5: [188, 196, 234], 1: [100, 110, 120], 2: []},
    256: {0.2: [], 0.5: [188, 196, 200], 1: [94, 98, 104], 2: []},
    512: {0.2: [], 0.5: [185, 178, 192], 1: [87, 94, 104], 2: []},
}


def test_the_digits_sweep_saturates_below_its_critical_batch_size():
    rows = [
        (batch, rate, count)
        for batch, cells in DIGITS.items()
        for rate, counts in cells.items()
        for count in [*counts, math.nan, math.nan, math.nan][:3]
    ]
    fit = fit_learning_rate(*zip(*rows, strict=True))
    assert (fit.form, fit.status, fit.warnings) == ("saturating", "ok", ())
    assert [round(o.lr, 6) for o in fit.optima] == [0.2, 0.5, 0.5, 1, 1, 1, 1, 1]
    assert fit.plateau_batch_size.value == pytest.approx(14.5, rel=0.05)
    assert 45 in fit.plateau_batch_size
    assert 1 in fit.exponent  # McCandlish: linear at first, for SGD
    assert fit.lr_at(512) == pytest.approx(1, rel=0.15)


def test_batches_at_the_edge_are_left_out_and_named():
    table = sweep(power(0.7), BATCHES, [r for r in RATES if r < 0.4])
    fit = fit_learning_rate(*table)
    excluded = [found.batch_size for found in fit.optima if found.excluded == "edge"]
    assert excluded in ([2048, 8192], [512, 2048, 8192])
    assert "the least or largest tried at batch sizes" in fit.warnings[0]
    assert "try learning rates beyond 0.384 at" in fit.advice
    assert fit.exponent.value == pytest.approx(0.7, abs=0.1)


def test_two_batches_are_too_few_for_a_line_and_it_is_said():
    fit = fit_learning_rate(*sweep(power(0.7), [8, 64], RATES))
    assert (fit.form, fit.status) == (None, "unidentifiable")
    assert fit.exponent.value is fit.lr_at(8) is fit.curve() is None
    assert "Two batch sizes have a best learning rate" in fit.advice
    assert "tune batch sizes 2 and 256 as well" in fit.advice
    low, high = fit.band([8])
    assert (low[0], high[0]) == (0, math.inf)


def test_batches_where_the_rate_does_not_matter_are_named():
    batch, rates, steps = sweep(power(0.7), BATCHES, RATES)
    flat = [100.0 if b >= 512 else s for b, s in zip(batch, steps, strict=True)]
    fit = fit_learning_rate(batch, rates, flat)
    assert any("hardly depend on the learning rate at" in w for w in fit.warnings)
    assert len([found for found in fit.optima if not found.excluded]) == 3


def test_a_wide_exponent_is_unidentifiable():
    table = sweep(power(0.7), [8, 11, 16], RATES, noise=0.3, seeds=2)
    fit = fit_learning_rate(*table)
    assert fit.status == "unidentifiable"
    assert "The exponent spans" in fit.advice


def test_the_band_holds_the_line():
    fit = fit_learning_rate(*sweep(power(0.7), BATCHES, RATES, noise=0.1, seeds=2))
    low, high = fit.band(BATCHES)
    line = [fit.lr_at(batch) for batch in BATCHES]
    assert (low < line).all()
    assert (line < high).all()
    curve = fit.to_dict()["curve"]
    assert len(curve["lr"]) == len(curve["low"]) == 40


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (([8], [0.1], [1, 2]), "must pair up, got 1, 1 and 2"),
        (([8], [-0.1], [1]), "`lrs` must be positive, got -0.1"),
        (([8], [0.1], [0]), "`steps` must be positive, got 0"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        fit_learning_rate(*rows)


# In a tuned fit ----------------------------------------------------------------------


def test_a_tuned_fit_carries_the_law_of_its_rates():
    batch, rates, steps = sweep(power(0.7), BATCHES, RATES, noise=0.05, seeds=2)
    entry = fit_tuned(batch, steps, rates).to_dict()
    assert entry["lr_law"]["form"] == "power"
    assert entry["lr_law"]["exponent"]["value"] == pytest.approx(0.7, abs=0.05)


def test_one_rate_has_no_law():
    tuned = fit_tuned([8, 64, 512], [500, 150, 112], [0.2] * 3)
    assert tuned.to_dict()["lr_law"] is None


def test_one_side_may_rise_by_little_where_the_other_is_steep():
    steps = {0.05: 650.0, 0.1: 500.0, 0.2: 650.0, 0.4: 1100.0, 0.8: 1850.0}
    found = lr_optimum(8, {rate: [count] for rate, count in steps.items()}, 0.1)
    assert not found.excluded
    assert found.lr == pytest.approx(0.1, rel=0.2)
