"""One noisy run: its mean is the expected loss, its meters are unbiased."""

import numpy as np
import pytest
from example_policies import Listed, Watching

from rightbatch.errors import InputError
from rightbatch.policies import Constant
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import Conditions, sampled, simulate
from rightbatch.simulation.sampled import SampledWalk, single_directions

# 400 runs a case, seeds 0 to 399; the worst of all means must lie within Z_BOUND
# standard errors. 8 optimizers by 6 steps give 48 means: 4 is passed once in 300.
RUNS, Z_BOUND = 400, 4.0
OPTIMIZERS = [
    Optimizer(name="sgd", lr=0.4),
    Optimizer(name="momentum", lr=0.3, momentum=0.8),
    Optimizer(name="nesterov", lr=0.3, momentum=0.8),
    Optimizer(name="ema", lr=0.4, ema_decay=0.8),
    Optimizer(name="momentum+ema", lr=0.3, momentum=0.6, ema_decay=0.7),
    Optimizer(name="nesterov+ema", lr=0.3, momentum=0.6, ema_decay=0.7),
    Optimizer(name="average", lr=0.4),
    Optimizer(name="tail-average", lr=0.4, tail_fraction=0.4),
]


@pytest.fixture(scope="module")
def problem():
    return NoisyQuadratic(
        spectrum=Spectrum(
            curvatures=np.array([1.5, 0.3, 0.05]), weights=np.array([1.0, 1.4, 3.0])
        ),
        noise=Noise(curvature=1.0, isotropic=0.2),
        preconditioner_power=0.2,
        irreducible_loss=0.5,
    )


def draws(problem, optimizer, policy, steps, **conditions):
    return [
        simulate(
            problem,
            optimizer,
            policy,
            max_steps=steps,
            conditions=Conditions(seed=seed, **conditions),
        ).trace
        for seed in range(RUNS)
    ]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: one.name)
def test_the_mean_of_runs_is_the_expected_loss(problem, optimizer):
    policy = Listed((1, 4, 2, 16), lr_factors=(1.0, 0.5, 1.2))
    losses = np.array([t.losses for t in draws(problem, optimizer, policy, 24)])
    truth = simulate(problem, optimizer, policy, max_steps=24).trace.losses
    places = [0, 1, 3, 7, 15, 23]
    error = losses.std(axis=0, ddof=1) / RUNS**0.5
    z = ((losses.mean(axis=0) - truth) / error)[places]
    assert np.abs(z).max() < Z_BOUND


def test_what_meters_read_is_right_on_average(problem):
    # One direction more than the policy needs is no use: all four at once.
    names = frozenset(
        {"batch_loss", "batch_grad_sq_norm", "moments", "inner_product_variance"}
    )
    optimizer, policy = Optimizer(name="sgd", lr=0.3), Constant(batch_size=6)
    runs = draws(problem, optimizer, policy, 4, record=names, num_units=3)
    exact = simulate(
        problem, optimizer, policy, max_steps=4, conditions=Conditions(record=names)
    ).trace
    assert set(exact.measurements) == {
        "batch_loss",
        "batch_grad_sq_norm",
        "grad_sq_norm",
        "grad_variance",
        "inner_product_variance",
    }
    for name, truth in exact.measurements.items():
        read = np.array([run.measurements[name] for run in runs])
        error = read.std(axis=0, ddof=1) / RUNS**0.5
        assert np.abs((read.mean(axis=0) - truth) / error).max() < Z_BOUND


def test_estimated_moments_scatter_like_those_of_units_that_are_drawn():
    # The estimator from R units, written out, against the chi-squares of the walk.
    problem = NoisyQuadratic(spectrum=Spectrum(curvatures=np.array([1.0, 0.2])))
    generator, units, batch, runs = np.random.default_rng(3), 4, 20, 4000
    deviations = np.sqrt(problem.noise_variances * units / batch)
    slope = problem.curvatures * 0.7
    noise = generator.standard_normal((runs, units, 2))
    gradients = slope + deviations * noise
    mean = gradients.mean(axis=1)
    a, m = (gradients**2).sum(axis=2).mean(axis=1), (mean**2).sum(axis=1)
    variance = (a - m) / (units / batch - 1 / batch)
    square = m - variance / batch
    wanted, drawn = frozenset({"moments"}), []
    walk = SampledWalk(problem, Optimizer(name="sgd", lr=1.0), 0, units)
    for _ in range(runs):
        walk._x = np.full(2, 0.7)
        moments = walk.step(1.0, float(batch), wanted).moments
        drawn.append((moments.grad_sq_norm, moments.grad_variance))
    for truth, column in zip((square, variance), np.array(drawn).T, strict=True):
        error = truth.std() * (2 / runs) ** 0.5
        assert abs(column.mean() - truth.mean()) < Z_BOUND * error
        # A standard deviation is known to about 1 / sqrt(runs); chi-squares of three
        # degrees of freedom have heavier tails: twice that.
        assert column.std() == pytest.approx(truth.std(), rel=4 * 2 / runs**0.5)


def test_a_batch_of_one_example_says_nothing_of_the_moments(problem):
    policy = Watching(1, frozenset({"moments", "batch_grad_sq_norm"}))
    optimizer = Optimizer(name="sgd", lr=0.1)
    simulate(problem, optimizer, policy, max_steps=3, conditions=Conditions(seed=0))
    assert [seen.moments for seen in policy.seen] == [None] * 3
    assert policy.seen[1].batch_grad_sq_norm > 0


def test_a_perfect_meter_shows_the_noise_scale_of_the_draw(problem):
    policy = Watching(8, frozenset({"noise_scale"}))
    optimizer = Optimizer(name="sgd", lr=0.1)
    simulate(problem, optimizer, policy, max_steps=3, conditions=Conditions(seed=0))
    scale = policy.seen[-1].noise_scale
    assert scale.low == scale.value == scale.high > 0


def test_a_seed_gives_one_run_and_another_seed_another(problem):
    optimizer, policy = Optimizer(name="sgd", lr=0.1), Constant(batch_size=8)
    one, again, other = (
        simulate(
            problem, optimizer, policy, max_steps=5, conditions=Conditions(seed=seed)
        ).trace.losses.tolist()
        for seed in (0, 0, 1)
    )
    assert one == again != other


def test_measuring_the_loss_of_a_batch_does_not_change_the_run(problem):
    optimizer = Optimizer(name="sgd", lr=0.1)
    plain, watched = (
        simulate(
            problem,
            optimizer,
            Constant(batch_size=8),
            max_steps=9,
            conditions=Conditions(seed=5, record=record),
        ).trace.losses.tolist()
        for record in (frozenset(), frozenset({"batch_loss", "moments"}))
    )
    assert plain == watched


def test_directions_are_drawn_one_by_one_and_parts_of_them_too():
    place, weights = single_directions(np.array([3.0, 0.25, 1.75]))
    assert place.tolist() == [0, 0, 0, 1, 2, 2]
    assert weights.tolist() == [1, 1, 1, 0.25, 1, 0.75]


def test_too_many_directions_to_draw_are_refused(monkeypatch):
    monkeypatch.setattr(sampled, "MAX_DIRECTIONS", 1000)
    spectrum = Spectrum(curvatures=np.array([1.0]), weights=np.array([1001.0]))
    with pytest.raises(InputError, match="at most 1,000 directions, got 1,001"):
        single_directions(spectrum.weights)
