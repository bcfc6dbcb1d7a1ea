"""How few examples could do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quadratic import oracles_problem as oracles

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.bounds import (
    bayes_examples,
    bayes_risk,
    bayes_steps,
    max_likelihood_examples,
    max_likelihood_risk,
    max_likelihood_steps,
)

STANDARD = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
PUBLISHED = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))
positive = st.floats(0.01, 100)
problems = st.builds(
    lambda h, c, s, power: NoisyQuadratic(
        spectrum=Spectrum(curvatures=h),
        noise=np.array(c),
        initial_second_moments=np.array(s),
        preconditioner_power=power,
        irreducible_loss=0.3,
    ),
    *[st.lists(positive, min_size=4, max_size=4)] * 3,
    st.floats(0, 1),
)


@pytest.mark.parametrize(
    ("problem", "examples", "steps"),
    [(STANDARD, 495_016, 7734.6), (PUBLISHED, 494_785, 7731.0)],
    ids=["exact", "published bins"],
)
def test_the_known_answers_of_the_bayes_bound(problem, examples, steps):
    assert round(bayes_examples(problem, 0.01)) == examples
    assert bayes_steps(problem, 64, 0.01) == pytest.approx(steps, abs=0.05)


@pytest.mark.parametrize("problem", [STANDARD, PUBLISHED])
def test_maximum_likelihood_takes_n_over_2_c_examples_for_the_papers_noise(problem):
    assert max_likelihood_examples(problem, 0.01) == pytest.approx(500_000)
    assert max_likelihood_steps(problem, 64, 0.01) == pytest.approx(7812.5)


@given(problems, st.floats(0.001, 0.999))
def test_the_examples_are_where_the_risk_is_the_target(problem, share):
    above = problem.initial_loss - problem.irreducible_loss
    target = problem.irreducible_loss + share * above
    examples = bayes_examples(problem, target)
    assert bayes_risk(problem, examples) == pytest.approx(target, rel=1e-12)
    wanted = max_likelihood_examples(problem, target)
    assert max_likelihood_risk(problem, wanted) == pytest.approx(target, rel=1e-12)


@given(problems, st.floats(0.1, 1e6))
def test_what_is_known_of_the_start_never_hurts(problem, examples):
    least = bayes_risk(problem, examples)
    assert least <= max_likelihood_risk(problem, examples) * (1 + 1e-12)
    assert least <= problem.initial_loss * (1 + 1e-12)


@given(problems)
def test_preconditioning_moves_neither_bound(problem):
    plain = problem.with_power(0.0)
    assert bayes_risk(problem, 50.0) == bayes_risk(plain, 50.0)
    assert max_likelihood_risk(problem, 50.0) == max_likelihood_risk(plain, 50.0)


@given(
    problems,
    st.sampled_from(["sgd", "momentum", "nesterov", "ema", "average"]),
    st.floats(0.05, 0.9),
)
def test_no_optimizer_beats_the_bayes_bound(problem, name, share):
    settings = {"momentum": 0.7} if name in ("momentum", "nesterov") else {}
    settings |= {"ema_decay": 0.8} if name == "ema" else {}
    edge = Optimizer(name=name, lr=1.0, **settings).max_stable_rate
    lr = share * edge / problem.rates.max()
    optimizer = Optimizer(name=name, lr=lr, **settings)
    losses = oracles.losses_along(problem, optimizer, 2.0, 30)
    for steps, loss in enumerate(losses):
        assert loss >= bayes_risk(problem, 2.0 * steps) * (1 - 1e-12)


def test_averaging_can_beat_maximum_likelihood():
    # One direction that starts close: what maximum likelihood forgets is worth a lot.
    problem = NoisyQuadratic(
        spectrum=Spectrum.inverse(1), initial_second_moments=0.1, noise=Noise()
    )
    optimizer = Optimizer(name="average", lr=0.2)
    losses = oracles.losses_along(problem, optimizer, 1.0, 10)
    assert losses[10] < max_likelihood_risk(problem, 10.0)


def test_the_bayes_risk_is_the_posterior_variance_of_a_gaussian():
    # Simulated: x ~ N(0, s), N readings of it with variance c / h^2, posterior mean.
    generator = np.random.default_rng(0)
    h, c, s, num, draws = 2.0, 3.0, 0.5, 5, 200_000
    x = generator.normal(0, np.sqrt(s), draws)
    readings = x[:, None] + generator.normal(0, np.sqrt(c) / h, (draws, num))
    guess = readings.mean(1) * s / (s + c / h**2 / num)
    losses = 0.5 * h * (guess - x) ** 2
    problem = NoisyQuadratic(
        spectrum=Spectrum(curvatures=[h]),
        noise=np.array([c]),
        initial_second_moments=s,
    )
    error = losses.std() / np.sqrt(draws)
    assert abs(losses.mean() - bayes_risk(problem, num)) < 5 * error


def test_directions_without_noise_or_without_a_start_cost_nothing():
    problem = NoisyQuadratic(
        spectrum=Spectrum(curvatures=[4.0, 2.0, 1.0]),
        noise=np.array([0.0, 2.0, 1.0]),
        initial_second_moments=[1.0, 1.0, 0.0],
    )
    alone = NoisyQuadratic(spectrum=Spectrum(curvatures=[2.0]), noise=np.array([2.0]))
    assert bayes_risk(problem, 7.0) == pytest.approx(bayes_risk(alone, 7.0))
    assert bayes_risk(problem, 0.0) == problem.initial_loss == 3.0
    assert bayes_examples(problem, 0.5) == pytest.approx(bayes_examples(alone, 0.5))
    # The noisy direction starts at 1: above that a single example does.
    assert bayes_examples(problem, 1.5) == 0.0


@pytest.mark.parametrize("target", [-1.0, 0.0, 100.0, np.nan])
@pytest.mark.parametrize("bound", [bayes_examples, max_likelihood_examples])
def test_a_target_out_of_range_is_refused(bound, target):
    with pytest.raises(InputError, match="`target` must be"):
        bound(STANDARD, target)


@pytest.mark.parametrize("bound", [bayes_steps, max_likelihood_steps])
def test_a_batch_size_must_be_positive(bound):
    with pytest.raises(InputError, match="`batch_size` must be positive, got 0"):
        bound(STANDARD, 0, 0.01)


def test_examples_must_not_be_negative():
    with pytest.raises(InputError, match="`examples` must not be negative, got -1"):
        bayes_risk(STANDARD, -1)
    with pytest.raises(InputError, match="`examples` must be positive, got 0"):
        max_likelihood_risk(STANDARD, 0)


@pytest.mark.parametrize(
    "bound",
    [bayes_risk, bayes_examples, max_likelihood_risk, max_likelihood_examples],
)
def test_label_noise_has_no_bound_here(bound):
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="must have no label noise"):
        bound(problem, 0.5)
