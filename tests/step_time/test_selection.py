"""Which communication law a table prefers, its overlap, and what is said of it."""

import math

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.fitting import Interval
from rightbatch.step_time import (
    ConstantCommunication,
    Evaluation,
    HalvingDoublingCommunication,
    LinearCommunication,
    NoCommunication,
    RingCommunication,
    StepTimeLaw,
    fit_step_time,
)

RING = RingCommunication(latency_seconds=1e-3, bytes_per_second=1.0, num_bytes=0.04)
BANDWIDTH = RingCommunication(latency_seconds=0.0, bytes_per_second=1.0, num_bytes=0.04)
PAIRS = HalvingDoublingCommunication(
    latency_seconds=1e-2, bytes_per_second=1.0, num_bytes=0.02
)
CONSTANT = ConstantCommunication(seconds=0.06)
SERVER = LinearCommunication(seconds_per_replica=0.005)
COUNTS = (1, 2, 4, 8, 16, 32)


def law_with(communication, overlap_exponent=1.0):
    return StepTimeLaw(
        seconds_per_example=1e-3,
        saturation_batch_size=20,
        overhead_seconds=5e-3,
        communication=communication,
        overlap_exponent=overlap_exponent,
    )


def rows(law, counts=COUNTS, *, shares=(8, 32, 128, 512), noise=0.0, seed=0):
    """Batch sizes, noisy seconds and replicas of a table."""
    replicas = np.repeat(np.array(counts, dtype=float), len(shares))
    sizes = np.tile(shares, len(counts)) * replicas
    errors = np.random.default_rng(seed).standard_normal(len(sizes))
    return (
        sizes,
        law.seconds_per_step(sizes, replicas) * np.exp(noise * errors),
        replicas,
    )


def kinds_of(fit):
    return [finding.kind for finding in fit.findings]


# --- the choice ---


@pytest.mark.parametrize(
    ("communication", "name"),
    [
        (NoCommunication(), "none"),
        (CONSTANT, "constant"),
        (SERVER, "linear"),
        (BANDWIDTH, "volume"),
        (RING, "ring"),
        (PAIRS, "halving_doubling"),
    ],
    ids=lambda one: one if isinstance(one, str) else one.kind,
)
def test_the_law_that_made_a_table_is_chosen(communication, name):
    fit = fit_step_time(*rows(law_with(communication), noise=0.03))
    (chosen,) = [one for one in fit.runners_up if one.chosen]
    assert chosen.law == name
    assert chosen.aicc_difference == 0
    assert fit.law.communication.kind == communication.kind
    for count in (2, 8, 64):
        found = fit.law.communication.comm_seconds(count)
        assert found == pytest.approx(communication.comm_seconds(count), rel=0.15)


def test_every_law_tried_is_reported_with_what_it_would_say():
    fit = fit_step_time(*rows(law_with(SERVER), noise=0.03))
    tried = {one.law: one for one in fit.runners_up}
    assert set(tried) == {
        "none", "constant", "linear", "volume", "ring", "halving_doubling"
    }  # fmt: skip
    assert tried["none"].aicc_difference > 10
    assert tried["linear"].parameters["seconds_per_replica"] == pytest.approx(
        0.005, rel=0.1
    )
    assert tried["none"].num_parameters == 3
    assert tried["ring"].num_parameters == 5
    form = fit.to_dict()["runners_up"][0]
    assert form["law"] == "linear"
    assert form["chosen"] is True


@pytest.mark.parametrize(
    ("counts", "laws"),
    [
        ((1,), {"none"}),
        ((1, 4), {"none", "constant"}),
        ((1, 4, 8), {"none", "constant", "linear"}),
        ((4, 8), {"none", "linear"}),  # a constant is part of the fixed cost there
    ],
)
def test_few_numbers_of_replicas_allow_simple_laws_only(counts, laws):
    fit = fit_step_time(*rows(law_with(RING), counts))
    assert {one.law for one in fit.runners_up} == laws


