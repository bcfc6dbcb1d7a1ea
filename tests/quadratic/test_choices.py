"""Optimizers and preconditioners in one table."""

import math

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.quadratic import NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import centroid_bins
from rightbatch.quadratic.choices import POWERS, compare_choices
from rightbatch.quadratic.curves import BATCH_SIZES, fit_curve, steps_curve
from rightbatch.quadratic.search import search

STANDARD = NoisyQuadratic(spectrum=centroid_bins(Spectrum.inverse(10_000)))
SMALL = NoisyQuadratic(spectrum=Spectrum.inverse(60))
SIZES = [4, 64, 1024, 16384]


@pytest.fixture(scope="module")
def standard():
    return compare_choices(STANDARD, ["sgd", "momentum", "ema"], [0, 0.5], SIZES, 0.01)


def test_a_row_is_the_fit_of_its_own_curve():
    table = compare_choices(SMALL, ["ema"], [0, 0.5], SIZES, 0.01)
    assert [row.fit.curve.name for row in table.rows] == ["ema", "ema"]
    row = table.row("ema", 0.5)
    alone = fit_curve(steps_curve(SMALL.with_power(0.5), "ema", SIZES, 0.01))
    assert row.fit.to_dict() == alone.to_dict()
    assert row.steps == (alone.curve.steps[0], alone.curve.steps[-1])


def test_gains_are_against_sgd_and_against_the_first_power():
    table = compare_choices(SMALL, ["ema"], [0, 0.5], SIZES, 0.01)
    steps = {
        (name, power): [
            one.steps for one in search(SMALL.with_power(power), name, SIZES, 0.01)
        ]
        for name in ("sgd", "ema")
        for power in (0, 0.5)
    }
    row = table.row("ema", 0.5)
    for end in (0, -1):
        after = steps["ema", 0.5][end]
        assert row.gain[end] == steps["sgd", 0.5][end] / after
        assert row.preconditioning_gain[end] == steps["ema", 0][end] / after
    assert table.row("ema", 0).preconditioning_gain == (1, 1)


def test_momentum_saves_steps_at_large_batches_and_few_at_small_ones(standard):
    small, large = standard.row("momentum", 0).gain
    assert 1.1 < small < 1.3
    assert large > 20


def test_an_average_saves_steps_at_small_batches_and_none_at_large_ones(standard):
    small, large = standard.row("ema", 0).gain
    assert small > 5
    assert large == pytest.approx(1, abs=0.1)


def test_preconditioning_helps_even_at_small_batches(standard):
    small, large = standard.row("sgd", 0.5).preconditioning_gain
    assert small == pytest.approx(4.3, abs=0.1)
    assert large > 50


def test_momentum_raises_the_critical_batch_size_and_an_average_lowers_it(standard):
    phi = {
        (row.fit.curve.name, row.fit.curve.preconditioner_power): (
            row.fit.critical_batch_size
        )
        for row in standard.rows
    }
    for power in (0, 0.5):
        assert phi["ema", power] < phi["sgd", power] < phi["momentum", power]
    for name in ("sgd", "momentum", "ema"):
        assert phi[name, 0] < phi[name, 0.5]


def test_the_table_prints_a_line_per_row_within_a_page(standard):
    lines = str(standard).splitlines()
    assert len(lines) == 2 + 6 + 2
    assert max(map(len, lines)) <= 88
    assert lines[0].split() == ["B", "=", "4", "B", "=", "16,384"]
    assert lines[2].startswith("sgd")
    assert "p0/" in lines[1]


def test_a_side_out_of_reach_has_no_gain():
    # Past 2^36 steps the search gives up: no rate is small enough for such a batch.
    sizes = [1e-9, *SIZES]
    table = compare_choices(SMALL, ["sgd"], [0, 0.5], sizes, 0.001)
    row = table.row("sgd", 0.5)
    assert math.isinf(row.steps[0])
    assert np.isnan(row.gain[0])
    assert row.to_dict()["preconditioning_gain"][0] is None
    assert row.gain[1] == 1


def test_the_table_as_a_dictionary_has_every_row():
    table = compare_choices(SMALL, ["sgd"], POWERS[:2], SIZES, 0.01)
    found = table.to_dict()
    assert [row["power"] for row in found["rows"]] == [0, 0.25]
    assert found["target"] == 0.01
    assert found["rows"][1]["gain"] == [1.0, 1.0]


def test_an_empty_choice_is_refused():
    with pytest.raises(InputError, match="`names` and `powers` must not be empty"):
        compare_choices(SMALL, [], [0], BATCH_SIZES, 0.01)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(InputError, match="`names` cannot be 'adam'"):
        compare_choices(SMALL, ["adam"], [0], BATCH_SIZES, 0.01)


def test_a_row_that_is_not_there_is_refused():
    table = compare_choices(SMALL, ["sgd"], [0], SIZES, 0.01)
    with pytest.raises(InputError, match="no row of ema at power 0.5"):
        table.row("ema", 0.5)
