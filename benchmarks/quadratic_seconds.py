"""How many times faster a noisy quadratic's tables are than by the published search.

    python benchmarks/quadratic_seconds.py [--optimizers sgd,ema,momentum,schedule]
        [--search continuous|grid] [--backend numba|numpy] [--pairs 20]

One pair is one cell by benchmarks/published_quadratic.py, then the row of ten batch
sizes that it lies in by rightbatch, both on one thread, on the same bins and to the
same target; its ratio is ten times the one over the other. ``--alone`` searches the
cell alone instead of its row. Cells are taken in turn from the table of 4 powers by 10
batch sizes. Printed are the median ratio with its 90 % interval, of which the lower end
counts, and in how many of the pairs rightbatch needs more steps than the published
search, which has to be none; for SGD and its schedules that is asked of the published
search without its floor in a denominator, which makes up to .05 % of the steps vanish.
``schedule`` is SGD in ten equal pieces. Compiling is done before. 20 pairs take about
10 minutes for momentum, 4 for ema, less than two for the others.

The exit status is 1 when a ratio's lower end is below its bar or an answer is worse.
The bars: with numba 5000 for momentum and ema, 150 for sgd and 100 for schedule; with
numpy 200 for momentum and ema. They are for the continuous search.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import published_quadratic
from scipy import stats

# numba looks for a package of the name of a script in this folder.
sys.path.remove(str(Path(__file__).resolve().parent))

from rightbatch.quadratic import NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.grids import search_grid
from rightbatch.quadratic.schedules.piecewise import search_pieces
from rightbatch.quadratic.search import search

POWERS = (0.0, 0.25, 0.5, 0.75)
BATCH_SIZES = tuple(4**exponent for exponent in range(1, 11))
SPECTRUM = published_bins(Spectrum.inverse(10_000))
BARS = {
    ("numba", "sgd"): 150,
    ("numba", "schedule"): 100,
    ("numba", "momentum"): 5000,
    ("numba", "ema"): 5000,
    ("numpy", "momentum"): 200,
    ("numpy", "ema"): 200,
}


def steps_of(args, name, power, batch_sizes):
    """Return the first passages of one row, None where the target is not reached."""
    problem = NoisyQuadratic(spectrum=SPECTRUM, preconditioner_power=power)
    target, backend = published_quadratic.TARGET, args.backend
    if name == "schedule":
        found = search_pieces(
            problem,
            "sgd",
            batch_sizes,
            target,
            published_quadratic.NUM_PIECES,
            backend=backend,
        )
        return [run.steps for run in found]
    if args.search == "grid":
        return [
            search_grid(problem, name, size, target, backend=backend).steps
            for size in batch_sizes
        ]
    found = search(problem, name, batch_sizes, target, backend=backend)
    return [cell.steps for cell in found]


def true_answer(published, name, power, batch_size):
    """Return the last step above the target by the published search without floor."""
    if name not in {"sgd", "schedule"}:
        return published.steps
    floor, published_quadratic.FLOOR = published_quadratic.FLOOR, 0.0
    answer = published_quadratic.run(name, power, batch_size).steps
    published_quadratic.FLOOR = floor
    return answer


def pair(args, name, power, batch_size):
    """Return how many times faster a cell is, and whether its answer is worse."""
    row = (batch_size,) if args.alone else BATCH_SIZES
    begun = time.perf_counter()
    published = published_quadratic.run(name, power, batch_size)
    between = time.perf_counter()
    steps = steps_of(args, name, power, row)
    ours = (time.perf_counter() - between) / len(row)
    # One more than the last step above the target; schedules come in whole tens.
    one_more = published_quadratic.NUM_PIECES if name == "schedule" else 1
    bar = true_answer(published, name, power, batch_size) + one_more
    reached = steps[row.index(batch_size)]
    worse = reached is None or reached > bar
    return (between - begun) / ours, ours, worse


def interval_of_median(values, level=0.9):
    """Return order statistics that hold the median with that probability, or more."""
    ordered, num = sorted(values), len(values)
    place = max(0, int(stats.binom.ppf((1 - level) / 2, num, 0.5)) - 1)
    return ordered[place], ordered[num - 1 - place]


def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds of the tables, compared.")
    parser.add_argument("--optimizers", default="sgd,ema,momentum,schedule")
    parser.add_argument(
        "--search", choices=("continuous", "grid"), default="continuous"
    )
    parser.add_argument("--backend", choices=("numba", "numpy"), default="numba")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--alone", action="store_true")
    args = parser.parse_args()
    cells = [(power, size) for size in BATCH_SIZES[::2] for power in POWERS]
    missed = False
    for name in args.optimizers.split(","):
        steps_of(args, name, 0.5, BATCH_SIZES)  # compiles
        pairs = [
            pair(args, name, *cells[place % len(cells)]) for place in range(args.pairs)
        ]
        ratios, seconds, worse = zip(*pairs, strict=True)
        low, high = interval_of_median(ratios)
        bar = BARS.get((args.backend, name)) if args.search == "continuous" else None
        missed |= any(worse) or (bar is not None and low < bar)
        print(
            f"{name:9} {args.search}, {args.backend}: "
            f"{1e3 * statistics.median(seconds):8.2f} ms a cell, "
            f"{statistics.median(ratios):7.0f} times faster ({low:.0f} to {high:.0f})"
            f"{'' if bar is None else f', bar {bar}'}; worse in {sum(worse)} of "
            f"{len(pairs)}",
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
