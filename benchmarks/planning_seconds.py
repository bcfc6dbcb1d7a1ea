"""Seconds that planning from tables takes: a fit, whole commands, their start.

    python benchmarks/planning_seconds.py [--repeats 5]

Each is run some times in turn and the median counts; commands run in a process of
their own, as a user's would. The exit status is 1 when one is above its bar: 1 s for a
fit with 1,000 bootstrap draws, 2 s for a plan from tables with its report, .4 s for
``--help``.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rightbatch.convergence import fit_convergence

BATCH_SIZES = (4, 16, 64, 256, 1024)
REPLICAS = (1, 2, 4, 8)


def write_tables(folder: Path) -> None:
    """Write runs of S = 100 + 6400/B and times of a constant communication."""
    generator = np.random.default_rng(0)
    runs = [
        f"{b},{(100 + 6400 / b) * (1 + 0.05 * generator.standard_normal()):.0f}"
        for b in BATCH_SIZES
        for _ in range(3)
    ]
    times = [
        f"{b},{p},{(0.01 + 1e-4 * b / p + 0.004 * (p > 1)) * wobble:.6f}"
        for p in REPLICAS
        for b in BATCH_SIZES[1:]
        for wobble in [1 + 0.02 * generator.standard_normal()]
    ]
    (folder / "runs.csv").write_text("\n".join(["batch_size,steps", *runs]))
    (folder / "times.csv").write_text(
        "\n".join(["batch_size,num_replicas,seconds", *times])
    )


def command(folder: Path, *words: str) -> Callable[[], object]:
    """Return a function that runs a command in a process of its own."""
    whole = [sys.executable, "-m", "rightbatch", *words]
    return lambda: subprocess.run(whole, cwd=folder, check=True, capture_output=True)


def one_fit() -> None:
    """Fit the 302M language model of H. Zhang et al. (2024), and draw 1,000 laws."""
    batches = [64 * 2**i for i in range(9)]
    steps = [196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879]
    fit_convergence(batches, steps).draws(1000)


def main() -> int:
    parser = argparse.ArgumentParser(description="Seconds that planning takes.")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tables(folder)
        tables = ("--runs", "runs.csv", "--times", "times.csv")
        timed = {
            "a fit and 1,000 draws": (one_fit, 1.0),
            "rightbatch plan, from tables": (command(folder, "plan", *tables), 2.0),
            "rightbatch fit": (command(folder, "fit", "runs.csv"), None),
            "rightbatch --help": (command(folder, "--help"), 0.4),
        }
        seconds: dict[str, list[float]] = {what: [] for what in timed}
        for _ in range(args.repeats):
            for what, (run, _) in timed.items():
                start = time.perf_counter()
                run()
                seconds[what].append(time.perf_counter() - start)
    missed = False
    for what, (_, bar) in timed.items():
        median = statistics.median(seconds[what])
        missed |= bar is not None and median > bar
        limit = "" if bar is None else f"  (bar {bar:g})"
        print(f"{what:30} {median:6.2f} s{limit}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
