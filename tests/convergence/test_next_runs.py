"""The next runs narrow the interval as they are predicted to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.convergence import ConvergenceLaw, fit_convergence
from rightbatch.convergence.next_runs import Purchase, worthwhile_runs

BATCHES = 4.0 ** np.arange(1, 6)


def fit_of(phi, num_runs, seed, noise=0.1, **changed):
    law = ConvergenceLaw(min_steps=100, min_examples=100 * phi, **changed)
    batch = np.repeat(BATCHES, num_runs)
    generator = np.random.default_rng(seed)
    steps = law.steps(batch) * np.exp(noise * generator.standard_normal(len(batch)))
    return batch, steps, fit_convergence(batch, steps, law=law.name)


def next_of(fit, first=()):
    return worthwhile_runs(fit.surface, fit.noise, fit.critical_batch_size, first)


def log_width(fit):
    critical = fit.critical_batch_size
    return np.log(critical.high / critical.low) if critical.is_bounded else np.inf


def one_run_noise(fit):
    """Return the noise of one run as the fit sees it."""
    runs = fit.surface.runs
    if runs.noise_degrees:
        return float(np.sqrt(runs.relative_variance.mean()))
    return 0.02 * fit.noise.scale


@pytest.mark.parametrize(
    ("phi", "num_runs", "seed"), [(8, 2, 0), (128, 1, 1), (128, 3, 2), (4096, 2, 3)]
)
def test_refits_with_the_runs_added_are_as_narrow_as_predicted(phi, num_runs, seed):
    batch, steps, fit = fit_of(phi, num_runs, seed)
    bought = next_of(fit)[:2]
    generator = np.random.default_rng(seed)
    more = np.concatenate([np.full(run.num_runs, run.batch_size) for run in bought])
    widths = []
    for _ in range(12):
        noise = one_run_noise(fit) * generator.standard_normal(len(more))
        added = fit.law.steps(more) * np.exp(noise)
        widths.append(
            log_width(
                fit_convergence(
                    np.append(batch, more), np.append(steps, added), law="inverse"
                )
            )
        )
    # The median of a dozen refits is itself known to some 10 %.
    assert np.log(bought[-1].width_after) == pytest.approx(np.median(widths), rel=0.3)


@pytest.mark.parametrize("phi", [2, 64, 4096])
def test_the_first_purchase_beats_as_many_runs_elsewhere(phi):
    batch, steps, fit = fit_of(phi, 2, seed=5)
    first = next_of(fit)[0]

    def width_with(size):
        more = np.full(first.num_runs, size)
        return log_width(
            fit_convergence(
                np.append(batch, more),
                np.append(steps, fit.law.steps(more)),
                law="inverse",
            )
        )

    others = [width_with(size) for size in (1, 4, 64, 1024, 16384)]
    # Of purchases nearly as good the cheapest is taken: 70 % of the best one's gain.
    before = log_width(fit)
    if np.isfinite(before):
        best_gain = before - min(others)
        assert before - width_with(first.batch_size) >= 0.6 * best_gain
    else:
        assert width_with(first.batch_size) < np.median(others)


def test_widths_go_on_from_one_entry_to_the_next():
    *_, fit = fit_of(128, 2, seed=0)
    found = next_of(fit)
    critical = fit.critical_batch_size
    assert found[0].width_before == pytest.approx(critical.high / critical.low)
    for one, other in zip(found, found[1:], strict=False):
        assert other.width_before == one.width_after
        assert one.width_after < one.width_before
    assert len({run.batch_size for run in found}) == len(found)


def test_runs_cost_the_examples_that_the_law_predicts():
    *_, fit = fit_of(128, 2, seed=0)
    for run in next_of(fit):
        cost = run.num_runs * fit.law.examples(run.batch_size)
        assert run.examples == pytest.approx(cost)
        assert run.is_new == (run.batch_size not in BATCHES)


def test_a_corner_beyond_the_runs_sends_them_there():
    *_, above = fit_of(4096, 2, seed=1)
    assert min(run.batch_size for run in next_of(above)[:2]) > 1024
    *_, below = fit_of(0.5, 2, seed=1)
    assert max(run.batch_size for run in next_of(below)[:1]) <= 4


def test_nothing_is_promised_where_the_corner_may_be_anywhere():
    batch = np.repeat([8.0, 16, 32, 64], 2)
    flat = fit_convergence(batch, 8000 / batch * np.tile([0.99, 1.01], 4))
    for run in next_of(flat):
        assert run.batch_size > 64
        assert (run.width_before, run.width_after) == (None, None)
        assert "nearer to being bounded" in str(run)
    two = fit_convergence([8, 128], [500, 120])
    assert all(run.width_after is None for run in next_of(two))


def test_runs_wanted_for_another_reason_come_first():
    *_, fit = fit_of(64, 2, seed=0)
    found = next_of(fit, [Purchase(batch_size=90, narrows="law")])
    assert (found[0].batch_size, found[0].narrows) == (90, "law")
    assert {run.narrows for run in found[1:]} == {"critical_batch_size"}
    assert "tests the law" in str(found[0])
    for narrows, words in [("rise", "really rise"), ("noise", "seeds scatter")]:
        bought = next_of(fit, [Purchase(batch_size=256, narrows=narrows)])[0]
        assert words in str(bought)
        assert not bought.is_new


@pytest.mark.parametrize("third", [{"knee_exponent": 2.5}, {"min_batch_size": 2.0}])
def test_a_knee_or_a_floor_is_planned_with_its_third_parameter_free(third):
    batch, steps, fit = fit_of(64, 3, seed=0, noise=0.05, **third)
    assert fit.law.name != "inverse"
    first = next_of(fit)[0]
    assert first.width_after < first.width_before
    assert first.batch_size > 1.25 * fit.law.min_batch_size
    more = np.full(first.num_runs, first.batch_size)
    noise = np.random.default_rng(0).standard_normal((6, len(more)))
    widths = [
        log_width(
            fit_convergence(
                np.append(batch, more),
                np.append(steps, fit.law.steps(more) * np.exp(one_run_noise(fit) * e)),
                law=fit.law.name,
            )
        )
        for e in noise
    ]
    assert np.log(first.width_after) == pytest.approx(np.median(widths), rel=0.3)


def test_more_noise_of_one_run_leaves_a_wider_interval():
    widths = [
        next_of(fit_of(64, 3, seed=0, noise=noise)[2])[0].width_after
        for noise in (0.03, 0.1, 0.2)
    ]
    assert widths == sorted(widths)


@settings(max_examples=30)
@given(st.floats(0.1, 1e5), st.integers(1, 4), st.integers(0, 2**31))
def test_entries_are_whole_runs_at_batch_sizes_that_can_be_served(phi, num_runs, seed):
    *_, fit = fit_of(phi, num_runs, seed)
    found = next_of(fit)
    assert 2 <= len(found) <= 3
    for run in found:
        assert 2 <= run.num_runs <= 5
        assert run.batch_size == round(run.batch_size) >= 1
        entry = run.to_dict()
        assert entry["sentence"] == str(run)
