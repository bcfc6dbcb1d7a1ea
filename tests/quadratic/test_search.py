"""The continuous search, against known answers, grids and brute force."""

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.quadratic import (
    OPTIMIZERS,
    NoisyQuadratic,
    OptimizerName,
    Spectrum,
)
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.dynamics import loss_after, loss_parts
from rightbatch.quadratic.recursions.transition import Settings
from rightbatch.quadratic.search import search

BINS = published_bins(Spectrum.inverse(10_000))
BATCH_SIZES = [4.0**k for k in range(1, 11)]
SMALL = NoisyQuadratic(spectrum=Spectrum.inverse(30))

# First passages on the published bins with the best settings found by anyone so far,
# where that was not us: power, optimizer, {batch size: steps}.
KNOWN = [
    (0.0, "sgd", {64: 95633, 1024: 10600, 2**14: 7380, 2**20: 6940}),
    (0.0, "momentum", {64: 80323, 1024: 5022, 2**14: 342, 2**20: 152}),
    (0.0, "nesterov", {64: 77420, 1024: 3833, 2**14: 272, 2**20: 231}),
    (0.0, "ema", {64: 14387, 1024: 7408, 2**14: 6950, 2**20: 6898}),
    (0.0, "momentum+ema", {64: 13508, 1024: 868, 2**14: 159, 2**20: 144}),
    (0.0, "nesterov+ema", {1024: 894, 2**14: 256, 2**20: 231}),
    (0.0, "average", {64: 29147, 1024: 25725, 2**14: 25528, 2**20: 25515}),
    (0.5, "sgd", {64: 21572, 1024: 1353}),
    (0.5, "momentum", {64: 17787, 1024: 1112}),
    (0.5, "nesterov", {64: 17769, 1024: 1097}),
    (0.5, "ema", {64: 12424, 1024: 777}),
    (0.5, "momentum+ema", {64: 12424, 1024: 777}),
    (0.5, "average", {64: 7771, 1024: 633}),
]


def published(power: float) -> NoisyQuadratic:
    return NoisyQuadratic(spectrum=BINS, preconditioner_power=power)


@pytest.mark.parametrize(("power", "name", "known"), KNOWN)
def test_no_known_answer_is_better_by_more_than_a_step(
    power: float, name: OptimizerName, known: dict[int, int]
):
    found = search(published(power), name, BATCH_SIZES, 0.01)
    steps = {int(one.batch_size): one.steps for one in found}
    for batch_size, best in known.items():
        got = steps[batch_size]
        assert got is not None
        assert got <= best + 1


def test_both_averages_together_reach_the_headline_number():
    (found,) = search(published(0.0), "momentum+ema", [1024], 0.01)
    assert found.steps is not None
    assert found.steps <= 868


def test_a_uniform_average_beats_the_maximum_likelihood_number_not_the_bayes_bound():
    (found,) = search(published(0.5), "average", [64], 0.01)
    assert found.steps is not None
    assert 7731.0 < found.steps < 7812.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_found_settings_reach_the_target_at_that_step_and_not_before(
    name: OptimizerName,
):
    for found in search(SMALL, name, [8, 512], 0.02):
        assert found.optimizer is not None
        assert found.steps is not None
        steps = np.arange(1, found.steps + 1)
        losses = loss_after(SMALL, found.optimizer, found.batch_size, steps)
        assert losses[-1] <= 0.02
        assert losses[-1] == pytest.approx(found.loss, rel=1e-9)
        assert np.all(losses[:-1] > 0.02)


@pytest.mark.parametrize("name", ["sgd", "momentum", "ema", "nesterov"])
def test_a_fine_local_grid_around_the_optimum_finds_nothing_better(name: OptimizerName):
    for found in search(SMALL, name, [8, 512], 0.02):
        best = found.optimizer
        assert best is not None
        assert found.steps is not None
        factors = np.linspace(0.8, 1.25, 61)
        lr, gap = np.meshgrid(best.lr * factors, factors)
        gap = gap.ravel()
        settings = Settings(
            lr.ravel(),
            np.minimum((1 - best.momentum) * gap, 1) if best.has_momentum else gap**0,
            np.minimum((1 - best.ema_decay) * gap, 1) if best.has_ema else gap**0,
        )
        fewer = np.full(gap.shape, found.steps - 1)
        losses = loss_parts(SMALL, name, settings, fewer).at(found.batch_size)
        assert np.nanmin(losses) > 0.02


