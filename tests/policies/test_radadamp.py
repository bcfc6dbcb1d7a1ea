"""RadaDamp: its windows, and what it does with losses that are none."""

import math

import pytest
from policies.example_runs import clock, sizes

from rightbatch.policies import RadaDamp


def batches(losses, norms=None, **settings):
    """Return the batches on the losses of updates 0, 1, ..., asked once more."""
    norms = losses if norms is None else norms
    seen = clock(
        len(losses) + 1,
        batch_loss=[None, *losses],
        batch_grad_sq_norm=[None, *norms],
    )
    policy = RadaDamp(initial_batch_size=8, **settings)
    return sizes(policy, seen)


def test_the_window_of_the_second_reading_still_starts_at_the_first_update():
    losses = [4.0, 4.0, 1.0, 1.0, 0.5, 0.5]
    found = batches(losses, dwell=2, wait=2, rho=0.0)
    # Readings at 2: 4, the first; at 4: (4 + 4 + 1 + 1)/4; at 6: .5 alone.
    assert found == [8, 8, 8, 8, 8 * 4 / 2.5, 8 * 4 / 2.5, 8 * 4 / 0.5]


def test_what_was_read_is_averaged_with_the_past():
    found = batches([4.0, 1.0, 1.0], dwell=1, wait=1, rho=0.5)
    # Averages start at 4; means 2.5 then 1: (4 + 2.5)/2, and (3.25 + 1)/2.
    assert found[2:] == pytest.approx([8 * 4 / 3.25, 8 * 4 / 2.125])


def test_loss_and_norm_count_half_each():
    found = batches([2.0, 2.0], [4.0, 0.0], dwell=1, wait=1, rho=0, reduction="min")
    assert found[-1] == pytest.approx(8 / (0.5 * (1 + 0)))


def test_the_batch_never_falls_below_the_first():
    assert set(batches([1.0, 9.0, 9.0, 9.0], dwell=1, wait=1)) == {8}


def test_updates_without_a_number_are_left_out():
    odd = [4.0, None, math.nan, math.inf, 1.0]
    norms = [4.0, 4.0, 4.0, 4.0, 1.0]
    found = batches(odd, norms, dwell=1, wait=1, rho=0.0)
    # The windows at 2 to 4 hold 4 alone at first, and then nothing.
    assert found == [8, 8, 8, 8, 8, 32]


@pytest.mark.parametrize(("first", "norm"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0)])
def test_first_reductions_that_are_not_above_zero_leave_the_batch(first, norm):
    assert set(batches([first] * 4, [norm] * 4, dwell=1, wait=1)) == {8}


def test_nothing_left_asks_for_as_much_as_can_be_served():
    found = batches([1.0, 0.0, 0.0], dwell=1, wait=1, rho=0.0)
    assert found[-1] == 2.0**53


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"initial_batch_size": 0}, "RadaDamp: `initial_batch_size` must be positive"),
        ({"rho": 1}, r"RadaDamp: `rho` must be in \[0, 1\), got 1"),
        ({"rho": -0.1}, r"RadaDamp: `rho` must be in \[0, 1\)"),
        ({"reduction": "mode"}, "RadaDamp: `reduction` cannot be 'mode'"),
        ({"dwell": 0}, "RadaDamp: `dwell` must be a whole number"),
        ({"wait": -1}, "RadaDamp: `wait` must not be negative"),
    ],
)
def test_values_out_of_range_are_refused(settings, rule):
    with pytest.raises(ValueError, match=rule):
        RadaDamp(**{"initial_batch_size": 8, **settings})
