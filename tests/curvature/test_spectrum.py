"""Spectra against known ones, and the noisy quadratic made of them."""

import json

import numpy as np
import pytest
import torch
from curvature.example_models import (
    CROSS_ENTROPY,
    Regression,
    explicit_hessian,
    labelled,
    network,
)
from curvature.test_unit_gradients import z_score

from rightbatch.curvature import (
    Product,
    UnitGradients,
    gauss_newton,
    hessian,
    in_units,
    lanczos_spectrum,
    unit_gradients,
)
from rightbatch.errors import InputError
from rightbatch.quadratic.measured import from_measurements


def rotated(curvatures, seed=0):
    """A matrix with these eigenvalues, and its eigenvectors as rows."""
    drawn = torch.Generator().manual_seed(seed)
    size = len(curvatures)
    mixed = torch.randn(size, size, generator=drawn, dtype=torch.float64)
    frame = torch.linalg.qr(mixed)[0]
    return frame @ torch.diag(curvatures) @ frame.T, frame.T


def product_of(matrix):
    return Product(name="H", apply=matrix.mv, like=matrix[0])


def spiked(size=300):
    """A few large curvatures over a bulk, as networks have."""
    bulk = torch.linspace(0, 1, size - 3, dtype=torch.float64) ** 3
    return torch.cat([torch.tensor([40.0, 9.0, 5.0], dtype=torch.float64), bulk])


def test_all_of_a_small_network_s_spectrum_is_found_exactly():
    model, batch = network(), labelled(40)
    found = lanczos_spectrum(hessian(model, CROSS_ENTROPY, [batch]), num_steps=40)
    matrix = explicit_hessian(model, CROSS_ENTROPY, batch)
    values = torch.linalg.eigvalsh(matrix).flip(0).numpy()
    # softmax leaves seven directions at exactly zero, which one run sees as one
    top = found.nodes[: int((values > 1e-3).sum())]
    assert top == pytest.approx(values[: len(top)], abs=1e-10)
    assert found.num_directions == pytest.approx(31)
    assert found.trace.trace == pytest.approx(float(matrix.trace()), abs=1e-6)


def test_top_curvatures_come_out_to_a_millionth_with_weight_one():
    matrix, _ = rotated(spiked())
    found = lanczos_spectrum(product_of(matrix), num_steps=40)
    assert found.nodes[:3] == pytest.approx([40, 9, 5], rel=1e-6)
    assert found.weights[:3].tolist() == [1, 1, 1]
    assert found.num_exact >= 3


def test_weights_sum_to_the_dimension_and_moments_are_those_of_the_matrix():
    curvatures = spiked()
    matrix, _ = rotated(curvatures)
    runs = [lanczos_spectrum(product_of(matrix), seed=s) for s in range(30)]
    for found in runs:
        assert found.num_directions == pytest.approx(300)
        assert (found.weights > 0).all()
        assert (np.diff(found.nodes) <= 0).all()
    for power in (1, 2, 3):
        truth = float((curvatures**power).sum())
        moments = [found.weights @ found.nodes**power for found in runs]
        assert abs(z_score(moments, truth)) < 4
        # four probes on the bulk alone; 5 standard deviations of Hutchinson's sum
        spread = float(2 * (curvatures[3:] ** (2 * power)).sum() / 4) ** 0.5
        assert moments == pytest.approx([truth] * 30, abs=5 * spread)
    assert [f.trace.trace for f in runs] == pytest.approx(
        [f.weights @ f.nodes for f in runs]
    )
    told = np.mean([f.trace.standard_error for f in runs])
    # 30 runs know the true error to 13 %, the mean of those told to less
    assert told == pytest.approx(np.std([f.trace.trace for f in runs]), rel=0.4)


def test_the_share_of_directions_below_a_curvature_is_found():
    curvatures = spiked()
    matrix, _ = rotated(curvatures)
    found = lanczos_spectrum(product_of(matrix), num_probes=10)
    for edge in (0.01, 0.125, 0.5):
        share = found.weights[found.nodes < edge].sum() / 300
        truth = float((curvatures < edge).double().mean())
        assert share == pytest.approx(truth, abs=0.05)


def test_multiple_curvatures_and_a_large_null_space_keep_their_weights():
    curvatures = torch.cat([torch.tensor([4.0, 4, 4, 1, 1]), torch.zeros(45)]).double()
    matrix, _ = rotated(curvatures)
    found = lanczos_spectrum(product_of(matrix), num_steps=10, num_probes=200)
    weights = [found.weights[np.abs(found.nodes - c) < 1e-6].sum() for c in (4, 1, 0)]
    # one of each is exact; the others' squared components have a spread of sqrt(2)
    assert weights == pytest.approx([3, 2, 45], abs=4 * 2 / np.sqrt(200))
    assert sum(weights) == pytest.approx(50)


def test_negative_curvature_is_found_and_left_to_the_caller():
    curvatures = spiked() - 0.2
    curvatures[-1] = -3.0
    matrix, _ = rotated(curvatures)
    found = lanczos_spectrum(product_of(matrix))
    assert found.nodes[-1] == pytest.approx(-3, abs=1e-6)
    with pytest.raises(InputError, match="`nodes` must be positive"):
        from_measurements(nodes=found.nodes, weights=found.weights, noise=1.0)


