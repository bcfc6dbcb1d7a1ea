"""The page's formulas are Python's: the same numbers on grids and on made-up laws."""

import math
from typing import Any

import pytest
from example_laws import EQUATIONS
from hypothesis import given, settings
from hypothesis import strategies as st
from javascript import FREE_OF_A_PAGE, call, words_of_code

from rightbatch.cluster.machine import faster
from rightbatch.convergence import ConvergenceLaw
from rightbatch.step_time import (
    ConstantCommunication,
    Evaluation,
    NoCommunication,
    StepTimeLaw,
    communication_from_dict,
)
from rightbatch.training_time import (
    BatchLimits,
    TrainingTimeLaw,
    limited_by,
    plan_batch_size,
)

FEW = settings(max_examples=40, deadline=None)
REPLICAS = [1, 2, 3, 4, 7, 8, 16, 100, 1024]
BATCHES = [1, 2, 3, 8, 20, 33, 256, 1000.5, 65536]
LINK: dict[str, Any] = {
    "latency_seconds": 1e-4,
    "bytes_per_second": 1e9,
    "num_bytes": 4e6,
}
NODES: dict[str, Any] = {
    "replicas_per_node": 4,
    "inner_latency_seconds": 1e-5,
    "inner_bytes_per_second": 1e11,
    "outer_latency_seconds": 2e-4,
    "outer_bytes_per_second": 1e9,
    "num_bytes": 4e7,
}
EXCHANGES: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "constant": {"kind": "constant", "seconds": 0.02},
    "linear": {"kind": "linear", "seconds_per_replica": 0.003},
    "ring": {"kind": "ring", **LINK},
    "halving_doubling": {"kind": "halving_doubling", **LINK},
    "sharded": {"kind": "sharded", **LINK},
    "two_level": {"kind": "two_level", **NODES},
}
CURVES: dict[str, dict[str, float]] = {
    "inverse": {"min_steps": 1000.0, "min_examples": 7e5},
    "knee": {"min_steps": 80.0, "min_examples": 3600.0, "knee_exponent": 2.3},
    "floor": {"min_steps": 428.0, "min_examples": 900.0, "min_batch_size": 1.4},
    "negative": {"min_steps": -3.5, "min_examples": 3600.0},
}


def form_of(law: StepTimeLaw) -> dict[str, Any]:
    exponent = law.overlap_exponent
    return {
        "seconds_per_example": law.seconds_per_example,
        "saturation_batch_size": law.saturation_batch_size,
        "overhead_seconds": law.overhead_seconds,
        "communication": law.communication.to_dict(),
        "overlap_exponent": "Infinity" if math.isinf(exponent) else exponent,
        "evaluation": None if law.evaluation is None else law.evaluation.to_dict(),
    }


def problem_of(law: TrainingTimeLaw, limits: BatchLimits | None = None):
    assert isinstance(law.steps, ConvergenceLaw)
    assert isinstance(law.step_time, StepTimeLaw)
    names = (
        "max_batch_size",
        "max_micro_batch_size",
        "max_accumulation_steps",
        "candidates",
    )
    return {
        "convergence": law.steps.to_dict(),
        "step_time": form_of(law.step_time),
        "limits": {name: getattr(limits, name) for name in names} if limits else {},
    }


def made(curve: str, exchange: str, **changed: Any) -> TrainingTimeLaw:
    values = {
        "seconds_per_example": 0.001,
        "saturation_batch_size": 20.0,
        "overhead_seconds": 0.004,
        "communication": communication_from_dict(EXCHANGES[exchange]),
    }
    return TrainingTimeLaw(
        steps=ConvergenceLaw(**CURVES[curve]),
        step_time=StepTimeLaw(**(values | changed)),
    )


exchanges = st.sampled_from(list(EXCHANGES.values())).map(communication_from_dict)
step_times = st.builds(
    StepTimeLaw,
    seconds_per_example=st.floats(1e-6, 1e-2),
    saturation_batch_size=st.floats(1, 100),
    overhead_seconds=st.one_of(st.just(0.0), st.floats(1e-5, 0.1)),
    communication=exchanges,
    overlap_exponent=st.one_of(st.sampled_from([1.0, math.inf]), st.floats(1, 6)),
)
curves = st.one_of(
    st.builds(
        ConvergenceLaw,
        min_steps=st.floats(1, 1e4),
        min_examples=st.floats(1, 1e6),
        knee_exponent=st.one_of(st.just(1.0), st.floats(0.8, 4)),
    ),
    st.builds(
        ConvergenceLaw,
        min_steps=st.floats(1, 1e4),
        min_examples=st.floats(1, 1e6),
        min_batch_size=st.floats(0.1, 30),
    ),
)
training_times = st.builds(TrainingTimeLaw, steps=curves, step_time=step_times)


