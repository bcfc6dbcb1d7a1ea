"""Updates to a BLEU score against words per batch: Perrone et al.'s figure 2, small.

    python benchmarks/translation.py --data-dir DATA [--store translation.sqlite]
        [--picture translation.svg] [--seeds 2]

The workload multi30k-gru at 100 to 6,400 target words, two BLEU targets, the
largest of the paper's learning rates, 1, which arrives first: at 400 words .5
had not come to the second in 900 updates. BLEU is that of 300 held-out captions after
every 20 updates; the first at the target or past it counts. Runs are stored as they
end, and what is stored is not run again. The picture needs matplotlib.
"""

import argparse
import itertools
import statistics
from pathlib import Path

from rightbatch.convergence import fit_tuned
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.sweep import SweepSettings, sweep
from rightbatch.workload import load_workload

TARGETS = (2.0, 3.0)
LR = 1.0
# Words per batch, and updates allowed: a large batch pays for each with seconds.
PLAN = {100: 1500, 400: 900, 1600: 600, 6400: 450}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--data-dir", type=Path)
parser.add_argument("--store", type=Path, default=Path("translation.sqlite"))
parser.add_argument("--picture", type=Path)
parser.add_argument("--seeds", type=int, default=2)
options = parser.parse_args()

# 1) runs, a seed after the other, the cheapest first ----------------------------------
workload = load_workload(
    "rightbatch.experiments.workloads.translation:multi30k_gru", options.data_dir
)
store = open_store(options.store, workload)
runs = []
for seed, batch_size in itertools.product(range(options.seeds), PLAN):
    settings = SweepSettings(
        batch_sizes=(batch_size,),
        lrs=(LR,),
        seeds=(seed,),
        targets=TARGETS,
        max_steps=PLAN[batch_size],
    )

    def show(done, total, run) -> None:
        crossed = ", ".join(str(run.steps(target)) for target in TARGETS)
        print(
            f"M {run.batch_size} lr {run.lr:g} seed {run.seed}: {run.status}, "
            f"updates {crossed}; {run.seconds_training:.0f} s training, "
            f"{run.seconds_checking:.0f} s checking",
            flush=True,
        )

    runs += sweep(
        workload, settings, processes=1, store=store, resume=True, on_progress=show
    )

# 2) a table and a fit for each target -------------------------------------------------
print(f"\n{workload.name}: updates to a BLEU, mean of {options.seeds} seeds")
print("| BLEU | lr | " + " | ".join(f"M = {size:,}" for size in PLAN) + " |")
print("|---|---|" + "---|" * len(PLAN))
for target in TARGETS:
    for lr in sorted({run.lr for run in runs}):
        cells = []
        for size in PLAN:
            found = [
                r.steps(target) for r in runs if (r.batch_size, r.lr) == (size, lr)
            ]
            reached = [steps for steps in found if steps is not None]
            mean = f"{statistics.fmean(reached):.0f}" if reached else "-"
            missed = f" ({len(found) - len(reached)} not)" if reached != found else ""
            cells.append(f"{mean}{missed}" if found else "not run")
        print(f"| {target:g} | {lr:g} | " + " | ".join(cells) + " |")


def span(interval) -> str:
    low, high = (
        "?" if end is None else f"{end:.3g}" for end in (interval.low, interval.high)
    )
    value = "?" if interval.value is None else f"{interval.value:.4g}"
    return f"{value} ({low} to {high})"


tuned = {}
for target in TARGETS:
    steps = [run.steps(target) or float("nan") for run in runs]
    tuned[target] = fit_tuned(
        [run.batch_size for run in runs],
        steps,
        [run.lr for run in runs],
        law="inverse",
        example_unit="word",
    )
    fit = tuned[target].fit
    print(
        f"\nBLEU {target:g}, best lr of each batch size: {fit.diagnosis.status}\n"
        f"  lr {', '.join(f'{best.lr:g}' for best in tuned[target].lrs)}; "
        f"N_inf {span(fit.min_steps)}, alpha {span(fit.min_examples)}, "
        f"critical batch {span(fit.critical_batch_size)}\n"
        f"  median error of the inverse law {fit.median_relative_error:.1%}"
    )
    for warning in (*tuned[target].warnings, fit.diagnosis.advice):
        print(f"  {warning}")
seconds = sum(run.seconds_training + run.seconds_checking for run in runs)
print(f"\n{seconds / 60:.0f} minutes of runs")

# 3) the picture -----------------------------------------------------------------------


def draw(path: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt
    import numpy as np

    plt.rcParams.update({"svg.hashsalt": "rightbatch", "font.size": 9})
    figure, panel = plt.subplots(figsize=(6.0, 4.0))
    grid = np.geomspace(min(PLAN) / 1.4, max(PLAN) * 1.4, 100)
    for target, color in zip(TARGETS, ("#2f6db3", "#b03a48"), strict=True):
        best = {one.batch_size: one.lr for one in tuned[target].lrs}
        for run in runs:
            steps = run.steps(target)
            if steps is None:
                continue
            face = color if best.get(run.batch_size) == run.lr else "none"
            panel.plot(run.batch_size, steps, "o", ms=5, mec=color, mfc=face)
        law = tuned[target].fit.law
        panel.plot(grid, law.steps(grid), color=color, label=f"BLEU {target:g}")
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(list(PLAN), [f"{size:,}" for size in PLAN])
    panel.set_xlabel("target words per batch")
    panel.set_ylabel("updates")
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False)
    note = "filled: the batch's best lr; lines: the inverse law"
    figure.text(0.01, 0.005, note, size=7)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, metadata={"Date": None})


if options.picture is not None:
    draw(options.picture)
