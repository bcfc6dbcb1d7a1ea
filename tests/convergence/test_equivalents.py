"""Every form of the curve is the same curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from rightbatch.convergence import ConvergenceLaw, equivalents

positive = st.floats(1, 1e6)


def law_of(min_steps, min_examples):
    return ConvergenceLaw(min_steps=min_steps, min_examples=min_examples)


@given(positive, positive, positive)
def test_perrone_and_mccandlish_write_the_same_curve(steps, sensitivity, batch):
    theirs = equivalents.mccandlish_form(steps, sensitivity)
    law = law_of(theirs.min_steps, theirs.min_examples)
    assert law.steps(batch) == pytest.approx(steps + sensitivity / batch)
    assert law.critical_batch_size == pytest.approx(theirs.critical_batch_size)
    back = equivalents.perrone_form(theirs.min_steps, theirs.critical_batch_size)
    assert back == pytest.approx((steps, sensitivity))


@given(positive, positive, st.floats(0.01, 100))
def test_every_batch_size_lies_on_the_hyperbola(min_steps, min_examples, over):
    law = law_of(min_steps, min_examples)
    batch = over * law.critical_batch_size
    steps, examples = law.steps(batch), law.examples(batch)
    assert (steps / min_steps - 1) * (examples / min_examples - 1) == pytest.approx(1)
    assert equivalents.examples_at_steps(
        steps, min_steps, min_examples
    ) == pytest.approx(examples)
    assert equivalents.steps_at_examples(
        examples, min_steps, min_examples
    ) == pytest.approx(steps)


@given(positive, positive, positive)
def test_a_step_gains_the_share_of_the_steps_it_saves(min_steps, min_examples, batch):
    law = law_of(min_steps, min_examples)
    share = equivalents.share_of_best_step(batch, law.critical_batch_size)
    assert share == pytest.approx(min_steps / law.steps(batch))
    best = min_examples / 7
    assert equivalents.improvement_per_step(
        batch, law.critical_batch_size, best=best
    ) == pytest.approx(best * share)


@given(
    gradient=st.floats(0.1, 10),
    curvature=st.floats(0.1, 10),
    variance=st.floats(0.1, 100),
    batch=st.floats(1, 1000),
)
def test_the_best_lr_and_its_gain_are_those_found_by_search(
    gradient, curvature, variance, batch
):
    # A noisy parabola: E L(x - lr g) = L - lr G^2 + lr^2 h (G^2 + v/B)/2.
    def expected_change(lr):
        second = curvature * (gradient**2 + variance / batch)
        return -lr * gradient**2 + lr**2 * second / 2

    lr_max = 1 / curvature
    found = optimize.minimize_scalar(
        expected_change, bounds=(0, lr_max), method="bounded", options={"xatol": 1e-12}
    )
    noise_scale = variance / gradient**2
    lr = equivalents.best_lr(batch, noise_scale, lr_max=lr_max)
    best = gradient**2 / (2 * curvature)
    # The search stops where the parabola is flat to rounding: half the digits.
    assert lr == pytest.approx(found.x, rel=1e-5)
    assert equivalents.improvement_per_step(
        batch, noise_scale, best=best
    ) == pytest.approx(-found.fun)


@given(positive, positive, positive)
def test_kaplan_s_corrections_lead_to_both_ends_and_back(
    min_steps, min_examples, batch
):
    law = law_of(min_steps, min_examples)
    phi = law.critical_batch_size
    steps, examples = law.steps(batch), law.examples(batch)
    assert equivalents.min_steps_of(steps, batch, phi) == pytest.approx(min_steps)
    assert equivalents.steps_of_min(min_steps, batch, phi) == pytest.approx(steps)
    compute = 6e9 * examples
    least = 6e9 * min_examples
    assert equivalents.min_compute_of(compute, batch, phi) == pytest.approx(least)
    assert equivalents.compute_of_min(least, batch, phi) == pytest.approx(compute)


@given(positive, positive, positive, st.floats(1, 1000))
def test_adascale_s_gain_and_pollux_efficiency_are_ratios_of_the_law(
    min_steps, min_examples, reference, factor
):
    law = law_of(min_steps, min_examples)
    phi, batch = law.critical_batch_size, factor * reference
    gain = equivalents.gain(batch, phi, reference=reference)
    worth = equivalents.efficiency(batch, phi, reference=reference)
    assert gain == pytest.approx(law.steps(reference) / law.steps(batch))
    assert worth == pytest.approx(law.examples(reference) / law.examples(batch))
    assert worth == pytest.approx(gain / factor)
    assert gain == pytest.approx((1 + phi / reference) / (1 + phi / batch))
    assert 1 - 1e-9 <= gain <= factor * (1 + 1e-9)


def test_arrays_broadcast_and_numbers_stay_numbers():
    shares = equivalents.share_of_best_step(np.array([[16], [48]]), [48.0, 144.0])
    assert shares == pytest.approx(np.array([[0.25, 0.1], [0.5, 0.25]]))
    assert isinstance(equivalents.gain(4, 2, reference=1), float)
