"""The best batch size over integers, and what limits it."""

import math

import numpy as np
import oracles
import pytest
from example_laws import (
    PERRONE,
    STEPS,
    convergences,
    law_of,
    step_time,
    step_times,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError, NotReachedError
from rightbatch.step_time import (
    MeasuredStepTime,
    NoCommunication,
    StepTimeLaw,
)
from rightbatch.training_time import (
    BatchLimits,
    ClosedForm,
    TrainingTimeLaw,
    batch_sizes_within,
    best_batch_size,
    limited_by,
    plan_batch_size,
    plan_batch_sizes,
    regret,
)


@settings(max_examples=60)
@given(
    convergence=convergences,
    model=step_times,
    replicas=st.integers(1, 12),
    extra=st.integers(0, 300),
    micro=st.one_of(st.none(), st.integers(1, 40)),
)
def test_the_plan_is_what_trying_every_batch_size_finds(
    convergence, model, replicas, extra, micro
):
    largest = replicas + extra
    limits = BatchLimits(max_batch_size=largest, max_micro_batch_size=micro)
    law = TrainingTimeLaw(steps=convergence, step_time=model)
    best, least, within = oracles.plan(
        convergence.steps, model.seconds_per_step, replicas, largest, micro
    )
    entry = plan_batch_size(law, replicas, limits=limits)
    assert entry.seconds == pytest.approx(least, rel=1e-9)
    assert entry.batch_size == best
    assert entry.within_5_percent == within
    served = entry.micro_batch_size * entry.accumulation_steps * replicas
    assert served >= entry.batch_size
    if served != entry.batch_size:
        assert any("cannot be shared evenly" in said for said in entry.warnings)


@settings(max_examples=30)
@given(
    min_steps=st.floats(1, 100),
    min_examples=st.floats(1e5, 1e9),
    overhead=st.floats(1e-3, 1),
    replicas=st.sampled_from([1, 3, 16, 100]),
)
def test_far_optima_are_found_exactly_as_well(
    min_steps, min_examples, overhead, replicas
):
    convergence = ConvergenceLaw(min_steps=min_steps, min_examples=min_examples)
    model = StepTimeLaw(
        seconds_per_example=1e-5, saturation_batch_size=1, overhead_seconds=overhead
    )
    limits = BatchLimits(max_batch_size=1_000_000)
    law = TrainingTimeLaw(steps=convergence, step_time=model)
    every = np.arange(replicas, 1_000_001)
    times = law.seconds_as_served(every, replicas)
    least = times.min()
    best = best_batch_size(law, replicas, limits)
    assert law.seconds_as_served(best, replicas) <= least * (1 + 1e-11)
    low, high = batch_sizes_within(law, replicas, limits)
    even = every[every % replicas == 0]
    inside = even[times[even - replicas] <= 1.05 * least]
    assert low == min(inside[0], best)
    assert high == max(inside[-1], best) or high == 1_000_000


@given(convergence=convergences, model=step_times)
def test_integers_are_hardly_slower_than_the_closed_form(convergence, model):
    plan = ClosedForm(convergence=convergence, step_time=model)
    law = TrainingTimeLaw(steps=convergence, step_time=model)
    best = best_batch_size(law)
    assert best in {
        math.floor(plan.optimal_batch_size()),
        math.ceil(plan.optimal_batch_size()),
    } or law.seconds_as_served(best) == pytest.approx(plan.optimal_seconds(), rel=1e-3)


def test_measured_times_that_wiggle_are_searched_whole():
    sizes = [1, 2, 4, 8, 16, 32, 64, 128]
    measured = MeasuredStepTime(
        batch_sizes=sizes, seconds=[3, 3.1, 2.9, 5, 4, 4.2, 9, 8.5]
    )
    convergence = ConvergenceLaw(min_steps=100, min_examples=3000)
    law = TrainingTimeLaw(steps=convergence, step_time=measured)
    best, least, within = oracles.plan(
        convergence.steps, measured.seconds_per_step, 1, 300
    )
    limits = BatchLimits(max_batch_size=300)
    assert best_batch_size(law, 1, limits) == best
    assert batch_sizes_within(law, 1, limits) == within
    assert regret(law, best, 1, limits) == 0


def test_only_candidates_are_chosen_where_given():
    limits = BatchLimits(candidates=[512, 64, 128, 256])
    entry = plan_batch_size(PERRONE, 4, limits=limits)
    assert entry.batch_size == 256
    assert entry.within_5_percent == (256, 256)
    times = [PERRONE.seconds_as_served(size, 4) for size in (64, 128, 256, 512)]
    assert entry.seconds == min(times)


def test_regret_counts_the_largest_share():
    lost = regret(PERRONE, [236, 237, 240], 4)
    assert lost[0] == 0
    # 237 examples on 4 replicas take as long as 240, in more steps.
    assert lost[1] > lost[2]


def test_balance_limits_where_longer_steps_offset_fewer():
    assert plan_batch_size(PERRONE, 4).limited_by == "balance"


@pytest.mark.parametrize("knee", [1.0, 1.5, 20, 20.4, 20.6])
def test_saturation_limits_at_the_knee_between_whole_shares_too(knee):
    law = law_of(saturation_batch_size=knee, communication=NoCommunication())
    assert plan_batch_size(law, 8).limited_by == "saturation"


def test_the_data_set_limits_where_a_larger_batch_would_be_faster():
    entry = plan_batch_size(PERRONE, 4, limits=BatchLimits(max_batch_size=150))
    assert entry.limited_by == "dataset"
    assert entry.batch_size in {148, 150}
    assert any("would be faster still" in said for said in entry.warnings)
    candidates = BatchLimits(candidates=[16, 32, 64])
    assert plan_batch_size(PERRONE, 4, limits=candidates).limited_by == "dataset"


def test_an_optimum_that_happens_to_be_the_largest_is_not_limited_by_it():
    entry = plan_batch_size(PERRONE, 4, limits=BatchLimits(max_batch_size=236))
    assert entry.batch_size == 236
    assert entry.limited_by == "balance"


def test_memory_limits_where_accumulation_is_forbidden():
    limits = BatchLimits(max_micro_batch_size=30, max_accumulation_steps=1)
    entry = plan_batch_size(PERRONE, 4, limits=limits)
    assert (entry.batch_size, entry.limited_by) == (120, "memory")
    candidates = BatchLimits(
        max_micro_batch_size=30,
        max_accumulation_steps=1,
        candidates=[16, 64, 128, 256],
    )
    assert plan_batch_size(PERRONE, 4, limits=candidates).limited_by == "memory"


def test_memory_limits_where_one_more_pass_costs_more_than_it_gives():
    law = law_of(overhead_seconds=0.05)
    limits = BatchLimits(max_micro_batch_size=60)
    assert best_batch_size(law, 4) > 240
    entry = plan_batch_size(law, 4, limits=limits)
    assert (entry.batch_size, entry.accumulation_steps) == (240, 1)
    assert entry.limited_by == "memory"


def test_accumulation_pays_compute_per_pass_and_communication_once():
    limits = BatchLimits(max_micro_batch_size=25)
    model = step_time(overhead_seconds=0.003)
    law = TrainingTimeLaw(steps=STEPS, step_time=model)
    found = law.seconds_as_served(400, 4, limits)
    passes = 4 * (0.003 + 0.001 * 25)
    assert found == pytest.approx(STEPS.steps(400) * (passes + 0.02))
    assert limits.split(400, 4) == (25, 4)


def test_limited_by_can_be_asked_of_any_best_batch():
    assert limited_by(PERRONE, 88, BatchLimits(), 1760) == "saturation"


def test_more_replicas_than_examples_are_refused():
    with pytest.raises(InputError, match="each of 64 replicas.*fewer replicas"):
        plan_batch_size(PERRONE, 64, limits=BatchLimits(max_batch_size=32))
    with pytest.raises(InputError, match="each of 64 replicas"):
        plan_batch_size(PERRONE, 64, limits=BatchLimits(candidates=[8, 16]))


@pytest.mark.parametrize(
    "convergence",
    [
        ConvergenceLaw(min_steps=0, min_examples=7e5),
        ConvergenceLaw(min_steps=1000, min_examples=7e5),
    ],
)
def test_a_time_that_falls_for_ever_needs_a_largest_batch(convergence):
    per_example = 0.001 if convergence.min_steps == 0 else 0.0
    law = law_of(convergence, seconds_per_example=per_example, overhead_seconds=0.01)
    with pytest.raises(InputError, match="ever larger batches.*max_batch_size"):
        plan_batch_size(law, 4)
    entry = plan_batch_size(law, 4, limits=BatchLimits(max_batch_size=1000))
    assert (entry.batch_size, entry.limited_by) == (1000, "dataset")


class Unreachable:
    def steps(self, batch_size):
        return np.full(np.shape(batch_size), np.inf)


def test_a_target_no_batch_reaches_is_said_to_be_out_of_reach():
    law = TrainingTimeLaw(steps=Unreachable(), step_time=step_time())
    with pytest.raises(
        NotReachedError, match="no batch size from 2 to 100 has a finite"
    ):
        plan_batch_size(law, 2, limits=BatchLimits(max_batch_size=100))


class FeasibleFrom64:
    def steps(self, batch_size):
        batch = np.asarray(batch_size, dtype=float)
        return np.where(batch >= 64, 1000 + 7e5 / batch, np.nan)[()]


def test_batches_below_a_feasibility_floor_are_passed_over():
    law = TrainingTimeLaw(steps=FeasibleFrom64(), step_time=step_time())
    entry = plan_batch_size(law, 1, limits=BatchLimits(max_batch_size=10**6))
    assert entry.batch_size == 64
    assert entry.within_5_percent[0] == 64


def test_a_law_with_no_steps_left_at_the_best_batch_says_so():
    law = law_of(ConvergenceLaw(min_steps=-100, min_examples=1e5))
    entry = plan_batch_size(law, 2, limits=BatchLimits(max_batch_size=5000))
    assert entry.batch_size < 1000
    assert entry.steps < 1
    assert any("less than one step" in said for said in entry.warnings)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_batch_size": 0}, "`max_batch_size` must be a whole number"),
        ({"max_micro_batch_size": 1.5}, "`max_micro_batch_size` must be a whole"),
        (
            {"max_micro_batch_size": 8, "max_accumulation_steps": -1},
            "`max_accumulation_steps` must be a whole",
        ),
        ({"max_accumulation_steps": 2}, "needs `max_micro_batch_size`, got 2 alone"),
        ({"candidates": [4, 0]}, "`candidates` must be a whole number"),
    ],
)
def test_limits_that_mean_nothing_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        BatchLimits(**arguments)


