"""The posterior of the law's shape and of the regret, against the long way round."""

import numpy as np
import pytest
from scipy import stats

from rightbatch.errors import InputError
from rightbatch.step_time import StepTimeLaw
from rightbatch.training_time import BatchLimits
from rightbatch.training_time.posterior import (
    NOISE_WORTH,
    USUAL_NOISE,
    LawShapes,
    law_posterior,
    regret_of,
    regret_table,
)

STEP_TIME = StepTimeLaw(
    seconds_per_example=1e-6, saturation_batch_size=1, overhead_seconds=3e-4
)
LIMITS = BatchLimits(max_batch_size=1024)
SHAPES = LawShapes.inverse(1024)
SIZES, STEPS = [16, 256, 256, 64], [520.0, 118.0, 140.0, 190.0]


def steps_at(sizes, phi=64.0, knee=1.0):
    return [100 * (1 + (phi / b) ** knee) ** (1 / knee) for b in sizes]


def test_scale_and_noise_are_integrated_out():
    scales = np.linspace(2, 7, 401)[:, None, None]
    noises = np.geomspace(0.02, 3, 301)[None, :, None]
    # Scaled inverse chi-square, in ln sigma.
    prior = stats.chi2.logpdf(NOISE_WORTH * USUAL_NOISE**2 / noises**2, NOISE_WORTH)
    prior = prior - 2 * np.log(noises)
    wanted = []
    for phi in SHAPES.critical_batch_sizes[::10]:
        expected = scales + np.log1p(phi / np.array(SIZES, dtype=float))
        away = np.log(STEPS) - expected
        fits = -0.5 * (away / noises) ** 2 - np.log(noises)
        wanted.append(np.exp(fits.sum(2) + prior[:, :, 0]).sum())
    found = law_posterior(SHAPES, SIZES, STEPS).weights[::10]
    assert found / found.sum() == pytest.approx(wanted / np.sum(wanted), abs=1e-4)


@pytest.mark.parametrize("shapes", [SHAPES, LawShapes.knees(1024)])
def test_a_run_tried_on_paper_is_weighed_as_a_real_one(shapes):
    known = law_posterior(shapes, SIZES, STEPS)
    tried = known.with_run([8.0, 512.0], np.log([[900.0, 1100.0], [90.0, 120.0]]))
    real = law_posterior(shapes, [*SIZES, 512], [*STEPS, 120.0])
    assert tried[1, 1] == pytest.approx(real.weights, abs=1e-12)


def test_a_shape_is_the_law_it_stands_for():
    knees = LawShapes.knees(1024)
    place = 4 * 120 + 60
    phi, knee = knees.critical_batch_sizes[place], knees.exponents[place]
    assert knee == 1.25
    wanted = np.array(steps_at([4, 64, 900], phi, knee)) * 10
    assert knees.steps([4, 64, 900])[place] == pytest.approx(wanted)
    assert knees.prior.sum() == pytest.approx(1)


def test_the_table_holds_what_every_batch_loses_under_every_shape():
    table = regret_table(SHAPES, STEP_TIME, 4, LIMITS, [100])
    assert {100, 1024} <= set(table.batch_sizes)
    for place in (0, 50, 119):
        phi = SHAPES.critical_batch_sizes[place]
        times = {
            size: steps * (3e-4 + 1e-6 * np.ceil(size / 4))
            for size, steps in zip(
                range(4, 1025), steps_at(range(4, 1025), phi), strict=True
            )
        }
        wanted = times[100] / min(times.values()) - 1
        found = table.regrets[place][table.batch_sizes == 100]
        assert found == pytest.approx(wanted, abs=1e-3)


def test_runs_without_noise_leave_no_regret():
    sizes = [16, 256, 1024, 64] * 50
    known = law_posterior(SHAPES, sizes, steps_at(sizes))
    table = regret_table(SHAPES, STEP_TIME, 1, LIMITS)
    lost = regret_of(known, table)
    assert lost.value < 0.002
    assert lost.batch_size == pytest.approx((64 * 300) ** 0.5, rel=0.07)
    few = law_posterior(SHAPES, sizes[:2], steps_at(sizes[:2]))
    assert regret_of(few, table).value > 0.03


def test_the_quantile_is_strict():
    known = law_posterior(SHAPES, SIZES, STEPS)
    table = regret_table(SHAPES, STEP_TIME, 1, LIMITS)
    found = regret_of(known, table)
    lost = table.regrets[:, table.batch_sizes == found.batch_size].ravel()
    at_most = known.weights[lost <= found.value].sum()
    below = known.weights[lost < found.value].sum()
    # One-sided, at half the tail that the level leaves.
    assert below < 0.95 <= at_most + 1e-12
    assert found.value in lost
    assert found.expected == pytest.approx(known.weights @ lost)
    assert regret_of(known, table, level=0.5).value < found.value


def test_runs_that_no_law_fits_widen_the_regret():
    sizes = [16, 64, 256] * 2
    straight = law_posterior(SHAPES, sizes, steps_at(sizes))
    bent = law_posterior(SHAPES, sizes, np.array(steps_at(sizes)) * ([1, 0.6, 1] * 2))
    table = regret_table(SHAPES, STEP_TIME, 1, LIMITS)
    assert regret_of(bent, table).value > 1.5 * regret_of(straight, table).value


def test_a_regret_says_what_it_is_of():
    table = regret_table(SHAPES, STEP_TIME, 2, LIMITS)
    found = regret_of(law_posterior(SHAPES, SIZES, STEPS), table)
    assert found.to_dict() == {
        "num_replicas": 2,
        "batch_size": found.batch_size,
        "value": found.value,
        "expected": found.expected,
        "level": 0.9,
    }
    assert str(found) == (
        f"at most {100 * found.value:.1f} % at batch size {found.batch_size}"
    )


@pytest.mark.parametrize(
    ("sizes", "steps", "match"),
    [
        ([16], [100], "must be two runs or more, got 1 and 1"),
        ([16, 64], [100, 50, 20], "must be two runs or more, got 2 and 3"),
        ([16, 64], [100, 0], "`steps`"),
        ([0, 64], [100, 50], "`batch_sizes`"),
    ],
)
def test_runs_that_are_none_are_refused(sizes, steps, match):
    with pytest.raises(InputError, match=match):
        law_posterior(SHAPES, sizes, steps)


def test_a_batch_that_was_not_looked_at_is_refused():
    known = law_posterior(SHAPES, SIZES, STEPS)
    table = regret_table(SHAPES, STEP_TIME, 1, LIMITS)
    assert 777 not in table.batch_sizes
    with pytest.raises(InputError, match="must be in the table, got 777"):
        regret_of(known, table, 777)
    with pytest.raises(InputError, match=r"`level`.*1\.5"):
        regret_of(known, table, level=1.5)