# Curves -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CURVES)
def test_steps_are_pythons(name):
    law = ConvergenceLaw(**CURVES[name])
    for batch in BATCHES:
        found = call("laws.steps", law.to_dict(), batch)
        expected = law.steps(batch)
        assert found == (
            pytest.approx(expected, rel=1e-12) if expected < 1e300 else None
        )


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_exchange_takes_as_long_as_in_python(name):
    law = communication_from_dict(EXCHANGES[name])
    found = [call("laws.commSeconds", law.to_dict(), count) for count in REPLICAS]
    assert found == pytest.approx(law.comm_seconds(REPLICAS).tolist(), rel=1e-12)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("exponent", [1.0, 1.7, 8.0, math.inf])
@pytest.mark.parametrize(
    "check",
    [
        None,
        Evaluation(every=50, num_examples=500),
        Evaluation(every=9, num_examples=8, seconds_per_example=1e-4, shared=True),
    ],
)
def test_a_step_takes_as_long_as_in_python(exchange, exponent, check):
    law = made("inverse", exchange, overlap_exponent=exponent, evaluation=check)
    assert isinstance(law.step_time, StepTimeLaw)
    form = form_of(law.step_time)
    for count in REPLICAS:
        found = [call("laws.stepSeconds", form, batch, count) for batch in BATCHES]
        expected = law.step_time.seconds_per_step(BATCHES, count)
        assert found == pytest.approx(expected.tolist(), rel=1e-12)


@FEW
@given(training_times, st.floats(1, 1e5), st.integers(1, 512))
def test_seconds_to_the_target_are_pythons(law, batch, count):
    found = call("laws.secondsToTarget", problem_of(law), batch, count)
    expected = law.seconds_to_target(batch, count)
    assert found == (pytest.approx(expected, rel=1e-11) if expected < 1e300 else None)


# The plan ---------------------------------------------------------------------------


def test_the_known_answers_of_the_paper_are_found():
    law = TrainingTimeLaw(steps=EQUATIONS.convergence, step_time=EQUATIONS.step_time)
    found = [call("laws.plan", problem_of(law), count) for count in (1, 4, 88, 1000)]
    times = [one["seconds"] for one in found]
    assert times == pytest.approx([720, 313.32, 55.909, 41.4], abs=5e-3)
    assert found[1]["batch_size"] == 236


def check_plan(law: TrainingTimeLaw, count: int, limits: BatchLimits) -> None:
    problem = problem_of(law, limits)
    found = call("laws.plan", problem, count, 3.0)
    entry = plan_batch_size(law, count, limits=limits)
    assert found["seconds"] == pytest.approx(entry.seconds, rel=1e-9)
    assert found["batch_size"] == entry.batch_size
    assert found["steps"] == pytest.approx(entry.steps, rel=1e-9)
    assert found["speedup"] == pytest.approx(entry.speedup, rel=1e-9)
    assert found["micro_batch_size"] == entry.micro_batch_size
    assert found["accumulation_steps"] == entry.accumulation_steps
    assert found["limited_by"] == entry.limited_by
    assert found["within_5_percent"] == list(entry.within_5_percent)
    assert found["cost"] == pytest.approx(3 * count * entry.seconds / 3600, rel=1e-9)


@pytest.mark.parametrize("curve", ["inverse", "knee", "floor"])
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_the_best_batch_size_is_pythons(curve, exchange, count):
    check_plan(made(curve, exchange), count, BatchLimits())


@pytest.mark.parametrize("exponent", [1.4, math.inf])
@pytest.mark.parametrize("count", [1, 4, 50])
def test_the_best_batch_size_is_pythons_with_overlap(exponent, count):
    check_plan(made("inverse", "ring", overlap_exponent=exponent), count, BatchLimits())


