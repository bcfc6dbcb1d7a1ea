"""Several jobs on one cluster, against every way of dealing out the replicas."""

import numpy as np
import oracles
import pytest
from example_designs import job
from example_laws import convergences, step_times
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.cluster import Job, Machine, share_replicas
from rightbatch.cluster.sharing import shared_seconds
from rightbatch.errors import InputError, NotReachedError

jobs_of_all_kinds = st.lists(
    st.builds(
        Job, convergence=convergences, step_time=step_times, weight=st.floats(0.1, 10)
    ),
    min_size=1,
    max_size=3,
)


def tables(jobs, count):
    machine = Machine(num_replicas=np.arange(1, count + 1))
    return [job.seconds(machine) for job in jobs]


@settings(max_examples=60, deadline=None)
@given(jobs=jobs_of_all_kinds, extra=st.integers(0, 7))
def test_the_latest_finish_is_the_least_of_all_ways_to_share(jobs, extra):
    count = len(jobs) + extra
    found = share_replicas(jobs, count)
    best = oracles.best_sharing(tables(jobs, count), count, max)
    assert found.objective == pytest.approx(best, rel=1e-12)
    assert found.latest == found.objective
    assert sum(found.num_replicas) <= count


@settings(max_examples=60, deadline=None)
@given(jobs=jobs_of_all_kinds, extra=st.integers(0, 7))
def test_the_weighted_sum_is_the_least_of_all_ways_to_share(jobs, extra):
    count = len(jobs) + extra
    found = share_replicas(jobs, count, aim="weighted")
    weights = [each.weight for each in jobs]
    best = oracles.best_sharing(
        tables(jobs, count), count, lambda times: float(np.dot(weights, times))
    )
    assert found.objective == pytest.approx(best, rel=1e-9)
    assert sum(found.num_replicas) <= count


@settings(max_examples=30, deadline=None)
@given(
    jobs=jobs_of_all_kinds,
    extra=st.integers(0, 7),
    aim=st.sampled_from(["latest", "weighted"]),
)
def test_one_table_has_the_objective_for_every_number_of_replicas(jobs, extra, aim):
    count = len(jobs) + extra
    found = shared_seconds(jobs, Machine(num_replicas=np.arange(1, count + 1)), aim)
    assert np.all(np.isinf(found[: len(jobs) - 1]))
    expected = [
        share_replicas(jobs, p, aim=aim).objective for p in range(len(jobs), count + 1)
    ]
    assert found[len(jobs) - 1 :].tolist() == pytest.approx(expected, rel=1e-12)
    assert np.all(np.diff(found[len(jobs) - 1 :]) <= 1e-9)


@given(jobs=jobs_of_all_kinds, extra=st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_each_job_takes_the_time_of_the_replicas_it_gets(jobs, extra):
    found = share_replicas(jobs, len(jobs) + extra)
    for each, count, seconds in zip(
        jobs, found.num_replicas, found.seconds, strict=True
    ):
        assert float(each.seconds(Machine(num_replicas=count))) == seconds


def test_a_job_alone_takes_all_replicas_that_help():
    assert share_replicas([job()], 16).num_replicas == (16,)


def test_more_jobs_than_replicas_do_not_fit():
    with pytest.raises(NotReachedError, match="2 jobs need a replica each, got 1"):
        share_replicas([job(), job()], 1)


def test_an_aim_that_is_none_is_refused():
    with pytest.raises(InputError, match="did you mean latest"):
        share_replicas([job()], 4, aim="lates")
