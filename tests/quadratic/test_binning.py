"""Binned curvatures: what is kept, what is lost, and where the cuts fall."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import (
    bin_problem,
    binning_error,
    centroid_bins,
    published_bins,
)

STANDARD = Spectrum.inverse(10_000)
values = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=60)


def noise_free_loss(spectrum, time):
    h = spectrum.curvatures
    return float((spectrum.weights * h * np.exp(-2 * time * h)).sum())


# Centroids --------------------------------------------------------------------------


@pytest.mark.parametrize("num_bins", [84, None])
def test_the_standard_problem_is_cut_at_101_geometric_indices(num_bins):
    edges = np.unique(np.round(np.geomspace(1, 10_001, 101))).astype(int)
    groups = [
        [1 / i for i in range(first, last)]
        for first, last in zip(edges[:-1], edges[1:], strict=True)
    ]
    binned = centroid_bins(STANDARD, num_bins)
    assert binned.curvatures.size == len(groups) == 84
    assert binned.weights.tolist() == [len(group) for group in groups]
    np.testing.assert_allclose(
        binned.curvatures, [np.mean(group) for group in groups], rtol=1e-14
    )


@given(values, st.integers(1, 60))
def test_directions_and_trace_are_kept(curvatures, num_bins):
    spectrum = Spectrum(curvatures=curvatures)
    binned = centroid_bins(spectrum, min(num_bins, len(curvatures)))
    assert binned.num_dims == pytest.approx(spectrum.num_dims, rel=1e-12)
    assert binned.trace == pytest.approx(spectrum.trace, rel=1e-12)
    assert binned.curvatures.size <= num_bins


@pytest.mark.parametrize("num_bins", [1, 2, 17, 84, 150, 299, 300])
def test_as_many_bins_as_asked_for(num_bins):
    assert centroid_bins(Spectrum.inverse(300), num_bins).curvatures.size == num_bins


def test_as_many_bins_as_curvatures_change_nothing():
    spectrum = Spectrum.power_law(50, 1.5)
    binned = centroid_bins(spectrum, 50)
    np.testing.assert_allclose(binned.curvatures, spectrum.curvatures, rtol=1e-15)


@given(values, st.integers(2, 4))
def test_a_weight_bins_as_so_many_equal_curvatures(curvatures, count):
    # Rounded, so that rounding in a mean decides nothing.
    distinct = np.unique(np.round(curvatures, 3) + 1e-3)
    weighted = Spectrum(curvatures=distinct, weights=np.full(distinct.size, count))
    repeated = Spectrum(curvatures=np.repeat(distinct, count))
    num_bins = max(1, distinct.size // 2)
    first, second = centroid_bins(weighted, num_bins), centroid_bins(repeated, num_bins)
    np.testing.assert_allclose(first.curvatures, second.curvatures, rtol=1e-12)
    assert first.weights.tolist() == second.weights.tolist()


def test_equal_curvatures_share_a_node_without_loss():
    spectrum = Spectrum(curvatures=np.repeat([1.0, 0.3, 0.01], [5, 70, 9000]))
    binned = centroid_bins(spectrum)
    np.testing.assert_allclose(binned.curvatures, [1.0, 0.3, 0.01], rtol=1e-12)
    assert binned.weights.tolist() == [5, 70, 9000]
    assert binning_error(spectrum, binned) < 1e-9


@pytest.mark.parametrize(
    "curvatures",
    [
        np.exp(-np.arange(5000) / 200),
        np.concatenate([np.linspace(1, 1.2, 400), np.linspace(0.01, 0.012, 4000)]),
        np.linspace(1e-3, 1, 3000),
    ],
    ids=["exponential tail", "clusters", "uniform"],
)
def test_by_default_the_error_stays_below_one_percent_for_any_shape(curvatures):
    spectrum = Spectrum(curvatures=curvatures)
    binned = centroid_bins(spectrum)
    assert binned.curvatures.size <= 400
    assert binning_error(spectrum, binned) < 0.011


def test_weights_of_less_than_one_direction_can_be_binned():
    spectrum = Spectrum(
        curvatures=np.geomspace(1, 1e-8, 500), weights=np.full(500, 1 / 500)
    )
    binned = centroid_bins(spectrum)
    assert binned.trace == pytest.approx(spectrum.trace)
    assert binning_error(spectrum, binned) < 0.011


def test_a_million_directions_need_hardly_more_nodes_than_ten_thousand():
    spectrum = Spectrum.inverse(10**6)
    binned = centroid_bins(spectrum)
    assert binned.curvatures.size == 84
    assert binning_error(spectrum, binned) < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: centroid_bins(Spectrum.inverse(5), 6), r"at most the number of curva"),
        (lambda: centroid_bins(Spectrum.inverse(5), 0), r"`num_bins` must be a whole"),
        (
            lambda: centroid_bins(Spectrum.inverse(5), 2.5),
            r"`num_bins` must be a whole",
        ),
        (lambda: published_bins(Spectrum.inverse(5)), r"`num_edges` must be at most"),
        (lambda: published_bins(STANDARD, 1), r"`num_edges` must be at least 2, got 1"),
        (lambda: published_bins(STANDARD, 0), r"`num_edges` must be a whole number"),
        (
            lambda: bin_problem(NoisyQuadratic(spectrum=STANDARD), "centroids"),  # pyright: ignore
            r"`rule` cannot be 'centroids'. \(did you mean centroid",
        ),
    ],
)
def test_bins_that_cannot_be_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# The published bins -----------------------------------------------------------------


def test_the_published_bins_hold_each_curvature_at_the_largest_edge_below():
    edges = np.geomspace(1, 1e-4, 100)
    counts = np.zeros(100)
    for i in range(1, 10_001):
        place = next(j for j, edge in enumerate(edges) if edge <= 1 / i * (1 + 1e-12))
        counts[place] += 1
    binned = published_bins(STANDARD)
    np.testing.assert_allclose(binned.curvatures, edges[counts > 0], rtol=1e-15)
    assert binned.weights.tolist() == counts[counts > 0].tolist()


def test_the_published_bins_lose_16_edges_and_some_trace():
    binned = published_bins(STANDARD)
    assert binned.curvatures.size == 100 - 16
    assert binned.trace == pytest.approx(9.405, abs=5e-4)
    assert STANDARD.trace == pytest.approx(9.788, abs=5e-4)
    assert binned.num_dims == 10_000
    assert binned.curvatures[[0, -1]].tolist() == [1.0, 1e-4]
    assert binned.weights[0] == 1


def test_a_curvature_on_an_edge_stays_there_whatever_rounding_does():
    powers = 3.0 ** -np.arange(9.0)
    assert (np.geomspace(1, powers[-1], 9) > powers).any()  # else this shows nothing
    binned = published_bins(Spectrum(curvatures=[*powers, 0.5]), num_edges=9)
    np.testing.assert_allclose(binned.curvatures, powers)
    assert binned.weights.tolist() == [1, 2, 1, 1, 1, 1, 1, 1, 1]


# Problems ---------------------------------------------------------------------------


def test_a_problems_noise_and_start_are_binned_so_that_its_sums_stay():
    generator = np.random.default_rng(0)
    spectrum = Spectrum.power_law(400, 1.2)
    exact = NoisyQuadratic(
        spectrum=spectrum,
        noise=generator.random(400),
        initial_second_moments=generator.random(400),
        preconditioner_power=0.5,
        irreducible_loss=0.2,
    )
    binned = bin_problem(exact, num=40)
    assert binned.curvatures.size == 40
    assert binned.preconditioner_power == 0.5
    assert binned.initial_loss == pytest.approx(exact.initial_loss, rel=1e-12)
    for problem in (exact, binned):
        total = problem.weights @ problem.noise_variances
        assert total == pytest.approx(float(exact.noise_variances.sum()), rel=1e-12)
    # Heights and places of the noise are independent here: the worst case for merging.
    assert binning_error(exact, binned) < 0.02


def test_a_rule_of_noise_stays_a_rule():
    noise = Noise(curvature=0.5, isotropic=0.1)
    exact = NoisyQuadratic(spectrum=STANDARD, noise=noise)
    for binned in (bin_problem(exact), bin_problem(exact, "published")):
        expected = noise.variances(binned.curvatures)
        np.testing.assert_allclose(binned.noise_variances, expected)
        assert (binned.start == 1).all()
    published = bin_problem(exact, "published", 50)
    np.testing.assert_allclose(
        published.curvatures, published_bins(STANDARD, 50).curvatures
    )


# The error shown --------------------------------------------------------------------


def test_the_error_is_that_of_the_noise_free_loss_where_a_thousandth_is_left():
    binned = centroid_bins(STANDARD, 20)
    start = noise_free_loss(STANDARD, 0)
    errors = [
        abs(noise_free_loss(binned, time) / noise_free_loss(STANDARD, time) - 1)
        for time in np.geomspace(0.01, 1e5, 400)
        if noise_free_loss(binned, time) >= 1e-3 * start
    ]
    assert binning_error(STANDARD, binned) == pytest.approx(max(errors), rel=0.05)


def test_the_error_bounds_that_of_sgd_at_any_batch_size():
    problem = NoisyQuadratic(
        spectrum=STANDARD, noise=Noise(isotropic=0.01), preconditioner_power=0.25
    )
    binned = bin_problem(problem, num=30)
    shown = binning_error(problem, binned)
    for lr, noise_scale in [(1e-3, 1.0), (1e-2, 1e-2), (1e-2, 10.0)]:
        for steps in (10, 1000, 100_000):
            losses = []
            for side in (problem, binned):
                decay = np.exp(2 * steps * np.log1p(-lr * side.rates))
                kept_up = lr * side.step_noise / (side.rates * (2 - lr * side.rates))
                moments = decay * side.start + noise_scale * kept_up * (1 - decay)
                losses.append(side.loss(moments))
            if losses[0] > 2e-3 * problem.initial_loss:
                assert abs(losses[1] / losses[0] - 1) < 1.05 * shown


def test_more_bins_err_less():
    errors = [binning_error(STANDARD, centroid_bins(STANDARD, n)) for n in (20, 40, 80)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10


def test_a_problem_that_starts_at_its_minimum_has_an_error_of_its_noise_alone():
    exact = NoisyQuadratic(spectrum=STANDARD, initial_second_moments=0.0)
    binned = bin_problem(exact, num=20)

    def noise(problem, time):
        h = problem.curvatures
        built_up = -np.expm1(-2 * time * h) / (2 * h)
        return problem.weights @ (h * problem.noise_variances * built_up)

    errors = [
        abs(noise(binned, time) / noise(exact, time) - 1)
        for time in np.geomspace(0.01, 1e6, 400)
    ]
    assert binning_error(exact, binned) == pytest.approx(max(errors), rel=0.1)


def test_one_bin_is_the_mean_whatever_the_weights():
    uneven = Spectrum(curvatures=[0.0038, 0.0023], weights=[1e5, 0.1])
    binned = centroid_bins(uneven, 1)
    assert binned.curvatures.size == 1
    assert binned.trace == pytest.approx(uneven.trace)
