"""Decay into growth: what is conserved, what is saved, and by how much a cap costs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import convex_ramp_steps, exchange_steps

from rightbatch.errors import InputError
from rightbatch.lr_scaling import Schedule, grow, named_schedule, sampled_schedule

RUN = {"batch_size": 256, "total_steps": 10_000}
NAMES = (
    "constant",
    "linear",
    "cosine",
    "quarter_cosine",
    "wsd",
    "step",
    "inverse_time",
    "cosine:final=0.1",
)
falling = st.lists(st.floats(0.01, 1), min_size=2, max_size=6).map(
    lambda values: sorted(values, reverse=True)
)
caps = st.floats(256, 20_000)
hows = st.sampled_from(["smith", "seesaw", "convex"])


@pytest.mark.parametrize("how", ["smith", "seesaw"])
@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("quarter_cosine", 1 - 2 / math.pi),
        ("cosine", 0.5),
        ("linear", 0.5),
        ("wsd:tail=0.1", 0.05),
        ("constant", 0),
    ],
)
def test_uncapped_the_steps_saved_are_one_minus_the_integral(how, name, saved):
    found = grow(named_schedule(name), how, **RUN)
    assert found.saved == pytest.approx(saved, abs=1e-6)
    assert found.saved_uncapped == found.saved
    staged = sum(stage.steps for stage in found.stages(multiple_of=None))
    assert 1 - staged / 10_000 == pytest.approx(saved, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("linear", 0),
        ("constant", 0.5),
        ("cosine", 0),
        ("wsd:tail=0.1", 1 - 1 / 1.9),
        ("quarter_cosine", 1 - math.pi / 4),
    ],
)
def test_the_convex_ramp_saves_one_minus_half_over_the_integral(name, saved):
    found = grow(named_schedule(name), "convex", **RUN)
    assert found.saved == pytest.approx(saved, abs=1e-6)


def test_the_convex_ramp_is_constant_under_linear_decay():
    found = grow(named_schedule("linear"), "convex", **RUN)
    for stage in found.stages(factor=1.1, multiple_of=None):
        assert stage.batch_size == pytest.approx(256, rel=1e-9)


def test_the_last_iterate_bound_weighs_noise_by_the_rates_to_come():
    """Zamani and Glineur's double sum, term by term, against f^2/rest."""
    f = np.random.default_rng(0).uniform(0.1, 1, 30)
    rest = np.cumsum(f[::-1])[::-1]
    for t in range(30):
        noisy = np.zeros(30)
        noisy[t] = f[t] ** 2
        double = noisy.sum() / rest[0] + sum(
            f[k] / (rest[k] * rest[k + 1]) * noisy[k:].sum() for k in range(29)
        )
        assert double == pytest.approx(f[t] ** 2 / rest[min(t + 1, 29)])


def test_the_convex_ramp_is_the_best_batch_for_its_bound():
    """The bound's noise is a sum of f^2/(B rest); no other batches do better."""
    steps = 400
    t = (np.arange(steps) + 0.5) / steps
    f = np.where(t < 0.8, 1.0, (1 - t) / 0.2)
    rest = np.cumsum(f[::-1])[::-1] - f / 2
    ramp = f / np.sqrt(rest)
    ramp /= ramp.sum()

    def noise(batches):
        return (f**2 / (batches / batches.sum() * rest)).sum()

    generator = np.random.default_rng(0)
    for _ in range(200):
        other = ramp * np.exp(0.2 * generator.standard_normal(steps))
        assert noise(ramp) < noise(other)
    assert noise(ramp) < 0.95 * noise(np.ones(steps))


@settings(max_examples=40)
@given(values=falling, how=st.sampled_from(["smith", "seesaw"]), cap=caps)
def test_steps_agree_with_brute_force_integration(values, how, cap):
    found = grow(sampled_schedule(values), how, **RUN, max_batch_size=cap)
    peak = max(values)
    places = np.linspace(0, 1, len(values))
    expected = exchange_steps(
        lambda t: np.interp(t, places, values) / peak, 256, 10_000, cap
    )
    assert found.steps == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_ramp_s_steps_agree_with_brute_force_integration(name):
    schedule = named_schedule(name)
    found = grow(schedule, "convex", **RUN, max_batch_size=600)
    expected = convex_ramp_steps(schedule.values, 256, 10_000, 600)
    assert found.steps == pytest.approx(expected, rel=1e-3)


@settings(max_examples=60)
@given(values=falling, how=hows, cap=caps, factor=st.floats(1.2, 4))
def test_examples_are_conserved_and_stages_join(values, how, cap, factor):
    found = grow(sampled_schedule(values), how, **RUN, max_batch_size=cap)
    for unit in (None, 1, 32):
        stages = found.stages(factor=factor, multiple_of=unit)
        assert sum(one.examples for one in stages) == pytest.approx(2_560_000)
        assert stages[0].start_example == 0
        for one, after in zip(stages, stages[1:], strict=False):
            assert one.start_example + one.examples == pytest.approx(
                after.start_example
            )
        for one in stages:
            assert one.steps * one.batch_size == pytest.approx(one.examples)
            assert unit is None or one.batch_size % unit == 0


@settings(max_examples=60)
@given(values=falling, how=st.sampled_from(["smith", "seesaw"]), cap=caps)
def test_batches_grow_to_the_cap_and_rates_fall_where_the_schedule_does(
    values, how, cap
):
    found = grow(sampled_schedule(values), how, **RUN, max_batch_size=cap)
    for unit in (None, 1):
        stages = found.stages(multiple_of=unit)
        batches = [one.batch_size for one in stages]
        assert np.all(np.diff(batches) >= -1e-6)
        assert max(batches) <= cap * (1 + 1e-9)
        assert min(batches) >= 256 * (1 - 1e-9)
    rates = [one.lr_factor for one in found.stages(multiple_of=None)]
    assert np.all(np.diff(rates) <= 1e-6)
    for unit in (None, 1, 64, 256):
        served = found.stages(multiple_of=unit)
        assert max(one.lr_factor for one in served) <= 1 + 1e-6