def test_replicas_must_be_whole_and_there_must_be_some():
    with pytest.raises(InputError, match="`num_replicas` must be a whole number"):
        plan_batch_size(PERRONE, 0)
    with pytest.raises(InputError, match="`replicas` must hold at least one"):
        plan_batch_sizes(PERRONE, [])


@pytest.mark.parametrize("replicas", [1, 3, 8])
def test_the_best_of_larger_batches_alone_is_chosen_where_small_ones_are_barred(
    replicas,
):
    least = 500
    free = best_batch_size(PERRONE, replicas)
    limits = BatchLimits(min_batch_size=least)
    found = best_batch_size(PERRONE, replicas, limits)
    sizes = np.arange(least, 4000)
    times = PERRONE.seconds_as_served(sizes, replicas)
    assert found == sizes[times.argmin()]
    assert found >= least > free
    low, high = batch_sizes_within(PERRONE, replicas, limits)
    assert least <= low <= found <= high
    assert limits.to_dict()["min_batch_size"] == least


def test_batches_that_are_all_too_small_are_refused():
    with pytest.raises(InputError, match="no batch size of 500 or more"):
        best_batch_size(
            PERRONE, 1, BatchLimits(min_batch_size=500, candidates=[32, 64])
        )
    with pytest.raises(InputError, match="`min_batch_size` must be at most"):
        BatchLimits(min_batch_size=500, max_batch_size=400)
