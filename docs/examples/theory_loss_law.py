"""Draw the three-term loss law: what it is fitted to, and what it says of a target.

.venv/bin/python docs/examples/theory_loss_law.py docs/images/theory-loss-law.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from rightbatch.convergence.fit import fit_convergence
from rightbatch.convergence.losses.crossing import steps_to_loss
from rightbatch.convergence.losses.fit import fit_loss_law
from rightbatch.convergence.losses.law import LossLaw

picture, goal = Path(sys.argv[1]), 2.5

# 1) sixteen runs of a known law, 1 % noise; two of them come below the target
truth = LossLaw(
    irreducible_loss=1.8,
    batch_coefficient=6,
    batch_exponent=0.8,
    steps_coefficient=40,
    steps_exponent=0.5,
)
sizes, lengths = [8, 32, 128, 512], [100, 400, 1600, 6400]
batch, steps = (grid.ravel() for grid in np.meshgrid(sizes, lengths, indexing="ij"))
noise = 0.01 * np.random.default_rng(4).standard_normal(len(batch))
loss = truth.loss(batch, steps) * np.exp(noise)
fit = fit_loss_law(batch, steps, loss)
found = fit.at_target(goal)

# 2) two panels, quiet
plt.rcParams.update(
    {
        "svg.hashsalt": "rightbatch",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
    }
)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4))
blue, orange, grey = "#2f6db3", "#d1722b", "#8a8f98"

# 3) the losses, each batch size with its own plateau
grid = np.geomspace(60, 60_000, 100)
for size, shade in zip(sizes, (0.35, 0.55, 0.75, 1.0), strict=True):
    at = batch == size
    left.semilogx(grid, fit.law.loss(size, grid), color=blue, alpha=shade)
    left.semilogx(steps[at], loss[at], "o", ms=4, color=blue, alpha=shade)
    if size != 128:  # it lies between its neighbours
        end = (66_000, fit.law.loss(size, 6e4))
        left.annotate(f"B = {size}", end, fontsize=8, va="center")
left.axhline(goal, color=orange, lw=1)
left.annotate("target", (60, goal), color=orange, va="bottom", fontsize=8)
left.set(
    title="runs above the target count too",
    xlabel="steps",
    ylabel="loss",
    xlim=(50, 2e5),
)

# 4) the steps to the target: no end at B_min, fewest examples at B_opt
curve = found.curve(200)
size = np.array(curve["batch_size"])
low, middle, high = (
    np.array([np.nan if value is None else value for value in curve[key]])
    for key in ("low", "steps", "high")
)
right.fill_between(size, low, high, color=blue, alpha=0.2, lw=0)
right.loglog(size, middle, color=blue, label="loss law, 16 runs")
reached = [
    crossing
    for crossing in steps_to_loss(batch, [None] * len(batch), steps, loss, goal)
    if not np.isnan(crossing.steps)
]
at = [crossing.batch_size for crossing in reached]
right.loglog(at, [crossing.steps for crossing in reached], "o", ms=4, color=blue)
inverse = fit_convergence(at, [crossing.steps for crossing in reached], law="inverse")
right.loglog(size, inverse.steps(size), color=grey, ls="--", label="inverse law")
for name, text in (
    ("min_batch_size", "B_min"),
    ("data_optimal_batch_size", "B_opt"),
):
    interval = getattr(found, name)
    right.axvspan(interval.low, interval.high, color=orange, alpha=0.2, lw=0)
    right.annotate(text, (interval.value, 1.1e5), color=orange, ha="center", fontsize=8)
right.set(
    title=f"to a loss of {goal}: two batch sizes to know",
    xlabel="batch size, examples",
    ylabel="steps to the target",
    ylim=(2e3, 1.5e5),
)
right.legend(frameon=False, fontsize=8)
right.xaxis.set_major_formatter(EngFormatter(sep=""))
right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
right.yaxis.set_major_formatter(EngFormatter(sep=""))
right.yaxis.set_minor_formatter(NullFormatter())
left.xaxis.set_major_formatter(EngFormatter(sep=""))

# 5) one file, without a date
figure.tight_layout()
picture.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(picture, metadata={"Date": None})
