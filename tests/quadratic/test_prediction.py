"""Steps to a target of a real run, predicted from what was measured on it."""

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rightbatch.errors import InputError
from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.measured import from_measurements
from rightbatch.quadratic.prediction import predict_steps
from rightbatch.quadratic.search import search

TRUTH = NoisyQuadratic(
    spectrum=Spectrum.power_law(40, 1.2),
    initial_second_moments=2.0,
    irreducible_loss=0.3,
)
SIZES = [4, 32, 256, 2048]


def first_passage(problem, optimizer, batch_size, target, most=3000):
    """Return the first step at or below the target, every step looked at."""
    for first in range(1, most, 500):
        steps = np.arange(first, first + 500)
        losses = loss_after(problem, optimizer, batch_size, steps)
        reached = np.flatnonzero(losses <= target)
        if reached.size:
            return first + int(reached[0])
    return None


def test_a_tuned_prediction_is_the_search_s():
    found = predict_steps(TRUTH, "momentum", SIZES, 0.35)
    expected = search(TRUTH, "momentum", SIZES, 0.35)
    assert [cell.steps for cell in found.cells] == [one.steps for one in expected]
    assert [cell.optimizer for cell in found.cells] == [x.optimizer for x in expected]
    assert found.remarks[0] == "the settings are tuned at each batch size"


@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer(name="sgd", lr=0.3),
        Optimizer(name="momentum", lr=0.2, momentum=0.9),
        Optimizer(name="momentum+ema", lr=0.2, momentum=0.9, ema_decay=0.95),
        Optimizer(name="average", lr=0.5),
        Optimizer(name="tail-average", lr=0.5, tail_fraction=0.5),
    ],
    ids=lambda one: one.name,
)
def test_given_settings_are_followed_to_their_first_passage(optimizer):
    found = predict_steps(TRUTH, optimizer, SIZES, 0.35)
    slow = [first_passage(TRUTH, optimizer, size, 0.35) for size in SIZES]
    assert [cell.steps for cell in found.cells] == slow
    assert all(cell.optimizer == optimizer for cell in found.cells)
    assert found.remarks[0] == "the settings are as given, tuned nowhere"


def test_a_rule_gives_each_batch_size_its_own_settings():
    def linear(batch_size):
        return Optimizer(name="sgd", lr=min(0.002 * batch_size, 1.0))

    found = predict_steps(TRUTH, linear, SIZES, 0.35)
    slow = [first_passage(TRUTH, linear(size), size, 0.35, 9000) for size in SIZES]
    assert [cell.steps for cell in found.cells] == slow


def test_noise_that_holds_the_loss_up_makes_a_batch_size_unreachable():
    found = predict_steps(TRUTH, Optimizer(name="sgd", lr=0.3), [1, 256], 0.35)
    assert found.steps[0] == math.inf
    assert np.isfinite(found.steps[1])
    remark = "out of reach at batch size 1: noise holds the loss above the target"
    assert remark in found.remarks


def test_a_rate_past_the_edge_is_named():
    found = predict_steps(TRUTH, Optimizer(name="sgd", lr=2.1), [1, 256], 0.35)
    assert found.steps.tolist() == [math.inf, math.inf]
    remark = "out of reach at batch size 1, 256: the lr is past the stability edge"
    assert remark in found.remarks


@pytest.mark.parametrize("target", [0.3, 0.1])
def test_a_target_at_the_irreducible_loss_is_an_answer(target):
    found = predict_steps(TRUTH, "sgd", SIZES, target)
    assert [cell.steps for cell in found.cells] == [None] * 4
    assert any("not above the irreducible loss 0.3" in one for one in found.remarks)
    assert "unreachable" in str(found)


def test_more_noise_never_takes_fewer_steps_and_matters_at_small_batches():
    found = predict_steps(TRUTH, "sgd", SIZES, 0.35, noise_error=0.3)
    for cell in found.cells:
        assert cell.low <= cell.steps <= cell.high
    small, large = found.cells[0], found.cells[-1]
    # Where noise sets the pace, steps are in proportion to it.
    assert small.low / small.steps == pytest.approx(0.7, abs=0.02)
    assert small.high / small.steps == pytest.approx(1.3, abs=0.02)
    assert large.high / large.low < 1.1


