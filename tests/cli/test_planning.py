"""Warnings and sentence of a plan: each thing said once, in plain words."""

import math
from dataclasses import replace

import pytest

from rightbatch.cli.communication import CommunicationChoice
from rightbatch.cli.output import Output
from rightbatch.cli.planning import Findings, plan_results
from rightbatch.convergence import ConvergenceLaw, fit_tuned
from rightbatch.errors import InputError, NotReachedError
from rightbatch.step_time import (
    ConstantCommunication,
    LinearCommunication,
    MeasuredStepTime,
    fit_step_time,
)

BATCHES = [4, 16, 64, 256, 1024]
TRUTH = ConvergenceLaw(min_steps=100, min_examples=6400)
SIZES = [1, 4, 16, 64, 256, 1024]


def findings(communication, *, replicas=(1, 4), seconds=None, runs=3, **limits):
    """Both curves, fitted to noiseless data."""
    table = [(b, TRUTH.steps(b)) for b in BATCHES for _ in range(runs)]
    times = seconds or [0.01 + 0.0001 * size for size in SIZES]
    return Findings(
        fits=((0.1, fit_tuned([b for b, _ in table], [s for _, s in table])),),
        step_time=fit_step_time(SIZES, times, communication=communication),
        measured=MeasuredStepTime(
            batch_sizes=SIZES, seconds=times, communication=communication
        ),
        replicas=replicas,
        **limits,
    )


def test_replicas_that_slow_each_other_are_said_once():
    found = plan_results(findings(LinearCommunication(seconds_per_replica=1.0)), "x")
    (warning,) = [w for w in found["warnings"] if "slower than" in w]
    assert warning.startswith("4 replicas are slower than 1")


def test_an_extrapolated_batch_is_named_with_its_replicas():
    found = plan_results(
        findings(ConstantCommunication(seconds=10.0), replicas=(1, 64)), "x"
    )
    (warning,) = [w for w in found["warnings"] if w.startswith("extrapolated")]
    assert "on 64 replicas" in warning
    assert "4 to 1024" in warning


def test_a_limit_on_the_batch_that_binds_is_said():
    found = plan_results(
        findings(ConstantCommunication(seconds=1.0), max_batch_size=40), "x"
    )
    assert found["optimal"][0]["batch_size"] == 40
    assert any("the largest batch size allowed, 40" in w for w in found["warnings"])


def test_a_plan_ends_below_the_batch_size_that_missed():
    known = findings(ConstantCommunication(seconds=1.0), missed_batch_size=41)
    found = plan_results(known, "x")
    assert [entry["batch_size"] for entry in found["optimal"]] == [40, 40]
    assert [entry["batch_size"] for entry in found["optimal_measured"]] == [40, 40]
    (warning,) = [w for w in found["warnings"] if "the plan ends at" in w]
    assert "no run reached the target at batch size 41 or above" in warning
    assert not any("largest batch size allowed" in w for w in found["warnings"])
    with pytest.raises(NotReachedError, match="at batch size 4, and 4 is the smallest"):
        plan_results(replace(known, missed_batch_size=4), "x")


def test_the_batch_size_that_buying_ended_on_is_the_one_recommended():
    free = findings(ConstantCommunication(seconds=0.1))
    best = [entry["batch_size"] for entry in plan_results(free, "x")["optimal"]]
    given = {1: best[0] + 9, 4: best[1] + 13}
    known = replace(free, recommended=given)
    assert known.chosen == given
    found = plan_results(known, "x")
    entries = found["optimal"]
    assert [entry["batch_size"] for entry in entries] == list(given.values())
    assert entries[0]["steps"] == pytest.approx(float(TRUTH.steps(given[1])), rel=1e-3)
    assert entries[0]["speedup"] == pytest.approx(1)
    low, high = entries[0]["within_5_percent"]
    assert low < best[0] < high
    assert f"Train at {given[1]}" in found["sentence"]
    assert not any("disagree" in warning for warning in found["warnings"])


def test_a_recommended_batch_past_the_runs_of_a_law_without_end_is_not_borne():
    tuned = fit_tuned([8, 8, 64, 64], [800, 810, 99, 101])
    free = findings(ConstantCommunication(seconds=0.1), replicas=(1,))
    known = replace(free, fits=((0.1, tuned),), recommended={1: 500})
    assert tuned.fit.law.min_steps <= 0
    assert known.chosen == {}
    assert replace(known, recommended={1: 60}).chosen == {1: 60}
    assert plan_results(known, "x")["optimal"][0]["batch_size"] == 64


