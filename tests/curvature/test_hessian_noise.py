"""The Hessian noise scale against a finite set of examples where all is known."""

import json
import math

import pytest
import torch
from curvature.example_models import (
    CROSS_ENTROPY,
    Regression,
    example_gradients,
    explicit_hessian,
    labelled,
    network,
)
from curvature.test_unit_gradients import z_score
from torch import nn

from rightbatch.curvature import (
    Product,
    measure_hessian_noise_scale,
    pair_curvature,
)
from rightbatch.errors import InputError

B = 4


def drawn_pairs(problem, num_draws, curvature_of):
    """Both estimates with H of the first gradient's own batch, or of a third."""
    drawn = torch.Generator().manual_seed(3)
    shape = (num_draws, 3, B)
    places = torch.randint(len(problem.x), shape, generator=drawn)
    moments = []
    for place in places:
        x = problem.x[place[curvature_of]]
        product = Product(name="H", apply=(x.T @ x / B).mv, like=x[0])
        first, second = problem.rows[place[:2]].mean(1)
        moments.append(pair_curvature(first, second, product, B))
    return moments


def test_pairs_with_an_independent_curvature_are_unbiased():
    problem = Regression()
    found = drawn_pairs(problem, 10_000, curvature_of=2)
    noise = [m.grad_variance for m in found]
    gradient = [m.grad_sq_norm for m in found]
    assert abs(z_score(noise, problem.noise_curvature)) < 4
    assert abs(z_score(gradient, problem.gradient_curvature)) < 4


def test_pairs_with_the_curvature_of_their_own_batch_are_biased():
    problem = Regression()
    found = drawn_pairs(problem, 10_000, curvature_of=0)
    noise = sum(m.grad_variance for m in found) / len(found)
    gradient = sum(m.grad_sq_norm for m in found) / len(found)
    # this problem at B = 4; what matters is that both are far too large
    assert noise > 1.2 * problem.noise_curvature
    assert gradient > 1.2 * problem.gradient_curvature


def test_the_measured_scale_has_the_truth_in_its_interval():
    problem = Regression()
    truth = problem.noise_curvature / problem.gradient_curvature
    batches = problem.batches(600, 8)
    found = measure_hessian_noise_scale(problem.model, problem.loss, batches)
    assert truth in found.interval
    assert found.interval.is_bounded
    assert found.hessian_noise_scale == pytest.approx(truth, rel=0.2)
    assert found.num_draws == 200
    assert found.interval.unit == "examples"
    assert 0 < found.lower_bound < found.hessian_noise_scale


def test_ninety_five_percent_of_intervals_hold_the_truth():
    problem = Regression()
    truth = problem.noise_curvature / problem.gradient_curvature
    held = [
        truth
        in measure_hessian_noise_scale(
            problem.model, problem.loss, problem.batches(60, 16, seed=s)
        ).interval
        for s in range(60)
    ]
    # 60 draws of .95: 4 standard deviations below
    assert sum(held) >= 60 * (0.95 - 4 * math.sqrt(0.95 * 0.05 / 60))


def test_the_gauss_newton_matrix_of_a_linear_model_gives_the_same():
    problem = Regression()
    batches = problem.batches(12, 4)
    one, other = (
        measure_hessian_noise_scale(
            problem.model, problem.loss, batches, curvature=curvature
        )
        for curvature in ("hessian", "gauss_newton")
    )
    assert one.noise_curvature == pytest.approx(other.noise_curvature)
    assert one.gradient_curvature == pytest.approx(other.gradient_curvature)
    assert "GN" in other.interval.definition


def test_a_preconditioned_scale_is_that_of_d_times_g():
    problem = Regression()
    diagonal = torch.linspace(0.2, 2, 6, dtype=torch.float64)
    found = measure_hessian_noise_scale(
        problem.model, problem.loss, problem.batches(600, 8), diagonal=diagonal
    )
    scaled = diagonal[:, None] * problem.hessian * diagonal
    noise = float((scaled @ problem.covariance).trace())
    gradient = float(problem.gradient @ scaled @ problem.gradient)
    assert noise / gradient in found.interval
    assert noise / gradient != pytest.approx(
        problem.noise_curvature / problem.gradient_curvature, rel=0.1
    )
    assert "of D g" in found.interval.definition


