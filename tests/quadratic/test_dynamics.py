"""The loss after some steps: that of torch, of the average noisy run, and no other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quadratic.oracles_dynamics import moments_by_stepping, one_step

from rightbatch.errors import InputError
from rightbatch.quadratic import (
    OPTIMIZERS,
    Noise,
    NoisyQuadratic,
    Optimizer,
    Spectrum,
)
from rightbatch.quadratic.dynamics import (
    LossParts,
    check_steps,
    loss_after,
    loss_ladder,
    loss_parts,
)
from rightbatch.quadratic.recursions.transition import Settings, settings_of

RUNS, Z_BOUND = 20_000, 4.5  # 8 optimizers by 4 steps: passed once in 5000 suites


def optimizer(name, lr=0.4):
    return Optimizer(
        name=name,
        lr=lr,
        momentum=0.8 if name.startswith(("momentum", "nesterov")) else 0,
        ema_decay=0.7 if name.endswith("ema") else 0,
        tail_fraction=0.4,
    )


@pytest.fixture(scope="module")
def problem():
    return NoisyQuadratic(
        spectrum=Spectrum(
            curvatures=np.array([1.5, 0.3, 0.05]), weights=np.array([1.0, 1.4, 3.0])
        ),
        noise=Noise(curvature=1.0, isotropic=0.2),
        initial_second_moments=np.array([1.0, 0.5, 4.0]),
        preconditioner_power=0.2,
        irreducible_loss=0.5,
    )


def averaged(opt, steps):
    if not opt.averages:
        return 0
    whole = opt.name == "average"
    return steps if whole else max(1, round(opt.tail_fraction * steps))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_is_the_mean_of_noisy_runs(problem, name):
    opt, batch = optimizer(name), 2.0
    rng = np.random.default_rng(OPTIMIZERS.index(name))
    scale = np.sqrt(problem.step_noise / batch)
    settings = (opt.lr, opt.momentum, opt.ema_decay)
    for steps in (1, 2, 7, 40):
        x = np.sqrt(problem.start) * np.ones((RUNS, 3))
        d, y = np.zeros_like(x), np.zeros_like(x) if opt.averages else x
        for k in range(steps):
            gradient = problem.rates * x + scale * rng.normal(size=x.shape)
            if opt.averages and k == steps - averaged(opt, steps):
                y = np.zeros_like(x)
            x, d, y = one_step(name, x, d, y, gradient, settings)
        read = y / max(1, averaged(opt, steps))
        losses = problem.irreducible_loss + read**2 @ problem.loss_weights
        z = losses.mean() - float(loss_after(problem, opt, batch, steps))
        assert abs(z) < Z_BOUND * losses.std() / RUNS**0.5


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_without_noise_the_loss_is_that_of_the_optimizer_of_torch(name):
    h = np.array([1.2, 0.4, 0.01])
    problem = NoisyQuadratic(spectrum=Spectrum(curvatures=h), noise=np.zeros(3))
    opt = optimizer(name)
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD(
        [x], lr=opt.lr, momentum=opt.momentum, nesterov=opt.is_nesterov
    )
    for k in range(60):
        loss = 0.5 * (torch.tensor(problem.curvatures) * x**2).sum()
        found = loss_after(problem, opt, 1, k)
        assert float(found) == pytest.approx(loss.item(), rel=1e-12)
        sgd.zero_grad()
        loss.backward()
        sgd.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_loss_is_that_of_every_step_taken(problem, name):
    opt, batch = optimizer(name), 0.5
    steps = [1, 2, 3, 8, 57, 130]
    truth = [
        problem.irreducible_loss
        + moments_by_stepping(
            opt,
            np.full(k, opt.lr),
            problem.rates,
            np.tile(problem.step_noise / batch, (k, 1)),
            problem.start,
            begin=k - averaged(opt, k),
        )
        @ problem.loss_weights
        for k in steps
    ]
    found = loss_after(problem, opt, batch, steps)
    np.testing.assert_allclose(found, np.array(truth, float), rtol=1e-12)


@given(st.sampled_from(OPTIMIZERS), st.integers(1, 10**6), st.floats(0.1, 1e7))
def test_the_loss_is_linear_in_start_and_noise(name, steps, batch):
    spectrum = Spectrum.inverse(5)
    opt = optimizer(name, lr=0.9)

    def at(start, noise):
        problem = NoisyQuadratic(
            spectrum=spectrum, noise=np.full(5, noise), initial_second_moments=start
        )
        return float(loss_after(problem, opt, batch, steps))

    both = 3 * at(1.0, 0.0) + 7 * at(0.0, 1.0)
    assert at(3.0, 7.0) == pytest.approx(both, rel=1e-12)
    # Twice the noise is half the batch.
    assert at(0.0, 2 / batch) == pytest.approx(2 / batch * at(0.0, 1.0), rel=1e-12)


def test_the_shape_is_that_of_the_steps_and_zero_steps_are_the_start(problem):
    found = loss_after(problem, optimizer("ema"), 4, [[0, 1], [5, 0]])
    assert found.shape == (2, 2)
    assert found[0, 0] == found[1, 1] == problem.initial_loss
    assert loss_after(problem, optimizer("sgd"), 4, 3).shape == ()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_unstable_loss_is_infinite(problem, name):
    assert loss_after(problem, optimizer(name, lr=9.0), 1, 10**6) == np.inf


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parts_of_the_loss_are_those_of_runs_together(problem, name):
    lrs = np.array([0.1, 0.4, 0.7])
    one = settings_of(optimizer(name))
    settings = Settings(lrs, *(np.repeat(part, 3) for part in one[1:]))
    steps = np.array([3, 40, 1000])
    parts = loss_parts(problem, name, settings, steps, tail_fraction=0.4)
    alone = [
        loss_after(problem, optimizer(name, lr), 8, k)
        for lr, k in zip(lrs, steps, strict=True)
    ]
    together = problem.irreducible_loss + parts.at(8)
    np.testing.assert_allclose(together, alone, rtol=1e-13)


def test_a_ladder_reads_the_loss_at_powers_of_two(problem):
    opt = optimizer("momentum+ema")
    rungs = loss_ladder(problem, opt.name, settings_of(opt), 9)
    alone = loss_after(problem, opt, 16, 2 ** np.arange(9))
    found = problem.irreducible_loss + rungs.at(16)[:, 0]
    np.testing.assert_allclose(found, alone, rtol=1e-13)


def test_parts_add_up_at_a_batch_size_and_are_infinite_where_they_are_not_numbers():
    parts = LossParts(np.array([1.0, np.nan]), np.array([4.0, 1.0]))
    assert parts.at(8).tolist() == [1.5, np.inf]
    assert parts.at([[1], [2]]).tolist() == [[5, np.inf], [3, np.inf]]


@pytest.mark.parametrize("steps", [-1, 1.5, [1, -2], "3", None])
def test_steps_are_whole_and_not_negative(steps):
    with pytest.raises(InputError, match="who: `steps` must be whole and >= 0"):
        check_steps("who", steps)


@pytest.mark.parametrize("batch_size", [0, -1, np.nan, "4"])
def test_a_batch_size_is_positive(problem, batch_size):
    with pytest.raises(InputError, match="loss_after: `batch_size` must be positive"):
        loss_after(problem, optimizer("sgd"), batch_size, 1)


def test_label_noise_is_refused():
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="loss_after: `problem` must have no label"):
        loss_after(noisy, optimizer("sgd"), 1, 1)
