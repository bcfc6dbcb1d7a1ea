"""The same examples of an update in smaller forward passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampler.example_streams import rows_of, stream_of, streams_of

from rightbatch.errors import InputError


@given(
    kind=st.sampled_from(["tensors", "items", "collated", "padded"]),
    batch_size=st.integers(1, 40),
    of=st.integers(1, 3),
    units=st.sampled_from([1, 8]),
    largest=st.integers(1, 12),
)
def test_smaller_passes_hold_the_same_examples_in_order(
    kind, batch_size, of, units, largest
):
    for stream in streams_of(kind, 40, 4, of):
        update = stream.next(batch_size, min_units=units)
        smaller = update.recut(largest)
        assert rows_of(smaller) == rows_of(update)
        assert max(one.num_examples for one in smaller.passes) <= largest
        assert (smaller.num_examples, smaller.first_example) == (batch_size, 0)
        again = smaller.recut(1)
        assert rows_of(again) == rows_of(update)


def test_the_stream_goes_on_after_a_batch_that_was_cut_anew():
    stream = stream_of("tensors", 40, 4)
    stream.next(8).recut(2)
    assert stream.examples == 8
    assert stream.next(8).first_example == 8


@pytest.mark.parametrize("largest", [0, -1, 1.5])
def test_passes_of_no_examples_are_refused(largest):
    update = stream_of("tensors", 40, 4).next(8)
    with pytest.raises(InputError, match="`largest_pass` must be a whole number >= 1"):
        update.recut(largest)