@pytest.mark.parametrize("name", ["sgd", "momentum", "ema"])
def test_numpy_alone_finds_the_same_steps_as_numba(name: OptimizerName):
    pytest.importorskip("numba")
    plain = search(SMALL, name, [4, 64, 1024], 0.02, backend="numpy")
    fast = search(SMALL, name, [4, 64, 1024], 0.02, backend="numba")
    assert [one.steps for one in plain] == [one.steps for one in fast]


def test_more_noise_averaged_out_never_costs_steps():
    for name in OPTIMIZERS:
        steps = [one.steps for one in search(SMALL, name, [4, 16, 64, 256, 1024], 0.02)]
        assert all(step is not None for step in steps)
        assert steps == sorted(steps, key=lambda step: -(step or 0))


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_momentum_with_an_average_is_no_worse_than_either_alone(power: float):
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(30), preconditioner_power=power)
    for size in (4, 256):
        (both,) = search(problem, "momentum+ema", [size], 0.02)
        assert both.steps is not None
        for name in ("momentum", "ema"):
            (alone,) = search(problem, name, [size], 0.02)
            assert alone.steps is not None
            assert both.steps <= alone.steps + 1


def test_settings_of_a_smaller_batch_serve_a_larger_one():
    spectrum = Spectrum(curvatures=[0.0311937, 0.111692], weights=[91.0, 15.0])
    problem = NoisyQuadratic(
        spectrum=spectrum,
        noise=np.array([0.000644512, 0.00547256]),
        initial_second_moments=np.array([50.8718, 1.01411]),
    )
    small, large = search(problem, "momentum+ema", [4096, 32768], 0.0053174)
    assert small.steps is not None
    assert large.steps is not None
    assert large.steps <= small.steps


def test_a_start_far_above_the_target_costs_no_digits():
    far = NoisyQuadratic(spectrum=Spectrum.inverse(30), initial_second_moments=1e40)
    for name in ("sgd", "ema"):
        (found,) = search(far, name, [16], 0.02)
        assert found.optimizer is not None
        assert found.steps is not None
        around = [found.steps - 1, found.steps]
        before, after = loss_after(far, found.optimizer, 16, around)
        assert after <= 0.02 < before


def test_an_irreducible_loss_only_shifts_the_target():
    above = NoisyQuadratic(spectrum=Spectrum.inverse(30), irreducible_loss=3.0)
    plain = search(SMALL, "momentum", [16], 0.02)
    shifted = search(above, "momentum", [16], 3.02)
    assert plain[0].steps == shifted[0].steps


def test_no_noise_leaves_the_batch_size_without_effect():
    calm = NoisyQuadratic(
        spectrum=Spectrum.inverse(30), noise=np.zeros(30), irreducible_loss=0.5
    )
    small, large = search(calm, "sgd", [1, 4096], 0.6)
    assert small.steps == large.steps


def test_settings_come_out_as_a_program_reads_them():
    (found,) = search(SMALL, "ema", [16], 0.02)
    cell = found.to_dict()
    assert cell["optimizer"] == "ema"
    assert cell["momentum"] is None
    assert 0 < cell["ema_decay"] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "adam"}, "`name` cannot be 'adam'"),
        ({"batch_sizes": [0.0]}, "`batch_sizes` must be positive"),
        ({"target": 0.0}, "`target` must be above the irreducible loss"),
        ({"target": 5.0}, "`target` must be below the loss at the start"),
        ({"num_starts": 0}, "`num_starts` must be a whole number >= 1"),
    ],
)
def test_a_value_out_of_range_is_refused(change: dict[str, object], message: str):
    given = {"name": "sgd", "batch_sizes": [4.0], "target": 0.02, **change}
    with pytest.raises(InputError, match=message):
        search(SMALL, **given)  # pyright: ignore[reportArgumentType]


def test_label_noise_is_refused():
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(30), label_noise=1.0)
    with pytest.raises(InputError, match="label_noise"):
        search(noisy, "sgd", [4], 0.02)
