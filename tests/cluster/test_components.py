"""Components: what they change of a machine, and what is sold."""

import numpy as np
import pytest
from example_designs import linear
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.cluster import (
    Bandwidth,
    Compute,
    Machine,
    Memory,
    Replicas,
    SteppedPrice,
    TablePrice,
)
from rightbatch.cluster.machine import faster, step_time_on, step_times_on
from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    LinearCommunication,
    NoCommunication,
    RingCommunication,
    StepTimeLaw,
)
from rightbatch.step_time.collectives import (
    HalvingDoublingCommunication,
    ShardedCommunication,
    TwoLevelCommunication,
)
from rightbatch.step_time.evaluation import Evaluation

LINK = {"latency_seconds": 1e-4, "bytes_per_second": 1e9, "num_bytes": 2e8}
KINDS = (
    NoCommunication(),
    ConstantCommunication(seconds=0.02),
    LinearCommunication(seconds_per_replica=0.001),
    RingCommunication(**LINK),
    HalvingDoublingCommunication(**LINK),
    ShardedCommunication(**LINK),
    TwoLevelCommunication(
        replicas_per_node=4,
        inner_latency_seconds=1e-5,
        inner_bytes_per_second=1e11,
        outer_latency_seconds=1e-4,
        outer_bytes_per_second=1e9,
        num_bytes=2e8,
    ),
)


@pytest.mark.parametrize("kind", [Compute, Bandwidth])
def test_between_two_amounts_are_those_sold_or_the_two(kind):
    free = kind(price=linear(100.0))
    assert free.sizes() is None
    assert free.between(2.0, 8.0).tolist() == [2, 8]
    assert free.between(3.0, 3.0).tolist() == [3]
    listed = kind(price=linear(100.0), choices=[1, 2, 4, 9])
    assert listed.sizes().tolist() == [1, 2, 4, 9]
    assert listed.between(2.0, 8.0).tolist() == [2, 4]
    assert listed.bought(4.0) == 4.0


@given(
    between=st.sampled_from(KINDS),
    batch=st.floats(1, 1e5),
    replicas=st.integers(1, 64),
    speed=st.floats(0.5, 10),
    width=st.floats(0.5, 10),
    overlap=st.sampled_from([1.0, 2.0, np.inf]),
)
def test_many_machines_at_once_take_as_long_as_each_alone(
    between, batch, replicas, speed, width, overlap
):
    law = StepTimeLaw(
        seconds_per_example=1e-3,
        saturation_batch_size=20,
        overhead_seconds=1e-3,
        communication=between,
        overlap_exponent=overlap,
        evaluation=Evaluation(every=50, num_examples=1000, seconds_per_example=1e-4),
    )
    alone = step_time_on(law, Machine(speed=speed, bandwidth=width))
    together = step_times_on(law, np.array([speed, 1.0]), np.array([width, 1.0]))
    expected = [
        float(alone.seconds_per_step(batch, replicas)),
        float(law.seconds_per_step(batch, replicas)),
    ]
    found = together.seconds_per_step(batch, replicas)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_twice_the_bandwidth_halves_the_volume_and_leaves_the_latency():
    ring = RingCommunication(**LINK)
    latency = 2 * 7 * 1e-4
    volume = ring.comm_seconds(8) - latency
    assert faster(ring, 2).comm_seconds(8) == pytest.approx(latency + volume / 2)


def test_of_two_levels_the_network_between_nodes_is_sped_up():
    nodes = KINDS[-1]
    assert faster(nodes, 2).comm_seconds(4) == nodes.comm_seconds(4)
    assert faster(nodes, 2).comm_seconds(8) < nodes.comm_seconds(8)


def test_components_change_their_part_of_the_machine():
    price = linear(1.0)
    machine = Replicas(price=price).fit(Machine(), 8)
    machine = Compute(price=price).fit(machine, 2.0)
    machine = Bandwidth(price=price).fit(machine, 4.0)
    memory = Memory(price=price, low=4, per_example=0.5, reserved=2)
    machine = memory.fit(machine, 10.2)
    assert machine == Machine(
        num_replicas=8, speed=2.0, bandwidth=4.0, max_micro_batch_size=16.0
    )


def test_replicas_beyond_what_is_used_are_paid_for_where_sold_so():
    nodes = Replicas(price=SteppedPrice(step=8, price_per_step=1.0), high=64)
    assert nodes.bought([1, 8, 9]).tolist() == [8.0, 8.0, 16.0]
    listed = Replicas(price=linear(1.0), choices=[4, 16])
    assert listed.bought([1, 4, 5]).tolist() == [4.0, 4.0, 16.0]
    assert Replicas(price=linear(0.3)).bought(7) == 7.0


def test_every_small_number_of_replicas_is_tried_and_the_ends_of_steps():
    plain = Replicas(price=linear(1.0), high=1000).sizes()
    assert set(range(1, 33)) <= set(plain.tolist())
    assert plain[-1] == 1000
    assert np.all(np.diff(plain) / plain[:-1] <= 1.0)
    nodes = Replicas(price=SteppedPrice(step=8, price_per_step=1.0), high=64)
    assert nodes.sizes().tolist() == [1.0, *range(8, 65, 8)]


def test_memory_is_bought_for_whole_examples():
    memory = Memory(price=linear(1.0), low=4, high=8, per_example=1.5, reserved=1)
    assert memory.sizes().tolist() == [4.0, 5.5, 7.0]
    assert memory.fit(Machine(), 6.9).max_micro_batch_size == 3.0


def test_a_list_of_prices_sets_the_most_there_is():
    table = TablePrice(amounts=[1, 4], prices=[1, 2])
    assert Bandwidth(price=table).high == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Replicas(price=linear(1.0), low=2.5), "whole number"),
        (lambda: Replicas(price=linear(1.0), choices=[1.5]), "whole number"),
        (lambda: Compute(price=linear(1.0), low=3, high=2), "`high` must be >= `low`"),
        (lambda: Compute(price=linear(1.0), low=0), "`low` must be positive"),
        (
            lambda: Compute(price=linear(1.0), low=3, choices=[1, 2]),
            "none of `choices` is within",
        ),
        (
            lambda: Bandwidth(price=TablePrice(amounts=[1, 2], prices=[1, 2]), high=4),
            "there is no price for 4",
        ),
        (
            lambda: Memory(price=linear(1.0), low=2, per_example=1, reserved=2),
            "`low` must hold one example",
        ),
        (
            lambda: Memory(price=linear(1.0), per_example=0),
            "`per_example` must be positive",
        ),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
