"""What people call a critical batch size: each by its own words, on every law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from rightbatch.convergence import ConvergenceLaw, definitions, fit_convergence
from rightbatch.errors import InputError

C4_BATCHES = [64 * 2**i for i in range(9)]
C4_302M = [196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879]
C4_85M = [46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600]
C4_85M_LOGGED = [46000, 23000, 13282, 7000, 3840, 2500, 1800, 1600, 1600]

positive = st.floats(1, 1e4)
laws = st.one_of(
    st.builds(ConvergenceLaw, min_steps=positive, min_examples=st.floats(10, 1e6)),
    st.builds(
        ConvergenceLaw,
        min_steps=positive,
        min_examples=st.floats(10, 1e6),
        knee_exponent=st.floats(0.5, 8),
    ),
    st.builds(
        ConvergenceLaw,
        min_steps=positive,
        min_examples=st.floats(10, 1e6),
        min_batch_size=st.floats(0.1, 100),
    ),
)
INVERSE = ConvergenceLaw(min_steps=100, min_examples=4800)
KNEE = ConvergenceLaw(min_steps=100, min_examples=4800, knee_exponent=2)
FLOOR = ConvergenceLaw(min_steps=100, min_examples=4800, min_batch_size=4)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(C4_302M, 1393.7), (C4_85M, 745.3), (C4_85M_LOGGED, 754.2)],
)
def test_published_tables_give_their_known_overhead_of_a_reference(steps, expected):
    fit = fit_convergence(C4_BATCHES, steps, law="inverse")
    found = definitions.overhead_of_reference(fit, overhead=0.2, reference=256)
    assert found.value == pytest.approx(expected, rel=5e-4)  # four digits are printed
    assert found.value in found
    assert found.is_bounded


def test_under_the_inverse_law_they_are_the_formulas_of_the_literature():
    phi = 48.0
    assert definitions.even_trade(INVERSE).value == pytest.approx(phi)
    tiny = definitions.overhead_of_tiny_batches(INVERSE, overhead=0.2)
    assert tiny.value == pytest.approx(0.2 * phi)
    reference = definitions.overhead_of_reference(INVERSE, overhead=0.2, reference=10)
    assert reference.value == pytest.approx(1.2 * 10 + 0.2 * phi)
    share = definitions.share_of_step(INVERSE, share=0.9)
    assert share.value == pytest.approx(9 * phi)
    assert definitions.norm_test(INVERSE, theta=2).value == pytest.approx(phi / 4)


@given(laws)
def test_steps_and_examples_trade_evenly_at_the_even_trade(law):
    batch = definitions.even_trade(law).value
    ahead, behind = batch * 1.0001, batch / 1.0001
    slope = np.log(law.steps(ahead) / law.steps(behind)) / np.log(ahead / behind)
    assert slope == pytest.approx(-0.5, abs=1e-4)


@given(laws, st.floats(0.05, 3))
def test_an_overhead_of_tiny_batches_is_over_the_fewest_examples(law, overhead):
    batch = definitions.overhead_of_tiny_batches(law, overhead=overhead).value
    fewest = law.min_examples
    if law.name == "floor":
        found = optimize.minimize_scalar(
            lambda log_above: law.examples(law.min_batch_size + np.exp(log_above)),
            bounds=(-10, 25),
            method="bounded",
            options={"xatol": 1e-10},
        )
        fewest = found.fun
    assert law.examples(batch) == pytest.approx((1 + overhead) * fewest, rel=1e-6)
    assert law.examples(batch * 1.01) > law.examples(batch)


@given(laws, st.floats(0.05, 3), st.floats(1.01, 1e4))
def test_an_overhead_of_a_reference_is_over_its_examples(law, overhead, over):
    reference = max(law.min_batch_size, 1.0) * over
    found = definitions.overhead_of_reference(
        law, overhead=overhead, reference=reference
    )
    assert law.examples(found.value) == pytest.approx(
        (1 + overhead) * law.examples(reference), rel=1e-6
    )
    assert law.examples(found.value * 1.01) > law.examples(found.value)


@given(laws, st.floats(0.05, 0.95))
def test_a_share_of_the_best_step_is_the_least_steps_over_the_steps(law, share):
    batch = definitions.share_of_step(law, share=share).value
    assert law.min_steps / law.steps(batch) == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize("law", [KNEE, FLOOR])
def test_the_norm_test_is_refused_where_phi_says_nothing_of_gradients(law):
    found = definitions.norm_test(law)
    assert found.value is None
    assert not found.is_bounded
    assert f"a law with a {law.name} does not tell their noise scale" in (
        found.definition
    )


def table(law, num_runs=3, noise=0.03, seed=0):
    generator = np.random.default_rng(seed)
    batch = np.repeat(2.0 ** np.arange(3, 12), num_runs)
    return batch, law.steps(batch) * (1 + noise * generator.standard_normal(len(batch)))


def test_intervals_follow_those_of_phi():
    fit = fit_convergence(*table(INVERSE), law="inverse")
    phi = fit.critical_batch_size
    found = definitions.overhead_of_reference(fit, overhead=0.2, reference=16)
    assert found.low == pytest.approx(1.2 * 16 + 0.2 * phi.low)
    assert found.high == pytest.approx(1.2 * 16 + 0.2 * phi.high)
    assert (found.level, found.unit) == (phi.level, phi.unit)
    even = definitions.even_trade(fit)
    assert (even.low, even.value, even.high) == (phi.low, phi.value, phi.high)


def test_the_exponent_moves_with_phi_in_a_knee_s_intervals():
    fit = fit_convergence(*table(KNEE), law="knee")
    phi = fit.critical_batch_size
    even = definitions.even_trade(fit)
    assert (even.low, even.high) == (phi.low, phi.high)
    tiny = definitions.overhead_of_tiny_batches(fit)
    truth = definitions.overhead_of_tiny_batches(KNEE).value
    assert tiny.low < truth < tiny.high
    # A sharper corner puts the first extra examples much nearer to phi, so not knowing
    # how sharp it is widens this one well beyond phi's own.
    assert tiny.high / tiny.low > 1.1 * phi.high / phi.low


def test_the_floor_moves_with_phi_in_its_intervals():
    fit = fit_convergence(*table(FLOOR), law="floor")
    for define in (
        definitions.even_trade,
        definitions.overhead_of_tiny_batches,
        definitions.overhead_of_reference,
        definitions.share_of_step,
    ):
        found = define(fit)
        law = {"reference": 8} if define is definitions.overhead_of_reference else {}
        truth = define(FLOOR, **law).value
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(truth, rel=0.1)
        assert found.low / 1.05 < truth < found.high * 1.05


def test_an_unbounded_side_stays_unbounded():
    batch = np.repeat([8.0, 16, 32, 64], 2)
    flat = fit_convergence(batch, 8000 / batch * np.tile([0.99, 1.01], 4))
    for entry in definitions.definitions_of(flat):
        assert entry["high"] is None
        assert entry["low"] is not None
    level = fit_convergence(batch, 100 * np.tile([0.99, 1.01], 4))
    assert all(e["low"] is None for e in definitions.definitions_of(level))


def test_a_negative_floor_has_no_value_to_give():
    batch = np.repeat([8.0, 16, 32, 64], 3)
    fit = fit_convergence(batch, (2000 / batch - 20) * np.tile([0.99, 1, 1.01], 4))
    for entry in definitions.definitions_of(fit):
        assert entry["value"] is None
        assert entry["high"] is None


def test_two_runs_have_values_and_no_intervals():
    fit = fit_convergence([8, 128], [500, 120])
    for entry in definitions.definitions_of(fit):
        assert entry["value"] > 0
        assert (entry["low"], entry["high"]) == (None, None)


def test_the_json_form_names_who_says_so_and_of_what():
    entries = definitions.definitions_of(fit_convergence(C4_BATCHES, C4_302M))
    assert [entry["name"] for entry in entries] == [
        "even_trade",
        "overhead_of_tiny_batches",
        "overhead_of_reference",
        "share_of_step",
        "share_of_step",
        "norm_test",
    ]
    keys = {"name", "parameters", "value", "low", "high", "level", "unit"}
    for entry in entries:
        assert entry.keys() == keys | {"definition", "who"}
        assert entry["who"]
        assert entry["low"] < entry["value"] < entry["high"]
    assert entries[2]["parameters"] == {"overhead": 0.2, "reference": 64.0}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda: definitions.overhead_of_tiny_batches(INVERSE, overhead=0),
            "`overhead` must be positive",
        ),
        (lambda: definitions.overhead_of_reference(INVERSE), "needs a `reference`"),
        (
            lambda: definitions.overhead_of_reference(INVERSE, reference=-1),
            "`reference` must be positive",
        ),
        (
            lambda: definitions.overhead_of_reference(FLOOR, reference=3),
            "`reference` must lie above the floor of 4, got 3",
        ),
        (lambda: definitions.share_of_step(INVERSE, share=1), "between 0 and 1, got 1"),
        (lambda: definitions.norm_test(INVERSE, theta=0), "`theta` must be positive"),
    ],
)
def test_arguments_out_of_range_are_refused(ask, message):
    with pytest.raises(InputError, match=message):
        ask()
