"""Draw a plan: the two curves, and their product, which decides.

./run plan --json > plan.json
.venv/bin/python docs/examples/plan_picture.py plan.json docs/images/plan.svg
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

source, target = Path(sys.argv[1]), Path(sys.argv[2])

# 1) what the plan says
plan = json.loads(source.read_text(encoding="utf-8"))
fit, step_time = plan["convergence"][-1], plan["step_time"]
first, best = plan["seconds_to_target"][0], plan["optimal"][0]

# 2) three panels, quiet
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
figure, (steps, seconds, total) = plt.subplots(1, 3, figsize=(9.6, 2.9))
blue, orange = "#2f6db3", "#d1722b"

# 3) how many steps
curve = fit["curve"]
steps.loglog(curve["batch_size"], curve["steps"], color=blue)
if None not in (*curve["low"], *curve["high"]):
    steps.fill_between(
        curve["batch_size"], curve["low"], curve["high"], color=blue, alpha=0.15, lw=0
    )
points = [point for point in fit["points"] if not point["excluded"]]
steps.loglog(
    [point["batch_size"] for point in points],
    [point["mean_steps"] for point in points],
    "o",
    ms=4,
    color=blue,
)
steps.set(title="steps to the target", xlabel="batch size")

# 4) how long a step takes
curve = step_time["curve"]
seconds.loglog(curve["batch_size"], curve["seconds"], color=blue)
seconds.loglog(
    [point["batch_size"] for point in step_time["points"]],
    [point["seconds"] for point in step_time["points"]],
    "o",
    ms=4,
    color=blue,
)
seconds.set(title="× seconds per step", xlabel="batch size")

# 5) the product, and where it is least
curve = first["curve"]
total.loglog(curve["batch_size"], curve["seconds"], color=blue)
low, high = best["within_5_percent"]
total.axvspan(low, high, color=orange, alpha=0.2, lw=0)
total.loglog(best["batch_size"], best["seconds"], "o", color=orange)
total.annotate(
    f"train at {best['batch_size']}",
    (best["batch_size"], best["seconds"]),
    xytext=(0, 16),
    textcoords="offset points",
    ha="center",
    color=orange,
)
total.set(title="= seconds to the target", xlabel="batch size")

# 6) ticks that can be read: 200 µs, not 2e-4
for panel, unit in ((steps, ""), (seconds, "s"), (total, "s")):
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(EngFormatter(unit=unit, sep=" " if unit else ""))
    panel.yaxis.set_minor_formatter(NullFormatter())

# 7) one file, without a date: the same plan gives the same picture
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
