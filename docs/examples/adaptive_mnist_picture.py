"""Draw what each family of batch sizes took to a loss on MNIST: updates and examples.

.venv/bin/python benchmarks/adaptive_mnist.py --data-dir DATA --out mnist.jsonl
.venv/bin/python docs/examples/adaptive_mnist_picture.py mnist.jsonl \
    docs/images/adaptive-mnist.svg
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

source, target = map(Path, sys.argv[1:])
TUNING_SEED = "0"

# 1) runs that reached the loss, by family; those with fresh seeds stand out
runs: dict[str, list[tuple[int, int, bool]]] = {}
for line in source.read_text(encoding="utf-8").splitlines():
    for key, run in json.loads(line).items():
        if key == "times" or not run["reached"]:
            continue
        family, *_, seed = key.split("|")
        sizes = run["batch_sizes"]
        found = (len(sizes), sum(sizes), seed != TUNING_SEED)
        runs.setdefault(family, []).append(found)

# 2) one panel: towards the lower left is better; which matters more, machines decide
plt.rcParams.update(
    {
        "svg.hashsalt": "rightbatch",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
)
figure, panel = plt.subplots(figsize=(6.4, 4.2))
colors = ("#7a7a7a", "#2f6db3", "#3a8f5c", "#d1722b", "#8a5bb0", "#b03a48")
markers = "osD^vP"
for place, (family, found) in enumerate(runs.items()):
    look = {"color": colors[place % 6], "marker": markers[place % 6], "linestyle": ""}
    tuned = [(u, e) for u, e, fresh in found if not fresh]
    fresh = [(u, e) for u, e, is_fresh in found if is_fresh]
    for points, size, filled in ((tuned, 4, False), (fresh, 6, True)):
        if points:
            panel.plot(
                *zip(*points, strict=True),
                ms=size,
                mfc=look["color"] if filled else "none",
                alpha=0.9 if filled else 0.45,
                label=family if filled or not fresh else None,
                **look,
            )
panel.set_xscale("log")
panel.set_yscale("log")
panel.set_xlabel("updates to the loss")
panel.set_ylabel("examples to the loss")
for axis in (panel.xaxis, panel.yaxis):
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())
panel.legend(frameon=False, fontsize=8)
figure.text(
    0.01, 0.005, "filled: fresh seeds at the best settings; hollow: tuning", fontsize=7
)
figure.tight_layout(rect=(0, 0.03, 1, 1))
figure.savefig(target, metadata={"Date": None})