@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize(
    "limits",
    [
        BatchLimits(max_batch_size=100),
        BatchLimits(max_batch_size=1001),
        BatchLimits(max_batch_size=20_000, max_micro_batch_size=50),
        BatchLimits(max_micro_batch_size=33),
        BatchLimits(max_micro_batch_size=64, max_accumulation_steps=1),
        BatchLimits(max_micro_batch_size=7, max_accumulation_steps=4),
        BatchLimits(candidates=[2**k for k in range(4, 20)]),
        BatchLimits(candidates=[16, 40, 90], max_batch_size=80),
        BatchLimits(
            candidates=[8, 16, 40, 90],
            max_micro_batch_size=20,
            max_accumulation_steps=1,
        ),
    ],
)
@pytest.mark.parametrize("curve", ["inverse", "knee"])
def test_limits_bind_as_in_python(count, limits, curve):
    check_plan(made(curve, "constant"), count, limits)


@FEW
@given(training_times, st.integers(1, 64))
def test_no_batch_size_python_finds_is_better(law, count):
    limits = BatchLimits(max_batch_size=10_000_000)
    problem = problem_of(law, limits)
    found = call("laws.bestBatchSize", problem, count)["batch_size"]
    entry = plan_batch_size(law, count, limits=limits)
    seconds = law.seconds_as_served(found, count, limits)
    assert seconds == pytest.approx(entry.seconds, rel=1e-9)


@FEW
@given(training_times, st.integers(1, 64), st.integers(4, 500))
def test_accumulation_is_searched_as_well_as_by_python(law, count, micro):
    limits = BatchLimits(max_batch_size=1_000_000, max_micro_batch_size=micro)
    found = call("laws.bestBatchSize", problem_of(law, limits), count)["batch_size"]
    entry = plan_batch_size(law, count, limits=limits)
    seconds = law.seconds_as_served(found, count, limits)
    assert seconds == pytest.approx(entry.seconds, rel=1e-9)


def test_what_limits_a_batch_is_pythons_at_a_knee():
    law = made("inverse", "none", overhead_seconds=0.0)
    best = call("laws.bestBatchSize", problem_of(law), 4)["batch_size"]
    assert best == 80
    limits = BatchLimits()
    assert call("laws.limitedBy", problem_of(law), 4, best) == "saturation"
    assert limited_by(law, 4, limits, best) == "saturation"


def test_a_plan_that_cannot_be_made_says_why():
    law = made("inverse", "constant")
    few = problem_of(law, BatchLimits(max_batch_size=6))
    assert call("laws.plan", few, 8)["trouble"] == "served"
    falling = problem_of(made("negative", "constant"))
    assert call("laws.plan", falling, 8)["batch_size"] is not None
    flat = made("inverse", "none", seconds_per_example=0.0)
    assert call("laws.plan", problem_of(flat), 8)["trouble"] == "unbounded"
    out_of_reach = problem_of(made("floor", "none"), BatchLimits(max_batch_size=1))
    assert call("laws.plan", out_of_reach, 1)["trouble"] == "time"


def test_where_s_min_is_not_above_zero_the_largest_run_is_the_limit():
    problem = problem_of(made("negative", "constant"))
    problem["limits"] = {"largest_run": 512}
    assert call("laws.plan", problem, 1)["batch_size"] == 512
    assert call("laws.plan", problem, 600)["batch_size"] == 600
    problem["convergence"]["min_steps"] = 50
    assert call("laws.plan", problem, 1)["batch_size"] != 512


def test_plans_for_many_replicas_leave_out_what_cannot_be_served():
    problem = problem_of(made("inverse", "constant"), BatchLimits(max_batch_size=20))
    found = call("laws.plans", problem, 5, 64, 1.0)
    assert [entry["num_replicas"] for entry in found] == [1, 2, 4, 5, 8, 16]


def test_a_curve_lies_around_its_best_batch():
    problem = problem_of(made("inverse", "constant"))
    entry = call("laws.plan", problem, 8)
    points = call("laws.curve", problem, entry)
    sizes = [size for size, _ in points]
    assert sizes == sorted(sizes)
    assert entry["batch_size"] in sizes
    assert min(time for _, time in points) == pytest.approx(entry["seconds"], rel=1e-3)


# What if ----------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.5, 2, 7])
@pytest.mark.parametrize("name", EXCHANGES)
def test_a_wider_network_is_the_clusters(name, factor):
    law = communication_from_dict(EXCHANGES[name])
    found = call("laws.withBandwidth", law.to_dict(), factor)
    assert found == faster(law, factor).to_dict()


