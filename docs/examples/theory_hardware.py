"""Draw what a budget is best spent on: gains per unit of money meet at the optimum.

.venv/bin/python docs/examples/theory_hardware.py docs/images/theory-hardware.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, NullFormatter

from rightbatch.cluster import (
    Bandwidth,
    Compute,
    Design,
    Job,
    LinearPrice,
    Replicas,
    best_mix,
    pareto_front,
)
from rightbatch.convergence import ConvergenceLaw
from rightbatch.step_time import ConstantCommunication, StepTimeLaw

target = Path(sys.argv[1])

# 1) eight replicas, their speed and the network between them, for one budget
budget = 60_000
job = Job(
    convergence=ConvergenceLaw(min_steps=1000, min_examples=7e5),
    step_time=StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=1,
        communication=ConstantCommunication(seconds=0.2),
    ),
)
speed = Compute(price=LinearPrice(price_per_unit=500))
network = Bandwidth(price=LinearPrice(price_per_unit=2000))
design = Design(jobs=[job], components=[speed, network], num_replicas=8)
best = best_mix(design, budget=budget)

# 2) quiet
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
figure, (times, gains, front) = plt.subplots(1, 3, figsize=(11.2, 3.2))
blue, orange, grey = "#2f6db3", "#d1722b", "#777777"

# 3) all of the budget, more and more of it for the network
paid = np.linspace(2500, budget - 4500, 300)
amounts = (budget - paid) / 4000, paid / 2000
times.plot(paid / budget, design.objective(amounts), color=blue)
spent = best.mix.prices["bandwidth"] / budget
times.plot([spent], [best.mix.seconds], "o", ms=7, mfc="white", mec=orange, mew=2)
times.set_title(f"{100 * spent:.0f} % for the network is soonest")
times.set(xlabel="share of the budget for the network", ylabel="seconds to the target")
times.set_ylim(0, 150)

# 4) what a little more of each gains, along the same line
step = 1e-3
for i, (name, color) in enumerate((("speed", orange), ("network", blue))):
    above = tuple(a * (1 + step * (i == j)) for j, a in enumerate(amounts))
    saved = design.objective(amounts) - design.objective(above)
    money = design.price(above) - design.price(amounts)
    gains.plot(paid / budget, 1000 * saved / money, color=color, label=name)
gains.plot([spent], [1000 * best.rate], "o", ms=7, mfc="white", mec=grey, mew=2)
gains.set_title("there more of either gains the same")
gains.set(
    xlabel="share of the budget for the network", ylabel="seconds saved per 1,000 more"
)
gains.set_yscale("log")
gains.set_ylim(0.2, 20)
gains.yaxis.set_major_formatter(EngFormatter(sep=""))
gains.yaxis.set_minor_formatter(NullFormatter())
gains.legend()

# 5) time against money where a knee sets the batch: replicas and network
knee = Job(
    convergence=job.convergence,
    step_time=StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=20,
        communication=ConstantCommunication(seconds=0.02),
    ),
)
design = Design(
    jobs=[knee],
    components=[Replicas(price=LinearPrice(price_per_unit=1000)), network],
)
best = best_mix(design, budget=50_000)
mixes = pareto_front(design, best.mix, num=40)
front.loglog([m.money for m in mixes], [m.seconds for m in mixes], color=blue)
front.plot([best.mix.money], [best.mix.seconds], "o", ms=7, mfc="white", mec=orange)
far = mixes[-1]
ratio, times_money = far.seconds / best.mix.seconds, far.money / best.mix.money
front.set_title(f"{times_money:.0f} times the money: {100 * ratio:.0f} % of the time")
front.set(xlabel="money", ylabel="seconds to the target")
for axis in (front.xaxis, front.yaxis):
    axis.set_major_formatter(EngFormatter(sep=""))
    axis.set_minor_formatter(NullFormatter())

# 6) one file, without a date: the same laws give the same picture
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
