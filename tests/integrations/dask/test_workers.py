"""As many workers as the batch asks for, and what happens when they die."""

import gc
import logging
import math
import os
import signal
import time
from itertools import groupby
from types import SimpleNamespace

import distributed
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from integrations.dask.example_cluster import (
    GROWING,
    alone,
    controlled,
    data,
    kill,
    losses_of,
    net,
    on_cluster,
    pids,
    trained,
    weights,
)

from rightbatch.errors import InputError, ReplicaError
from rightbatch.integrations.dask import DaskGradients, Work, Workers, gradients
from rightbatch.integrations.dask.workers import Crew, bounded, reason_lost
from rightbatch.policies import Constant, Schedule
from rightbatch.training.interrupt import patient_interrupt


@given(
    batch_size=st.integers(1, 10**6),
    grads=st.integers(1, 1000),
    minimum=st.integers(1, 20),
    more=st.none() | st.integers(0, 20),
)
def test_workers_are_the_clipped_ceiling(batch_size, grads, minimum, more):
    most = None if more is None else minimum + more
    workers = Workers(grads_per_worker=grads, minimum=minimum, maximum=most)
    ceiling = math.ceil(batch_size / grads)
    low, high = minimum, math.inf if most is None else most
    assert workers.for_batch(batch_size) == min(max(ceiling, low), high)


class Scaled:
    """A cluster that only writes down what it is asked for."""

    def __init__(self, adapts):
        self.asked = []
        if adapts:
            self._adaptive = SimpleNamespace(state="running", minimum=0, maximum=9)

    def scale(self, number):
        self.asked.append(("scale", number))

    def adapt(self, minimum, maximum):
        self.asked.append(("adapt", minimum, maximum))
        self._adaptive.minimum, self._adaptive.maximum = minimum, maximum


@pytest.mark.parametrize("adapts", [False, True])
def test_a_cluster_is_asked_when_the_number_changes(threads, monkeypatch, adapts):
    cluster = Scaled(adapts)
    monkeypatch.setattr(threads, "cluster", cluster)
    crew = Crew(threads, Workers(grads_per_worker=10, minimum=2, maximum=5))
    wanted = [crew.follow(size) for size in (8, 15, 25, 28, 90, 70, 31, 8)]
    assert wanted == [2, 2, 3, 3, 5, 5, 4, 2]
    numbers = [2, 3, 5, 4, 2]
    if adapts:
        assert cluster.asked == [("adapt", n, n) for n in numbers]
        after = ("adapt", 0, 9)
    else:
        # Again and again, as long as those that were asked for are not there.
        assert [one for one, _ in groupby(cluster.asked)] == [
            ("scale", n) for n in numbers
        ]
        after = ("scale", 1)
    crew.follow(50)
    crew.release()
    assert cluster.asked[-1] == after


def test_a_user_s_bounds_are_kept(threads, monkeypatch):
    cluster = Scaled(adapts=True)
    cluster._adaptive.minimum, cluster._adaptive.maximum = 2, 4
    monkeypatch.setattr(threads, "cluster", cluster)
    workers = bounded(threads, Workers(grads_per_worker=10))
    assert workers.maximum == 4
    crew = Crew(threads, Workers(grads_per_worker=10))
    assert [crew.follow(size) for size in (5, 25, 90)] == [1, 3, 9]
    crew.release()
    bounds = [(2, 2), (3, 3), (4, 4), (2, 4)]
    assert cluster.asked == [("adapt", *pair) for pair in bounds]


