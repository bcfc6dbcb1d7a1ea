"""By Monte Carlo: no formula is biased, and the usual ones beside them are.

Every |z| is below 4 with the seeds given: by chance, one in 16,000 would not be.
"""

import numpy as np
import pytest
from noise_scale.known_gradients import (
    known_gradients,
    sq_norm,
    unit_means,
    z_score,
    z_scores,
)

from rightbatch.noise_scale import (
    GradientMoments,
    UnitSums,
    inner_product_variance,
    naive_diversity_bound,
    plug_in_noise_scale,
    token_mean_moments,
    token_residual_moments,
    unit_moments,
)

DRAWS = 20_000

UNITS = {
    "equal": ([8, 8, 8, 8], None),
    "ragged": ([16, 16, 16, 13, 3], None),
    "ragged, plain mean": ([16, 16, 16, 13, 3], [1, 1, 1, 1, 1]),
    "odd weights": ([4, 9, 2, 7], [3, 1, 2, 0.5]),
    "two": ([3, 11], None),
    "examples": ([1] * 12, None),
}


def draw(sizes, weights, noise_scale=40.0, num=DRAWS, seed=1):
    """Return norms of units (n, R) and of their weighted mean (n,), and the truth."""
    known = known_gradients(noise_scale)
    generator = np.random.default_rng(seed)
    units = unit_means(known.examples(generator, num, sum(sizes)), sizes)
    shares = np.array(sizes if weights is None else weights, dtype=float)
    mean = np.einsum("j,njd->nd", shares / shares.sum(), units)
    return sq_norm(units), sq_norm(mean), known.moments


@pytest.mark.parametrize(("sizes", "weights"), UNITS.values(), ids=UNITS.keys())
def test_both_moments_are_unbiased_whatever_the_sizes_and_the_weights(sizes, weights):
    norms, totals, truth = draw(sizes, weights)
    found = [
        unit_moments(*one, sizes, weights) for one in zip(norms, totals, strict=True)
    ]
    assert max(map(abs, z_scores(found, truth))) < 4


def test_the_formula_for_equal_units_is_biased_on_ragged_ones():
    sizes, equal = [16, 16, 16, 13, 3], [1] * 5
    for weights, ratio in ((equal, 1.530), (None, 1.663)):
        norms, totals, truth = draw(sizes, weights)
        usual = [
            unit_moments(*one, 64 / 5, equal) for one in zip(norms, totals, strict=True)
        ]
        assert max(map(abs, z_scores(usual, truth))) > 30
        mean = np.mean([one.grad_variance for one in usual])
        assert mean / truth.grad_variance == pytest.approx(ratio, abs=0.05)


def test_micro_batches_on_several_replicas_are_unbiased():
    # three replicas of two micro-batches; losses over the accumulated count, gradients
    # averaged over replicas, so that each contribution is a sixth of its mean
    sizes = [8] * 6
    known = known_gradients(40.0)
    units = unit_means(known.examples(np.random.default_rng(2), DRAWS, 48), sizes)
    found = []
    for step, total in zip(units, sq_norm(units.mean(1)), strict=True):
        replicas = [UnitSums.of(sq_norm(pair / 2), 8) for pair in step.reshape(3, 2, 4)]
        vectors = [one.scaled(1 / 3).to_vector() for one in replicas]
        reduced = np.sum(vectors, axis=0)
        sums = UnitSums.from_vector(reduced.tolist())
        found.append(sums.moments(total))
    assert max(map(abs, z_scores(found, known.moments))) < 4


def test_replicas_with_shares_of_their_own_size_are_unbiased():
    # unlike shards: each contribution is weighted by the examples it stands for
    sizes = [10, 6, 3, 5]
    known = known_gradients(20.0)
    units = unit_means(known.examples(np.random.default_rng(3), DRAWS, 24), sizes)
    added = units * (np.array(sizes) / 24)[:, None]
    found = [
        (UnitSums.of(one[:2], sizes[:2]) + UnitSums.of(one[2:], sizes[2:])).moments(tot)
        for one, tot in zip(sq_norm(added), sq_norm(added.sum(1)), strict=True)
    ]
    assert max(map(abs, z_scores(found, known.moments))) < 4


@pytest.mark.parametrize("num_read", [1, 3, 16])
def test_norms_of_some_of_the_examples_are_enough(num_read):
    norms, totals, truth = draw([1] * 16, None)
    found = [
        UnitSums.of(one[:num_read] / 16**2, 1.0).extended_to(16).moments(total)
        for one, total in zip(norms, totals, strict=True)
    ]
    assert max(map(abs, z_scores(found, truth))) < 4
    assert (min(one.grad_variance for one in found) < 0) == (num_read < 16)


def test_of_a_finite_data_set_the_correction_is_by_its_size():
    known = known_gradients(20.0)
    generator = np.random.default_rng(4)
    data = known.examples(generator, 30)
    batches = data[generator.permuted(np.tile(np.arange(30), (DRAWS, 1)), axis=1)]
    batches = batches[:, :10]
    plain = [
        unit_moments(norms, total, 1)
        for norms, total in zip(sq_norm(batches), sq_norm(batches.mean(1)), strict=True)
    ]
    truth = GradientMoments(
        grad_sq_norm=float(sq_norm(data.mean(0))),
        grad_variance=float(sq_norm(data - data.mean(0)).sum() / 29),
    )
    found = [one.for_dataset(30) for one in plain]
    assert max(map(abs, z_scores(found, truth))) < 4
    assert abs(z_scores(plain, truth)[0]) > 20


