"""The published search, kept for comparison, and the tables that it answers.

The tables below hold the last step above .01 on the published bins. What prints them:

    python benchmarks/published_quadratic.py sgd
    python benchmarks/published_quadratic.py momentum --power 0 --batch-sizes 4
    python benchmarks/published_quadratic.py ema --power 0 --batch-sizes 4

SGD takes 3 s for all, momentum half a minute a cell and the moving average a quarter,
so of those there are a few.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from rightbatch.quadratic import NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.grids import Grid, search_grid

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "published_quadratic.py"
SPECTRUM = published_bins(Spectrum.inverse(10_000))


BATCH_SIZES = tuple(4**exponent for exponent in range(1, 11))

SGD = {
    0.0: (1507367, 379858, 95759, 25880, 10609, 8117, 7447, 7309, 7276, 7268),
    0.25: (593849, 147960, 36966, 9312, 2421, 1002, 815, 786, 780, 778),
    0.5: (345591, 86273, 21587, 5421, 1366, 342, 106, 88, 85, 84),
    0.75: (261782, 65203, 16272, 4071, 1023, 257, 64, 16, 10, 10),
}
"""By power, in the order of the batch sizes."""

MOMENTUM = {
    (0.0, 4): 1333443,  # exact arithmetic: 1333442
    (0.0, 1024): 5203,
    (0.0, 1048576): 178,
    (0.25, 256): 8075,
    (0.5, 64): 18406,
    (0.75, 4): 239438,
    (0.75, 1048576): 7,
}
"""By power and batch size."""

EMA = {
    (0.0, 4): 227963,
    (0.0, 1024): 7868,
    (0.0, 1048576): 7352,
    (0.25, 256): 3393,
    (0.5, 64): 12578,
    (0.75, 4): 193256,
    (0.75, 1048576): 10,
}
"""By power and batch size."""


@pytest.fixture(scope="module")
def published():
    spec = importlib.util.spec_from_file_location("published_quadratic", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_published_bins(power):
    return NoisyQuadratic(spectrum=SPECTRUM, preconditioner_power=power)


@pytest.mark.parametrize("power", SGD)
def test_the_table_of_sgd_is_what_the_published_search_answers(published, power):
    cells = [published.run("sgd", power, batch_size) for batch_size in BATCH_SIZES]
    assert tuple(cell.steps for cell in cells) == SGD[power]


def test_the_bins_of_both_are_the_same(published):
    edges, counts = published.bins()
    assert edges == pytest.approx(SPECTRUM.curvatures, rel=1e-14)
    assert counts.tolist() == SPECTRUM.weights.tolist()


@pytest.mark.parametrize("power", SGD)
@pytest.mark.parametrize("place", range(len(BATCH_SIZES)))
def test_every_published_cell_of_sgd_is_met_exactly(power, place):
    found = search_grid(
        on_published_bins(power),
        "sgd",
        BATCH_SIZES[place],
        0.01,
        emulate_published=True,
    )
    assert found.steps == SGD[power][place]


def test_without_the_floor_in_a_denominator_eleven_cells_of_sgd_move():
    moved = [
        search_grid(on_published_bins(power), "sgd", batch_size, 0.01).steps != last + 1
        for power, row in SGD.items()
        for batch_size, last in zip(BATCH_SIZES, row, strict=True)
    ]
    assert sum(moved) == 11


@pytest.mark.parametrize(
    ("name", "power", "batch_size", "last"),
    [
        (name, *cell, last)
        for name, table in (("momentum", MOMENTUM), ("ema", EMA))
        for cell, last in table.items()
    ],
)
def test_published_cells_of_momentum_and_average_are_met_to_one_step(
    name, power, batch_size, last
):
    problem = on_published_bins(power)
    found = search_grid(problem, name, batch_size, 0.01, emulate_published=True)
    assert found.steps == pytest.approx(last, abs=1)


@pytest.mark.parametrize("name", ["momentum", "ema"])
@pytest.mark.parametrize(("power", "batch_size"), [(0.0, 64), (0.5, 4), (0.75, 4096)])
def test_a_corner_of_the_grid_is_searched_alike(published, name, power, batch_size):
    best = search_grid(on_published_bins(power), name, batch_size, 0.01).optimizer
    near = np.argsort(np.abs(np.log(published.LRS / best.lr)))[:3]
    memory = best.momentum + best.ema_decay
    around = np.argsort(np.abs(published.MEMORIES - memory))[:3]
    lrs, memories = published.LRS[near], published.MEMORIES[around]
    with np.errstate(all="ignore"):
        cell = published.search(
            published.make_problem(power, batch_size),
            getattr(published, name),
            lrs,
            memories,
            10**7,
        )
    axis = "momenta" if name == "momentum" else "ema_decays"
    found = search_grid(
        on_published_bins(power),
        name,
        batch_size,
        0.01,
        Grid(lrs=lrs, **{axis: memories}),
        emulate_published=True,
    )
    assert found.steps == pytest.approx(cell.steps, abs=1)


@pytest.mark.slow
def test_ten_pieces_of_the_published_search_come_near_the_best_known(published):
    cell = published.run("schedule", 0.0, 64)
    assert cell.steps + published.NUM_PIECES == pytest.approx(17390, rel=0.002)
