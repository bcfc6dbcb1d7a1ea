"""Draw the best learning rate against the batch size, from a real tuned sweep.

.venv/bin/python docs/examples/theory_learning_rate.py \
    docs/images/theory-learning-rate.svg
"""

import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from rightbatch.convergence.learning_rate import fit_learning_rate

picture, no = Path(sys.argv[1]), math.nan

# 1) digits-mlp to a loss of .15, SGD, three seeds: steps by batch size and rate; none
#    where a seed did not arrive within the budget, too slow or diverged
sweep = {
    4: {0.05: [no], 0.1: [1420, 1420, 1420], 0.2: [1142, 816, 1420], 0.5: [no]},
    8: {0.1: [1055, no, 1055], 0.2: [754, 710, 710], 0.5: [754, 348, 769], 1: [no]},
    16: {0.1: [no], 0.2: [528, 606, 528], 0.5: [362, 264, 355], 1: [no, no, 442]},
    32: {0.2: [no, 488, no], 0.5: [239, 264, 259], 1: [185, 212, 212], 2: [no]},
    64: {0.2: [no], 0.5: [212, 212, 234], 1: [124, 127, 115], 2: [no]},
    128: {0.2: [no], 0.5: [188, 196, 234], 1: [100, 110, 120], 2: [no]},
    256: {0.2: [no], 0.5: [188, 196, 200], 1: [94, 98, 104], 2: [no]},
    512: {0.2: [no], 0.5: [185, 178, 192], 1: [87, 94, 104], 2: [no]},
}
rows = [
    (batch, rate, count)
    for batch, cells in sweep.items()
    for rate, counts in cells.items()
    for count in counts
]
digits = fit_learning_rate(*zip(*rows, strict=True))

# 2) a made-up sweep of Adam's kind: the rate grows as B^.6 and has not yet stopped
generator = np.random.default_rng(1)
rows = [
    (batch, rate, (200 + 9000 / batch) * math.exp(height + error))
    for batch in (8, 32, 128, 512, 2048)
    for rate in 1e-4 * 2.0 ** np.arange(12)
    for off in [math.log(rate / (3e-4 * (batch / 8) ** 0.6))]
    for height in [0.45 * off**2 + 0.1 * max(off, -1.5) ** 3]
    for error in 0.1 * generator.standard_normal(3)
    if abs(off) < 2.5
]
adam = fit_learning_rate(*zip(*rows, strict=True))

# 3) two panels, quiet
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
blue, orange = "#2f6db3", "#d1722b"

# 4) law, band and optima, each with its standard error
for panel, fit in ((left, digits), (right, adam)):
    curve = fit.curve(100)
    panel.fill_between(
        curve["batch_size"], curve["low"], curve["high"], color=blue, alpha=0.2, lw=0
    )
    panel.loglog(curve["batch_size"], curve["lr"], color=blue)
    for optimum in fit.optima:
        entry = optimum.to_dict()
        size = entry["batch_size"]
        panel.plot([size, size], [entry["low"], entry["high"]], color=blue, lw=1)
        panel.plot(size, entry["lr"], "o", ms=4, color=blue)
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.set(xlabel="batch size, examples", ylabel="best learning rate")
phi = digits.plateau_batch_size
left.axvspan(phi.low, phi.high, color=orange, alpha=0.2, lw=0)
left.set(title=f"digits, SGD: it stops growing near B = {phi.value:.0f}")
p = adam.exponent
right.set(
    title=f"made up, Adam's kind: power {p.value:.2f} ({p.low:.2f} to {p.high:.2f})"
)

# 5) one file, without a date
figure.tight_layout()
picture.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(picture, metadata={"Date": None})
