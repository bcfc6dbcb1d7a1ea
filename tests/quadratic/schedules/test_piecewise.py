"""The best learning rates of equal pieces: known answers, optimality, bad input."""

import numpy as np
import pytest
from quadratic.oracles_schedules import expanded, sgd_loss
from scipy import optimize

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.pieces import loss_after_pieces
from rightbatch.quadratic.schedules.piecewise import piece_lengths, search_pieces
from rightbatch.quadratic.search import search

PUBLISHED = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))
SMALL = NoisyQuadratic(
    spectrum=Spectrum.inverse(30), noise=Noise(curvature=1, isotropic=0.05)
)
BACKENDS = ["numpy", "numba"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_pieces_reach_the_published_problem_as_early_as_is_known(backend):
    # Known: 17390 of a multiple of ten; the lengths need not be equal here.
    steps = [
        search_pieces(PUBLISHED, "sgd", [64], 0.01, num, backend=backend)[0].steps
        for num in (1, 10, 50)
    ]
    assert steps == [95_633, 17_382, 16_515]


@pytest.mark.parametrize("power", [0, 0.25, 0.5, 0.75])
def test_no_cell_is_worse_than_a_constant_rate_nor_than_fewer_pieces(power):
    problem = PUBLISHED.with_power(power)
    sizes = [4.0**k for k in range(1, 11)]
    rows = [[found.steps for found in search(problem, "sgd", sizes, 0.01)]]
    rows += [
        [found.steps for found in search_pieces(problem, "sgd", sizes, 0.01, num)]
        for num in (1, 5, 10)
    ]
    table = np.array(rows)
    assert table[0].tolist() == table[1].tolist()
    assert np.all(np.diff(table, axis=0) <= 0)


def test_both_backends_find_the_same_schedule():
    first, second = (
        search_pieces(SMALL, "sgd", [4, 256], 0.05, 6, backend=backend)
        for backend in ("numpy", "numba")
    )
    for one, other in zip(first, second, strict=True):
        assert one.steps == other.steps
        assert one.lrs == pytest.approx(other.lrs, rel=1e-6)


def test_one_step_less_does_not_reach_the_target_from_any_start():
    size, target, num = 32.0, 0.05, 4
    found = search_pieces(SMALL, "sgd", [size], target, num)[0]
    assert found.steps is not None
    top = np.log(2 / SMALL.rates.max())
    generator = np.random.default_rng(0)

    def least(steps):
        counts = piece_lengths(steps, num)

        def loss(log_lrs):
            return sgd_loss(SMALL, expanded(np.exp(log_lrs), counts), size)

        starts = top - generator.uniform(0, 4, (4, num))
        return min(
            optimize.minimize(
                loss, start, method="L-BFGS-B", bounds=[(None, top)] * num
            ).fun
            for start in starts
        )

    assert least(found.steps) == pytest.approx(found.loss, rel=1e-6)
    assert least(found.steps - 1) > target >= found.loss


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov+ema", "average"])
def test_the_loss_is_that_of_the_pieces_and_just_reaches_the_target(name):
    found = search_pieces(SMALL, name, [16], 0.05, 3)[0]
    assert found.optimizer is not None
    assert found.optimizer.name == name
    again = loss_after_pieces(SMALL, found.optimizer, found.pieces)
    assert again == pytest.approx(found.loss, rel=1e-9)
    assert 0.05 * (1 - 0.05) < again <= 0.05
    assert sum(found.lengths) == found.steps
    assert max(found.lrs) == found.optimizer.lr


@pytest.mark.parametrize("name", ["momentum", "ema", "average"])
def test_other_optimizers_are_no_worse_than_sgd_nor_than_a_constant_rate(name):
    sgd = search_pieces(SMALL, "sgd", [16], 0.05, 4)[0].steps
    constant = search(SMALL, name, [16], 0.05)[0].steps
    found = search_pieces(SMALL, name, [16], 0.05, 4)[0].steps
    assert sgd is not None
    assert constant is not None
    assert found is not None
    # An average of all iterates is not SGD at any setting.
    assert found <= (constant if name == "average" else min(sgd, constant))


def test_a_cap_holds_and_none_lets_rates_step_over_the_edge():
    low = search_pieces(SMALL, "sgd", [16], 0.05, 5, max_lr=0.3)[0]
    edge = search_pieces(SMALL, "sgd", [4096], 0.05, 5)[0]
    free = search_pieces(SMALL, "sgd", [4096], 0.05, 5, max_lr=np.inf)[0]
    assert max(low.lrs) <= 0.3 * (1 + 1e-12)
    assert max(edge.lrs) <= 2 * (1 + 1e-12)
    assert max(free.lrs) > 2
    assert edge.steps is not None
    assert free.steps is not None
    assert free.steps <= edge.steps
    heavy = search_pieces(SMALL, "momentum", [16], 0.05, 3, max_lr=0.3)[0]
    assert max(heavy.lrs) <= 0.3 * (1 + 1e-12)


def test_pieces_end_where_those_of_a_divisor_end():
    for steps in (7, 40, 1003):
        coarse, fine = piece_lengths(steps, 4), piece_lengths(steps, 12)
        assert coarse.sum() == fine.sum() == steps
        assert fine.reshape(4, 3).sum(axis=1).tolist() == coarse.tolist()
        assert np.ptp(fine) <= 1


def test_runs_shorter_than_their_pieces_leave_the_empty_ones_out():
    newton = NoisyQuadratic(
        spectrum=Spectrum.inverse(5), noise=Noise(curvature=0), preconditioner_power=1
    )
    found = search_pieces(newton, "sgd", [1], 0.1, 3)[0]
    assert found.steps == 1
    assert found.lengths == (0, 0, 1)
    assert len(found.pieces) == 1


def test_what_cannot_be_reached_has_no_steps():
    for name in ("sgd", "ema"):
        found = search_pieces(SMALL, name, [1], 1e-13, 3)[0]
        assert found.steps is None
        assert found.pieces == ()
        assert found.to_dict() == {
            "batch_size": 1.0,
            "steps": None,
            "lrs": [],
            "lengths": [],
            "loss": None,
        }


def test_a_schedule_is_a_dictionary_for_programs():
    found = search_pieces(SMALL, "sgd", [16], 0.05, 2)[0].to_dict()
    assert found["optimizer"] == "sgd"
    assert found["lr"] == max(found["lrs"])
    assert sum(found["lengths"]) == found["steps"]


def test_bad_input_is_refused():
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="search_pieces: .*label noise"):
        search_pieces(noisy, "sgd", [1], 0.1)
    with pytest.raises(InputError, match="`name` cannot be 'adam'"):
        search_pieces(SMALL, "adam", [1], 0.1)  # pyright: ignore
    with pytest.raises(InputError, match="`name` cannot be tail-average"):
        search_pieces(SMALL, "tail-average", [1], 0.1)
    with pytest.raises(InputError, match="`batch_sizes` must be positive, got -1"):
        search_pieces(SMALL, "sgd", [4, -1], 0.1)
    with pytest.raises(
        InputError, match="`target` must be below the loss at the start"
    ):
        search_pieces(SMALL, "sgd", [4], 100)
    with pytest.raises(InputError, match="`num_pieces` must be a whole number"):
        search_pieces(SMALL, "sgd", [4], 0.1, 0)
    with pytest.raises(InputError, match="`max_lr` must be positive, got 0"):
        search_pieces(SMALL, "sgd", [4], 0.1, max_lr=0)
