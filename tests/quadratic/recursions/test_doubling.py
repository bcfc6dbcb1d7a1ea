"""Many steps at once: exact, the same in both backends, at the worst of points too."""

import subprocess
import sys

import numpy as np
import pytest
from quadratic.example_settings import RATES, degenerate, drawn, edge
from quadratic.oracles_dynamics import (
    LONG,
    moments_by_responses,
    moments_in_sixty_digits,
    moments_of_all_by_responses,
)

from rightbatch.quadratic import OPTIMIZERS
from rightbatch.quadratic.recursions import doubling
from rightbatch.quadratic.recursions.powers import carry, moments_after, moments_ladder
from rightbatch.quadratic.recursions.transition import Settings, coefficients, layout_of

LONG_DOUBLE = [name for name in OPTIMIZERS if name != "tail-average"]
WEIGHTS = RATES / 2  # of the loss
NOISE = RATES  # as if the noise covariance were the Hessian
BATCHES = (1e-3, 1.0, 1e3, 1e6, np.inf)


def whole(name, many, seed, least_gap=1e-6):
    parts = drawn(name, many, seed, least_gap), degenerate(name, least_gap)
    return Settings(*(np.concatenate(both) for both in zip(*parts, strict=True)))


def steps_of(settings, steps):
    return np.full(settings.lr.shape, steps, dtype=np.int64)


def worst_loss_error(found, mean, variance):
    """The largest relative error of the loss, over runs and batch sizes."""
    errors = []
    for batch in BATCHES:
        loss = found.mean**2 @ WEIGHTS + found.variance @ (WEIGHTS * NOISE) / batch
        truth = mean**2 @ WEIGHTS + variance @ (WEIGHTS * NOISE) / LONG(batch)
        held = truth > 1e-290  # what a double holds
        errors.append(np.abs(loss[held] / truth[held] - 1))
    return float(np.concatenate(errors).max())


def long_double(name, settings, checkpoints):
    # x = lr p h is rounded once, in double; near an edge it decides everything, so the
    # oracle is given that very product.
    lr, gap, ema_gap = (LONG(part)[:, None] for part in settings)
    rates = LONG(settings.lr[:, None] * RATES) / lr
    one = np.ones_like(rates)
    given = (lr * one, (1 - gap) * one, (1 - ema_gap) * one)
    return moments_by_responses(name, *given, rates, checkpoints)


@pytest.mark.parametrize("name", LONG_DOUBLE)
def test_the_loss_is_that_of_long_double_stepping(name):
    settings = whole(name, 40, seed=1)
    for steps, truth in long_double(name, settings, {1, 2, 3, 50, 777, 5000}).items():
        found = moments_after(name, settings, RATES, steps_of(settings, steps))
        assert worst_loss_error(found, *truth) < 1e-11, steps


