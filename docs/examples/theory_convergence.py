"""Draw steps against batch size: three laws, and the bounds of theory beside them.

.venv/bin/python docs/examples/theory_convergence.py docs/images/theory-convergence.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from rightbatch.convergence import fit_convergence
from rightbatch.convergence.bounds import ConvexBound, LinearRateBound

target = Path(sys.argv[1])

# 1) digits at one fixed learning rate of .2, and a language model tuned at every batch
fixed = [2**i for i in range(1, 10)], [2285, 961, 728, 526, 478, 453, 444, 428, 436]
tuned = (
    [64 * 2**i for i in range(9)],
    [196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879],
)

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

# 3) a tuned sweep: the inverse law, and what the two bounds make of it
fit = fit_convergence(*tuned)
grid = np.geomspace(40, 26000, 200)
low, high = fit.band(grid)
right.fill_between(grid, low, high, color=blue, alpha=0.2, lw=0)
right.loglog(grid, fit.steps(grid), color=blue)
right.loglog(*tuned, "o", ms=4, color=blue)
for candidate in fit.candidates:
    at = candidate.parameters
    if candidate.law == "convex_bound":
        bound = ConvexBound(
            contraction=at["contraction"],
            initial_gap=at["initial_gap"],
            target_gap=1,
            noise=at["min_batch_size"],
        )
    elif candidate.law == "linear_rate_bound":
        bound = LinearRateBound(
            noise_gap=at["min_batch_size"],
            contraction=at["contraction"],
            initial_gap=at["initial_gap"],
            target_gap=1,
        )
    else:
        continue
    worse = f"AICc worse by {candidate.aicc_difference:.0f}"
    name = candidate.law.replace("_", " ")
    (line,) = right.loglog(grid, bound.steps(grid), color=grey, lw=1)
    line.set_linestyle("--" if "convex" in name else ":")
    line.set_label(f"{name}, {worse}")
right.legend(frameon=False, fontsize=8)
right.set(
    title="tuned at every batch: the inverse law, not the bounds",
    xlabel="batch size, sequences",
    ylabel="steps to the target",
)

# 4) a fixed rate: a floor below which nothing arrives
fit = fit_convergence(*fixed)
floor = fit.min_batch_size.value
grid = np.geomspace(floor * 1.02, 700, 300)
low, high = fit.band(grid)
left.fill_between(grid, low, np.minimum(high, 1e5), color=blue, alpha=0.2, lw=0)
left.loglog(grid, fit.steps(grid), color=blue, label="with a floor")
inverse = fit_convergence(*fixed, law="inverse")
grid = np.geomspace(1, 700, 200)
left.loglog(grid, inverse.steps(grid), color=grey, ls="--", lw=1, label="inverse law")
left.loglog(*fixed, "o", ms=4, color=blue)
left.axvline(floor, color=orange, lw=1)
left.annotate(
    f"floor {floor:.2f}", (floor * 1.06, 480), color=orange, fontsize=8, ha="left"
)
left.legend(frameon=False, fontsize=8)
left.set(
    title="one fixed learning rate: a feasibility floor",
    xlabel="batch size, examples",
    ylabel="steps to the target",
    ylim=(300, 9000),
)
for axes in (left, right):
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())
        axis.set_minor_locator(LogLocator(subs="all", numticks=20))

# 5) the file, the same bytes each time
figure.tight_layout()
figure.savefig(target, metadata={"Date": None})
