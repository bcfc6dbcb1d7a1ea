"""The convergence law and the definitions of a critical batch size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.convergence import ConvergenceDraws, ConvergenceLaw
from rightbatch.errors import InputError

positive = st.floats(1, 1e6)
exponent = st.floats(0.5, 8)


def law_of(min_steps, min_examples, knee=1.0):
    return ConvergenceLaw(
        min_steps=min_steps, min_examples=min_examples, knee_exponent=knee
    )


@given(positive, positive, positive)
def test_steps_and_examples_trade_off_on_a_hyperbola(min_steps, min_examples, batch):
    law = law_of(min_steps, min_examples)
    extra_steps = law.min_examples / batch / min_steps
    extra_examples = batch * min_steps / min_examples
    assert law.steps(batch) / min_steps - 1 == pytest.approx(
        extra_steps, rel=1e-6, abs=1e-9
    )
    assert law.examples(batch) / min_examples - 1 == pytest.approx(
        extra_examples, rel=1e-6, abs=1e-9
    )
    assert extra_steps * extra_examples == pytest.approx(1)


@given(positive, positive)
def test_steps_and_examples_double_at_the_critical_batch_size(min_steps, min_examples):
    law = law_of(min_steps, min_examples)
    phi = law.critical_batch_size
    assert law.steps(phi) == pytest.approx(2 * min_steps)
    assert law.examples(phi) == pytest.approx(2 * min_examples)


@given(positive, positive, positive, exponent)
def test_the_knee_law_is_its_power_mean(min_steps, min_examples, batch, knee):
    law = law_of(min_steps, min_examples, knee)
    # In logarithms, so that the oracle itself cannot overflow.
    logs = knee * np.log([min_steps, min_examples / batch])
    expected = np.exp(np.logaddexp(*logs) / knee)
    assert law.steps(batch) == pytest.approx(expected, rel=1e-9)


@given(positive, positive, exponent, st.floats(1, 1e5), st.floats(1.01, 100))
def test_steps_fall_and_examples_rise_with_the_batch(
    min_steps, min_examples, knee, batch, factor
):
    law = law_of(min_steps, min_examples, knee)
    assert law.steps(batch * factor) <= law.steps(batch) * (1 + 1e-12)
    assert law.examples(batch * factor) >= law.examples(batch) * (1 - 1e-12)


@given(positive, positive, st.floats(0.01, 5), st.floats(1, 1e4))
def test_a_batch_at_an_overhead_needs_just_that_many_more_examples(
    min_steps, min_examples, overhead, reference
):
    law = law_of(min_steps, min_examples)
    from_tiny = law.batch_size_at_overhead(overhead)
    assert law.examples(from_tiny) == pytest.approx((1 + overhead) * min_examples)
    batch = law.batch_size_at_overhead(overhead, reference=reference)
    assert law.examples(batch) == pytest.approx(
        (1 + overhead) * law.examples(reference)
    )


@given(positive, positive, positive, st.floats(1, 1000))
def test_adascale_pollux_and_kaplan_are_this_curve(
    min_steps, min_examples, batch, factor
):
    law = law_of(min_steps, min_examples)
    phi = law.critical_batch_size
    gain = (1 + phi / batch) / (1 + phi / (factor * batch))
    assert law.steps(batch) / law.steps(factor * batch) == pytest.approx(gain)
    efficiency = (phi + batch) / (phi + factor * batch)
    assert law.examples(batch) / law.examples(factor * batch) == pytest.approx(
        efficiency
    )
    assert law.steps(batch) / (1 + phi / batch) == pytest.approx(min_steps)
    assert law.examples(batch) / (1 + batch / phi) == pytest.approx(min_examples)


def test_numbers_give_floats_and_arrays_give_arrays():
    law = law_of(10, 100)
    assert isinstance(law.steps(5), float)
    assert isinstance(law.examples(5), float)
    assert law.steps([[5, 10]]).shape == (1, 2)


def test_a_negative_floor_is_kept_and_its_steps_stop_at_zero():
    law = law_of(-10, 100)
    assert law.steps(5) == 10
    assert law.steps(50) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.nan, 1), "`min_steps` must be a finite number"),
        ((1, 0), "`min_examples` must be positive"),
        ((1, 1, 0), "`knee_exponent` must be positive"),
        ((-1, 1, 2), "a knee needs `min_steps` >= 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        law_of(*arguments)


def test_no_critical_batch_size_below_a_positive_floor():
    with pytest.raises(InputError, match="needs `min_steps` > 0, got -3"):
        _ = law_of(-3, 1).critical_batch_size


def test_overheads_are_defined_for_the_inverse_law_alone():
    with pytest.raises(InputError, match="defined for the inverse law"):
        law_of(1, 1, 2).batch_size_at_overhead(0.2)
    with pytest.raises(InputError, match="`overhead` must be positive"):
        law_of(1, 1).batch_size_at_overhead(0)
    with pytest.raises(InputError, match="`reference` must be positive"):
        law_of(1, 1).batch_size_at_overhead(0.2, reference=-1)


def test_draws_are_laws_in_a_row():
    draws = ConvergenceDraws(
        min_steps=np.array([10.0, -5.0, 20.0]),
        min_examples=np.array([100.0, 200.0, 400.0]),
        knee_exponent=np.array([1.0, 1.0, 2.0]),
    )
    batches = np.array([4.0, 16.0])
    expected = [
        law_of(*row).steps(batches)
        for row in zip(
            draws.min_steps, draws.min_examples, draws.knee_exponent, strict=True
        )
    ]
    assert len(draws) == 3
    assert draws.steps(batches) == pytest.approx(np.array(expected))


@given(
    phi=st.floats(1, 1e4),
    batch=st.floats(1, 1e5),
    reference=st.floats(1, 1e5),
)
def test_the_forms_of_the_one_curve_agree(phi, batch, reference):
    law = law_of(10, 10 * phi)
    gain = law.gain(batch, reference=reference)
    assert gain == pytest.approx((1 + phi / reference) / (1 + phi / batch))
    # Pollux's efficiency is the gain per example.
    efficiency = law.efficiency(batch, reference=reference)
    assert efficiency == pytest.approx(gain * reference / batch)
    assert efficiency == pytest.approx((phi + reference) / (phi + batch))
    step = law.improvement_per_step(batch, best=3.0)
    assert step / 3 == pytest.approx(law.min_steps / law.steps(batch))
    assert law.best_lr(batch, lr_max=0.5) / 0.5 == pytest.approx(step / 3)


def test_one_steps_improvement_is_refused_where_the_law_is_not_inverse():
    knee = ConvergenceLaw(min_steps=10, min_examples=640, knee_exponent=2)
    with pytest.raises(InputError, match="defined for the inverse law"):
        knee.best_lr(8, lr_max=1)
    with pytest.raises(InputError, match="a law with a knee"):
        knee.improvement_per_step(8, best=1)


def test_a_floor_puts_small_batches_out_of_reach():
    law = ConvergenceLaw(min_steps=10, min_examples=640, min_batch_size=4)
    assert law.steps([2, 4]).tolist() == [np.inf, np.inf]
    assert law.steps(4 + 64) == pytest.approx(20)
    assert law.name == "floor"
    draws = ConvergenceDraws(
        min_steps=np.array([10.0]),
        min_examples=np.array([640.0]),
        knee_exponent=np.ones(1),
        min_batch_size=np.array([4.0]),
    )
    assert draws.steps([2, 68]).tolist() == [[np.inf, 20.0]]