@pytest.mark.slow
def test_the_loss_is_that_of_a_hundred_thousand_long_double_steps():
    # A million are compared with sixty digits below.
    # Momentum up to 1 - 1e-4: beyond, at the edge, long double is not exact either.
    runs: list[Settings] = []
    for name in LONG_DOUBLE:
        worst = degenerate(name, least_gap=1e-4)
        pick = np.random.default_rng(1).permutation(worst.lr.size)[:8]
        random = drawn(name, 3, seed=2, least_gap=1e-4)
        both = [np.r_[a, b[pick]] for a, b in zip(random, worst, strict=True)]
        runs.append(Settings(*both))
    names = [name for name, run in zip(LONG_DOUBLE, runs, strict=True) for _ in run.lr]
    parts = zip(*runs, strict=True)
    lr, gap, ema_gap = (LONG(np.concatenate(part))[:, None] for part in parts)
    rates = LONG(np.concatenate([run.lr for run in runs])[:, None] * RATES) / lr
    truths = moments_of_all_by_responses(
        names, lr, 1 - gap, 1 - ema_gap, rates, {3, 10**4, 10**5}
    )
    for steps, (mean, variance) in truths.items():
        for name, run in zip(LONG_DOUBLE, runs, strict=True):
            mine = np.array(names) == name
            found = moments_after(name, run, RATES, steps_of(run, steps))
            assert worst_loss_error(found, mean[mine], variance[mine]) < 1e-9, name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_after_a_million_steps_is_that_of_sixty_digits(name):
    random, worst = drawn(name, 4, seed=3), degenerate(name)
    pick = np.random.default_rng(4).permutation(worst.lr.size)[:16]
    settings = Settings(
        *(np.r_[a, b[pick]] for a, b in zip(random, worst, strict=True))
    )
    for steps in (999_999, 1_000_000):
        tail = {"average": steps, "tail-average": round(steps / 2)}.get(name)
        found = moments_after(name, settings, RATES, steps_of(settings, steps))
        kind = "average" if tail else name
        truth = np.array(
            [
                [
                    moments_in_sixty_digits(kind, *run, run[0] * rate, steps, tail)
                    for rate in RATES
                ]
                for run in zip(*settings, strict=True)
            ]
        )
        assert worst_loss_error(found, truth[..., 0], truth[..., 1]) < 1e-9


@pytest.mark.parametrize("name", ["momentum", "nesterov", "momentum+ema"])
def test_the_stability_edge_keeps_its_digits_however_close(name):
    gaps = np.array([1e-6, 1e-3, 0.3, 1.0])
    ulps = np.arange(-3, 4)
    tops = edge(name, gaps)[:, None]
    lr = (tops + ulps * np.spacing(tops)).ravel()
    gap = np.repeat(gaps, ulps.size)
    ema_gap = np.full(lr.size, 0.01 if name.endswith("ema") else 1.0)
    settings = Settings(lr, gap, ema_gap)
    found = moments_after(name, settings, RATES[:1], steps_of(settings, 10**6))
    for i, run in enumerate(zip(*settings, strict=True)):
        truth = moments_in_sixty_digits(name, *run, run[0], 10**6)
        assert found.mean[i, 0] == pytest.approx(truth[0], rel=1e-10)
        assert found.variance[i, 0] == pytest.approx(truth[1], rel=1e-10)


@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "average" not in n])
def test_without_noise_a_loss_of_1e_100_has_its_digits(name):
    gap = np.array([1.0 if name in ("sgd", "ema") else 0.2])
    ema_gap = np.array([0.3 if name.endswith("ema") else 1.0])
    settings = Settings(np.array([0.15]), gap, ema_gap)
    for steps in (300, 1111, 2000):
        found = moments_after(name, settings, np.ones(1), np.array([steps]))
        truth, _ = moments_in_sixty_digits(name, 0.15, gap[0], ema_gap[0], 0.15, steps)
        assert found.mean[0, 0] == pytest.approx(truth, rel=1e-10)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("exact", [True, False])
def test_numba_gives_the_very_numbers_of_numpy(name, exact):
    pytest.importorskip("numba")
    if name == "sgd" and not exact:
        pytest.skip("SGD doubles in numba and has a closed form in numpy")
    settings = whole(name, 30, seed=5)
    rng = np.random.default_rng(6)
    steps = np.round(10 ** rng.uniform(0, 6, settings.lr.size)).astype(np.int64)
    for function, count in ((moments_after, steps), (moments_ladder, 18)):
        both = [
            function(name, settings, RATES, count, exact=exact, backend=backend)
            for backend in ("numpy", "numba")
        ]
        np.testing.assert_array_equal(both[0].mean, both[1].mean)
        np.testing.assert_array_equal(both[0].variance, both[1].variance)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("exact", [True, False])