def test_laws_that_do_as_well_are_named_with_what_they_would_take():
    # Two replicas and three: hardly any room between a constant and a straight line.
    law = law_with(LinearCommunication(seconds_per_replica=0.002))
    shares = (8, 16, 32, 64) * 2
    fit = fit_step_time(*rows(law, (1, 2, 3), shares=shares, noise=0.04, seed=5))
    assert "rivals" in kinds_of(fit)
    (said,) = [one.sentence for one in fit.findings if one.kind == "rivals"]
    assert "on 12 replicas would take" in said


# --- fall and rise ---


@pytest.mark.parametrize("communication", [RING, SERVER])
def test_seconds_that_fall_and_then_rise_get_a_law_that_can_do_so(communication):
    counts = np.array([1, 2, 4, 8, 16, 32, 64, 128.0])
    sizes = np.tile([256.0, 2048.0], 8)
    replicas = np.repeat(counts, 2)
    law = law_with(communication)
    errors = np.random.default_rng(1).standard_normal(16)
    times = law.seconds_per_step(sizes, replicas) * np.exp(0.03 * errors)
    fit = fit_step_time(sizes, times, replicas)
    assert "valley" in kinds_of(fit)
    assert fit.law.communication.kind in {"linear", "ring"}
    ahead = fit.law.seconds_per_step(256, [16, 128])
    assert ahead[1] > 1.5 * ahead[0]
    said = next(one.sentence for one in fit.findings if one.kind == "valley")
    assert said.startswith("At batch size 256 a step is fastest on ")


def test_a_valley_rules_out_laws_that_cannot_rise():
    # With so few rows AICc alone would take the simplest.
    replicas = np.array([1.0, 2, 4, 8] * 2)
    sizes = np.repeat([64.0, 128], 4)
    times = law_with(LinearCommunication(seconds_per_replica=0.01))
    fit = fit_step_time(sizes, times.seconds_per_step(sizes, replicas), replicas)
    assert "valley" in kinds_of(fit)
    assert fit.law.communication.kind == "linear"
    assert fit.law.seconds_per_step(64, 64) > fit.law.seconds_per_step(64, 4)


def test_a_constant_time_is_no_valley():
    fit = fit_step_time(*rows(law_with(CONSTANT), noise=0.02))
    assert not {"valley", "growth", "jagged"} & set(kinds_of(fit))


def test_the_same_share_that_takes_longer_on_more_replicas_is_said():
    fit = fit_step_time(*rows(law_with(SERVER)))
    (said,) = [one.sentence for one in fit.findings if one.kind == "growth"]
    assert said.startswith("With 8 examples each, 32 replicas take 5.29 times as long")


def test_seconds_that_go_up_and_down_are_said_to_be_no_law():
    sizes, times, replicas = rows(law_with(CONSTANT))
    times[(replicas == 8) & (sizes == 8 * 32)] *= 3
    times[(replicas == 4) & (sizes == 4 * 64)] *= 1
    wide = np.append(sizes, [256, 256]), np.append(times, [0.09, 0.09])
    fit = fit_step_time(*wide, np.append(replicas, [4, 16]))
    assert "jagged" in kinds_of(fit)
    assert "time those rows again" in " ".join(one.sentence for one in fit.findings)


# --- overlap ---


@pytest.mark.parametrize("exponent", [2.0, 5.0])
@pytest.mark.parametrize("communication", [CONSTANT, RING], ids=["constant", "ring"])
def test_an_overlap_is_recovered_where_the_table_can_tell(communication, exponent):
    truth = law_with(communication, exponent)
    fit = fit_step_time(*rows(truth, noise=0.02))
    assert isinstance(fit.overlap_exponent, Interval)
    assert exponent in fit.overlap_exponent
    assert fit.law.overlap_exponent > 1.5
    assert fit.law.communication.kind == communication.kind
    assert "hides behind computing" in " ".join(one.sentence for one in fit.findings)
    expected = truth.seconds_per_step(512, [2, 8, 64])
    assert fit.law.seconds_per_step(512, [2, 8, 64]) == pytest.approx(expected, rel=0.1)
    drawn = fit.draws(300)
    assert drawn.overlap_exponent.min() < exponent < drawn.overlap_exponent.max()
    median = np.median(drawn.seconds_per_step([512], 8))
    assert median == pytest.approx(truth.seconds_per_step(512, 8), rel=0.1)


