"""The greedy schedule: each step the best there is, and the whole far behind."""

import numpy as np
import pytest
from scipy import optimize

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.schedules.greedy import greedy_lr, run_greedy
from rightbatch.quadratic.schedules.piecewise import search_pieces

SMALL = NoisyQuadratic(
    spectrum=Spectrum.power_law(8, 1.5),
    noise=Noise(curvature=1, isotropic=0.1),
    preconditioner_power=0.25,
)


def test_no_other_rate_makes_the_next_loss_lower():
    moments = np.random.default_rng(0).uniform(0, 1, 8)

    def loss(lr):
        x = lr * SMALL.rates
        return SMALL.loss((1 - x) ** 2 * moments + lr**2 * SMALL.step_noise / 3)

    best = optimize.minimize_scalar(loss, bounds=(0, 3), method="bounded")
    lr = greedy_lr(SMALL, 3, moments)
    assert lr == pytest.approx(best.x, abs=1e-4)
    assert loss(lr) <= best.fun


def test_at_the_minimum_without_noise_there_is_nothing_to_do():
    calm = NoisyQuadratic(spectrum=Spectrum.inverse(3), noise=Noise(curvature=0))
    assert greedy_lr(calm, 1, np.zeros(3)) == 0


def test_both_backends_take_the_same_steps():
    first, second = (
        run_greedy(SMALL, 3, 0.02, backend=backend) for backend in ("numpy", "numba")
    )
    assert first.steps == second.steps
    assert first.steps is not None
    assert first.loss == pytest.approx(second.loss, rel=1e-9)
    assert first.last_lr == pytest.approx(second.last_lr, rel=1e-9)
    assert first.first_lr > first.last_lr


def test_greed_is_harmless_where_all_directions_are_alike_and_a_trap_elsewhere():
    round_ = NoisyQuadratic(spectrum=Spectrum(curvatures=np.ones(5)))
    ill = NoisyQuadratic(spectrum=Spectrum.inverse(300))

    def ratio(problem, target):
        best = search_pieces(problem, "sgd", [16], target, 20)[0].steps
        greedy = run_greedy(problem, 16, target).steps
        assert best is not None
        assert greedy is not None
        return greedy / best

    assert ratio(round_, 0.05) < 1.05
    assert ratio(ill, 0.01) > 5


@pytest.mark.slow
def test_greed_takes_seventeen_million_steps_on_the_published_problem():
    problem = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))
    assert run_greedy(problem, 64, 0.01).steps == pytest.approx(16_935_310, rel=1e-6)


def test_a_run_that_is_stopped_has_no_steps():
    for backend in ("numpy", "numba"):
        found = run_greedy(SMALL, 3, 0.02, max_steps=5, backend=backend)
        assert found.steps is None
        assert 0.02 < found.loss < SMALL.initial_loss
        assert found.to_dict()["steps"] is None
        assert found.to_dict()["schedule"] == "greedy"


def test_bad_input_is_refused():
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="run_greedy: .*label noise"):
        run_greedy(noisy, 3, 0.1)
    with pytest.raises(InputError, match="greedy_lr: .*label noise"):
        greedy_lr(noisy, 3, noisy.start)
    with pytest.raises(InputError, match="run_greedy: `batch_size` must be positive"):
        run_greedy(SMALL, 0, 0.1)
    with pytest.raises(InputError, match="greedy_lr: `batch_size` must be positive"):
        greedy_lr(SMALL, -1, SMALL.start)
    with pytest.raises(InputError, match="run_greedy: `target` must be"):
        run_greedy(SMALL, 3, 1e9)
    with pytest.raises(InputError, match="`max_steps` must be a whole number"):
        run_greedy(SMALL, 3, 0.1, max_steps=0)
