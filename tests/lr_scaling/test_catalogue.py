"""Rules by name, and the cheap factor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.lr_scaling import LR_RULES, find_rule, lr_factor, steps_factor

NAMES = [*LR_RULES.keys() - {"power"}, "power:0.4", "power:exponent=0.7"]
batches = st.floats(1, 1e6)


@given(
    rule=st.sampled_from(NAMES), a=batches, b=batches, c=batches, phi=st.floats(1, 1e5)
)
def test_factors_chain_so_that_there_and_back_is_one(rule, a, b, c, phi):
    direct = lr_factor(rule, a, c, phi)
    assert lr_factor(rule, a, b, phi) * lr_factor(rule, b, c, phi) == pytest.approx(
        direct, rel=1e-12
    )
    there_and_back = lr_factor(rule, a, b, phi) * lr_factor(rule, b, a, phi)
    assert there_and_back == pytest.approx(1, rel=1e-12)


@given(rule=st.sampled_from(NAMES), a=batches, b=batches, phi=st.floats(1, 1e5))
def test_no_rule_but_half_life_lowers_the_rate_for_a_larger_batch(rule, a, b, phi):
    small, large = sorted((a, b))
    assert 1 - 1e-12 <= lr_factor(rule, small, large, phi) <= large / small + 1e-9


def test_known_factors():
    assert lr_factor("linear", 256, 2048) == 8
    assert lr_factor("square-root", 256, 1024) == 2
    assert lr_factor("legw", 256, 1024) == lr_factor("adam_sde", 256, 1024) == 2
    assert lr_factor("half_life", 256, 1024) == 1
    assert lr_factor("adascale", 256, 2048, 700) == pytest.approx(2.7831, abs=5e-5)
    assert lr_factor("noise_scale", 256, 2048, 700) == lr_factor(
        "adascale", 256, 2048, 700
    )
    assert lr_factor("adascale_adam", 256, 2048, 700) ** 2 == pytest.approx(
        lr_factor("adascale", 256, 2048, 700)
    )


def test_only_adascale_has_a_clock_of_its_own():
    assert steps_factor("adascale", 256, 2048, 700) == lr_factor(
        "adascale", 256, 2048, 700
    )
    assert steps_factor("noise_scale", 256, 2048, 700) == 8


def test_every_rule_says_where_it_is_from_and_when_it_holds():
    for rule in LR_RULES.values():
        assert rule.formula
        assert rule.source
        assert rule.holds_when


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("adascal", "did you mean adascale"),
        ("wizardry", "one of linear, square_root"),
        ("power", "needs its exponent, got 'power'. .write power:0.4"),
        ("power:steep", "needs its exponent"),
        ("linear:2", "linear takes no parameter"),
        ("adascale", "needs a noise scale. .give `noise_scale`.*or use linear"),
        ("adascale_adam", "needs a noise scale.*or use square_root"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_with_the_way_out(rule, words):
    with pytest.raises(InputError, match=words):
        lr_factor(rule, 256, 2048)


def test_batch_sizes_and_noise_scales_must_be_positive():
    with pytest.raises(InputError, match="`from_batch` must be positive"):
        lr_factor("linear", 0, 1)
    with pytest.raises(InputError, match="`to_batch` must be positive"):
        lr_factor("linear", 1, -1)
    with pytest.raises(InputError, match="`noise_scale` must be positive"):
        lr_factor("adascale", 1, 2, 0)


def test_a_power_keeps_its_exponent():
    assert find_rule("power:0.4")[1] == find_rule("power:exponent=0.4")[1] == 0.4
