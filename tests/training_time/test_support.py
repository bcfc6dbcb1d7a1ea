"""Plans of laws whose runs do not tell how large a batch may be."""

import pytest
from example_laws import STEPS, step_time

from rightbatch.convergence import ConvergenceLaw, fit_convergence
from rightbatch.errors import InputError
from rightbatch.training_time import (
    BatchLimits,
    FittedSteps,
    PlanDraws,
    TrainingTimeLaw,
    limits_of,
    plan_batch_size,
    plan_batch_sizes,
)

BATCHES = [8, 32, 128, 512]
# Examples fall with the batch: below the data-optimal one.
FALLING = fit_convergence(
    [b for b in BATCHES for _ in range(3)],
    [(1e5 / b - 60) * w for b in BATCHES for w in (0.98, 1.0, 1.02)],
)


def plan(fit, replicas=(1, 4), **options):
    law = TrainingTimeLaw(steps=fit, step_time=step_time())
    return plan_batch_sizes(law, replicas, **options)


def test_a_fit_brings_its_own_range_and_a_law_alone_none():
    assert isinstance(FALLING, FittedSteps)
    assert not isinstance(STEPS, FittedSteps)


def test_without_least_steps_the_largest_batch_run_is_a_lower_bound():
    assert FALLING.law.min_steps < 0
    found = plan(FALLING)
    assert found.is_lower_bound
    assert [entry.batch_size for entry in found.entries] == [512, 512]
    assert all(entry.batch_size_is_lower_bound for entry in found.entries)
    assert ">=512" in str(found)
    assert any("a lower bound of the best one" in said for said in found.warnings)
    assert found.to_dict()["optimal"][0]["batch_size_is_lower_bound"] is True


def test_the_interval_of_a_lower_bound_has_no_upper_end():
    draws = PlanDraws(steps=FALLING.draws(200), step_time=step_time())
    entry = plan(FALLING, draws=draws).entries[0]
    assert entry.intervals.batch_size.high is None
    # What a larger batch would save is not known either.
    assert entry.intervals.regret.high is None
    assert entry.intervals.probability_within_5_percent.value < 0.5


def test_a_law_alone_with_the_range_of_its_runs_is_bounded_as_well():
    law = TrainingTimeLaw(steps=FALLING.law, step_time=step_time())
    entry = plan_batch_size(law, 4, fitted_range=(8, 512))
    assert (entry.batch_size, entry.batch_size_is_lower_bound) == (512, True)
    with pytest.raises(InputError, match="`min_steps` must be above 0.*fitted_range"):
        plan_batch_size(law, 4)


def test_a_limit_below_the_largest_run_is_a_limit_not_a_bound():
    found = plan(FALLING, limits=BatchLimits(max_batch_size=256))
    assert [entry.batch_size for entry in found.entries] == [256, 256]
    assert not found.is_lower_bound
    assert found.entries[0].limited_by == "dataset"


def test_more_replicas_than_the_largest_batch_run_get_an_example_each():
    (entry,) = plan(FALLING, [1000]).entries
    assert entry.batch_size == 1000
    assert entry.batch_size_is_lower_bound
    assert entry.extrapolated


def test_a_law_with_least_steps_is_not_bounded_by_its_runs():
    fit = fit_convergence(BATCHES, [100 + 1e5 / b for b in BATCHES])
    assert limits_of(fit, BatchLimits()) == BatchLimits()
    found = plan(fit, [64])
    assert not found.is_lower_bound
    assert found.entries[0].extrapolated


def test_memory_and_candidates_bind_within_the_runs():
    limits = BatchLimits(candidates=[64, 256, 1024], max_micro_batch_size=100)
    (entry,) = plan(FALLING, [1], limits=limits).entries
    assert entry.batch_size == 256
    assert entry.batch_size_is_lower_bound


def test_two_runs_tell_a_batch_size_and_nothing_of_how_far_off_it_is():
    fit = fit_convergence([8, 128], [900, 150])
    (entry,) = plan(fit, [1]).entries
    known = entry.intervals
    for interval in (known.batch_size, known.steps, known.seconds, known.speedup):
        assert interval.value is not None
        assert (interval.low, interval.high) == (None, None)
    assert known.regret.value is None
    assert entry.to_dict()["probability_within_5_percent"] is None
    assert "? to ?" in str(plan(fit, [1]))


def test_a_law_of_zero_least_steps_stops_where_the_time_is_flat():
    flat = ConvergenceLaw(min_steps=0, min_examples=1e5)
    law = TrainingTimeLaw(steps=flat, step_time=step_time(saturation_batch_size=1))
    entry = plan_batch_size(law, 1, fitted_range=(8, 512))
    assert not entry.batch_size_is_lower_bound
