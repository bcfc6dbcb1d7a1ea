"""Draw what changes with the batch: rules for the rate, and decay made growth.

.venv/bin/python docs/examples/theory_what_must_change.py \
    docs/images/theory-what-must-change.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, NullFormatter

from rightbatch.lr_scaling import grow, lr_factor, named_schedule

target = Path(sys.argv[1])

# 1) quiet
plt.rcParams.update(
    {
        "svg.hashsalt": "rightbatch",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "legend.fontsize": 8,
    }
)
figure, (rates, growth, savings) = plt.subplots(1, 3, figsize=(11.2, 3.2))
blue, orange, green, grey = "#2f6db3", "#d1722b", "#3f8f5f", "#777777"

# 2) the rules against B/B0, dashed where their condition fails: the noise scale is 8 B0
first, phi = 32, 256
ratios = np.geomspace(1, 256, 200)
for rule, label, color in (
    ("linear", "linear (SGD)", orange),
    ("adascale", "AdaScale (SGD)", blue),
    ("square_root", "square root (Adam)", green),
    ("adascale_adam", "AdaScale, Adam variant", grey),
):
    factors = np.array([lr_factor(rule, first, first * k, phi) for k in ratios])
    ends = phi / first if rule in ("linear", "square_root") else np.inf
    holds = ratios <= ends
    rates.loglog(ratios[holds], factors[holds], color=color, label=label)
    rates.loglog(ratios[~holds], factors[~holds], "--", color=color, lw=1, alpha=0.7)
rates.axvline(phi / first, ymax=0.6, color=grey, lw=0.8, ls=":")
rates.text(phi / first * 1.1, 1.05, "noise scale", color=grey, fontsize=8)
rates.set(
    title="Past the noise scale the rate stops rising",
    xlabel="batch size over the old one",
    ylabel="learning rate over the old one",
)
rates.legend(loc="upper left")

# 3) one cosine, exchanged for growth under a cap: batch up, then the rate down
run = {"batch_size": 256, "total_steps": 10_000}
capped = grow(named_schedule("cosine"), "smith", **run, max_batch_size=2048)
stages = capped.stages()
read = [stage.start_example for stage in stages] + [stages[-1].start_example]
read[-1] += stages[-1].examples
share = np.array(read) / read[-1]
for values, label, color in (
    ([stage.batch_size / 256 for stage in stages], "batch size over 256", blue),
    ([stage.lr_factor for stage in stages], "learning rate over its peak", orange),
):
    growth.stairs(values, share, baseline=None, color=color, label=label)
growth.set_yscale("log")
growth.set(
    title="The batch grows to its cap, then the rate falls",
    xlabel="share of the examples read",
    ylabel="factor",
    ylim=(1e-2, 40),
)
growth.legend(loc="lower left")

# 4) what a cap costs
caps = np.geomspace(1, 64, 60)
for name, label, color in (
    ("cosine", "half-cosine", blue),
    ("quarter_cosine", "quarter-cosine", orange),
    ("wsd:tail=0.1", "WSD, 10 % tail", green),
):
    found = [
        grow(named_schedule(name), "smith", **run, max_batch_size=256 * cap)
        for cap in caps
    ]
    savings.semilogx(caps, [100 * one.saved for one in found], color=color)
    savings.axhline(100 * found[0].saved_uncapped, color=color, lw=0.8, ls=":")
    top = 100 * found[0].saved_uncapped
    savings.text(64, top + 1, label, color=color, ha="right")
savings.set(
    title="Eight times the batch saves nearly all",
    xlabel="largest batch over the first",
    ylabel="steps saved, %",
    ylim=(0, 58),
)

# 5) ticks that can be read
for panel in (rates, savings):
    panel.xaxis.set_major_locator(plt.FixedLocator([1, 4, 16, 64, 256]))
    panel.xaxis.set_minor_formatter(NullFormatter())
plain = FuncFormatter(lambda value, _: f"{value:g}")
for axis in (rates.xaxis, rates.yaxis, growth.yaxis, savings.xaxis):
    axis.set_major_formatter(plain)

# 6) one file, without a date
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