def test_a_ladder_is_what_its_rungs_are_alone(name, exact):
    settings = whole(name, 10, seed=7)
    ladder = moments_ladder(name, settings, RATES, 12, exact=exact)
    for level in range(12):
        steps = steps_of(settings, 2**level)
        alone = moments_after(name, settings, RATES, steps, exact=exact)
        np.testing.assert_array_equal(ladder.mean[level], alone.mean)
        np.testing.assert_array_equal(ladder.variance[level], alone.variance)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_faster_way_is_as_good_where_there_is_noise(name):
    settings = drawn(name, 60, seed=8, least_gap=1e-4)
    settings = settings._replace(lr=np.maximum(settings.lr, 1e-2))
    rng = np.random.default_rng(9)
    steps = np.round(10 ** rng.uniform(0, 6, 60)).astype(np.int64)
    fast, exact = (
        moments_after(name, settings, RATES, steps, exact=exact)
        for exact in (False, True)
    )
    fast, exact = (
        m.mean**2 @ WEIGHTS + m.variance @ (WEIGHTS * NOISE) / 1024
        for m in (fast, exact)
    )
    np.testing.assert_allclose(fast, exact, rtol=1e-9)


@pytest.mark.parametrize("name", ["momentum", "nesterov+ema", "ema", "average"])
def test_rows_carried_twice_are_carried_over_both_stretches(name):
    layout, settings = layout_of(name), drawn(name, 20, seed=10)
    co = coefficients(name, settings)
    row = np.repeat(doubling.unit_row(layout, RATES.size)[:, None], 20, axis=1)
    late, early = steps_of(settings, 700), steps_of(settings, 4321)
    whole = carry(layout, co, RATES, row, late + early)
    half = carry(layout, co, RATES, row, late)
    rest = carry(layout, co, RATES, half.row, early)
    added = half.variance + rest.variance
    np.testing.assert_allclose(added, whole.variance, rtol=1e-9)
    scale = np.abs(whole.row).max()
    np.testing.assert_allclose(rest.row, whole.row, rtol=1e-9, atol=1e-12 * scale)


def test_rows_carried_no_steps_stay():
    settings = drawn("momentum+ema", 3, seed=11)
    layout, co = (True, True), coefficients("momentum+ema", settings)
    row = np.random.default_rng(12).normal(size=(3, 3, RATES.size))
    for backend in ("numpy", "auto"):
        steps = np.array([0, 5, 0])
        found = carry(layout, co, RATES, row, steps, backend=backend)
        np.testing.assert_allclose(found.row[:, [0, 2]], row[:, [0, 2]], rtol=1e-14)
        assert (found.variance[[0, 2]] == 0).all()


IN_A_NEW_PROCESS = """
import sys
import numpy as np
{before}
from rightbatch.quadratic.recursions import compiled, compiled_stepping
from rightbatch.quadratic.recursions.powers import compiled as backend, moments_after
from rightbatch.quadratic.recursions.transition import Settings

one = np.array([0.5])
found = moments_after("momentum", Settings(one, one, one), one, np.array([7]))
print(backend() is not None, float(found.variance[0, 0]))
"""


def in_a_new_process(before):
    run = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS.format(before=before)],
        capture_output=True,
        text=True,
        check=True,
    )
    has_kernels, variance = run.stdout.split()
    return has_kernels == "True", float(variance)


def test_without_numba_kernels_are_imported_and_numpy_computes():
    hide = "from importlib import util; find = util.find_spec\n"
    hide += "util.find_spec = lambda name, *a: None if name == 'numba' else find(name)"
    half = np.array([0.5])
    settings = Settings(half, half, half)
    truth = moments_after("momentum", settings, half, np.array([7]), backend="numpy")
    assert in_a_new_process(hide) == (False, float(truth.variance[0, 0]))


def test_kernels_compile_where_no_folder_can_be_written():
    pytest.importorskip("numba")
    none = "from numba.core.caching import CacheImpl; CacheImpl._locator_classes = []"
    has_kernels, variance = in_a_new_process(none)
    assert has_kernels
    half = np.array([0.5])
    settings = Settings(half, half, half)
    truth = moments_after("momentum", settings, half, np.array([7]), backend="numpy")
    assert variance == truth.variance[0, 0]
