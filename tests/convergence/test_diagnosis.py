"""Findings: each on a table made to show it, and none on a clean one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rightbatch.convergence import ConvergenceLaw, fit_convergence
from rightbatch.convergence.diagnosis import examine
from rightbatch.convergence.findings import coarsest_grid, lr_findings
from rightbatch.fitting import f_test

LAW = ConvergenceLaw(min_steps=100, min_examples=6400)
KNEE = ConvergenceLaw(min_steps=100, min_examples=6400, knee_exponent=4)
BATCHES = 4.0 ** np.arange(1, 6)
THREE = np.tile([0.97, 1.0, 1.03], 5)
WIDE = np.repeat(BATCHES, 3)


def noisy(law, batch, noise=0.05, seed=0):
    return law.steps(batch) * np.exp(
        noise * np.random.default_rng(seed).standard_normal(len(batch))
    )


def diagnosis_of(batch, steps, law="inverse"):
    batch, steps = np.asarray(batch, dtype=float), np.asarray(steps, dtype=float)
    fit = fit_convergence(batch, steps, law=law)
    return examine(
        fit.surface,
        fit.noise,
        fit.min_steps,
        fit.critical_batch_size,
        batch_sizes=batch,
        steps=steps,
    )


def kinds_of(diagnosis):
    return [finding.kind for finding in diagnosis.findings]


def repeated(batches, centres, spread=0.02):
    batch = np.repeat(np.asarray(batches, dtype=float), 3)
    around = np.tile([1 - spread, 1, 1 + spread], len(batches))
    return batch, np.repeat(np.asarray(centres, dtype=float), 3) * around


SHOWS = {
    "lack_of_fit": (np.repeat(2.0 ** np.arange(2, 12), 3), None),
    "other_exponent": (
        2.0 ** np.arange(0, 12),
        100 + 6400 / 2.0 ** (0.7 * np.arange(0, 12)),
    ),
    "steps_rise": repeated(BATCHES, [1000, 325, 155, 110, 125]),
    "unknown_noise": ([8, 128], [500, 120]),
    "below_data_optimal": repeated([8, 16, 32, 64], [230, 105, 42.5, 11.25], 0.01),
    "flat_in_examples": repeated([8, 16, 32, 64], [1000, 500, 250, 125]),
    "flat_in_steps": repeated([8, 16, 32, 64], [100, 101, 99, 100]),
    "too_noisy": (BATCHES, [1300, 95, 410, 38, 205.5]),
    "all_above": repeated([64, 256, 1024, 4096], [125, 106.25, 101.6, 100.4], 0.01),
    "all_below": repeated([64, 256, 1024, 4096], [188, 47.4, 12.2, 3.43], 0.1),
    "extrapolation": repeated([64, 256, 1024], [2225, 631.25, 232.8], 0.2),
    "wide_interval": (WIDE, noisy(LAW, WIDE, noise=0.9, seed=3)),
    "untested_law": repeated([8, 128], [900, 150]),
    "narrow_range": repeated([32, 64, 128], [300, 200, 150], 0.01),
    "identical_repeats": (np.repeat(BATCHES, 2), np.repeat(LAW.steps(BATCHES), 2)),
    "quantised_steps": (WIDE, np.ceil(LAW.steps(WIDE) * THREE / 10) * 10),
}
SHOWS["lack_of_fit"] = (
    SHOWS["lack_of_fit"][0],
    noisy(KNEE, SHOWS["lack_of_fit"][0], noise=0.02),
)


@pytest.mark.parametrize("kind", SHOWS)
def test_a_table_made_to_show_it_shows_it(kind):
    found = diagnosis_of(*SHOWS[kind])
    assert kind in kinds_of(found)
    for finding in found.findings:
        assert finding.sentence.endswith(".")
        assert finding.sentence[:-1].count(". ") == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_clean_table_shows_nothing(seed):
    found = diagnosis_of(WIDE, noisy(LAW, WIDE, seed=seed))
    assert found.findings == ()
    assert found.status == "ok"
    assert found.warnings == ()
    assert found.advice.startswith("To narrow the interval, run batch sizes ")


def test_the_advice_is_the_gravest_finding_and_the_next_runs_in_one_sentence():
    for kind, table in SHOWS.items():
        found = diagnosis_of(*table)
        assert found.advice.count(". ") == 0
        assert found.advice.endswith(".")
        if found.status != "ok":
            assert found.advice.startswith(found.findings[0].sentence[:-1]), kind
    found = diagnosis_of(*SHOWS["flat_in_examples"])
    assert found.advice == (
        "Examples hardly grow with the batch size yet, so S_min cannot be told from "
        "0: run batch sizes 256 and 1024 with 3 seeds each."
    )


def test_two_runs_are_told_to_repeat_both():
    found = diagnosis_of(*SHOWS["unknown_noise"])
    assert "repeat both batch sizes with 2 more seeds each" in found.advice
    assert {run.batch_size for run in found.next_runs[:2]} == {8, 128}


def test_a_rise_asks_for_other_learning_rates_there():
    found = diagnosis_of(*SHOWS["steps_rise"])
    assert found.status == "misfit"
    assert "run batch size 1024 again with other learning rates" in found.advice
    assert (found.next_runs[0].batch_size, found.next_runs[0].narrows) == (1024, "rise")


def test_a_misfit_asks_for_the_middle_around_the_corner():
    found = diagnosis_of(*SHOWS["lack_of_fit"])
    assert found.status == "misfit"
    assert "lack of fit, p = " in found.advice
    assert found.next_runs[0].narrows == "law"
    assert 32 < found.next_runs[0].batch_size < 128


def test_an_untested_law_asks_for_the_middle():
    found = diagnosis_of(*SHOWS["untested_law"])
    assert found.status == "ok"
    assert (found.next_runs[0].batch_size, found.next_runs[0].narrows) == (32, "law")
    assert "cannot test it: run batch sizes" in found.advice


def test_a_small_misfit_is_a_warning_of_a_fit_that_can_be_used():
    batch = np.repeat(BATCHES, 3)
    bent = np.repeat([1.05, 0.95, 1.05, 0.95, 1.05], 3)
    found = diagnosis_of(batch, LAW.steps(batch) * bent * np.tile([0.99, 1, 1.01], 5))
    assert found.status == "ok"
    assert kinds_of(found) == ["lack_of_fit"]
    assert found.warnings == (found.findings[0].sentence,)
    assert found.advice.startswith("To narrow the interval")


def test_the_json_form_has_its_keys():
    entry = diagnosis_of(*SHOWS["all_below"]).to_dict()
    assert entry.keys() == {"status", "advice", "findings", "next_runs"}
    assert entry["findings"][0]["kind"] == "all_below"
    assert entry["next_runs"][0].keys() >= {"batch_size", "num_runs", "narrows"}


def test_a_grid_of_steps_is_the_common_divisor_of_a_batch_size_s_runs():
    batch = np.repeat([8.0, 64.0], 4)
    steps = np.array([1000, 1100, 900, 1300, 210, 280, 350, 140.0])
    size, every, share = coarsest_grid(batch, steps)
    assert (size, every) == (64, 70)
    assert share == pytest.approx(70 / 245)


def test_the_grid_of_all_runs_stands_in_where_repeats_are_few():
    batch = 2.0 ** np.arange(6)
    steps = np.array([1600, 850, 450, 250, 150, 100.0])
    assert coarsest_grid(batch, steps) == (32, 50, 0.5)


@given(st.lists(st.integers(500, 5000), min_size=2, max_size=12), st.integers(0, 9))
def test_unrelated_step_counts_lie_on_no_coarse_grid(steps, seed):
    steps = np.array(steps, dtype=float)
    steps += np.random.default_rng(seed).random(len(steps))
    assert coarsest_grid(np.ones(len(steps)), steps) is None


def test_whole_numbers_that_share_a_divisor_by_chance_are_rare():
    generator = np.random.default_rng(0)
    tables = generator.integers(200, 5000, size=(1000, 15)).astype(float)
    batch = np.repeat(BATCHES, 3)
    found = sum(coarsest_grid(batch, table) is not None for table in tables)
    assert found <= 4  # 5 batch sizes at 1e-4 each make .5 expected; z = 5


def test_rates_that_were_tuned_inside_their_grid_show_nothing():
    lrs = [0.1, 0.2, 0.4] * 2
    assert lr_findings([8] * 3 + [64] * 3, lrs, {8: 0.2, 64: 0.2}) == ()


def test_rates_at_the_edge_of_the_grid_are_named_with_their_batches():
    lrs = [0.1, 0.2, 0.4] * 3
    batch = [8] * 3 + [64] * 3 + [512] * 3
    found = lr_findings(batch, lrs, {8: 0.1, 64: 0.4, 512: 0.4})
    assert [finding.kind for finding in found] == ["edge_lr", "edge_lr"]
    assert "batch size 8 is the least tried (0.1)" in found[0].sentence
    assert "batch sizes 64, 512 is the largest tried (0.4)" in found[1].sentence


def test_a_held_rate_is_said_to_be_held_and_edges_do_not_matter_then():
    (found,) = lr_findings([8, 64], [0.2, 0.2], {8: 0.2, 64: 0.2})
    assert found.kind == "single_lr"
    assert "held at 0.2" in found.sentence


def test_batch_sizes_that_never_reached_are_named():
    found = lr_findings([4, 8, 64], [0.1, 0.2, 0.3], {8: 0.2, 64: 0.3})
    assert found[0].kind == "not_reached"
    assert "batch size 4" in found[0].sentence


def test_unknown_rates_show_nothing():
    nan = float("nan")
    assert lr_findings([8, 64], [nan, nan], {8: nan, 64: nan}) == ()


@given(st.floats(0, 50), st.integers(1, 30), st.integers(1, 200))
def test_the_f_test_is_the_usual_one(ratio, degrees, other):
    assert f_test(ratio, degrees, other) == pytest.approx(
        stats.f.sf(ratio, degrees, other), rel=1e-6, abs=1e-12
    )


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.floats(1, 1e6), st.lists(st.floats(1e-3, 1e9), min_size=1, max_size=5)
        ),
        min_size=2,
        max_size=8,
        unique_by=lambda row: row[0],
    )
)
def test_no_table_breaks_the_diagnosis(rows):
    batch = [size for size, counts in rows for _ in counts]
    found = diagnosis_of(batch, [count for _, counts in rows for count in counts])
    assert found.status in ("ok", "unidentifiable", "misfit")
    assert 2 <= len(found.next_runs) <= 3
    assert found.advice.endswith(".")
    for run in found.next_runs:
        assert run.num_runs >= 2
        assert run.examples > 0
        assert run.width_after is None or run.width_after >= 1


def kinds_found(batch_sizes, steps):
    return [f.kind for f in fit_convergence(batch_sizes, steps).diagnosis.findings]


def test_a_rise_shows_in_single_runs_too():
    fit = fit_convergence([8, 32, 128, 512], [500, 210, 400, 118])
    assert fit.diagnosis.findings[0].kind == "steps_rise"
    assert "unless single runs scatter by more than 10 %" in fit.advice
    assert "batch size 128 again" in fit.advice
    clean = [8, 32, 128, 512], [500, 212, 140, 150]
    assert "steps_rise" not in kinds_found(*clean)


def test_a_range_too_narrow_is_the_reason_and_not_scatter():
    fit = fit_convergence([60, 64, 70], [2072.3, 2000.1, 1914.2])
    assert fit.diagnosis.findings[0].kind == "narrow_range"
    assert "too_noisy" not in kinds_found([60, 64, 70], [2072.3, 2000.1, 1914.2])
    first = fit.diagnosis.next_runs[0].batch_size
    assert not 60 <= first <= 70


def test_epochs_counted_whole_are_a_grid_of_examples():
    epochs = [4, 4, 4, 5, 5, 5, 6, 7, 6, 8, 9, 8]
    batches = np.repeat([256.0, 512, 1024, 2048], 3)
    assert "quantised_steps" in kinds_found(
        batches, np.array(epochs) * 117_266 / batches
    )
    # Whole steps times powers of two have large common divisors of their own.
    assert "quantised_steps" not in kinds_found(batches, [991, 977, 1003] * 4)


def test_what_the_advice_does_not_say_is_a_warning():
    fit = fit_convergence(np.repeat([4.0, 16, 64, 256], 2), [800, 1000] * 4)
    said = {finding.sentence for finding in fit.diagnosis.findings}
    assert len(said) - len(fit.diagnosis.warnings) == 1
    assert set(fit.diagnosis.warnings) < said