@settings(max_examples=60)
@given(values=falling, how=hows, cap=caps, lower=st.floats(0.1, 1))
def test_a_lower_cap_saves_less(values, how, cap, lower):
    schedule = sampled_schedule(values)
    high = grow(schedule, how, **RUN, max_batch_size=cap)
    low = grow(schedule, how, **RUN, max_batch_size=max(256, lower * cap))
    assert low.saved <= high.saved + 1e-9
    assert high.saved <= high.saved_uncapped + 1e-9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("how", "power"), [("smith", 1), ("seesaw", 0.5)])
def test_what_sets_the_noise_follows_the_old_schedule_past_the_cap_too(
    name, how, power
):
    """Rate over batch (SGD), or over its root, is the schedule at that example."""
    schedule = named_schedule(name)
    found = grow(schedule, how, **RUN, max_batch_size=1500)
    for one in found.stages(factor=1.05, multiple_of=128):
        middle = (one.start_example + one.examples / 2) / 2_560_000
        kept = one.lr_factor / (one.batch_size / 256) ** power
        wanted = float(schedule.values(np.array([middle]))[0])
        # A stage is at least half a percent of the run long.
        assert kept == pytest.approx(wanted, rel=0.06, abs=0.012)


def test_at_a_cut_by_four_smith_holds_the_rate_and_seesaw_takes_half():
    cut = named_schedule("step:factor=4,num=1")
    for how, rate in (("smith", 1), ("seesaw", 0.5), ("convex", 0.25)):
        last = grow(cut, how, **RUN).stages()[-1]
        assert last.lr_factor == pytest.approx(rate)
        if how != "convex":
            assert last.batch_size == 1024


def test_seesaw_stops_at_the_noise_scale():
    cosine = named_schedule("cosine")
    found = grow(cosine, "seesaw", **RUN, noise_scale=700, max_batch_size=4096)
    assert found.max_batch_size == 700
    assert max(one.batch_size for one in found.stages()) == 700
    assert "growth stops at the noise scale, 700" in found.warnings[0]
    below = grow(cosine, "seesaw", **RUN, noise_scale=100)
    assert below.saved == pytest.approx(0, abs=1e-9)
    assert grow(cosine, "smith", **RUN, noise_scale=700).saved == pytest.approx(0.5)
    assert "give a noise scale" in grow(cosine, "seesaw", **RUN).warnings[0]


def test_while_a_schedule_rises_the_batch_is_held():
    found = grow(sampled_schedule([0, 1, 0.25]), "smith", **RUN)
    stages = found.stages(multiple_of=None)
    for one in stages:
        if one.start_example + one.examples <= 1_280_000:
            assert one.batch_size == pytest.approx(256, rel=1e-6)
    assert found.saved == pytest.approx(0.5 * (1 - 0.625), abs=1e-6)


def test_any_function_will_do():
    mine = Schedule(name="mine", factor=lambda t: 3e-4 * np.exp(-2 * t))
    found = grow(mine, "smith", **RUN)
    assert found.saved == pytest.approx(1 - (1 - math.exp(-2)) / 2, abs=1e-9)


@pytest.mark.parametrize("how", ["smith", "seesaw", "convex"])
@pytest.mark.parametrize("total_steps", [0.3, 1, 2.5, 7])
def test_a_run_of_a_few_steps_still_keeps_its_examples(how, total_steps):
    found = grow(
        named_schedule("cosine"), how, batch_size=10.5, total_steps=total_steps
    )
    for unit in (None, 1, 4):
        stages = found.stages(multiple_of=unit)
        assert sum(one.examples for one in stages) == pytest.approx(10.5 * total_steps)


def test_a_ramp_that_shrinks_says_so():
    found = grow(named_schedule("inverse_time"), "convex", **RUN)
    assert found.saved < 0
    assert "the ramp takes more steps" in found.warnings[0]


def test_the_json_form_adds_up():
    found = grow(named_schedule("cosine"), "smith", **RUN, max_batch_size=1024)
    form = found.to_dict(found.stages())
    assert form["examples"] == pytest.approx(2_560_000)
    assert form["steps"] == pytest.approx(10_000 * (1 - form["saved"]))
    assert form["saved"] == pytest.approx(form["saved_unrounded"], abs=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: grow(s, "smth", **RUN), "did you mean smith"),
        (
            lambda s: grow(s, "smith", batch_size=0, total_steps=1),
            "`batch_size` must be positive",
        ),
        (
            lambda s: grow(s, "smith", batch_size=1, total_steps=-1),
            "`total_steps` must be positive",
        ),
        (
            lambda s: grow(s, "smith", **RUN, max_batch_size=128),
            "`max_batch_size` must be >= `batch_size`, got 128 and 256",
        ),
        (
            lambda s: grow(s, "seesaw", **RUN, noise_scale=-1),
            "`noise_scale` must be positive",
        ),
        (lambda s: grow(s, "smith", **RUN).stages(factor=1), "`factor` must be above"),
        (
            lambda s: grow(s, "smith", **RUN).stages(multiple_of=0),
            "`multiple_of` must be a whole number",
        ),
        (
            lambda s: grow(s, "smith", **RUN).stages(multiple_of=512),
            "got 512 and 256. .transfer to 512 first",
        ),
    ],
)
def test_impossible_growth_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call(named_schedule("cosine"))