def test_times_that_add_up_are_said_to_do_so():
    fit = fit_step_time(*rows(law_with(CONSTANT), noise=0.02))
    assert fit.law.overlap_exponent == 1
    assert fit.overlap_exponent.low == 1
    assert fit.overlap_exponent.high < 1.5
    assert np.all(fit.draws(20).overlap_exponent == 1)


@pytest.mark.parametrize("counts", [(1, 8), (2, 4, 8)])
def test_a_table_that_cannot_tell_an_overlap_says_that_it_took_none(counts):
    fit = fit_step_time(*rows(law_with(SERVER), counts))
    assert fit.overlap_exponent == 1
    assert fit.to_dict()["overlap_exponent"] == 1
    assert "cannot tell whether" in " ".join(one.sentence for one in fit.findings)
    (said,) = [one for one in fit.warnings if "hidden behind computing" in one]
    assert said.startswith("Communication may be longer than the")
    assert "these rows cannot tell" in said
    assert "time the same batch sizes" in said


def hiding_table(exponent, seed=0):
    """Batch sizes up to 1,024 on 1 to 16 replicas: comm as long as 60 examples."""
    truth = StepTimeLaw(
        seconds_per_example=1e-3,
        saturation_batch_size=16,
        overhead_seconds=4e-3,
        communication=CONSTANT,
        overlap_exponent=exponent,
    )
    sizes = np.repeat(2.0 ** np.arange(6, 11), 5)
    replicas = np.tile(2.0 ** np.arange(5), 5)
    errors = np.random.default_rng(seed).standard_normal(len(sizes))
    return (
        sizes,
        truth.seconds_per_step(sizes, replicas) * np.exp(0.02 * errors),
        replicas,
    )


def test_communication_that_hides_is_found_though_adding_it_makes_it_small():
    found = [fit_step_time(*hiding_table(4.0, seed)) for seed in range(8)]
    seconds = [one.law.communication.comm_seconds(4) for one in found]
    added = fit_step_time(*hiding_table(4.0), overlap_exponent=1.0)
    assert added.law.communication.comm_seconds(4) < 0.02
    assert np.mean([0.042 < one < 0.078 for one in seconds]) >= 0.8
    assert np.median(seconds) == pytest.approx(0.06, rel=0.1)


def test_communication_that_adds_up_is_hardly_ever_said_to_hide():
    found = [fit_step_time(*hiding_table(1.0, seed)) for seed in range(8)]
    assert not any(one.law.overlap_exponent > 1 for one in found)
    assert not any("hidden" in said for one in found for said in one.warnings)


def test_communication_that_may_be_a_knee_is_warned_of():
    # Hidden by 64 examples on one replica, it looks like a knee at 60.
    fit = fit_step_time(*hiding_table(20.0))
    assert fit.law.communication.comm_seconds(16) < 0.01
    (said,) = [one for one in fit.warnings if "hidden behind computing" in one]
    assert "fits these rows as well" in said


def test_a_held_overlap_finds_the_communication_that_hides():
    fit = fit_step_time(*hiding_table(4.0), overlap_exponent=4.0)
    assert fit.law.communication.comm_seconds(4) == pytest.approx(0.06, rel=0.1)
    assert not any("hidden" in said for said in fit.warnings)


def test_a_valley_in_the_noise_does_not_force_a_law_that_grows():
    sizes, times, replicas = hiding_table(4.0, seed=2)
    fit = fit_step_time(sizes, times, replicas)
    assert fit.law.communication.kind == "constant"
    assert "valley" not in kinds_of(fit)


@pytest.mark.parametrize("exponent", [1.0, 3.0, math.inf])
def test_a_given_overlap_is_held(exponent):
    truth = law_with(CONSTANT, exponent)
    fit = fit_step_time(*rows(truth), overlap_exponent=exponent)
    assert fit.law.overlap_exponent == exponent
    assert fit.law.communication.comm_seconds(2) == pytest.approx(0.06, rel=1e-3)
    assert fit.law.seconds_per_example == pytest.approx(1e-3, rel=1e-3)
    form = fit.to_dict()["overlap_exponent"]
    assert float(form) == exponent
    assert "overlap" not in kinds_of(fit)