def test_a_band_may_reach_the_unreachable():
    found = predict_steps(
        TRUTH, Optimizer(name="sgd", lr=0.3), [6], 0.35, noise_error=0.5
    )
    (cell,) = found.cells
    assert (cell.low is None, cell.high is None) == (False, True)


def test_what_a_measurement_left_out_is_remarked():
    measured = from_measurements(
        nodes=[-0.2, 1.0, 0.1], weights=[1, 2, 30], noise=[1.0, 1.0, 0.1], drop_below=0
    )
    found = predict_steps(measured, "sgd", [64], 0.2)
    assert str(measured.left_out) in found.remarks


def test_a_target_close_to_the_irreducible_loss_and_few_steps_are_remarked():
    found = predict_steps(TRUTH, "sgd", [1e9], 0.301)
    assert any("leaves 0.031 % of the loss" in one for one in found.remarks)
    few = predict_steps(TRUTH, "sgd", [1e9], 2.0)
    assert any("steps are few" in one for one in few.remarks)
    many = predict_steps(TRUTH, "sgd", [4], 0.35)
    assert not any("steps are few" in one for one in many.remarks)


def test_errors_are_predicted_over_measured_steps_less_one():
    found = predict_steps(TRUTH, "sgd", [4, 256], 0.35)
    steps = found.steps
    np.testing.assert_allclose(found.errors(steps / [2, 1]), [1, 0])
    with pytest.raises(InputError, match="`measured_steps` must be as many .* 1 for 2"):
        found.errors([10])


def test_a_prediction_prints_and_serialises_its_bands_and_settings():
    found = predict_steps(TRUTH, "sgd", [4, 256], 0.35, noise_error=0.1)
    lines = str(found).splitlines()
    assert lines[0].split() == ["batch", "size", "steps", "low", "high"]
    assert lines[-1].startswith("- ")
    whole = found.to_dict()
    assert whole["cells"][0]["lr"] == found.cells[0].optimizer.lr
    assert whole["noise_error"] == 0.1
    plain = predict_steps(TRUTH, "sgd", [4], 0.35)
    assert str(plain).splitlines()[0].split() == ["batch", "size", "steps"]
    assert plain.to_dict()["cells"][0]["low"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": "adam"}, "predict_steps: `settings` cannot be 'adam'"),
        ({"batch_sizes": [-1]}, "`batch_sizes` must be positive"),
        ({"target": 1000.0}, "`target` must be below the loss at the start"),
        ({"noise_error": 1.0}, "`noise_error` must be below 1, got 1"),
        ({"noise_error": -0.1}, "`noise_error` must not be negative"),
    ],
)
def test_bad_input_is_refused(changes, message):
    given = {"settings": "sgd", "batch_sizes": [4], "target": 0.35, **changes}
    noise_error = given.pop("noise_error", 0.0)
    with pytest.raises(InputError, match=message):
        predict_steps(TRUTH, *given.values(), noise_error=noise_error)


def test_noise_measured_from_draws_predicts_as_well_as_it_is_known():
    # Variances from 200 draws a direction are 10 % off each, less in sum.
    generator = np.random.default_rng(0)
    draws = generator.normal(size=(200, TRUTH.curvatures.size))
    measured = from_measurements(
        nodes=TRUTH.curvatures,
        weights=TRUTH.weights,
        noise=(draws**2).mean(axis=0) * TRUTH.noise_variances,
        initial_second_moments=TRUTH.start,
        irreducible_loss=TRUTH.irreducible_loss,
    )
    found = predict_steps(measured, "sgd", SIZES, 0.35)
    truth = predict_steps(TRUTH, "sgd", SIZES, 0.35)
    assert np.abs(found.errors(truth.steps)).max() < 0.05


# A linear regression, measured exactly and trained for real ---------------------------


