"""Growing policies on a noisy quadratic: every one runs, and does what it promises."""

import math
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from rightbatch.lr_scaling import named_schedule
from rightbatch.policies import (
    POLICIES,
    AdaDamp,
    Clip,
    CntsDampLR,
    Constant,
    Dwell,
    GeoDamp,
    GeoDampLR,
    Geometric,
    NoiseFollowing,
    OnlyIfSure,
    PadaDamp,
    PolicyContext,
    SpillToLr,
    named_policy,
)
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import Conditions, replay, simulate
from rightbatch.step_time import StepTimeLaw

STEP_TIME = StepTimeLaw(
    seconds_per_example=1e-4, saturation_batch_size=4, overhead_seconds=0.01
)
SGD = Optimizer(name="sgd", lr=0.2)
REAL = Conditions(whole_batches=False)
LEAST = 0.7


def strongly_convex(*curvatures, irreducible_loss=LEAST):
    """Return a problem with these curvatures and the same noise in every direction."""
    return NoisyQuadratic(
        spectrum=Spectrum(curvatures=np.array(curvatures)),
        noise=Noise(curvature=0.0, isotropic=1.0),
        irreducible_loss=irreducible_loss,
    )


PROBLEM = strongly_convex(*np.linspace(0.2, 1.0, 9))
# Without a least loss that takes the digits of what is left.
ONE = strongly_convex(0.5, irreducible_loss=0.0)

# Every policy can be driven and asked ------------------------------------------------

TEXTS = {
    "schedule": "schedule:0:8 200:32 400:64,unit=example",
    "linear-ramp": "linear-ramp:over=30,to=64",
    "doubling": "doubling:every=.2",
    "geometric": "geometric:factor=1.05",
    "exchange-rate": "exchange-rate:examples_per_update=64",
    "radadamp": "radadamp:dwell=2,wait=4",
}
CONTEXT = PolicyContext(
    dataset_size=500,
    step_time=STEP_TIME,
    epochs=4,
    lr_schedule=named_schedule("linear"),
)
EVERYTHING = Conditions(
    dataset_size=500,
    tokens_per_example=10,
    step_time=STEP_TIME,
    record=frozenset(
        {
            "batch_loss",
            "batch_grad_sq_norm",
            "moments",
            "noise_scale",
            "inner_product_variance",
        }
    ),
)


@pytest.fixture(scope="module")
def recorded():
    run = simulate(
        PROBLEM, SGD, Constant(batch_size=16), max_steps=60, conditions=EVERYTHING
    )
    return run.trace


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seed", [None, 0], ids=["expected", "drawn"])
def test_every_policy_can_be_driven(name, seed):
    policy = named_policy(
        TEXTS.get(name, name),
        initial_batch_size=8,
        max_batch_size=256,
        context=CONTEXT,
    )
    conditions = Conditions(
        seed=seed, dataset_size=500, tokens_per_example=10, step_time=STEP_TIME
    )
    run = simulate(PROBLEM, SGD, policy, max_steps=60, conditions=conditions)
    assert run.steps == 60
    batches = run.trace.batch_sizes
    # Seesaw follows its schedule in stages, whose first has begun to grow.
    assert batches[0] == {"full-batch": 256, "seesaw": 9}.get(name, 8)
    assert batches.max() <= 256
    assert all(run.trace.reasons)
    stays = {"full-batch", "convex-ramp", "geodamp", "cabs"}  # five epochs; small lr
    if POLICIES[name].is_fixed:
        assert set(batches) == {8}
    elif name not in stays:
        assert batches.max() > 8


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_can_be_asked_about_a_run_that_told_what_it_needs(name, recorded):
    policy = named_policy(
        TEXTS.get(name, name), initial_batch_size=8, max_batch_size=256, context=CONTEXT
    )
    found = replay(policy, recorded, dataset_size=500)
    assert len(found.decisions) == 60
    assert (found.batch_sizes >= 1).all()


@pytest.mark.parametrize(
    "name", ["adadamp", "adadamp-nn", "noise-following", "planned"]
)
def test_a_run_and_its_replay_decide_alike(name):
    policy = named_policy(
        name, initial_batch_size=8, max_batch_size=256, context=CONTEXT
    )
    run = simulate(PROBLEM, SGD, policy, max_steps=60, conditions=EVERYTHING)
    again = replay(policy, run.trace, dataset_size=500)
    assert np.ceil(again.batch_sizes * (1 - 1e-12)) == pytest.approx(
        run.trace.batch_sizes
    )


# Pairs that keep lr/B, and policies that follow -------------------------------------


