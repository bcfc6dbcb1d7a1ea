"""Transfers: what changes, what warns, and the way back."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.lr_scaling import LR_RULES, Settings, transfer

NAMES = [*LR_RULES.keys() - {"power"}, "power:0.4"]
ADAMW = Settings(
    optimizer="adamw",
    lr=0.1,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=0.1,
    ema_decay=0.9999,
    warmup_steps=100,
    total_steps=10_000,
    dataset_size=50_000,
)
SGD = Settings(optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4)


def changed(found):
    return {one.setting: one.new for one in found.changes}


decay = st.floats(0.05, 0.9999)
adam_settings = st.builds(
    Settings,
    optimizer=st.just("adamw"),
    lr=st.floats(1e-5, 10),
    beta1=decay,
    beta2=decay,
    eps=st.floats(1e-12, 1e-2),
    weight_decay=st.floats(1e-6, 1),
    ema_decay=decay,
    warmup_steps=st.floats(0, 100),
    total_steps=st.floats(100, 1e6),
)


@given(
    settings=adam_settings,
    rule=st.sampled_from(NAMES),
    batch=st.floats(8, 4096),
    ratio=st.floats(1 / 32, 32),
    phi=st.floats(10, 1e5),
)
def test_there_and_back_by_one_rule_is_the_identity(settings, rule, batch, ratio, phi):
    # Past these the differential equation has no average to offer (see below), and a
    # power underflows.
    if rule == "adam_sde":
        assume(ratio * (1 - settings.beta1) < 0.999)
        assume(ratio * (1 - settings.beta2) < 0.999)
    other = ratio * batch
    there = transfer(settings, batch, other, rule=rule, noise_scale=phi)
    back = transfer(there.settings, other, batch, rule=rule, noise_scale=phi)
    # 1 - beta loses digits where the ratio is small: a few more than the last ones.
    assert back.settings.given() == pytest.approx(settings.given(), rel=1e-12)


@given(settings=adam_settings, rule=st.sampled_from(["auto", *NAMES]))
def test_a_reversed_transfer_gives_the_old_settings_back_exactly(settings, rule):
    there = transfer(settings, 256, 8192, rule=rule, noise_scale=700)
    back = there.reversed()
    assert back.settings == settings
    assert back.old == there.settings
    assert (back.from_batch, back.to_batch) == (8192, 256)
    assert back.lr_factor * there.lr_factor == pytest.approx(1)
    assert back.reversed().settings == there.settings
    for one, other in zip(there.changes, back.changes, strict=True):
        assert (one.old, one.new) == (other.new, other.old)


def test_adam_by_its_differential_equation():
    found = transfer(ADAMW, 256, 1024, rule="adam_sde")
    assert changed(found) == pytest.approx(
        {
            "lr": 0.2,
            "beta1": 0.6,
            "beta2": 0.996,
            "eps": 5e-9,
            "weight_decay": 0.2,
            "ema_decay": 0.9999**4,
            "warmup_steps": 25,
            "total_steps": 2500,
        }
    )
    assert {one.setting for one in found.kept} == set()
    sources = {one.setting: one.source for one in found.changes}
    assert "Malladi" in sources["eps"]
    assert "Power Lines" in sources["weight_decay"]
    assert found.lr_factor == pytest.approx(2)


def test_where_the_differential_equation_turns_negative_half_life_takes_over():
    found = transfer(ADAMW, 256, 256 * 16, rule="adam_sde")
    assert changed(found)["beta1"] == pytest.approx(0.9**16)
    by = {one.setting: one.rule for one in found.changes}
    assert (by["beta1"], by["beta2"]) == ("half_life", "adam_sde")
    assert any("would be negative or 0: beta1" in one for one in found.warnings)
    again = transfer(found.settings, 256 * 16, 256, rule="adam_sde")
    assert again.settings.beta1 != pytest.approx(0.9, rel=1e-3)
    assert found.reversed().settings.beta1 == 0.9


def test_half_life_can_be_asked_for_without_a_warning():
    found = transfer(ADAMW, 256, 1024, rule="adam_sde", half_life=["beta1", "beta2"])
    assert changed(found)["beta1"] == pytest.approx(0.9**4)
    assert changed(found)["beta2"] == pytest.approx(0.999**4)
    assert found.warnings == ()


def test_the_half_life_rule_leaves_the_rate_to_be_tuned_again():
    found = transfer(ADAMW, 512, 32, rule="half_life")
    new = changed(found)
    assert "lr" not in new
    assert "beta1" not in new
    assert new["beta2"] == pytest.approx(0.999 ** (1 / 16))
    assert "tune it again" in found.warnings[0]
    assert found.check == pytest.approx((0.05, 0.1, 0.2))


def test_legw_keeps_the_warmup_steps():
    found = transfer(ADAMW, 256, 1024, rule="legw")
    assert found.settings.warmup_steps == 100
    assert found.settings.total_steps == 2500
    kept = {one.setting: one.rule for one in found.kept}
    assert kept["warmup_steps"] == "legw"


def test_adascale_s_clock_shortens_the_run_by_the_gain_and_leaves_weight_decay():
    run = Settings(optimizer="sgd", lr=0.1, weight_decay=1e-3, total_steps=1000)
    found = transfer(run, 256, 2048, rule="adascale", noise_scale=700)
    gain = found.lr_factor
    assert gain == pytest.approx(2.7831, abs=5e-5)
    assert found.settings.total_steps == pytest.approx(1000 / gain)
    assert found.settings.weight_decay == pytest.approx(1e-3)
    by = {one.setting: one.rule for one in found.changes}
    assert by["total_steps"] == "adascale"


def test_linear_leaves_weight_decay_and_momentum():
    found = transfer(SGD, 64, 256, rule="linear", noise_scale=1e6)
    assert changed(found) == pytest.approx({"lr": 0.4})
    assert found.warnings == ()


def test_what_is_to_be_kept_is_kept_and_the_timescale_follows_the_rate():
    found = transfer(ADAMW, 256, 1024, rule="square_root", keep=["lr", "ema_decay"])
    assert found.settings.lr == 0.1
    assert found.settings.ema_decay == 0.9999
    assert found.settings.weight_decay == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("settings", "arguments", "rule"),
    [
        (SGD, {"noise_scale": 700}, "adascale"),
        (SGD, {}, "linear"),
        (ADAMW, {}, "adam_sde"),
        (ADAMW, {"noise_scale": 1e5}, "adam_sde"),
        (ADAMW, {"noise_scale": 700}, "adascale_adam"),
        (Settings(optimizer="adam", lr=1e-3), {}, "square_root"),
        (Settings(optimizer="adamw", lr=1e-3, beta1=0.8), {}, "square_root"),
    ],
)
def test_auto_chooses_by_the_optimizer_and_says_why(settings, arguments, rule):
    found = transfer(settings, 256, 1024, **arguments)
    assert found.rule == rule
    assert found.why.startswith("for ")


def test_auto_never_warns_of_the_noise_it_was_told():
    for phi in (10, 700, 1e6):
        for settings in (SGD, ADAMW):
            found = transfer(settings, 256, 1024, noise_scale=phi)
            assert not [one for one in found.warnings if found.rule in one]


def test_the_same_batch_size_changes_nothing():
    for rule in ("auto", *NAMES):
        found = transfer(ADAMW, 256, 256, rule=rule, noise_scale=700)
        assert (found.changes, found.warnings, found.check) == ((), (), ())
        assert found.settings == ADAMW
    assert "nothing changes" in str(found)


@pytest.mark.parametrize(
    ("settings", "to_batch", "arguments", "words"),
    [
        (SGD, 2048, {"rule": "linear", "noise_scale": 700}, "grows by 2.78 only"),
        (SGD, 512, {"rule": "linear"}, "noise scale, which was not given"),
        (SGD, 512, {"rule": "square_root"}, "not for sgd: use adascale or linear"),
        (ADAMW, 512, {"rule": "linear"}, "not for adamw: use square_root"),
        (ADAMW, 1024, {"rule": "legw", "noise_scale": 700}, "legw needs noise to"),
        (ADAMW, 256 * 128, {"rule": "legw"}, "a factor of 128 is past"),
        (ADAMW, 1, {"rule": "legw"}, "a factor of 256 is past"),
        (
            ADAMW,
            65_536,
            {"rule": "legw"},
            "100 steps, is longer than the whole run, 39",
        ),
        (ADAMW, 65_536, {"rule": "legw"}, "more than the 50000 examples"),
        (ADAMW, 2048, {"rule": "legw", "noise_scale": 700}, "may stop short"),
        (ADAMW, 256 * 300, {"rule": "half_life"}, "no longer below sqrt"),
        (
            Settings(optimizer="adam", lr=0.1, weight_decay=0.1),
            1024,
            {"rule": "square_root"},
            "through its preconditioner",
        ),
        (
            Settings(optimizer="adamw", lr=0.1),
            512,
            {"rule": "adam_sde"},
            "also changes beta1, beta2, eps, which were not given",
        ),
        (
            Settings(optimizer="adamw", lr=0.1, total_steps=3),
            2048,
            {"rule": "square_root"},
            "less than one step",
        ),
    ],
)
def test_a_condition_that_does_not_hold_is_said(settings, to_batch, arguments, words):
    found = transfer(settings, 256, to_batch, **arguments)
    assert any(words in one for one in found.warnings), found.warnings


def test_rmsprop_is_not_asked_for_what_it_does_not_have():
    run = Settings(optimizer="rmsprop", lr=0.1, momentum=0.9, beta2=0.99, eps=1e-8)
    found = transfer(run, 256, 1024, rule="adam_sde")
    assert found.warnings == ()
    assert changed(found) == pytest.approx({"lr": 0.2, "beta2": 0.96, "eps": 5e-9})


def test_three_rates_are_offered_for_a_check():
    found = transfer(SGD, 256, 1024, rule="linear")
    assert found.check == pytest.approx((0.2, 0.4, 0.8))


def test_the_json_form_has_the_stable_keys():
    form = transfer(ADAMW, 256, 1024).to_dict()
    for change in form["changes"]:
        assert list(change) == ["setting", "old", "new", "rule", "source", "holds_when"]
    assert form["settings"]["lr"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transfer(SGD, 0, 1), "transfer: `from_batch` must be positive"),
        (lambda: transfer(SGD, 1, -1), "transfer: `to_batch` must be positive"),
        (lambda: transfer(SGD, 1, 2, noise_scale=0), "`noise_scale` must be positive"),
        (lambda: transfer(SGD, 1, 2, rule="linar"), "did you mean linear"),
        (lambda: transfer(SGD, 1, 2, keep=["weight"]), "did you mean weight_decay"),
        (
            lambda: transfer(SGD, 1, 2, keep=["ema_decay"]),
            "`keep` names ema_decay, whi",
        ),
        (
            lambda: transfer(SGD, 1, 2, half_life=["beta2"]),
            "names beta2, which was not",
        ),
        (lambda: transfer(SGD, 1, 2, half_life=["beta"]), "did you mean beta"),
        (lambda: Settings(optimizer="adanw", lr=1), "did you mean adamw"),
        (lambda: Settings(optimizer="sgd", lr=0), "`lr` must be positive, got 0"),
        (lambda: Settings(optimizer="sgd", lr=1, beta1=0.9), "sgd has no `beta1`"),
        (lambda: Settings(optimizer="adam", lr=1, momentum=0), "adam has no `momen"),
        (lambda: Settings(optimizer="adam", lr=1, beta2=1), r"`beta2` must be in \[0"),
        (lambda: Settings(optimizer="adam", lr=1, eps=-1), "`eps` must not be neg"),
        (
            lambda: Settings.from_dict({"optimizer": "sgd", "lr": 1, "weightdecay": 1}),
            "there is no setting 'weightdecay'. .did you mean weight_decay",
        ),
        (
            lambda: Settings.from_dict({"optimizer": "sgd", "lr": 1, "zzz": 1}),
            "the settings are optimizer, lr",
        ),
        (lambda: Settings.from_dict({"optimizer": "sgd"}), "`lr` is missing"),
        (
            lambda: Settings.from_dict({"optimizer": "sgd", "lr": "fast"}),
            "`lr` must be positive, got 'fast'",
        ),
    ],
)
def test_impossible_transfers_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize("rule", ["square-root", "power:0.4", "power:exponent=.4"])
def test_a_rule_is_told_by_its_own_name(rule):
    found = transfer(ADAMW, 256, 1024, rule=rule)
    word, _, exponent = found.rule.partition(":")
    assert {one.rule for one in found.changes if one.setting == "lr"} == {word}
    assert exponent == ("0.4" if word == "power" else "")
    assert transfer(ADAMW, 256, 1024, rule=found.rule) == found


def test_a_setting_that_was_not_given_is_neither_kept_nor_halved():
    run = Settings(optimizer="sgd", lr=0.1, momentum=0.9)
    kept = transfer(run, 1, 2, keep=["momentum"], half_life=["momentum"])
    assert kept.settings.momentum == 0.9
