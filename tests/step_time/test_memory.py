"""Bytes against micro-batch size."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.step_time import MemoryLaw, fit_memory

sizes = st.floats(1e6, 1e11)


@given(ratio=st.one_of(st.just(0.0), st.floats(0.01, 1000)), each=sizes)
def test_a_noiseless_law_is_recovered_inside_its_intervals(ratio, each):
    fixed = ratio * each
    law = MemoryLaw(fixed_bytes=fixed, bytes_per_example=each)
    batches = [1, 2, 8, 64]
    fit = fit_memory(batches, law.num_bytes(batches))
    assert fit.law.bytes_per_example == pytest.approx(each, rel=1e-6)
    assert fit.law.fixed_bytes == pytest.approx(fixed, rel=1e-6, abs=1e-6 * each)
    assert fit.bytes_per_example.low <= each * (1 + 1e-9)
    assert fit.bytes_per_example.high >= each * (1 - 1e-9)
    assert fit.largest_relative_error < 1e-6


@given(
    fixed=st.floats(0, 1e11),
    each=sizes,
    capacity=st.floats(1e9, 1e12),
    margin=st.floats(0, 0.5),
)
def test_the_largest_micro_batch_fits_and_one_more_does_not(
    fixed, each, capacity, margin
):
    law = MemoryLaw(fixed_bytes=fixed, bytes_per_example=each)
    room = (1 - margin) * capacity
    if law.num_bytes(1) > room * (1 + 1e-9):
        with pytest.raises(InputError, match="one example does not fit"):
            law.largest_micro_batch(capacity, margin)
        return
    assume(law.num_bytes(1) < room * (1 - 1e-9))
    largest = law.largest_micro_batch(capacity, margin)
    assert law.num_bytes(largest) <= room * (1 + 1e-6)
    assert law.num_bytes(largest + 1) > room * (1 - 1e-6)


def test_the_smallest_capacity_that_is_named_works():
    law = MemoryLaw(fixed_bytes=2e9, bytes_per_example=5e7)
    with pytest.raises(InputError, match=r"2,277,777,778 bytes \(2.12 GiB\) at least"):
        law.largest_micro_batch(1e9)
    assert law.largest_micro_batch(2_277_777_778) == 1


def test_intervals_cover_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(3)
    law = MemoryLaw(fixed_bytes=2e9, bytes_per_example=5e7)
    batches = np.array([1.0, 4, 16, 64, 256])
    covered, num = np.zeros(2), 300
    for errors in generator.standard_normal((num, len(batches))):
        fit = fit_memory(batches, law.num_bytes(batches) * np.exp(0.02 * errors))
        covered += [2e9 in fit.fixed_bytes, 5e7 in fit.bytes_per_example]
    # Nominal 90 %, within 3.5 standard deviations of 300 draws (6 %).
    assert np.all(np.abs(covered / num - 0.9) < 0.061), covered


def test_two_measurements_give_the_line_and_no_intervals():
    fit = fit_memory([8, 16], [2.4e9, 2.8e9])
    assert fit.law.fixed_bytes == pytest.approx(2e9)
    assert fit.fixed_bytes.low is None
    form = fit.to_dict()
    assert form["measured_range"] == [8, 16]
    assert form["bytes_per_example"]["unit"] == "bytes"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_memory([8, 16], [1e9]), "`num_bytes` must be as many"),
        (lambda: fit_memory([8, 8], [1e9, 1e9]), "at least two different"),
        (lambda: fit_memory([8, 16], [1e9, 1e9]), "must grow with the micro-batch"),
        (lambda: fit_memory([8, 16], [2e9, 1e9]), "must grow with the micro-batch"),
        (lambda: fit_memory([8, 16], [0, 1e9]), "`num_bytes` must be positive"),
        (
            lambda: MemoryLaw(fixed_bytes=-1, bytes_per_example=1),
            "`fixed_bytes` must not be negative",
        ),
        (
            lambda: MemoryLaw(fixed_bytes=1, bytes_per_example=0),
            "`bytes_per_example` must be positive",
        ),
        (
            lambda: MemoryLaw(fixed_bytes=1, bytes_per_example=1).largest_micro_batch(
                10, margin=1
            ),
            "`margin` must be below 1, got 1",
        ),
        (
            lambda: MemoryLaw(fixed_bytes=1, bytes_per_example=1).largest_micro_batch(
                0
            ),
            "`capacity_bytes` must be positive",
        ),
    ],
)
def test_memory_that_makes_no_sense_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
