"""The best point of a grid, against stepping through every point of it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.quadratic import (
    OPTIMIZERS,
    NoisyQuadratic,
    Optimizer,
    Spectrum,
)
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.grids import Grid, GridPoint, published_grid, search_grid

SEARCHED = [name for name in OPTIMIZERS if name != "tail-average"]
SMALL = NoisyQuadratic(spectrum=Spectrum.inverse(20))
MANY_STEPS = 500


def losses_by_stepping(problem, optimizer, batch_size, num_steps):
    """Step mean and covariance of (parameter, buffer, what is read), as torch would."""
    losses = []
    lr, mu, g = optimizer.lr, optimizer.momentum, optimizer.ema_decay
    size = len(problem.curvatures)
    mean = np.zeros((size, 3))
    mean[:, 0] = 1
    mean[:, 2] = 0 if optimizer.averages else 1
    spread = np.zeros((size, 3, 3))
    gradient = problem.rates[:, None] * np.array([1.0, 0, 0])  # what is noisy: + n
    buffer = mu * np.array([0, 1.0, 0]) + gradient
    push = gradient + mu * buffer if optimizer.is_nesterov else buffer
    moved = np.array([1.0, 0, 0]) - lr * push
    kick = -lr * (1 + mu if optimizer.is_nesterov else 1)
    if optimizer.averages:
        read, told = np.array([0, 0, 1.0]) + moved, kick
    else:
        read, told = g * np.array([0, 0, 1.0]) + (1 - g) * moved, (1 - g) * kick
    step = np.stack([moved, buffer, read], axis=1)
    noise = np.array([kick, 1, told])
    added = (problem.step_noise / batch_size)[:, None, None] * np.outer(noise, noise)
    for k in range(1, num_steps + 1):
        mean = np.einsum("nij,nj->ni", step, mean)
        spread = step @ spread @ step.transpose(0, 2, 1) + added
        moments = problem.start * mean[:, 2] ** 2 + spread[:, 2, 2]
        losses.append(problem.loss(moments / (k**2 if optimizer.averages else 1)))
    return np.array(losses)


def passages_by_stepping(problem, name, batch_size, target, grid):
    """Step through every stable point: its earliest passage, or if rounding errs."""
    easy = hard = np.inf
    for lr, momentum, decay in product(grid.lrs, grid.momenta, grid.ema_decays):
        point = Optimizer(name=name, lr=lr, momentum=momentum, ema_decay=decay)
        if lr * problem.rates.max() < point.max_stable_rate:
            losses = losses_by_stepping(problem, point, batch_size, MANY_STEPS)
            for k in np.flatnonzero(losses <= target * (1 + 1e-9)) + 1:
                easy = min(easy, k)
                if losses[k - 1] <= target * (1 - 1e-9):
                    hard = min(hard, k)
                    break
    return easy, hard


def some_grid(name, lrs, gaps):
    return Grid(
        lrs=lrs,
        momenta=1 - gaps if name.startswith(("momentum", "nesterov")) else [0.0],
        ema_decays=1 - gaps[:2] if name.endswith("ema") else [0.0],
    )


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(SEARCHED),
    spectrum=st.lists(st.floats(1e-3, 1), min_size=1, max_size=4),
    starts=st.lists(st.floats(0.1, 10), min_size=4, max_size=4),
    log_lrs=st.lists(st.floats(-3, 1), min_size=1, max_size=3),
    log_gaps=st.lists(st.floats(-3, 0), min_size=2, max_size=3),
    log_batch=st.floats(0, 6),
    share=st.floats(0.001, 0.9),
)
def test_no_first_passage_is_missed_whatever_the_loss_does(
    name, spectrum, starts, log_lrs, log_gaps, log_batch, share
):
    problem = NoisyQuadratic(
        spectrum=Spectrum(curvatures=spectrum),
        initial_second_moments=starts[: len(spectrum)],
        irreducible_loss=0.3,
    )
    target = 0.3 + share * (problem.initial_loss - 0.3)
    grid = some_grid(name, 10 ** np.array(log_lrs), 10 ** np.array(log_gaps))
    easy, hard = passages_by_stepping(problem, name, 10**log_batch, target, grid)
    found = search_grid(problem, name, 10**log_batch, target, grid).steps
    late = np.inf if found is None or found > MANY_STEPS else found
    assert easy <= late <= hard


def test_a_dip_below_the_target_counts_though_the_loss_comes_back():
    problem = NoisyQuadratic(spectrum=Spectrum(curvatures=[1.0]))
    swinging = Optimizer(name="momentum", lr=1e-4, momentum=0.999)
    losses = losses_by_stepping(problem, swinging, 1e9, 400)
    below = losses <= 1e-3
    assert below.any()
    assert not below[255]  # after a power of two steps, on either side, it is above
    assert not below[127]
    grid = Grid(lrs=[1e-4], momenta=[0.999])
    found = search_grid(problem, "momentum", 1e9, 1e-3, grid)
    assert found.steps == np.flatnonzero(below)[0] + 1


@pytest.mark.parametrize("name", SEARCHED)
def test_numpy_finds_what_numba_finds(name):
    pytest.importorskip("numba")
    grid = some_grid(name, np.logspace(-2, 0.5, 12), np.logspace(-3, 0, 6))
    one, other = (
        search_grid(SMALL, name, 32, 0.01, grid, backend=backend)
        for backend in ("numpy", "numba")
    )
    assert one == other


def test_more_points_never_need_more_steps():
    coarse = Grid(lrs=np.logspace(-2, 0, 5), momenta=[0.9, 0.99])
    fine = Grid(lrs=np.logspace(-2, 0, 9), momenta=[0.9, 0.95, 0.99])
    few = search_grid(SMALL, "momentum", 64, 0.01, coarse).steps
    assert search_grid(SMALL, "momentum", 64, 0.01, fine).steps <= few


def test_an_average_that_remembers_nothing_is_sgd():
    lrs = np.logspace(-3, 0, 20)
    plain = search_grid(SMALL, "sgd", 64, 0.01, Grid(lrs=lrs))
    for name in ("ema", "momentum", "nesterov", "momentum+ema"):
        same = search_grid(SMALL, name, 64, 0.01, Grid(lrs=lrs))
        assert (same.steps, same.optimizer.lr) == (plain.steps, plain.optimizer.lr)


def test_the_best_known_settings_of_momentum_with_average_reach_the_target_at_868():
    problem = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))
    grid = Grid(lrs=[3.643], momenta=[1 - 0.08514], ema_decays=[1 - 0.005519])
    found = search_grid(problem, "momentum+ema", 1024, 0.01, grid)
    assert found.steps == pytest.approx(868, abs=1)  # the settings have four digits


def test_a_target_below_the_noise_of_every_point_is_unreachable():
    found = search_grid(SMALL, "sgd", 1, 0.01, Grid(lrs=[0.5, 1.0]))
    assert found == GridPoint(optimizer=None, steps=None)
    assert found.to_dict() == {"steps": None}


@pytest.mark.parametrize("emulate", [False, True])
def test_a_grid_beyond_the_stability_edge_reaches_nothing(emulate):
    grid = Grid(lrs=[2.0, 50.0])
    found = search_grid(SMALL, "sgd", 64, 0.01, grid, emulate_published=emulate)
    assert found.steps is None


def test_a_point_explains_itself_to_a_program():
    found = search_grid(SMALL, "momentum", 1024, 0.1, Grid(lrs=[0.1], momenta=[0.9]))
    assert found.to_dict() == {
        "steps": found.steps,
        "optimizer": "momentum",
        "lr": 0.1,
        "momentum": 0.9,
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_published_grids_have_the_axes_that_an_optimizer_has(name):
    grid = published_grid(name)
    some = Optimizer(name=name, lr=1)
    assert grid.lrs.size == 100
    assert grid.momenta.size == (20 if some.has_momentum else 1)
    assert grid.ema_decays.size == (20 if some.has_ema else 1)


@pytest.mark.parametrize("axis", ["momenta", "ema_decays"])
@pytest.mark.parametrize("values", [[], [1.0], [-0.1, 0.5], [np.nan], [[0.5]]])
def test_a_grid_refuses_memories_that_are_none(axis, values):
    with pytest.raises(InputError, match=rf"Grid: `{axis}` must be a list of numbers"):
        Grid(lrs=[0.1], **{axis: values})


def test_a_grid_refuses_learning_rates_that_are_none():
    with pytest.raises(InputError, match="Grid: `lrs` must be positive, got 0 at 1"):
        Grid(lrs=[0.1, 0.0])


def test_settings_that_an_optimizer_has_not_are_refused():
    grid = Grid(lrs=[0.1], momenta=[0.9])
    for emulate in (False, True):
        with pytest.raises(InputError, match="sgd has no `momentum`, got 0.9"):
            search_grid(SMALL, "sgd", 64, 0.01, grid, emulate_published=emulate)


def test_other_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="search_grid: `name` cannot be 'adam'"):
        search_grid(SMALL, "adam", 64, 0.01)
    with pytest.raises(InputError, match="published_grid: `name` cannot be 'adam'"):
        published_grid("adam")
    with pytest.raises(InputError, match=r"tail-average\. \(try average\)"):
        search_grid(SMALL, "tail-average", 64, 0.01)
    with pytest.raises(InputError, match="search_grid: `batch_size` must be positive"):
        search_grid(SMALL, "sgd", 0, 0.01)
    with pytest.raises(InputError, match="search_grid: `target` must be below"):
        search_grid(SMALL, "sgd", 64, 100)
    labelled = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="search_grid: `problem` must have no label"):
        search_grid(labelled, "sgd", 64, 0.01)
