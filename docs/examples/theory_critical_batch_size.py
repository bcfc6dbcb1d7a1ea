"""Draw one curve and the five definitions of a critical batch size on it.

.venv/bin/python docs/examples/theory_critical_batch_size.py \
    docs/images/theory-critical-batch-size.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from rightbatch.convergence import definitions, fit_convergence

target = Path(sys.argv[1])

# 1) steps to a fixed C4 validation loss, 302M model (H. Zhang et al. 2024)
batch_sizes = 64 * 2.0 ** np.arange(9)
steps = [196000, 90000, 46000, 23400, 13300, 7224, 4980, 3400, 2879]
fit = fit_convergence(batch_sizes, steps, law="inverse")
law = fit.law

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
figure, (trade, named) = plt.subplots(
    1, 2, figsize=(9.6, 3.6), gridspec_kw={"width_ratios": [1, 1.25]}
)
blue, orange = "#2f6db3", "#d1722b"

# 3) what is traded: more examples for fewer steps, in units of the least of each
grid = np.geomspace(32, 65536, 200)
trade.loglog(
    law.examples(grid) / law.min_examples, law.steps(grid) / law.min_steps, color=blue
)
trade.loglog(
    batch_sizes * steps / law.min_examples,
    np.array(steps) / law.min_steps,
    "o",
    ms=4,
    color=blue,
)
phi = definitions.even_trade(fit).value
trade.loglog(2, 2, "o", color=orange)
trade.annotate(
    f"even trade, B = {phi:.0f}",
    (2, 2),
    xytext=(10, 8),
    textcoords="offset points",
    color=orange,
)
trade.set(
    title="One curve: steps against examples",
    xlabel="examples over their minimum",
    ylabel="steps over their minimum",
)
for axis in (trade.xaxis, trade.yaxis):
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(EngFormatter())
    axis.set_minor_formatter(NullFormatter())

# 4) where people put the critical batch size on it
found = [
    ("even trade", definitions.even_trade(fit)),
    ("20 % more than tiny batches", definitions.overhead_of_tiny_batches(fit)),
    ("20 % more than B = 256", definitions.overhead_of_reference(fit, reference=256)),
    ("a step gains 90 % of the best", definitions.share_of_step(fit, share=0.9)),
    ("norm test, theta = 0.5", definitions.norm_test(fit, theta=0.5)),
]
found.sort(key=lambda entry: entry[1].value)
grid = np.geomspace(256, 524288, 200)
low, high = fit.band(grid)
named.fill_between(
    grid,
    grid * low / law.min_examples,
    grid * high / law.min_examples,
    color=blue,
    alpha=0.15,
    lw=0,
)
named.loglog(grid, law.examples(grid) / law.min_examples, color=blue)
levels = [50, 27, 14.5, 1.4, 3.2]  # of the names: three above the curve, two below
for level, (name, interval) in zip(levels, found, strict=True):
    height = law.examples(interval.value) / law.min_examples
    named.plot([interval.value] * 2, [height, level], color=orange, lw=0.8, ls=":")
    named.plot([interval.low, interval.high], [height] * 2, color=orange, lw=3)
    named.plot(interval.value, height, "o", ms=4, color=orange)
    named.text(
        interval.value * 1.08,
        level,
        f"{name}: {interval.value:.0f}",
        color=orange,
        va="center",
        fontsize=8,
    )
named.set(
    title="Five definitions, a factor of "
    f"{found[-1][1].value / found[0][1].value:.0f} apart",
    xlabel="batch size, examples",
    xlim=(200, 3e6),
    ylabel="examples over their minimum",
    ylim=(0.9, 90),
)
named.xaxis.set_major_formatter(EngFormatter(sep=""))
named.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
named.yaxis.set_major_formatter(EngFormatter())
named.yaxis.set_minor_formatter(NullFormatter())

# 5) one file, without a date
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
