"""What each rule says, against known numbers and against what it is meant to keep."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.convergence.equivalents import best_lr, gain
from rightbatch.convergence.law import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.lr_scaling import rules

ratios = st.floats(1 / 64, 64)
batches = st.floats(1, 1e6)
decays = st.floats(0, 0.9999)


def test_known_answers():
    assert rules.half_life_decay(0.95, 1 / 16) == pytest.approx(0.99680, abs=5e-6)
    assert rules.sde_eps(1e-8, 16) == pytest.approx(2.5e-9)
    assert rules.sde_decay(0.999, 16) == pytest.approx(0.984)
    assert rules.linear_factor(8) == 8
    assert rules.square_root_factor(8) == pytest.approx(math.sqrt(8))
    assert rules.power_factor(16, 0.25) == pytest.approx(2)


@given(batch=batches, ratio=ratios, phi=st.floats(0.1, 1e6))
def test_the_gain_is_the_ratio_of_steps_under_the_inverse_law(batch, ratio, phi):
    law = ConvergenceLaw(min_steps=100, min_examples=100 * phi)
    found = rules.adascale_gain(batch, ratio * batch, phi)
    assert found == pytest.approx(law.steps(batch) / law.steps(ratio * batch))
    assert found == pytest.approx(gain(ratio * batch, phi, reference=batch), rel=1e-12)
    assert min(1, ratio) * (1 - 1e-12) <= found <= max(1, ratio) * (1 + 1e-12)


@given(batch=batches, ratio=ratios)
def test_the_gain_is_linear_below_the_noise_scale_and_flat_above(batch, ratio):
    far_below = rules.adascale_gain(batch, ratio * batch, 1e12 * batch)
    assert far_below == pytest.approx(ratio, rel=1e-9)
    assert rules.adascale_gain(batch, ratio * batch, 0) == 1


@given(batch=batches, ratio=ratios, phi=st.floats(0.1, 1e6))
def test_mccandlish_s_best_rates_stand_in_the_ratio_of_the_gain(batch, ratio, phi):
    old, new = best_lr([batch, ratio * batch], phi, lr_max=0.4)
    assert new / old == pytest.approx(rules.adascale_gain(batch, ratio * batch, phi))


@given(decay=st.floats(0.01, 0.9999), ratio=ratios)
def test_half_life_in_examples_is_kept_and_never_leaves_its_range(decay, ratio):
    new = rules.half_life_decay(decay, ratio)
    assert 0 <= new < 1
    if new > 1e-300:
        assert ratio / -math.log(new) == pytest.approx(1 / -math.log(decay), rel=1e-9)


def test_half_life_is_safe_where_the_differential_equation_turns_negative():
    with pytest.raises(InputError, match="is negative. .half_life_decay is safe"):
        rules.sde_decay(0.9, 16)
    assert rules.half_life_decay(0.9, 16) == pytest.approx(0.9**16)


@given(ratio=ratios)
def test_both_rules_for_averages_agree_where_little_is_forgotten(ratio):
    decay = 1 - 1e-6
    by_sde, by_half_life = (
        rules.sde_decay(decay, ratio),
        rules.half_life_decay(decay, ratio),
    )
    assert 1 - by_sde == pytest.approx(1 - by_half_life, rel=1e-4)


def test_an_average_that_is_off_stays_off():
    assert rules.sde_decay(0, 8) == rules.sde_decay(0, 0.5) == 0
    assert rules.half_life_decay(0, 8) == 0


@given(batch=batches, ratio=ratios, factor=ratios, decay=st.floats(1e-4, 1))
def test_weight_decay_keeps_its_timescale(batch, ratio, factor, decay):
    new = rules.kept_timescale_decay(decay, factor, ratio)
    before = rules.timescale(batch, 0.1, decay, 1e9)
    after = rules.timescale(ratio * batch, 0.1 * factor, new, 1e9)
    assert after == pytest.approx(before)


@given(epochs=st.floats(0, 50), ratio=ratios)
def test_legw_leaves_the_number_of_warmup_steps_unchanged(epochs, ratio):
    examples_per_epoch, batch = 50_000, 256
    before = epochs * examples_per_epoch / batch
    after = rules.legw_warmup_epochs(epochs, ratio) * examples_per_epoch
    assert after / (ratio * batch) == pytest.approx(before)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rules.linear_factor(0), "linear_factor: `ratio` must be positive"),
        (lambda: rules.square_root_factor(-1), "`ratio` must be positive"),
        (lambda: rules.power_factor(2, math.inf), "`exponent` must be a finite number"),
        (lambda: rules.adascale_gain(1, 2, -3), "`noise_scale` must not be negative"),
        (lambda: rules.adascale_gain(0, 1, 2), "`from_batch` must be positive"),
        (lambda: rules.sde_decay(1, 2), r"`decay` must be in \[0, 1\), got 1"),
        (lambda: rules.half_life_decay(-0.1, 2), r"`decay` must be in \[0, 1\)"),
        (lambda: rules.timescale(1, 1, 0, 1), "`weight_decay` must be positive"),
        (lambda: rules.same_progress_steps(-1, 2), "`steps` must not be negative"),
    ],
)
def test_impossible_arguments_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
