"""Seconds that replicas spend on each other."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.step_time import (
    ConstantCommunication,
    HalvingDoublingCommunication,
    LinearCommunication,
    NoCommunication,
    RingCommunication,
    ShardedCommunication,
    StepTimeLaw,
    TwoLevelCommunication,
    communication_from_dict,
)

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


@pytest.mark.parametrize("communication", KINDS, ids=lambda one: one.kind)
def test_one_replica_has_nobody_to_talk_to(communication):
    assert communication.comm_seconds(1) == 0
    assert communication.comm_seconds([[1, 2], [4, 1]]).shape == (2, 2)
    assert np.all(communication.comm_seconds([1, 1]) == 0)


@pytest.mark.parametrize("communication", KINDS, ids=lambda one: one.kind)
def test_the_json_form_of_communication_names_its_kind_and_rebuilds_it(communication):
    form = communication.to_dict()
    assert form.pop("kind") == communication.kind
    assert type(communication)(**form) == communication
    assert communication_from_dict(communication.to_dict()) == communication


def test_all_reduce_is_constant_and_a_parameter_server_linear_in_replicas():
    assert KINDS[1].comm_seconds([2, 8, 64]).tolist() == [0.02, 0.02, 0.02]
    assert KINDS[2].comm_seconds([2, 8, 64]) == pytest.approx([0.01, 0.04, 0.32])


@pytest.mark.parametrize("num_replicas", [2, 3, 4, 7, 16])
def test_the_ring_formula_is_a_simulated_ring(num_replicas):
    given_ring = {"latency_seconds": 3e-4, "bytes_per_second": 2e8, "num_bytes": 5e7}
    simulated = oracles.ring_all_reduce_seconds(num_replicas, **given_ring)
    formula = RingCommunication(**given_ring).comm_seconds(num_replicas)
    assert formula == pytest.approx(simulated, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ConstantCommunication(seconds=-1), "ConstantCommunication: `seconds`"),
        (
            lambda: LinearCommunication(seconds_per_replica=math.nan),
            "LinearCommunication: `seconds_per_replica`",
        ),
        (
            lambda: RingCommunication(
                latency_seconds=-1, bytes_per_second=1, num_bytes=1
            ),
            "RingCommunication: `latency_seconds`",
        ),
        (
            lambda: RingCommunication(
                latency_seconds=0, bytes_per_second=0, num_bytes=1
            ),
            "RingCommunication: `bytes_per_second`",
        ),
        (
            lambda: RingCommunication(
                latency_seconds=0, bytes_per_second=1, num_bytes=-1
            ),
            "RingCommunication: `num_bytes`",
        ),
    ],
)
def test_communication_of_impossible_times_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("num_replicas", [2, 4, 8, 32])
def test_the_halving_doubling_formula_is_a_simulated_exchange(num_replicas):
    link = {"latency_seconds": 3e-4, "bytes_per_second": 2e8, "num_bytes": 5e7}
    simulated = oracles.halving_doubling_seconds(num_replicas, **link)
    formula = HalvingDoublingCommunication(**link).comm_seconds(num_replicas)
    assert formula == pytest.approx(simulated, rel=1e-12)


def test_between_powers_of_two_the_rounds_are_those_of_the_next_one():
    pairs = HalvingDoublingCommunication(
        latency_seconds=1.0, bytes_per_second=1.0, num_bytes=0.0
    )
    rounds = pairs.comm_seconds([2, 3, 4, 5, 8, 9, 2**20])
    assert rounds.tolist() == [2, 4, 4, 6, 6, 8, 40]


@given(replicas=st.integers(2, 4096), latency=seconds, transfer=seconds)
def test_sharding_takes_one_and_a_half_rings(replicas, latency, transfer):
    link = {
        "latency_seconds": latency,
        "bytes_per_second": 1.0,
        "num_bytes": transfer,
    }
    ring = RingCommunication(**link).comm_seconds(replicas)
    sharded = ShardedCommunication(**link).comm_seconds(replicas)
    assert sharded == pytest.approx(1.5 * ring)


def test_two_levels_are_a_ring_inside_a_node_and_a_ring_of_nodes():
    nodes = KINDS[-1]
    inner = RingCommunication(
        latency_seconds=1e-5, bytes_per_second=1e10, num_bytes=4e7
    )
    outer = RingCommunication(latency_seconds=1e-4, bytes_per_second=1e9, num_bytes=1e7)
    assert nodes.comm_seconds(3) == pytest.approx(inner.comm_seconds(3))
    for count in (2, 5, 16):
        expected = inner.comm_seconds(4) + outer.comm_seconds(count)
        assert nodes.comm_seconds(4 * count) == pytest.approx(expected)
        # A node that is partly filled is waited for as a full one.
        assert nodes.comm_seconds(4 * count - 3) == pytest.approx(expected)


def test_equal_links_gain_nothing_in_bytes_from_two_levels():
    link = {"latency_seconds": 0.0, "bytes_per_second": 1e9, "num_bytes": 4e7}
    flat = RingCommunication(**link)
    nodes = TwoLevelCommunication(
        replicas_per_node=8,
        inner_latency_seconds=0.0,
        inner_bytes_per_second=1e9,
        outer_latency_seconds=0.0,
        outer_bytes_per_second=1e9,
        num_bytes=4e7,
    )
    # (g-1)/g + (N-1)/(N g) = (P-1)/P: the same bytes leave every replica.
    assert nodes.comm_seconds(64) == pytest.approx(flat.comm_seconds(64))


@given(replicas=st.integers(2, 1000), more=st.floats(1.01, 100))
@pytest.mark.parametrize(
    "kind",
    [RingCommunication, HalvingDoublingCommunication, ShardedCommunication],
)
def test_a_sum_takes_longer_with_latency_bytes_and_replicas(kind, replicas, more):
    def time(latency=1e-4, bandwidth=1e9, num_bytes=1e7, count=replicas):
        one = kind(
            latency_seconds=latency, bytes_per_second=bandwidth, num_bytes=num_bytes
        )
        return one.comm_seconds(count)

    assert time(latency=1e-4 * more) > time()
    assert time(num_bytes=1e7 * more) > time()
    assert time(bandwidth=1e9 * more) < time()
    assert time(count=replicas + 1) > time()


def test_halving_and_doubling_is_never_slower_than_a_ring():
    link = {"latency_seconds": 1e-4, "bytes_per_second": 1e9, "num_bytes": 1e7}
    counts = np.arange(2, 300)
    pairs = HalvingDoublingCommunication(**link).comm_seconds(counts)
    assert np.all(pairs <= RingCommunication(**link).comm_seconds(counts) + 1e-15)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (3, "must hold a `kind`, got 3"),
        ({"seconds": 1}, "must hold a `kind`"),
        ({"kind": "rings"}, r"`kind` cannot be 'rings'. \(did you mean ring"),
        (
            {"kind": "constant", "second": 1},
            r"constant has no `second`. \(did you mean seconds",
        ),
        ({"kind": "none", "seconds": 1}, r"none has no `seconds`. \(it takes nothing"),
        ({"kind": "ring", "num_bytes": 1}, r"ring needs `latency_seconds`. \(it takes"),
        ({"kind": "constant", "seconds": -1}, "`seconds` must not be negative"),
    ],
)
def test_a_form_that_is_no_communication_is_refused(form, words):
    with pytest.raises(InputError, match=words):
        communication_from_dict(form)


def test_other_names_of_the_same_laws_are_understood():
    server = communication_from_dict({"kind": "server", "seconds_per_replica": 0.1})
    assert server == LinearCommunication(seconds_per_replica=0.1)
    link = {"latency_seconds": 0.0, "bytes_per_second": 1e9, "num_bytes": 4e7}
    assert communication_from_dict({"kind": "FSDP", **link}).kind == "sharded"
    found = communication_from_dict({"kind": "halving-doubling", **link})
    assert found.kind == "halving_doubling"


def test_what_a_fit_adds_to_a_form_is_passed_over():
    form = {"kind": "constant", "seconds": 0.1, "interval": {}, "intervals": {}}
    assert communication_from_dict(form) == ConstantCommunication(seconds=0.1)
