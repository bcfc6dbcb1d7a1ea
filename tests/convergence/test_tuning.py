"""Learning rates tuned per batch size, and the law fitted to the best runs."""

import math

import pytest

from rightbatch.convergence import best_learning_rates, fit_convergence, fit_tuned
from rightbatch.errors import InputError

GRID = [8, 8, 64, 64, 512, 512]
STEPS = [500, 900, 212, 150, 200, 112]
RATES = [0.1, 0.5] * 3


def test_the_best_learning_rate_has_the_best_mean():
    batch, lrs = [8] * 4 + [64] * 4, [0.1, 0.1, 0.5, 0.5] * 2
    steps = [100, 120, 90, 140, 50, 50, 20, 30]
    assert best_learning_rates(batch, lrs, steps) == {8: 0.1, 64: 0.5}


def test_a_rate_that_misses_on_a_seed_loses_to_one_that_never_does():
    batch, lrs = [8] * 4, [0.1, 0.1, 0.5, 0.5]
    assert best_learning_rates(batch, lrs, [100, 120, 10, math.nan]) == {8: 0.1}


def test_a_batch_no_rate_of_which_reaches_has_no_best():
    assert best_learning_rates([8, 8], [0.1, 0.5], [math.nan, math.nan]) == {}


def test_a_tuned_fit_is_the_fit_of_the_best_runs():
    tuned = fit_tuned(GRID, STEPS, RATES)
    assert tuned.fit.law == fit_convergence([8, 64, 512], [500, 150, 112]).law
    assert [(t.batch_size, t.lr) for t in tuned.lrs] == [
        (8, 0.1),
        (64, 0.5),
        (512, 0.5),
    ]


def test_the_rate_between_tuned_batches_is_interpolated_in_logarithms():
    tuned = fit_tuned(GRID, STEPS, RATES)
    between = math.sqrt(8 * 64)
    assert tuned.lr_at(between) == pytest.approx(math.sqrt(0.1 * 0.5))
    assert tuned.lr_at(1) == pytest.approx(0.1)
    assert tuned.lr_at(10_000) == pytest.approx(0.5)


def test_rates_at_the_edge_of_the_grid_are_named_with_their_batches():
    tuned = fit_tuned(GRID, STEPS, RATES)
    assert all(t.at_edge for t in tuned.lrs)
    assert any("batch size 8 is the least tried (0.1)" in w for w in tuned.warnings)
    assert any(
        "batch sizes 64, 512 is the largest tried (0.5)" in w for w in tuned.warnings
    )


def test_a_held_rate_is_said_to_be_held():
    tuned = fit_tuned([8, 64, 512], [500, 150, 112], [0.2] * 3)
    assert "held at 0.2" in tuned.warnings[0]
    assert tuned.lr_at(33) == pytest.approx(0.2)


def test_without_rates_there_is_none_to_recommend():
    tuned = fit_tuned([8, 64, 512], [500, 150, 112])
    assert tuned.lr_at(64) is None
    assert tuned.to_dict()["lrs"] == []


def test_batches_that_never_reach_are_left_out_and_named():
    tuned = fit_tuned([1, 8, 64, 512], [math.nan, 500, 150, 112], [0.2] * 4)
    assert "at batch size 1:" in tuned.warnings[0]
    assert tuned.fit.num_batch_sizes == 3


def test_fewer_than_two_batches_that_reach_are_refused():
    with pytest.raises(InputError, match="two batch sizes or more that reached"):
        fit_tuned([8, 64], [100, math.nan], [0.2, 0.2])


def test_lists_that_do_not_pair_up_are_refused():
    with pytest.raises(InputError, match="must pair up, got 2, 1 and 2"):
        fit_tuned([8, 64], [100], [0.2, 0.2])


def test_an_edge_is_that_of_the_rates_tried_at_its_own_batch_size():
    tuned = fit_tuned(
        [8, 8, 64, 64, 512, 512],
        [900, 500, 150, 212, 100, 200],
        [0.1, 0.2, 0.2, 0.5, 0.5, 1.0],
    )
    said = " ".join(tuned.warnings)
    assert "batch size 8 is the largest tried (0.2)" in said
    assert "batch size 64 is the least tried (0.2)" in said
    kinds = [finding["kind"] for finding in tuned.to_dict()["findings"]]
    assert kinds.count("edge_lr") == 3