def test_step_times_that_are_no_law_make_the_measured_plan_the_one_to_trust():
    seconds = [0.01, 0.0101, 0.05, 0.012, 0.3, 0.3]
    found = plan_results(
        findings(ConstantCommunication(seconds=0.0), seconds=seconds, replicas=(1,)),
        "x",
    )
    assert any("trust the" in warning for warning in found["warnings"])


def test_measured_times_that_begin_too_late_are_not_the_ones_to_trust():
    known = findings(ConstantCommunication(seconds=0.0), replicas=(1,))
    late = MeasuredStepTime(batch_sizes=[512, 1024], seconds=[0.0612, 0.1124])
    found = plan_results(replace(known, measured=late), "x")
    (apart,) = [w for w in found["warnings"] if "disagree" in w]
    best = found["optimal"][0]["batch_size"]
    assert best < 512 <= found["optimal_measured"][0]["batch_size"]
    assert "trust" not in apart
    assert f"next, time local batch sizes of {best}" in apart


def test_measured_times_that_end_too_soon_say_what_to_time():
    known = findings(ConstantCommunication(seconds=0.0), replicas=(1,))
    short = MeasuredStepTime(batch_sizes=[1, 4], seconds=[0.0101, 0.0104])
    found = plan_results(replace(known, measured=short), "x")
    entry = found["optimal_measured"][0]
    assert entry["batch_size"] > 4
    assert entry["batch_size_interval"]["high"] is None
    (end,) = [w for w in found["warnings"] if "step times end" in w]
    assert f"time local batch sizes of {entry['batch_size']} too" in end


def test_one_run_per_batch_size_is_few():
    few = plan_results(findings(ConstantCommunication(seconds=0.1), runs=1), "x")
    many = plan_results(findings(ConstantCommunication(seconds=0.1), runs=3), "x")
    assert any(w.startswith("few runs") for w in few["warnings"])
    assert not any(w.startswith("few runs") for w in many["warnings"])


def test_the_sentence_names_batch_range_and_the_best_number_of_replicas():
    found = plan_results(findings(ConstantCommunication(seconds=0.001)), "x")
    one, four = found["optimal"]
    low, high = one["within_5_percent"]
    assert found["sentence"].startswith(f"Train at {one['batch_size']}:")
    assert f"{low} to {high} are within 5 %" in found["sentence"]
    assert f"On 4 replicas train at {four['batch_size']}" in found["sentence"]


def test_the_curves_hold_the_optimum_and_the_three_scalings_start_together():
    found = plan_results(findings(ConstantCommunication(seconds=0.001)), "x")
    for curve in found["seconds_to_target"]:
        least = min(curve["curve"]["seconds"])
        assert curve["optimum"]["seconds"] == pytest.approx(least, rel=0.02)
    scaling = found["scaling"]
    starts = [scaling[kind]["seconds"][0] for kind in ("strong", "weak", "optimal")]
    assert starts == pytest.approx([starts[0]] * 3)
    assert all(map(math.isfinite, scaling["optimal"]["speedup"]))


def test_a_time_that_falls_for_ever_asks_for_the_option():
    flat = findings(ConstantCommunication(seconds=0.0), seconds=[0.01] * len(SIZES))
    with pytest.raises(InputError, match="--max-batch-size"):
        plan_results(flat, "x")


def test_a_bandwidth_gives_a_ring_and_its_seconds():
    choice = CommunicationChoice(bandwidth=1e9, latency=1e-3)
    ring, warnings = choice.resolve(Output(command="plan"), 250_000_000, (1, 2))
    # 2 (P - 1) l + 2 (P - 1)/P n/b at P = 2 for 1 GB.
    assert ring.comm_seconds(2) == pytest.approx(2e-3 + 1.0)
    assert warnings == []


def test_a_bandwidth_without_the_model_s_size_is_refused():
    choice = CommunicationChoice(bandwidth=1e9)
    with pytest.raises(InputError, match="--parameters"):
        choice.resolve(Output(command="plan"), None, (1, 2))


def test_a_batch_that_cannot_be_shared_evenly_is_said():
    found = plan_results(
        findings(
            ConstantCommunication(seconds=10.0), replicas=(1, 16), max_batch_size=1438
        ),
        "x",
    )
    (warning,) = [w for w in found["warnings"] if "shared evenly" in w]
    assert "1438 (on 16 replicas)" in warning
    assert "1440 examples" in warning