def test_a_ratio_of_means_is_right_where_a_mean_of_ratios_is_not():
    norms, totals, truth = draw([8] * 8, None, noise_scale=30.0)
    found = [unit_moments(*one, 8) for one in zip(norms, totals, strict=True)]
    t = np.array([one.grad_variance for one in found])
    q = np.array([one.grad_sq_norm for one in found])
    assert t.mean() / q.mean() == pytest.approx(truth.simple_noise_scale, rel=0.02)
    assert abs(np.mean(t / q) / truth.simple_noise_scale - 1) > 0.2
    # nor may a part be cut off before it is averaged
    cut = t.mean() / np.maximum(q, 0).mean()
    assert cut == pytest.approx(truth.simple_noise_scale, rel=0.1)
    low, low_totals, truth = draw([2] * 4, None, noise_scale=30.0)
    found = [unit_moments(*one, 2) for one in zip(low, low_totals, strict=True)]
    cut = np.mean([max(0.0, one.grad_sq_norm) for one in found])
    assert cut / truth.grad_sq_norm > 1.3


def test_the_batch_s_own_norm_reads_no_more_than_the_batch():
    norms, totals, truth = draw([1] * 16, None, noise_scale=100.0)
    phi = truth.simple_noise_scale
    variance = np.mean(
        [unit_moments(*one, 1).grad_variance for one in zip(norms, totals, strict=True)]
    )
    found = plug_in_noise_scale(float(variance), float(totals.mean()), 16)
    assert found.at_least == pytest.approx(phi * 16 / (phi + 16), rel=0.02)
    assert found.inverted == pytest.approx(phi, rel=0.15)
    naive = naive_diversity_bound(norms.mean(0), float(totals.mean()))
    assert naive == pytest.approx(101 / (1 + 100 / 16), rel=0.02)
    assert truth.diversity_batch_bound == pytest.approx(101)


@pytest.mark.parametrize("noise_scale", [5.0, 50.0])
def test_the_variance_along_the_gradient_is_unbiased_from_three_groups(noise_scale):
    known = known_gradients(noise_scale)
    units = known.examples(np.random.default_rng(5), DRAWS, 24, is_normal=True)
    truth = known.mean @ known.covariance @ known.mean
    group, u, v = units[:, :8], units[:, 8:16].mean(1), units[:, 16:].mean(1)
    to_u = np.einsum("njd,nd->nj", group, u)
    to_v = np.einsum("njd,nd->nj", group, v)
    found = [inner_product_variance(*one, 1) for one in zip(to_u, to_v, strict=True)]
    assert abs(z_score(np.array(found), truth)) < 4
    to_own = np.einsum("njd,nd->nj", units, units.mean(1))
    plug_in = to_own.var(axis=1, ddof=1)
    assert z_score(plug_in, truth) > 20
    excess = np.trace(known.covariance @ known.covariance) / 24
    assert plug_in.mean() - truth == pytest.approx(excess, rel=0.1)


def draw_sequences(generator, num, num_sequences, dims=4):
    """Return summed token gradients (n, R, d) and lengths (n, R) of sequences.

    Tokens of a sequence share a part of their noise; lengths are 8 to 64.
    """
    known = known_gradients(60.0, dims=dims)
    lengths = generator.integers(8, 65, size=(num, num_sequences))
    shared = known.examples(generator, num, num_sequences) - known.mean
    own = known.examples(generator, num, num_sequences) - known.mean
    tokens = lengths[..., None]
    sums = tokens * (known.mean + 0.4 * shared) + np.sqrt(tokens) * own
    return sums, lengths


@pytest.mark.parametrize("num_sequences", [16, 64])
def test_of_token_means_the_truth_lies_between_both_forms(num_sequences):
    generator = np.random.default_rng(6)
    sums, lengths = draw_sequences(generator, DRAWS // 2, num_sequences)
    steps = sums.sum(1) / lengths.sum(1)[:, None]
    truth = num_sequences * steps.var(axis=0, ddof=1).sum()
    added = sums / lengths.sum(1)[:, None, None]
    norms, totals = sq_norm(added), sq_norm(steps)
    products = np.einsum("nid,nd->ni", added, steps)
    rows = list(zip(norms, products, totals, lengths, strict=True))
    plain = [token_mean_moments(one, total) for one, _, total, _ in rows]
    residual = [token_residual_moments(*row) for row in rows]
    weighted = [UnitSums.of(n, 1.0, size).moments(tot) for n, _, tot, size in rows]
    plain, residual, weighted = (
        np.mean([one.grad_variance for one in found]) / truth
        for found in (plain, residual, weighted)
    )
    few = 1 / num_sequences  # biases of a ratio go as one over the sequences
    assert 1 - few < plain < 1.08
    assert 1 - 2.5 * few < residual < 1.02
    assert weighted < 0.9