class Regression:
    """Even digits against odd ones by least squares, in the Hessian's eigenvectors."""

    def __init__(self):
        images, digits = load_digits(return_X_y=True)
        images = (images - images.mean(0))[:, images.std(0) > 0] / 16
        wanted = np.where(digits % 2 == 0, 1.0, -1.0)
        wanted -= wanted.mean()
        num = len(wanted)
        values, vectors = np.linalg.eigh(images.T @ images / num)
        self.curvatures, self.features = values, images @ vectors
        best = self.features.T @ wanted / num / values
        self.start = -best  # from the minimum
        self.residual = wanted - self.features @ best
        self.irreducible_loss = float((self.residual**2).mean() / 2)

    def noise_at(self, place):
        """Return the variance of one example's gradient along each eigenvector."""
        errors = self.features @ place - self.residual
        return (self.features * errors[:, None]).var(axis=0)

    def on_the_way(self, share):
        """Return where gradient flow has so much of the loss above the least left."""
        goal = share * (self.curvatures @ self.start**2)
        low, high = 1e-3, 1e9
        for _ in range(100):
            time = math.sqrt(low * high)
            place = self.start * np.exp(-self.curvatures * time)
            above = self.curvatures @ place**2 > goal
            low, high = (time, high) if above else (low, time)
        return place

    def steps(self, optimizer, batch_size, target, most, seed=0):
        """Return the first step at which the mean loss of 64 runs is at the target."""
        generator = np.random.default_rng(seed)
        place = np.tile(self.start, (64, 1))
        for step in range(1, most + 1):
            rows = generator.integers(0, len(self.residual), (64, batch_size))
            seen = self.features[rows]
            errors = np.einsum("rbd,rd->rb", seen, place) - self.residual[rows]
            gradient = np.einsum("rbd,rb->rd", seen, errors) / batch_size
            place = place - optimizer.lr * gradient
            loss = self.irreducible_loss + (place**2 @ self.curvatures).mean() / 2
            if loss <= target:
                return step
        return None


@pytest.fixture(scope="module")
def regression():
    return Regression()


def prediction_of(regression, noise):
    measured = from_measurements(
        nodes=regression.curvatures,
        weights=np.ones_like(regression.curvatures),
        noise=noise,
        initial_second_moments=regression.start**2,
        irreducible_loss=regression.irreducible_loss,
    )
    problem = measured.problem
    above = problem.initial_loss - problem.irreducible_loss
    target = problem.irreducible_loss + 0.1 * above
    return predict_steps(measured, "sgd", [4, 16, 64, 256], target)


def test_real_sgd_on_a_regression_takes_the_predicted_steps(regression):
    # 64 runs know their mean loss to about 1 %, as much as 3 % of the steps.
    noise = regression.noise_at(regression.on_the_way(0.1))
    found = prediction_of(regression, noise)
    measured = [
        regression.steps(cell.optimizer, int(cell.batch_size), found.target, 500)
        for cell in found.cells
    ]
    assert np.abs(found.errors(measured)).max() < 0.1


def test_noise_measured_at_the_start_predicts_too_many_steps(regression):
    # There every error is large, and the noise with it: 2.6 times that at the target.
    late = prediction_of(regression, regression.noise_at(regression.on_the_way(0.1)))
    early = prediction_of(regression, regression.noise_at(regression.start))
    assert 2.2 < early.steps[0] / late.steps[0] < 3


def test_a_rate_too_bold_for_a_regression_is_remarked_and_fails_there(regression):
    noise = regression.noise_at(regression.on_the_way(0.1))
    measured = from_measurements(
        nodes=regression.curvatures,
        weights=np.ones_like(regression.curvatures),
        noise=noise,
        initial_second_moments=regression.start**2,
        irreducible_loss=regression.irreducible_loss,
    )
    found = predict_steps(measured, "ema", [4, 256], 0.18)
    assert any("at batch size 4 the lr would be too bold" in r for r in found.remarks)
    (small, _) = found.cells
    steps = 3 * small.steps
    sgd = Optimizer(name="sgd", lr=small.optimizer.lr)
    assert regression.steps(sgd, 4, 0.18, steps) is None