def test_a_cluster_of_this_machine_is_asked_for_its_cores_at_most(threads, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert bounded(threads, Workers()).maximum == 3
    assert bounded(threads, Workers(minimum=5)).maximum == 5
    assert bounded(threads, Workers(maximum=9)).maximum == 9
    monkeypatch.setattr(threads, "cluster", None)
    assert bounded(threads, Workers()).maximum is None


def test_workers_follow_the_batch_up_and_down(threads):
    policy = Schedule(points=((0, 8), (6, 24), (12, 16), (18, 8)), unit="step")
    model = net()
    workers = Workers(grads_per_worker=8, maximum=3, wait_seconds=20)
    source = on_cluster(threads, model, data(), workers=workers)
    trained(source, controlled(model, source.stream(), policy), max_steps=24)
    shares = source.shares
    assert [one.wanted for one in shares] == [1] * 6 + [3] * 6 + [2] * 6 + [1] * 6
    assert [one.used for one in shares[:12]] == [1] * 6 + [3] * 6
    # Those that are left over go a little later.
    assert all(one.used <= one.wanted for one in shares)
    _until(lambda: len(threads.nthreads()) == 1)
    source.close()


def test_a_cluster_that_adapts_follows_too():
    cluster = distributed.LocalCluster(
        n_workers=0,
        threads_per_worker=1,
        processes=False,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        cluster.adapt(minimum=0, maximum=3, interval="50ms")
        model = net()
        workers = Workers(grads_per_worker=16, maximum=2, wait_seconds=20)
        source = on_cluster(client, model, data(), workers=workers)
        controller = controlled(model, source.stream(), Constant(batch_size=64))
        trained(source, controller, max_steps=2)
        assert [one.used for one in source.shares] == [2, 2]
        source.close()
        _until(lambda: len(client.nthreads()) == 0)


def test_a_cluster_is_left_alone_where_that_is_asked(client):
    model = net()
    workers = Workers(grads_per_worker=8, maximum=8, follow="none")
    source = on_cluster(client, model, data(), workers=workers)
    controller = controlled(model, source.stream(), Constant(batch_size=64))
    trained(source, controller, max_steps=1)
    source.close()
    share = source.shares[0]
    assert (share.wanted, share.present, share.used) == (8, 2, 2)


@pytest.mark.slow
def test_nothing_is_left_of_an_update(client, cluster):
    model = net()
    source = on_cluster(client, model, data())
    controller = controlled(model, source.stream(), Constant(batch_size=64))
    before = _held(client, cluster)
    trained(source, controller, max_steps=60)
    tasks, keys = _held(client, cluster)
    # The tasks of the last update may still be on their way out.
    assert tasks <= before[0] + 6
    assert keys <= before[1] + 8
    source.close()
    _until(lambda: _held(client, cluster) <= before)


def _held(client, cluster):
    """Return how many tasks the scheduler has, and results the workers."""
    gc.collect()  # errors of other tests' futures go round in circles

    def results(dask_worker):
        return len(dask_worker.data)

    return len(cluster.scheduler.tasks), sum(client.run(results).values())


@pytest.mark.slow
def test_all_workers_may_die_at_once(client):
    model, other = net(), net()
    workers = Workers(grads_per_worker=8, minimum=2, maximum=2)
    source = on_cluster(client, model, data(), workers=workers)

    def meanwhile(step):
        if step == 3:
            for pid in pids(client).values():
                kill(pid)

    trained(
        source, controlled(model, source.stream()), meanwhile=meanwhile, max_steps=9
    )
    source.close()
    alone(other, data(), limits={"max_steps": 9})
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-12)


def dies(model, batch):
    kill(os.getpid())


@pytest.mark.slow
def test_a_loss_that_kills_its_workers_ends_the_run(client, monkeypatch):
    monkeypatch.setattr(gradients, "_TRIES", 1)
    model = net()
    workers = Workers(grads_per_worker=8, minimum=2, maximum=2)
    source = on_cluster(client, model, data(), loss=dies, workers=workers)
    with pytest.raises(ReplicaError, match=r"workers died 1 times .*enough memory"):
        trained(source, controlled(model, source.stream()), max_steps=1)
    client.wait_for_workers(2, timeout=100)
    source.close()


def test_a_scheduler_that_is_gone_is_said_so(threads):
    said = reason_lost(SimpleNamespace(status="closed"), 5, "no answer")
    assert "the scheduler is gone (no answer)" in said[0]
    assert "workers died 5 times" in reason_lost(threads, 5, "no answer")[0]


def _until(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_client_by_address_trains_too(client):
    model, other = net(), net()
    with distributed.Client(client.scheduler.address, set_as_default=False) as own:
        assert own.cluster is None
        source = on_cluster(own, model, data(), workers=Workers(grads_per_worker=32))
        trained(source, controlled(model, source.stream()), max_steps=3)
        source.close()
    alone(other, data(), limits={"max_steps": 3})
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-12)


def test_a_scheduler_that_ends_in_an_update_ends_the_run(threads, monkeypatch):
    model = net()
    source = on_cluster(threads, model, data())
    controller = controlled(model, source.stream())
    trained(source, controller, max_steps=2)

    def end(*given):
        threads.close()
        raise RuntimeError("ConnectionPool is closed")

    monkeypatch.setattr(source, "_asked", end)
    with pytest.raises(ReplicaError, match=r"scheduler is gone \(ConnectionPool is cl"):
        trained(source, controller, max_steps=3)
    assert controller.step == 2


def test_an_error_of_dask_s_own_is_passed_on(threads, monkeypatch):
    model = net()
    source = on_cluster(threads, model, data())

    def fail(*given):
        raise RuntimeError("a defect")

    monkeypatch.setattr(source, "_asked", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        trained(source, controlled(model, source.stream()), max_steps=1)


def test_ctrl_c_ends_the_wait_for_workers_that_died_of_it():
    cluster = distributed.LocalCluster(
        n_workers=0,
        processes=False,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        model = net()
        workers = Workers(follow="none")
        source = on_cluster(client, model, data(), workers=workers)
        controller = controlled(model, source.stream())
        with patient_interrupt():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                trained(source, controller, max_steps=1)


def test_a_client_that_is_closed_is_refused(threads):
    model = net()
    source = on_cluster(threads, model, data())
    controller = controlled(model, source.stream(), GROWING)
    trained(source, controller, max_steps=2)
    threads.close()
    with pytest.raises(InputError, match="must be connected, got one that is closed"):
        trained(source, controller, max_steps=3)
    assert controller.step == 2
    with pytest.raises(InputError, match="must be connected, got one that is closed"):
        on_cluster(threads, model, data())
    source.close()


def test_a_cluster_without_a_worker_is_refused():
    cluster = distributed.LocalCluster(
        n_workers=0,
        processes=False,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        model = net()
        workers = Workers(follow="none", patience_seconds=0.2)
        source = on_cluster(client, model, data(), workers=workers)
        with pytest.raises(InputError, match=r"must have a worker, got none in 0.2 s"):
            trained(source, controlled(model, source.stream()), max_steps=1)


def test_arguments_of_another_kind_are_refused(threads):
    work = Work(module=net(), loss=losses_of, dataset=data())
    with pytest.raises(InputError, match=r"`workers` must be Workers\(...\), got 3"):
        DaskGradients(threads, 3, work)
    with pytest.raises(InputError, match=r"`work` must be Work\(...\), got"):
        DaskGradients(threads, Workers(), net())


def test_what_is_no_client_is_refused():
    work = Work(module=net(), loss=losses_of, dataset=data())
    with pytest.raises(InputError, match=r"must be a distributed.Client, got 'tcp:"):
        DaskGradients("tcp://localhost:8786", Workers(), work)


def test_an_asynchronous_client_is_refused(threads, monkeypatch):
    monkeypatch.setattr(type(threads), "asynchronous", property(lambda self: True))
    work = Work(module=net(), loss=losses_of, dataset=data())
    try:
        with pytest.raises(InputError, match="`client` must not be asynchronous"):
            DaskGradients(threads, Workers(), work)
    finally:
        monkeypatch.undo()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grads_per_worker": 0}, "`grads_per_worker` must be"),
        ({"minimum": 0}, "`minimum` must be"),
        ({"maximum": 0}, "`maximum` must be"),
        ({"minimum": 3, "maximum": 2}, "`maximum` must be at least `minimum`, 3, got"),
        ({"follow": "adapt"}, "`follow` cannot be 'adapt'"),
        ({"wait_seconds": -1}, "`wait_seconds` must"),
    ],
)
def test_numbers_out_of_range_are_refused(settings, said):
    with pytest.raises(InputError, match=said):
        Workers(**settings)
