"""Micro-batch x accumulation x replicas."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.training_time import BatchLimits, Factorisation


@given(
    batch=st.integers(1, 5000),
    replicas=st.integers(1, 64),
    most=st.one_of(st.none(), st.integers(1, 300)),
)
def test_shares_and_passes_deal_out_every_example_as_evenly_as_can_be(
    batch, replicas, most
):
    if replicas > batch:
        return
    limits = BatchLimits(max_micro_batch_size=most)
    cut = limits.factorise(batch, replicas)
    assert sum(cut.shares) == batch
    assert len(cut.shares) == replicas
    assert max(cut.shares) - min(cut.shares) <= 1
    for replica in {0, replicas // 2, replicas - 1}:
        passes = cut.passes_of(replica)
        assert sum(passes) == cut.shares[replica]
        assert max(passes) - min(passes) <= 1
        assert max(passes) <= cut.micro_batch_size <= (most or batch)
        assert len(passes) <= cut.accumulation_steps
    assert (cut.micro_batch_size, cut.accumulation_steps) == limits.split(
        batch, replicas
    )
    assert cut.places >= batch
    assert 0 <= cut.waste < 1
    assert cut.is_even == (cut.waste == 0)
    # One pass fewer would not fit.
    if cut.accumulation_steps > 1:
        assert cut.largest_share > most * (cut.accumulation_steps - 1)


def test_what_is_wasted_is_said_with_the_shares():
    cut = BatchLimits(max_micro_batch_size=100).factorise(1001, num_replicas=4)
    assert (cut.num_largest, cut.largest_share) == (1, 251)
    assert cut.to_dict() == {
        "batch_size": 1001,
        "num_replicas": 4,
        "accumulation_steps": 3,
        "micro_batch_size": 84,
        "shares": [{"replicas": 1, "examples": 251}, {"replicas": 3, "examples": 250}],
        "waste": pytest.approx(7 / 1008),
    }
    assert str(cut) == "84 x 3 x 4 = 1,008 places for 1,001 examples (0.69 % wasted)"
    even = Factorisation(batch_size=1024, num_replicas=4, accumulation_steps=2)
    assert str(even) == "128 x 2 x 4 = 1,024 examples"
    assert even.to_dict()["shares"] == [{"replicas": 4, "examples": 256}]


def test_a_smaller_share_may_need_a_pass_less():
    cut = Factorisation(batch_size=5, num_replicas=2, accumulation_steps=3)
    assert [cut.passes_of(replica) for replica in (0, 1)] == [(1, 1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Factorisation(batch_size=0), "`batch_size` must be a whole number"),
        (
            lambda: Factorisation(batch_size=4, num_replicas=5),
            "`num_replicas` must be at most the batch size, got 5 for 4",
        ),
        (
            lambda: Factorisation(batch_size=4, num_replicas=2, accumulation_steps=3),
            "`accumulation_steps` must be at most the largest share, got 3 for 2",
        ),
        (
            lambda: Factorisation(batch_size=4).passes_of(1),
            "`replica` must be from 0 to 0, got 1",
        ),
    ],
)
def test_factors_that_leave_someone_without_examples_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