@pytest.mark.parametrize("count", [1, 4])
def test_passes_neither_exchange_nor_check(count):
    check = Evaluation(every=50, num_examples=500)
    law = made("inverse", "ring", evaluation=check, overlap_exponent=2.0)
    limits = BatchLimits(max_batch_size=5000, max_micro_batch_size=30)
    check_plan(law, count, limits)


def test_the_panels_problem_is_the_fitted_one_with_the_knobs_in_place():
    law = made("knee", "ring", overlap_exponent=2.0)
    problem = problem_of(law, BatchLimits(max_batch_size=1000))
    knobs = {"S_min": 50, "E_min": 9e3, "gamma": 2e-3, "M_T": 7, "o": 0, "bandwidth": 1}
    found = call("laws.problemOf", problem, {"P": 4, "price": 1, **knobs})
    assert found["convergence"] == {
        **problem["convergence"],
        "min_steps": 50,
        "min_examples": 9e3,
    }
    assert found["step_time"] == {
        **problem["step_time"],
        "seconds_per_example": 2e-3,
        "saturation_batch_size": 7,
        "overhead_seconds": 0,
    }
    knobs = {"delta": 0.5, **knobs}
    found = call("laws.problemOf", problem, {"P": 4, "price": 1, **knobs})
    assert found["step_time"]["communication"] == {"kind": "constant", "seconds": 0.5}


def knob(name: str, value: float, **more: Any) -> dict[str, Any]:
    scale = {"low": value / 100, "high": value * 100, "places": 200, "zero": False}
    bounds = {"min": 0.0, "max": 1e15, "whole": False}
    return {"name": name, "value": value, **scale, **bounds, **more}


KNOBS = [
    knob("P", 16, whole=True, min=1, max=2**20, stops=[1, 2, 3, 4, 8, 16, 32]),
    knob("gamma", 6.5e-7, min=1e-15),
    knob("o", 0.0, low=1e-5, high=1e1, zero=True),
]


@given(
    st.integers(1, 2**20),
    st.floats(1e-15, 1e15),
    st.one_of(st.just(0.0), st.floats(1e-300, 1e15)),
)
def test_an_address_gives_back_the_state_it_was_made_of(replicas, gamma, fixed):
    state = {"P": replicas, "gamma": gamma, "o": fixed}
    text = call("laws.encodeState", KNOBS, state)
    assert call("laws.decodeState", KNOBS, f"#dark&{text}") == {
        "state": state,
        "ignored": [],
    }


def test_an_address_names_only_what_differs():
    start = call("laws.startOf", KNOBS)
    assert call("laws.encodeState", KNOBS, start) == ""
    assert call("laws.encodeState", KNOBS, {**start, "P": 8}) == "P=8"
    assert call("laws.decodeState", KNOBS, "#main")["state"] == start


@pytest.mark.parametrize(
    "part", ["P=1.5", "P=0", "gamma=-1", "o=", "q=3", "gamma=<b>", "o=Infinity", "P=8x"]
)
def test_what_an_address_may_not_ask_for_is_ignored_and_said(part):
    found = call("laws.decodeState", KNOBS, f"{part}&gamma=2e-6")
    assert found["ignored"] == [part]
    assert found["state"] == {"P": 16, "gamma": 2e-6, "o": 0.0}


@given(st.sampled_from(KNOBS), st.integers(0, 200))
def test_a_slider_stays_where_it_is_put(one, place):
    place = min(place, len(one["stops"]) - 1) if "stops" in one else place
    value = call("laws.valueAt", one, place)
    assert one["min"] <= value <= one["max"]
    assert abs(call("laws.placeOf", one, value) - place) <= ("stops" not in one)


def test_a_slider_put_back_gives_the_very_number_it_started_from():
    for one in KNOBS:
        place = call("laws.placeOf", one, one["value"])
        assert call("laws.valueAt", one, place) == one["value"]


@pytest.mark.parametrize("name", FREE_OF_A_PAGE)
def test_the_formulas_know_of_no_page(name):
    page = {"document", "window", "location", "navigator", "addEventListener", "eval"}
    assert not words_of_code(name) & page


def test_no_communication_needs_no_numbers():
    form = {"kind": "none"}
    assert call("laws.commSeconds", form, 8) == NoCommunication().comm_seconds(8)
    constant = ConstantCommunication(seconds=1.5)
    assert call("laws.commSeconds", constant.to_dict(), 2) == 1.5
