"""Draw the time of a step: replicas that help, then hinder; overlap; collectives.

.venv/bin/python docs/examples/theory_step_time.py docs/images/theory-step-time.svg
"""

import math
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter

from rightbatch.step_time import (
    HalvingDoublingCommunication,
    RingCommunication,
    ShardedCommunication,
    StepTimeLaw,
    TwoLevelCommunication,
    fit_step_time,
)

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
figure, (valley, overlap, sums) = plt.subplots(1, 3, figsize=(11.2, 3.2))
blue, orange, green, grey = "#2f6db3", "#d1722b", "#3f8f5f", "#777777"

# 2) a table of a ring with latency, 3 % of noise, and what is fitted to it
truth = StepTimeLaw(
    seconds_per_example=1e-3,
    saturation_batch_size=16,
    overhead_seconds=4e-3,
    communication=RingCommunication(
        latency_seconds=4e-4, bytes_per_second=1e9, num_bytes=2e7
    ),
)
counts = 2.0 ** np.arange(8)
replicas = np.repeat(counts, 3)
sizes = np.tile([256.0, 1024.0, 4096.0], len(counts))
noise = np.random.default_rng(0).standard_normal(len(sizes))
seconds = truth.seconds_per_step(sizes, replicas) * np.exp(0.03 * noise)
fit = fit_step_time(sizes, seconds, replicas)
draws = fit.draws(500)

# 3) seconds fall and then rise with replicas
grid = np.geomspace(1, 128, 120)
for size, color in ((256, blue), (1024, orange), (4096, green)):
    drawn = [draws.seconds_per_step([size], count)[:, 0] for count in grid]
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1)
    valley.fill_between(grid, low, high, color=color, alpha=0.2, lw=0)
    valley.loglog(grid, fit.law.seconds_per_step(size, grid), color=color)
    valley.loglog(counts, seconds[sizes == size], "o", ms=3.5, color=color)
    valley.text(1, 1.25e-3 * size, f"batch {size:,}", color=color, fontsize=8)
valley.set(
    title="Replicas help, then hinder: a ring was fitted",
    xlabel="replicas",
    ylabel="seconds per step",
    ylim=(0.03, 8),
)

# 4) what hides behind computing, on 64 replicas
local = np.geomspace(4, 512, 200)
for exponent, style, label in (
    (1, "-", "q = 1: they add up"),
    (2, "--", "q = 2"),
    (math.inf, ":", "q = ∞: the longer one"),
):
    law = replace(truth, overlap_exponent=exponent)
    times = law.seconds_per_step(64 * local, 64)
    overlap.loglog(local, times, style, color=blue, label=label)
comm = truth.communication.comm_seconds(64)
overlap.axvline(comm / 1e-3, ymax=0.55, color=grey, lw=0.8, ls=":")
overlap.text(
    1.1 * comm / 1e-3, 0.064, "computing =\ncommunicating", color=grey, fontsize=8
)
overlap.set(
    title="Overlap saves most where both are equal",
    xlabel="examples on each of 64 replicas",
    ylabel="seconds per step",
    ylim=(0.06, 0.7),
)
overlap.legend(loc="upper left")

# 5) the sums themselves: 100 MB over links of 10 GB/s, 20 us a message
link = {"latency_seconds": 2e-5, "bytes_per_second": 1e10, "num_bytes": 1e8}
nodes = TwoLevelCommunication(
    replicas_per_node=8,
    inner_latency_seconds=2e-6,
    inner_bytes_per_second=2e11,
    outer_latency_seconds=2e-5,
    outer_bytes_per_second=1.25e9,
    num_bytes=1e8,
)
counts = 2 ** np.arange(1, 11)
for communication, name, color in (
    (ShardedCommunication(**link), "sharded", orange),
    (RingCommunication(**link), "ring", blue),
    (HalvingDoublingCommunication(**link), "halving-doubling", green),
    (nodes, "nodes of 8, one card each", grey),
):
    times = communication.comm_seconds(counts)
    sums.loglog(counts, times, ".-", color=color, label=name)
sums.set(
    title="On many replicas rounds cost more",
    xlabel="replicas",
    ylabel="seconds of a sum of 100 MB",
)
sums.legend(loc="lower right")

# 6) ticks that can be read
for panel in (valley, overlap, sums):
    panel.xaxis.set_major_locator(LogLocator(base=4))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(EngFormatter(unit="s"))
    panel.yaxis.set_minor_formatter(NullFormatter())

# 7) one file, without a date
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