def test_geodamp_and_geodamplr_have_the_same_rate_over_batch_at_each_epoch():
    conditions = Conditions(dataset_size=640)
    for policy in (
        GeoDamp(initial_batch_size=16, factor=2, delay=2),
        GeoDampLR(initial_batch_size=16, factor=2, delay=2),
    ):
        run = simulate(
            PROBLEM, SGD, policy, max_examples=640 * 8, conditions=conditions
        )
        trace = run.trace
        epochs = (trace.examples - trace.batch_sizes) / 640
        assert trace.lrs / trace.batch_sizes == pytest.approx(
            0.2 / 16 / 2 ** (epochs // 2)
        )
        # The batch that grows takes 15/32 of the updates: halved every second epoch.
        assert run.steps == {"GeoDamp": 80 + 40 + 20 + 10}.get(run.policy, 320)


def test_padadamp_and_cntsdamplr_have_the_same_rate_over_batch_at_each_update():
    grown = simulate(
        PROBLEM,
        SGD,
        PadaDamp(initial_batch_size=16, rate=0.5),
        max_steps=200,
        conditions=REAL,
    ).trace
    cut = simulate(
        PROBLEM,
        SGD,
        CntsDampLR(initial_batch_size=16, rate=0.5),
        max_steps=200,
        conditions=REAL,
    ).trace
    assert grown.lrs / grown.batch_sizes == pytest.approx(cut.lrs / cut.batch_sizes)
    assert grown.batch_sizes[-1] == 16 + 0.5 * 199
    assert set(cut.batch_sizes) == {16}


def second_moments(problem, lr, batch_sizes):
    """Return E x^2 of every direction before each update, slowly."""
    second = np.array(problem.start)
    rows = []
    for batch in batch_sizes:
        rows.append(second)
        decay = (1 - lr * problem.curvatures) ** 2
        second = decay * second + lr**2 * problem.noise_variances / batch
    return np.array(rows)


def test_following_the_noise_takes_the_exact_noise_scale_of_the_point_before():
    policy = NoiseFollowing(initial_batch_size=4, factor=0.5)
    run = simulate(PROBLEM, SGD, policy, max_steps=100, conditions=REAL)
    batches = run.trace.batch_sizes
    points = second_moments(PROBLEM, 0.2, batches)
    signal = (PROBLEM.weights * PROBLEM.curvatures**2 * points).sum(axis=1)
    phi = (PROBLEM.weights * PROBLEM.noise_variances).sum() / signal
    assert batches[0] == 4
    # A batch tells of the point before its update, and sets the size of the next.
    assert batches[1:] == pytest.approx(np.maximum(1, 0.5 * phi[:-1]))


def test_what_exceeds_the_cap_cuts_the_rate_and_keeps_the_noise():
    free = AdaDamp(initial_batch_size=16, best_loss=LEAST)
    capped = SpillToLr(free, cap=64)
    run = simulate(PROBLEM, SGD, capped, max_steps=300, conditions=REAL).trace
    losses = np.array([PROBLEM.initial_loss, *run.losses[:-1]]) - LEAST
    wish = 16 * losses[0] / losses
    assert run.batch_sizes == pytest.approx(np.minimum(wish, 64))
    assert run.lrs / run.batch_sizes == pytest.approx(0.2 / wish)


def test_gated_by_its_interval_a_known_noise_scale_is_followed_as_ever():
    plain = NoiseFollowing(initial_batch_size=4)
    for policy in (plain, OnlyIfSure(plain)):
        run = simulate(PROBLEM, SGD, policy, max_steps=50, conditions=REAL)
        assert run.trace.batch_sizes[-1] > 100


# What adaptive batches promise, exact ------------------------------------------------


def passages(problem, policy, decades, conditions=REAL, max_steps=200_000):
    """Return updates and examples to each loss above the least."""
    run = simulate(
        problem,
        SGD,
        policy,
        target=LEAST + decades[-1],
        max_steps=max_steps,
        conditions=conditions,
    )
    found = [run.trace.first_passage(LEAST + one) for one in decades]
    return np.array([one[:2] for one in found], dtype=float).T


def one_direction():
    """Return curvature, variance of the noise and E x^2 at the start."""
    return (
        float(ONE.curvatures[0]),
        float(ONE.noise_variances[0]),
        float(ONE.start[0]),
    )


def test_in_one_direction_adadamp_is_exactly_geometric():
    h, c, m = one_direction()
    policy = AdaDamp(initial_batch_size=64)
    run = simulate(ONE, SGD, policy, max_steps=150, conditions=REAL)
    q = (1 - 0.2 * h) ** 2 + 0.2**2 * c / (64 * m)
    k = np.arange(1, 151)
    assert run.trace.losses == pytest.approx(h * m / 2 * q**k)
    assert run.trace.examples == pytest.approx(64 * (q**-k - 1) / (1 / q - 1))


def test_in_one_direction_sgd_at_its_best_rates_takes_updates_exactly_as_one_over_eps():
    h, c, m = one_direction()
    batch, steps = 64, 400
    # Minimises (1 - lr h)^2 m + lr^2 c/B, and then 1/m grows by h^2 B/c.
    second = 1 / (1 / m + np.arange(steps + 1) * h**2 * batch / c)
    best = h * second / (h**2 * second + c / batch)
    conditions = Conditions(lr_schedule=lambda step: float(best[step] / 0.2))
    run = simulate(
        ONE, SGD, Constant(batch_size=batch), max_steps=steps, conditions=conditions
    )
    assert run.trace.losses == pytest.approx(h / 2 * second[1:])


DECADES = np.array([1e-5, 1e-6, 1e-7, 1e-8])


@pytest.mark.parametrize(
    "policy",
    [
        AdaDamp(initial_batch_size=64, best_loss=LEAST),
        NoiseFollowing(initial_batch_size=64),
        # At most 1/(1 - lr h)^2 of the flattest direction, 1.085.
        Geometric(initial_batch_size=64, factor=1.08),
    ],
    ids=lambda policy: type(policy).__name__,
)
def test_updates_grow_as_log_of_one_over_eps_and_examples_as_one_over_eps(policy):
    steps, examples = passages(PROBLEM, policy, DECADES)
    assert np.ptp(np.diff(steps)) <= 1
    full, _ = passages(PROBLEM, Constant(batch_size=1e12), DECADES)
    assert full[-1] <= steps[-1] <= 1.35 * full[-1]
    slopes = np.diff(np.log10(examples))
    # Geometric is still near the rate at which both parts of the loss fall alike.
    assert slopes == pytest.approx(1, abs=0.07)


def test_growth_faster_than_the_loss_can_fall_wastes_examples():
    faster = Geometric(initial_batch_size=64, factor=1.2)
    decades = 10 * DECADES[:3]
    steps, examples = passages(PROBLEM, faster, decades)
    full, _ = passages(PROBLEM, Constant(batch_size=1e12), decades)
    assert steps[-1] <= 1.1 * full[-1]
    # (1/eps)^(log f/log 1/a), a the share left of the loss by an update.
    power = math.log(1.2) / -math.log((1 - 0.2 * 0.2) ** 2)
    slopes = np.diff(np.log10(examples))
    # Decades end at whole updates, of which one is a twelfth of a decade in examples.
    assert slopes == pytest.approx(power, abs=0.1)
    assert power > 2


def test_the_gain_survives_dwelling_and_whole_batches():
    policy = Dwell(
        Clip(AdaDamp(initial_batch_size=64, best_loss=LEAST), low=1), updates=20
    )
    steps, examples = passages(PROBLEM, policy, DECADES, Conditions())
    often, _ = passages(
        PROBLEM, AdaDamp(initial_batch_size=64, best_loss=LEAST), DECADES
    )
    assert steps[-1] <= 1.6 * often[-1]
    assert np.diff(np.log10(examples)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("num_draws", [20])
def test_on_noisy_runs_adadamp_arrives_as_the_expectation_says(num_draws):
    policy = AdaDamp(initial_batch_size=64, best_loss=LEAST)
    expected, _ = passages(PROBLEM, policy, [1e-4])
    steps = [
        passages(PROBLEM, policy, [1e-4], Conditions(seed=seed))[0][0]
        for seed in range(num_draws)
    ]
    # First passages of single runs come earlier than that of their mean loss.
    assert 0.6 * expected[0] <= np.median(steps) <= 1.1 * expected[0]


# The papers' illustration in one dimension ------------------------------------------


def diversity(gradients):
    """Return n sum g_i^2/(sum g_i)^2, which is 1 + the noise scale."""
    return len(gradients) * (gradients**2).sum() / gradients.sum() ** 2


def test_gradients_of_ten_points_grow_diverse_as_their_mean_nears():
    y = np.linspace(1.5, 2.5, 10)
    far = y - 1.0  # from .5 to 1.5, all of one sign
    found = [diversity(y - w) for w in (1.0, 1.5, 1.9, 1.99, 1.999)]
    assert far.min() == pytest.approx(0.5)
    assert found[0] == pytest.approx(1 + y.var())
    assert found[0] < 1.2
    assert (np.diff(found) > 0).all()
    # Of this quadratic the loss left is (mean - w)^2/2 an example: 1/diversity's pace.
    left = np.array([(2.0 - w) ** 2 / 2 for w in (1.0, 1.5, 1.9, 1.99, 1.999)])
    assert (np.array(found) - 1) * left == pytest.approx(y.var() / 2)
    assert (y - 2.0).sum() == pytest.approx(0)


@pytest.mark.slow
def test_the_page_has_the_updates_and_examples_that_its_figure_shows(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    docs = Path(__file__).parents[2] / "docs"
    picture = str(tmp_path / "figure.svg")
    monkeypatch.setattr(sys, "argv", ["theory_growing_batch.py", picture])
    runpy.run_path(str(docs / "examples" / "theory_growing_batch.py"))
    page = (docs / "theory" / "growing-batch.md").read_text("utf-8")
    rows = re.findall(r"(.*?)  +(\S+) updates +(\S+) examples", capsys.readouterr().out)
    assert len(rows) == 4
    for label, updates, examples in rows:
        told = rf"\| {re.escape(label)}.* \| {updates} \| {examples} \|"
        assert re.search(told, page)
