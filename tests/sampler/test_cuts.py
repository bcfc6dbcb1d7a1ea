"""How positions are dealt out and cut: arithmetic, beside the plain way of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.sampler.cuts import JOINS, Dealing, Layout, dealt, grouped

counts = st.integers(1, 200)


@given(
    size=st.integers(1, 6),
    num=st.integers(1, 4),
    first=st.integers(0, 50),
    count=counts,
)
def test_each_position_is_one_replicas(size, num, first, count):
    deals = [
        Dealing(micro_batch_size=size, num_replicas=num, rank=rank)
        for rank in range(num)
    ]
    taken = [
        position
        for deal in deals
        for begin, length in deal.pieces(first, count)
        for position in range(begin, begin + length)
    ]
    assert sorted(taken) == list(range(first, first + count))
    local = [deal.local(count) for deal in deals]
    assert sum(local) == count
    assert max(local) == deals[0].most(count) == local[0]
    assert max(local) - min(local) <= size * (count % (size * num) != 0)


@given(size=st.integers(1, 6), num=st.integers(1, 4), rounds=st.integers(1, 20))
def test_full_rounds_are_dealt_out_in_turn(size, num, rounds):
    for rank in range(num):
        deal = Dealing(micro_batch_size=size, num_replicas=num, rank=rank)
        plain = tuple((size * j, size) for j in range(rounds * num) if j % num == rank)
        assert deal.pieces(0, rounds * deal.granule) == plain


@given(num=counts, largest=st.integers(1, 50))
def test_doubling_takes_powers_of_two_largest_first(num, largest):
    groups = grouped(num, largest, "doubling")
    assert sum(groups) == num
    assert groups == sorted(groups, reverse=True)
    assert all(group & (group - 1) == 0 and group <= largest for group in groups)
    # Below the largest power allowed each comes once: the digits of a binary number.
    most = max(p for p in (1, 2, 4, 8, 16, 32) if p <= largest)
    small = [group for group in groups if group < most]
    assert len(small) == len(set(small))


@given(num=counts, largest=st.integers(1, 50))
def test_any_takes_as_few_passes_as_can_be(num, largest):
    groups = grouped(num, largest, "any")
    assert sum(groups) == num
    assert len(groups) == -(-num // largest)
    assert max(groups) <= largest
    assert max(groups) - min(groups) <= 1


@given(count=st.integers(0, 100), num=st.integers(1, 20))
def test_shares_are_as_equal_as_can_be(count, num):
    shares = dealt(count, num)
    assert (sum(shares), len(shares)) == (count, num)
    assert max(shares) - min(shares) <= 1


def test_nothing_is_dealt_out_to_nobody():
    assert dealt(0, 0) == []


@given(
    size=st.integers(1, 6),
    num=st.integers(1, 4),
    count=counts,
    join=st.sampled_from(JOINS),
    times=st.sampled_from([None, 0.4, 1, 2, 3.5]),
    units=st.sampled_from([1, 2, 8]),
)
def test_passes_hold_a_replicas_examples_and_no_more_than_the_largest(
    size, num, count, join, times, units
):
    largest = None if times is None else max(1, int(times * size))
    layouts = [
        Layout(
            dealing=Dealing(micro_batch_size=size, num_replicas=num, rank=rank),
            num_examples=count,
            largest_pass=largest,
            join=join,
            min_units=units,
        )
        for rank in range(num)
    ]
    assert len({len(layout.passes) for layout in layouts}) == 1
    for layout in layouts:
        assert sum(layout.sizes) == layout.local_examples
        assert max(layout.sizes) <= (largest or count)
        for examples, micro_batches in layout.passes:
            assert (examples > 0) == (micro_batches > 0)
            assert micro_batches <= -(-examples // size) + 1
    empty = any(examples == 0 for layout in layouts for examples in layout.sizes)
    assert all(layout.is_padded == empty for layout in layouts)


def test_a_smaller_largest_pass_cuts_the_same_examples():
    layout = Layout(dealing=Dealing(micro_batch_size=4), num_examples=16)
    assert layout.with_largest(8) == replace(layout, largest_pass=8)
    assert layout.with_largest(8).sizes == [8, 8]
    assert layout.with_largest(3).sizes == [3, 3, 3, 3, 2, 2]


@pytest.mark.parametrize(("units", "each"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_micro_batches_alone_are_cut_for_the_units_wanted(units, each):
    layout = Layout(
        dealing=Dealing(micro_batch_size=4), num_examples=16, min_units=units
    )
    assert (layout.num_pieces, layout.units_per_piece) == (4, each)
