"""Draw measured noise scales, against the training loss and against examples.

./run noise digits-mlp --json > noise.json
.venv/bin/python docs/examples/noise_picture.py noise.json docs/images/noise.svg

Several results may be given; the last name is the picture's.
"""

import json
import math
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

*sources, target = map(Path, sys.argv[1:])

# 1) what the results say
results = [json.loads(source.read_text(encoding="utf-8")) for source in sources]
settings = [result["inputs"] for result in results]
differing = [
    name
    for name in ("workload", "batch_size", "lr", "seed")
    if len({setting[name] for setting in settings}) > 1
]

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
figure, panels = plt.subplots(1, 2, figsize=(9.6, 3.4), sharey=True)
colors = ("#2f6db3", "#d1722b", "#3a8f5c", "#8a5bb0", "#7a7a7a")

# 3) points where the interval has two ends, triangles at what is known at least
heights = []
for place, (result, setting) in enumerate(zip(results, settings, strict=True)):
    look = {"color": colors[place % len(colors)]}
    words = [f"{name.replace('_', ' ')} {setting[name]}" for name in differing]
    look["label"] = ", ".join(words) or setting["workload"]
    for panel, across in zip(panels, ("loss", "examples"), strict=True):
        rows = [row for row in result["measurements"] if row[across] > 0]
        x = [row[across] for row in rows]
        # A line over a window that is not resolved would say what nobody measured.
        middle, low, high = (
            np.array(
                [
                    row["simple_noise_scale"][key]
                    if row["status"] == "resolved"
                    else math.nan
                    for row in rows
                ]
            )
            for key in ("value", "low", "high")
        )
        bars = [middle - low, high - middle]
        panel.errorbar(
            x, middle, bars, fmt="o-", ms=3.5, lw=1.2, elinewidth=0.8, **look
        )
        least = [
            row["lower_bound"] if row["status"] == "at least" else math.nan
            for row in rows
        ]
        panel.plot(x, least, "^", ms=5, mfc="none", color=look["color"])
        heights += [height for height in (*middle, *least) if height > 0]

# 4) the loss falls to the right, as training goes
by_loss, by_examples = panels
for panel in panels:
    panel.set(xscale="log", yscale="log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(EngFormatter(sep=""))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_minor_formatter(NullFormatter())
by_loss.xaxis.set_major_formatter("{x:g}")
by_examples.xaxis.set_major_formatter(EngFormatter(sep=""))
by_loss.invert_xaxis()
by_loss.set(title="noise scale, examples", xlabel="training loss")
by_examples.set(title="△ at least so much: no upper end", xlabel="examples trained on")
by_loss.set_ylim(min(heights) / 2, max(heights) * 2)  # long bars are cut
if len(results) > 1:
    by_examples.legend(frameon=False, loc="lower right", fontsize=8)

# 5) one file, without a date: the same results give the same picture
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
