"""AdaDamp, AdaDampNN, PadaDamp: formulas, and what they do without a number."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from policies.example_runs import clock, follow, sizes

from rightbatch.noise_scale import GradientMoments
from rightbatch.policies import (
    UNBOUNDED,
    AdaDamp,
    AdaDampNN,
    Observation,
    PadaDamp,
    padadamp_rate,
)

positive = st.floats(1e-3, 1e3)


@given(
    initial=positive,
    best=st.floats(-10, 10),
    above=st.lists(positive, min_size=1, max_size=9),
)
def test_batch_and_loss_above_the_best_have_a_constant_product(initial, best, above):
    losses = [best + one for one in above]
    policy = AdaDamp(initial_batch_size=initial, best_loss=best)
    batches = sizes(policy, clock(len(losses), eval_loss=losses))
    for loss, batch in zip(losses, batches, strict=True):
        assert batch * (loss - best) == pytest.approx(initial * (losses[0] - best))


def test_a_loss_at_or_below_the_best_asks_for_as_much_as_can_be_served():
    policy = AdaDamp(initial_batch_size=8, best_loss=1.0)
    decisions = follow(policy, clock(4, eval_loss=[3.0, 1.0, 0.5, 2.0]))
    assert [one.batch_size for one in decisions] == [8, UNBOUNDED, UNBOUNDED, 16]
    assert decisions[2].reason == "loss 0.5 at or below the best"


def test_the_first_loss_above_the_best_is_the_one_to_compare_with():
    policy = AdaDamp(initial_batch_size=8, best_loss=1.0)
    assert sizes(policy, clock(3, eval_loss=[1.0, 3.0, 2.0])) == [UNBOUNDED, 8, 16]


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf])
def test_without_a_loss_the_batch_stays(unknown):
    policy = AdaDamp(initial_batch_size=8)
    assert sizes(policy, clock(3, eval_loss=[2.0, 1.0, unknown])) == [8, 16, 16]
    assert sizes(policy, clock(2, eval_loss=[unknown, 2.0])) == [8, 8]


def test_a_loss_that_is_next_to_nothing_asks_for_no_more_than_unbounded():
    policy = AdaDamp(initial_batch_size=8)
    assert sizes(policy, clock(2, eval_loss=[1e300, 1e-300]))[1] == UNBOUNDED


@given(initial=positive, norms=st.lists(positive, min_size=1, max_size=9))
def test_batch_and_squared_norm_have_a_constant_product(initial, norms):
    moments = [GradientMoments(grad_sq_norm=one, grad_variance=3.0) for one in norms]
    policy = AdaDampNN(initial_batch_size=initial)
    batches = sizes(policy, clock(len(norms), moments=moments))
    for norm, batch in zip(norms, batches, strict=True):
        assert batch * norm == pytest.approx(initial * norms[0])


def test_a_norm_that_is_not_told_from_noise_leaves_the_batch():
    norms = [None, 4.0, -1.0, 1.0, None, 0.0]
    moments = [
        one and GradientMoments(grad_sq_norm=one, grad_variance=3.0) for one in norms
    ]
    moments[-1] = GradientMoments(grad_sq_norm=0.0, grad_variance=3.0)
    decisions = follow(AdaDampNN(initial_batch_size=8), clock(6, moments=moments))
    assert [one.batch_size for one in decisions] == [8, 8, 8, 32, 32, 32]
    assert [one.reason for one in decisions[:3]] == [
        "start",
        "|G|^2 4",
        "|G|^2 unresolved",
    ]


def test_padadamp_is_a_line_in_updates():
    assert sizes(PadaDamp(initial_batch_size=16, rate=0.5), clock(4)) == [
        16,
        16.5,
        17,
        17.5,
    ]


@given(
    first=st.floats(1, 100),
    more=st.floats(10, 100),
    epochs=st.floats(2, 5),
    data=st.integers(1000, 5000),
)
def test_the_rate_ends_at_the_largest_batch_after_the_epochs(first, more, epochs, data):
    last = first + more
    rate = padadamp_rate(
        initial_batch_size=first, max_batch_size=last, epochs=epochs, dataset_size=data
    )
    policy = PadaDamp(initial_batch_size=first, rate=rate)
    step = examples = 0
    while examples < epochs * data:
        seen = Observation(step=step, examples=examples, batch_size=1)
        batch = policy.update(None, seen)[0].batch_size
        step, examples = step + 1, examples + batch
    # A sum for an integral: off by a batch of some at the end.
    assert batch == pytest.approx(last, abs=rate + 1e-9)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: AdaDamp(initial_batch_size=0), "AdaDamp: `initial_batch_size` must"),
        (
            lambda: AdaDamp(initial_batch_size=8, best_loss=math.nan),
            "AdaDamp: `best_loss` must be a finite number",
        ),
        (lambda: AdaDampNN(initial_batch_size=-1), "AdaDampNN: `initial_batch_size`"),
        (lambda: PadaDamp(initial_batch_size=0, rate=1), "PadaDamp: `initial_batch_s"),
        (lambda: PadaDamp(initial_batch_size=8, rate=-1), "PadaDamp: `rate` must not"),
        (
            lambda: padadamp_rate(
                initial_batch_size=8, max_batch_size=4, epochs=1, dataset_size=10
            ),
            "padadamp_rate: `max_batch_size` must be >= `initial_batch_size`, got 4",
        ),
        (
            lambda: padadamp_rate(
                initial_batch_size=8, max_batch_size=16, epochs=0, dataset_size=10
            ),
            "padadamp_rate: `epochs` must be positive",
        ),
    ],
)
def test_values_out_of_range_are_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