def test_the_two_parts_are_means_over_draws_of_explicit_forms():
    problem = Regression()
    diagonal = torch.linspace(0.2, 2, 6, dtype=torch.float64)
    batches = problem.batches(6, 8)
    found = measure_hessian_noise_scale(
        problem.model, problem.loss, batches, diagonal=diagonal
    )
    noise, gradient = [], []
    for k in (0, 3):
        first, second = (
            diagonal * example_gradients(problem.model, problem.loss, batch).mean(0)
            for batch in batches[k : k + 2]
        )
        matrix = explicit_hessian(problem.model, problem.loss, batches[k + 2])
        noise.append(float((first - second) @ matrix @ (first - second)) * 8 / 2)
        gradient.append(float(first @ matrix @ second))
    assert found.noise_curvature == pytest.approx(sum(noise) / 2)
    assert found.gradient_curvature == pytest.approx(sum(gradient) / 2)


def test_no_gradient_to_speak_of_leaves_no_upper_end():
    problem = Regression()
    best = torch.linalg.lstsq(problem.x, problem.y).solution
    with torch.no_grad():
        problem.model.weight.copy_(best[None])
    found = measure_hessian_noise_scale(
        problem.model, problem.loss, problem.batches(60, 4)
    )
    assert found.interval.high is None
    assert found.to_dict()["interval"]["high"] is None


def test_it_prints_and_turns_to_json():
    problem = Regression()
    found = measure_hessian_noise_scale(
        problem.model, problem.loss, problem.batches(90, 8), level=0.9
    )
    assert str(found).startswith("Hessian noise scale ")
    assert "90 %" in str(found)
    assert "30 draws" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["num_draws"] == 30


def test_draws_do_not_share_their_random_numbers_with_the_caller():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
    before = torch.random.get_rng_state()
    measure_hessian_noise_scale(
        model, CROSS_ENTROPY, [labelled(4, s) for s in range(6)]
    )
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("count", [3, 7])
def test_draws_that_are_too_few_or_not_whole_are_refused(count):
    batches = [labelled(4, s) for s in range(count)]
    with pytest.raises(InputError, match=f"multiple of 3, at least 6, got {count}"):
        measure_hessian_noise_scale(network(), CROSS_ENTROPY, batches)


def test_pairs_of_unlike_size_are_refused_and_another_size_of_the_third_is_not():
    sizes = [4, 4, 9, 4, 4, 2]
    batches = [labelled(n, s) for s, n in enumerate(sizes)]
    assert measure_hessian_noise_scale(network(), CROSS_ENTROPY, batches).num_draws == 2
    batches[3] = labelled(5)
    with pytest.raises(InputError, match="same number of examples each, got 4 to 5"):
        measure_hessian_noise_scale(network(), CROSS_ENTROPY, batches)


def test_what_it_cannot_measure_is_refused():
    batches = [labelled(4, s) for s in range(6)]
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    with pytest.raises(InputError, match="must not normalise over the batch"):
        measure_hessian_noise_scale(norm, CROSS_ENTROPY, batches)
    with pytest.raises(InputError, match="`curvature` cannot be 'fisher'"):
        measure_hessian_noise_scale(
            network(), CROSS_ENTROPY, batches, curvature="fisher"
        )
    with pytest.raises(InputError, match="`level` must be between 0 and 1"):
        measure_hessian_noise_scale(network(), CROSS_ENTROPY, batches, level=95)
    with pytest.raises(InputError, match="`diagonal` must be flat with 31 numbers"):
        measure_hessian_noise_scale(
            network(), CROSS_ENTROPY, batches, diagonal=torch.ones(2)
        )
    with pytest.raises(InputError, match="`loss` must be an OutputLoss"):
        measure_hessian_noise_scale(
            network(),
            lambda model, batch: CROSS_ENTROPY(model, batch) * 1,
            batches,
            curvature="gauss_newton",
        )