def test_a_given_communication_with_overlap_is_not_fitted():
    truth = law_with(RING, 2.0)
    fit = fit_step_time(*rows(truth, noise=0.01), communication=RING)
    assert fit.law.communication == RING
    assert fit.comm_seconds is None
    assert 2.0 in fit.overlap_exponent


# --- intervals and draws ---


def test_a_ring_has_an_interval_for_each_of_its_numbers_and_for_its_time():
    fit = fit_step_time(*rows(law_with(RING), noise=0.03))
    form = fit.to_dict()["communication"]
    latency, volume = (
        form["intervals"][name] for name in ("latency_seconds", "volume_seconds")
    )
    assert latency["low"] < 1e-3 < latency["high"]
    assert volume["low"] < 0.04 < volume["high"]
    assert RING.comm_seconds(32) in fit.comm_seconds
    # The sum is known better than its parts.
    assert fit.comm_seconds.high / fit.comm_seconds.low < volume["high"] / volume["low"]
    drawn = fit.draws(500)
    assert drawn.comm_coefficients.shape == (500, 2)
    low, high = np.quantile(drawn.comm_coefficients[:, 0], [0.05, 0.95])
    assert 0.6 < (high - low) / (latency["high"] - latency["low"]) < 1.6


def test_checks_are_counted_by_the_law_and_its_draws_and_not_fitted():
    fit = fit_step_time(*rows(law_with(CONSTANT), noise=0.02))
    check = Evaluation(every=10, num_examples=500)
    with_it = fit.with_evaluation(check)
    added = fit.law.seconds_per_example * 500 / 10
    for count in (1, 4):
        assert with_it.law.seconds_per_step(64, count) == pytest.approx(
            fit.law.seconds_per_step(64, count) + added
        )
    more = with_it.draws(50).seconds_per_step([64, 512], 4)
    less = fit.draws(50).seconds_per_step([64, 512], 4)
    assert more - less == pytest.approx(
        np.repeat(fit.draws(50).seconds_per_example[:, None] * 50, 2, axis=1)
    )
    assert with_it.to_dict()["evaluation"]["every"] == 10
    assert fit.to_dict()["evaluation"] is None


def test_drawn_passes_neither_communicate_nor_check():
    fit = fit_step_time(*rows(law_with(CONSTANT), noise=0.02))
    drawn = fit.with_evaluation(Evaluation(every=1, num_examples=9)).draws(30)
    alone = fit.draws(30).seconds_per_step([8, 64], 1)
    assert drawn.pass_seconds([8, 64]) == pytest.approx(alone)


@pytest.mark.slow
def test_intervals_of_time_per_example_and_communication_cover_the_truth():
    num, covered = 0, np.zeros(3)
    for seed in range(100):
        table = rows(law_with(RING), noise=0.04, seed=seed)
        fit = fit_step_time(*table, overlap_exponent=1)
        if not any(one.chosen and one.law == "ring" for one in fit.runners_up):
            continue
        num += 1
        drawn = fit.draws(300).seconds_per_step([512], 8)
        low, high = np.quantile(drawn, [0.05, 0.95])
        covered += [
            1e-3 in fit.seconds_per_example,
            RING.comm_seconds(32) in fit.comm_seconds,
            low <= law_with(RING).seconds_per_step(512, 8) <= high,
        ]
    # Nominal 90 %, less 3.5 standard deviations of 100 draws (10.5 %).
    assert num > 90
    assert np.all(covered / num > 0.795), covered


# --- what is refused ---


def test_milliseconds_among_seconds_are_refused():
    with pytest.raises(
        InputError,
        match=r"at batch size 8 on 2 replicas are both 0.1 and 101.*all of them in sec",
    ):
        fit_step_time([8, 8, 16], [0.1, 101, 0.15], [2, 2, 2])


def test_an_overlap_below_one_is_refused():
    with pytest.raises(InputError, match="`overlap_exponent` must be at least 1"):
        fit_step_time([8, 16], [0.1, 0.15], overlap_exponent=0.9)
