"""Fits of the step-time law."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    HalvingDoublingCommunication,
    LinearCommunication,
    MeasuredStepTime,
    NoCommunication,
    RingCommunication,
    ShardedCommunication,
    StepTimeLaw,
    TwoLevelCommunication,
    fit_step_time,
)
from rightbatch.step_time.surface import Surface

SIZES = 2.0 ** np.arange(11)
KNEE_LAW = StepTimeLaw(
    seconds_per_example=1e-3, saturation_batch_size=20, overhead_seconds=5e-3
)
KINDS = [
    NoCommunication(),
    ConstantCommunication(seconds=0.02),
    LinearCommunication(seconds_per_replica=0.005),
    RingCommunication(latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=4e7),
    HalvingDoublingCommunication(
        latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=4e7
    ),
    ShardedCommunication(latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=4e7),
    TwoLevelCommunication(
        replicas_per_node=4,
        inner_latency_seconds=1e-5,
        inner_bytes_per_second=1e10,
        outer_latency_seconds=1e-4,
        outer_bytes_per_second=1e9,
        num_bytes=4e7,
    ),
]
seconds = st.floats(1e-6, 10)


@pytest.mark.parametrize("knee", [3.0, 20.0, 150.0])
@pytest.mark.parametrize("overhead", [0.0, 5e-3])
def test_a_noiseless_knee_is_recovered(knee, overhead):
    law = StepTimeLaw(
        seconds_per_example=1e-3, saturation_batch_size=knee, overhead_seconds=overhead
    )
    fit = fit_step_time(SIZES, law.seconds_per_step(SIZES))
    assert fit.knee_seen
    assert not fit.warnings
    assert fit.law.saturation_batch_size == pytest.approx(knee, rel=1e-4)
    assert fit.law.seconds_per_example == pytest.approx(1e-3, rel=1e-4)
    assert fit.law.overhead_seconds == pytest.approx(overhead, abs=1e-6)
    assert knee in fit.saturation_batch_size
    assert fit.saturation_batch_size.is_bounded
    assert fit.median_relative_error < 1e-5


def test_no_knee_is_announced_on_a_straight_line():
    fit = fit_step_time(SIZES, 212e-6 + 0.65e-6 * SIZES)
    assert not fit.knee_seen
    assert fit.law.saturation_batch_size == 1
    assert fit.saturation_batch_size.low is None
    assert fit.saturation_batch_size.high > 1
    assert fit.law.overhead_seconds == pytest.approx(212e-6, rel=1e-9)
    assert fit.law.seconds_per_example == pytest.approx(0.65e-6, rel=1e-9)
    assert any("No knee seen" in said for said in fit.warnings)


def test_noise_on_a_straight_line_rarely_looks_like_a_knee():
    generator = np.random.default_rng(5)
    line = 212e-6 + 0.65e-6 * SIZES
    seen = sum(
        fit_step_time(SIZES, line * np.exp(0.06 * noise)).knee_seen
        for noise in generator.standard_normal((100, len(SIZES)))
    )
    # The place of the knee is searched for, so 1 % nominal may be a few percent;
    # 5 % plus three standard deviations of 100 draws.
    assert seen <= 100 * (0.05 + 3 * math.sqrt(0.05 * 0.95 / 100))


def test_the_fit_is_that_of_a_general_search_over_logarithms():
    generator = np.random.default_rng(3)
    times = KNEE_LAW.seconds_per_step(SIZES)
    times = times * np.exp(0.08 * generator.standard_normal(len(SIZES)))
    fit = fit_step_time(SIZES, times)
    (overhead, slope, knee), squares = oracles.step_time_log_fit(SIZES, times)
    law = np.array([point.fitted_seconds for point in fit.points])
    assert (np.log(times / law) ** 2).sum() <= squares * (1 + 1e-6)
    assert fit.law.overhead_seconds == pytest.approx(overhead, rel=1e-3)
    assert fit.law.seconds_per_example == pytest.approx(slope, rel=1e-3)
    assert fit.law.saturation_batch_size == pytest.approx(knee, rel=1e-3)


def test_least_squares_without_negative_terms_agree_with_scipy():
    generator = np.random.default_rng(0)
    local, knees = np.array([1.0, 3, 8, 20, 60]), np.array([1.0, 2, 7, 15])
    law = np.linspace(1, 3, 5)
    times = generator.exponential(size=(5, 40))
    terms = np.stack(
        [np.stack([np.ones(5), np.maximum(local, knee)], -1) for knee in knees]
    )
    surface = Surface(
        terms=terms / law[:, None], values=times / law[:, None], knees=knees
    )
    coefficients, squares = surface.solve()
    for place, knee in enumerate(knees):
        for draw in range(40):
            expected, least = oracles.knee_fit_squares(local, times[:, draw], law, knee)
            assert squares[place, draw] == pytest.approx(least, rel=1e-8, abs=1e-12)
            assert coefficients[place, :, draw] == pytest.approx(expected, abs=1e-9)


def test_profile_limits_are_those_of_a_fine_grid_of_coefficients():
    local, knees = np.array([1.0, 4, 16, 64]), np.array([1.0, 6, 12])
    law = np.array([1.0, 1.1, 2.0, 7.0])
    terms = np.stack(
        [np.stack([np.ones(4), np.maximum(local, knee)], -1) for knee in knees]
    )
    surface = Surface(
        terms=terms / law[:, None],
        values=np.array([[0.9], [1.1], [1.0], [1.02]]),
        knees=knees,
    )
    threshold = 0.15
    overhead, slope = np.meshgrid(
        np.linspace(0, 1.5, 601), np.linspace(0, 0.3, 601), indexing="ij"
    )
    inside = np.zeros_like(overhead, dtype=bool)
    for one in surface.terms:
        law_of = overhead[..., None] * one[:, 0] + slope[..., None] * one[:, 1]
        inside |= ((law_of - surface.values[:, 0]) ** 2).sum(-1) <= threshold
    for term, grid in ((0, overhead), (1, slope)):
        found = surface.limits(term, threshold)
        assert found == pytest.approx(
            (grid[inside].min(), grid[inside].max()), abs=5e-3
        )


def test_two_batch_sizes_give_the_exact_line_and_no_intervals():
    fit = fit_step_time([8, 16], [0.1, 0.15])
    assert fit.law.seconds_per_step([8, 16]) == pytest.approx([0.1, 0.15], rel=1e-9)
    for interval in (
        fit.overhead_seconds,
        fit.seconds_per_example,
        fit.saturation_batch_size,
    ):
        assert interval.low is None
        assert interval.high is None
    assert any("exactly" in said for said in fit.warnings)
    assert np.all(fit.draws(200).seconds_per_step([8, 100]) > 0)


def test_repeats_at_two_batch_sizes_bound_the_line():
    fit = fit_step_time([8, 8, 16, 16], [0.1, 0.11, 0.15, 0.16])
    assert fit.overhead_seconds.is_bounded
    assert fit.seconds_per_example.is_bounded
    assert not fit.knee_seen


def test_repeats_narrow_the_intervals():
    generator = np.random.default_rng(7)
    times = KNEE_LAW.seconds_per_step(SIZES)[:, None]
    times = times * np.exp(0.05 * generator.standard_normal((len(SIZES), 8)))
    few = fit_step_time(np.repeat(SIZES, 2), times[:, :2].ravel())
    many = fit_step_time(np.repeat(SIZES, 8), times.ravel())

    def width(fit):
        return fit.seconds_per_example.high - fit.seconds_per_example.low

    assert width(many) < width(few)


def test_times_that_do_not_grow_are_said_to_need_larger_batches():
    fit = fit_step_time([8, 16, 32, 64], [0.1, 0.1, 0.1, 0.1])
    assert fit.law.seconds_per_example == 0
    assert fit.law.seconds_per_step(64) == pytest.approx(0.1)
    assert any("time larger batches" in said for said in fit.warnings)


def test_times_that_jump_are_said_to_be_misfitted():
    times = [1, 1.1, 1, 9, 1.2, 1.5, 14, 3, 25, 10, 11]
    fit = fit_step_time(SIZES, times)
    assert fit.median_relative_error > 0.1
    assert any("measured times" in said for said in fit.warnings)


@pytest.mark.parametrize("communication", KINDS[:3], ids=lambda one: one.kind)
def test_communication_is_told_apart_and_recovered(communication):
    generator = np.random.default_rng(11)
    law = StepTimeLaw(
        seconds_per_example=1e-3,
        saturation_batch_size=20,
        overhead_seconds=5e-3,
        communication=communication,
    )
    sizes = np.concatenate([SIZES, [64, 256, 1024, 64, 256, 1024, 256, 1024]])
    replicas = np.concatenate([np.ones(len(SIZES)), [2] * 3, [4] * 3, [16] * 2])
    times = law.seconds_per_step(sizes, replicas)
    fit = fit_step_time(
        sizes, times * np.exp(0.02 * generator.standard_normal(len(sizes))), replicas
    )
    assert fit.law.communication.kind == communication.kind
    for count in (2, 8):
        assert fit.law.communication.comm_seconds(count) == pytest.approx(
            communication.comm_seconds(count), rel=0.15
        )
    if communication.kind != "none":
        assert fit.comm_seconds.is_bounded
        assert fit.draws(50).seconds_per_step([64], 4).shape == (50, 1)
        assert fit.to_dict()["communication"]["interval"]["low"] > 0
    else:
        assert fit.comm_seconds is None


def test_a_given_ring_is_subtracted_not_fitted():
    ring = KINDS[3]
    law = StepTimeLaw(
        seconds_per_example=1e-3, saturation_batch_size=20, communication=ring
    )
    sizes = np.concatenate([SIZES, 4 * SIZES])
    replicas = np.repeat([1, 4], len(SIZES))
    fit = fit_step_time(sizes, law.seconds_per_step(sizes, replicas), replicas, ring)
    assert fit.law.communication == ring
    assert fit.comm_seconds is None
    assert fit.law.saturation_batch_size == pytest.approx(20, rel=1e-4)
    drawn = fit.draws(400, seed=1).seconds_per_step([64], 4).mean()
    assert drawn == pytest.approx(law.seconds_per_step(64, 4), rel=0.02)


def test_a_given_communication_longer_than_the_steps_is_pointed_out():
    fit = fit_step_time(
        [8, 16, 32, 32],
        [0.1, 0.15, 0.25, 0.2],
        [1, 1, 1, 2],
        ConstantCommunication(seconds=5),
    )
    assert any("longer than whole steps" in said for said in fit.warnings)


def test_one_number_of_replicas_cannot_tell_how_communication_grows():
    law = StepTimeLaw(
        seconds_per_example=1e-3, saturation_batch_size=1, communication=KINDS[1]
    )
    sizes, replicas = [8, 16, 32, 64, 64, 128], [1, 1, 1, 1, 4, 4]
    fit = fit_step_time(sizes, law.seconds_per_step(sizes, replicas), replicas)
    assert fit.law.communication.kind == "constant"
    assert any("Only 4 replicas" in said for said in fit.warnings)


def test_times_without_a_single_replica_are_pointed_out():
    fit = fit_step_time([8, 16, 32], [0.1, 0.15, 0.25], [4, 4, 4])
    assert fit.law.communication.kind == "none"
    assert any("No times at one replica" in said for said in fit.warnings)


def test_draws_repeat_with_their_seed_and_spread_like_the_intervals():
    generator = np.random.default_rng(2)
    times = KNEE_LAW.seconds_per_step(SIZES)
    fit = fit_step_time(
        SIZES, times * np.exp(0.05 * generator.standard_normal(len(SIZES)))
    )
    drawn = fit.draws(2000, seed=4)
    again = fit.draws(2000, seed=4)
    assert np.array_equal(drawn.saturation_batch_size, again.saturation_batch_size)
    low, high = np.quantile(drawn.seconds_per_example, [0.05, 0.95])
    interval = fit.seconds_per_example
    # Two ways to one interval; they differ by skewness, not by a factor.
    assert 0.7 < (high - low) / (interval.high - interval.low) < 1.4
    table = drawn.seconds_per_step([1, 20, 500], 2)
    assert table.shape == (2000, 3)
    median = np.median(table, axis=0)
    assert median == pytest.approx(fit.law.seconds_per_step([1, 20, 500], 2), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.03, 0.10])
def test_intervals_cover_the_truth_as_often_as_they_say(noise):
    generator = np.random.default_rng(17)
    truth = KNEE_LAW.seconds_per_step(SIZES)
    covered = np.zeros(3)
    num = 200
    for errors in generator.standard_normal((num, len(SIZES))):
        fit = fit_step_time(SIZES, truth * np.exp(noise * errors))
        covered += [
            KNEE_LAW.overhead_seconds in fit.overhead_seconds,
            KNEE_LAW.seconds_per_example in fit.seconds_per_example,
            KNEE_LAW.saturation_batch_size in fit.saturation_batch_size,
        ]
    # Nominal 90 %, less 3.5 standard deviations of 200 draws (7 %).
    assert np.all(covered / num > 0.90 - 3.5 * math.sqrt(0.9 * 0.1 / num)), covered


def test_the_json_form_holds_intervals_and_warnings():
    fit = fit_step_time(SIZES, KNEE_LAW.seconds_per_step(SIZES))
    form = fit.to_dict()
    assert form["saturation_batch_size"]["value"] == pytest.approx(20, rel=1e-4)
    assert form["communication"] == {"kind": "none"}
    assert form["fitted_range"] == [1.0, 1024.0]
    assert form["knee_seen"] is True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([8, 16], [0.1, math.nan]), "`seconds` must be positive, got nan at 1"),
        (([8, -16], [0.1, 0.2]), "`batch_sizes` must be positive, got -16 at 1"),
        (([8, 8], [0.1, 0.2]), "at least two different local batch sizes, got 8 alone"),
        (([8, 16], [1, 2], [1, 2]), "two different local batch sizes, got 8 alone"),
        (([8, 16], [0.1]), "`seconds` must be as many as `batch_sizes`, got 1 and 2"),
        (([8, 16], [1, 2], [1]), "`num_replicas` must be as many as `batch_sizes`"),
        (([8, 16], [1, 2], [1, 1.5]), "`num_replicas` must be whole numbers"),
        (([8, 16], [1, 2], [9, 1]), "none above its batch size, got 9 for 8 at 0"),
        ((["a", 2], [1, 2]), "`batch_sizes` must be numbers"),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        fit_step_time(*arguments)


@pytest.mark.parametrize(
    ("sizes", "times", "words"),
    [
        ([8, 16], [0.1], "MeasuredStepTime: `seconds` must be as many"),
        ([8, 8], [0.1, 0.2], "MeasuredStepTime: `batch_sizes` must hold at least two"),
        ([8, 0], [0.1, 0.2], "MeasuredStepTime: `batch_sizes` must be positive"),
    ],
)
def test_measured_times_that_cannot_be_joined_are_refused(sizes, times, words):
    with pytest.raises(InputError, match=words):
        MeasuredStepTime(batch_sizes=sizes, seconds=times)