def test_a_regression_becomes_the_noisy_quadratic_it_is():
    problem = Regression()
    everything = (problem.x, problem.y)
    product = hessian(problem.model, problem.loss, [everything])
    units = unit_gradients(problem.model, problem.loss, in_units(everything))
    found = lanczos_spectrum(product, units=units)
    values, vectors = torch.linalg.eigh(problem.hessian)
    assert found.num_exact == 6
    assert found.nodes == pytest.approx(values.flip(0).numpy())
    assert found.weights.tolist() == [1.0] * 6
    rotated_noise = (vectors.T @ problem.covariance @ vectors).diagonal().flip(0)
    # over all 200 examples the unbiased variance has the divisor 199
    assert found.noise * 199 / 200 == pytest.approx(rotated_noise.numpy())
    along = (vectors.T @ problem.gradient).flip(0).numpy() ** 2
    assert found.grad_sq == pytest.approx(along - found.noise / 200)
    assert found.noise_share == pytest.approx(1)
    measured = from_measurements(
        nodes=found.nodes, weights=found.weights, noise=found.noise
    ).problem
    assert measured.spectrum.trace == pytest.approx(float(problem.hessian.trace()))
    h, w = measured.spectrum.curvatures, measured.spectrum.weights
    noise_curvature = float((w * h) @ measured.noise_variances) * 199 / 200
    assert noise_curvature == pytest.approx(problem.noise_curvature)


def known_noise(frame, noise, count=4000, seed=1):
    """Units with a covariance that is diagonal in a frame, and no mean."""
    drawn = torch.Generator().manual_seed(seed)
    normal = torch.randn(count, len(noise), generator=drawn, dtype=torch.float64)
    return UnitGradients(rows=(normal * noise.sqrt()) @ frame, unit_size=1)


def test_noise_in_the_bulk_is_that_of_neighbouring_directions():
    curvatures = spiked()
    matrix, frame = rotated(curvatures)
    noise = 0.3 * curvatures + 0.1
    units = known_noise(frame, noise)
    runs = [
        lanczos_spectrum(product_of(matrix), units=units, seed=s) for s in range(10)
    ]
    expected = [0.3 * found.nodes + 0.1 for found in runs]
    misses = [f.noise / e for f, e in zip(runs, expected, strict=True)]
    # the variance of 4000 units is known to sqrt(2/4000) = 2.2 %, mixing adds more
    assert np.average(
        np.concatenate(misses), weights=np.concatenate([f.weights for f in runs])
    ) == pytest.approx(1, abs=0.05)
    assert runs[0].noise[:3] == pytest.approx(expected[0][:3], rel=4 * 0.0224)
    truth = float((curvatures * noise).sum())
    totals = [(f.weights * f.nodes) @ f.noise for f in runs]
    assert np.mean(totals) == pytest.approx(truth, rel=4 * 0.0224)
    assert [f.noise_share for f in runs] == pytest.approx([1] * 10, abs=0.1)


def test_a_preconditioned_spectrum_is_that_of_d_times_h():
    problem = Regression()
    everything = (problem.x, problem.y)
    diagonal = torch.linspace(0.2, 2, 6, dtype=torch.float64)
    product = hessian(problem.model, problem.loss, [everything])
    units = unit_gradients(problem.model, problem.loss, in_units(everything))
    found = lanczos_spectrum(
        product.preconditioned(diagonal), units=units.scaled(diagonal.sqrt())
    )
    values = torch.linalg.eigvals(torch.diag(diagonal) @ problem.hessian).real
    assert found.nodes == pytest.approx(values.sort(descending=True)[0].numpy())
    scaled = diagonal[:, None] * problem.hessian * diagonal
    truth = float((scaled @ problem.covariance).trace())
    total = float((found.weights * found.nodes) @ found.noise) * 199 / 200
    assert total == pytest.approx(truth)


def test_single_precision_finds_the_same_spectrum():
    matrix, _ = rotated(spiked())
    found = lanczos_spectrum(product_of(matrix.float()))
    assert found.nodes[:3] == pytest.approx([40, 9, 5], rel=1e-5)
    assert found.num_directions == pytest.approx(300)


def test_a_gauss_newton_spectrum_of_a_network_feeds_a_noisy_quadratic():
    model, batch = network(), labelled(40)
    product = gauss_newton(model, CROSS_ENTROPY, [batch])
    units = unit_gradients(model, CROSS_ENTROPY, in_units(labelled(40, seed=1)))
    found = lanczos_spectrum(product, units=units)
    assert found.nodes[-1] > -1e-12
    measured = from_measurements(
        nodes=found.nodes,
        weights=found.weights,
        noise=found.noise,
        initial_loss=1.1,
        drop_below=1e-9,
    )
    assert measured.problem.initial_loss == pytest.approx(1.1)


def test_a_spectrum_prints_and_turns_to_json():
    matrix, frame = rotated(spiked(60))
    found = lanczos_spectrum(
        product_of(matrix), num_steps=20, units=known_noise(frame, torch.ones(60))
    )
    assert str(found).startswith("60 directions, curvature ")
    assert "found exactly; " in str(found)
    back = json.loads(json.dumps(found.to_dict()))
    assert len(back["nodes"]) == len(back["noise"]) == len(back["grad_sq"])
    bare = lanczos_spectrum(product_of(matrix), num_steps=20)
    assert (bare.to_dict()["noise"], bare.noise_share) == (None, None)
    assert "noise" not in str(bare)


def test_units_of_another_model_are_refused():
    units = UnitGradients(rows=torch.ones(2, 3), unit_size=1)
    with pytest.raises(InputError, match="`units` must hold gradients of 2 numbers"):
        lanczos_spectrum(product_of(torch.eye(2)), units=units)


def test_no_probes_are_refused():
    with pytest.raises(InputError, match="`num_probes` must be a whole number >= 1"):
        lanczos_spectrum(product_of(torch.eye(2)), num_probes=0)
