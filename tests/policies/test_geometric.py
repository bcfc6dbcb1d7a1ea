"""Growth by factors, and the falling rates that stand for it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies.example_runs import clock, follow, sizes

from rightbatch.policies import (
    UNBOUNDED,
    CntsDampLR,
    GeoDamp,
    GeoDampLR,
    Geometric,
    Observation,
    PadaDamp,
)


@given(
    epochs=st.lists(st.floats(0, 40), min_size=1, max_size=20).map(sorted),
    factor=st.floats(1, 4),
    delay=st.floats(1, 10),
)
def test_growing_the_batch_and_cutting_the_rate_reach_the_same_ratio_at_each_epoch(
    epochs, factor, delay
):
    given_ = {"initial_batch_size": 16, "factor": factor, "delay": delay}
    seen = clock(len(epochs), epoch=epochs)
    grown, cut = follow(GeoDamp(**given_), seen), follow(GeoDampLR(**given_), seen)
    for one, other in zip(grown, cut, strict=True):
        ratio = one.lr_factor / one.batch_size
        assert other.lr_factor / other.batch_size == pytest.approx(ratio)


@given(rate=st.floats(0, 10), initial=st.floats(1, 100))
def test_padadamp_and_cntsdamplr_reach_the_same_ratio_at_each_update(rate, initial):
    seen = clock(50)
    grown = follow(PadaDamp(initial_batch_size=initial, rate=rate), seen)
    cut = follow(CntsDampLR(initial_batch_size=initial, rate=rate), seen)
    for one, other in zip(grown, cut, strict=True):
        ratio = one.lr_factor / one.batch_size
        assert other.lr_factor / other.batch_size == pytest.approx(ratio)


def test_the_batch_grows_when_the_epochs_are_full():
    epochs = [0, 4.99, 5, 9.99, 10, 100]
    policy = GeoDamp(initial_batch_size=16)
    batches = sizes(policy, clock(6, epoch=epochs))
    assert batches == [16, 16, 32, 32, 64, 16 * 2**20]


@pytest.mark.parametrize("unknown", [None, math.nan])
def test_without_an_epoch_nothing_changes(unknown):
    epochs = [unknown, 0.0, 6.0, unknown]
    assert sizes(GeoDamp(initial_batch_size=16), clock(4, epoch=epochs)) == [
        16,
        16,
        32,
        32,
    ]
    cut = follow(GeoDampLR(initial_batch_size=16), clock(4, epoch=epochs))
    assert [one.lr_factor for one in cut] == [1, 1, 0.5, 0.5]


@given(factor=st.floats(1, 3), initial=st.floats(1, 100))
def test_each_update_multiplies_the_batch(factor, initial):
    policy = Geometric(initial_batch_size=initial, factor=factor)
    batches = sizes(policy, clock(20))
    assert batches[0] == initial
    for before, after in zip(batches, batches[1:], strict=False):
        assert after == pytest.approx(before * factor)


def test_growth_without_end_asks_for_as_much_as_can_be_served():
    late = Observation(step=10**6, examples=1, batch_size=8, epoch=1e9)
    assert Geometric(initial_batch_size=8, factor=2).update(None, late)[
        0
    ].batch_size == (UNBOUNDED)
    assert GeoDamp(initial_batch_size=8).update(0, late)[0].batch_size == UNBOUNDED
    assert 0 < GeoDampLR(initial_batch_size=8).update(0, late)[0].lr_factor < 1e-15


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: GeoDamp(initial_batch_size=0), "GeoDamp: `initial_batch_size` must"),
        (
            lambda: GeoDamp(initial_batch_size=8, factor=0.5),
            "GeoDamp: `factor` must be",
        ),
        (
            lambda: GeoDamp(initial_batch_size=8, delay=0),
            "GeoDamp: `delay` must be pos",
        ),
        (lambda: GeoDampLR(initial_batch_size=0), "GeoDampLR: `initial_batch_size` mu"),
        (lambda: GeoDampLR(initial_batch_size=8, factor=0), "GeoDampLR: `factor` must"),
        (lambda: GeoDampLR(initial_batch_size=8, delay=-1), "GeoDampLR: `delay` must"),
        (lambda: CntsDampLR(initial_batch_size=0), "CntsDampLR: `initial_batch_size`"),
        (lambda: CntsDampLR(initial_batch_size=8, rate=-1), "CntsDampLR: `rate` must"),
        (
            lambda: Geometric(initial_batch_size=0, factor=2),
            "Geometric: `initial_batch",
        ),
        (
            lambda: Geometric(initial_batch_size=8, factor=0.9),
            r"Geometric: `factor` must be at least 1, got 0.9. \(2 doubles the batch\)",
        ),
    ],
)
def test_values_out_of_range_are_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
