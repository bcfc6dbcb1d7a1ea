"""Draw the plan: time and regret against the batch size, and the three scalings.

python docs/examples/theory_plan.py docs/images/theory-plan.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from rightbatch import scaling
from rightbatch.convergence import ConvergenceLaw, fit_convergence
from rightbatch.step_time import ConstantCommunication, StepTimeLaw
from rightbatch.training_time import (
    BatchLimits,
    ClosedForm,
    PlanDraws,
    TrainingTimeLaw,
    regret_curve,
)

target = Path(sys.argv[1])

# 1) one law of steps, fitted to noisy runs of it, and one of step times
truth = ConvergenceLaw(min_steps=1000, min_examples=7e5)
batches = np.repeat([16, 64, 256, 1024, 4096], 2)
noise = 0.1 * np.random.default_rng(1).standard_normal(len(batches))
runs = truth.steps(batches) * np.exp(noise)
fit = fit_convergence(batches, runs)
step_time = StepTimeLaw(
    seconds_per_example=0.001,
    saturation_batch_size=20,
    communication=ConstantCommunication(seconds=0.02),
)
law = TrainingTimeLaw(steps=fit, step_time=step_time)
plan = ClosedForm(convergence=fit.law, step_time=step_time)
replicas = 4
best = plan.optimal_batch_size(replicas)

# 2) three panels, quiet
plt.rcParams.update(
    {
        "svg.hashsalt": "rightbatch",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
    }
)
figure, (time, lost, grown) = plt.subplots(1, 3, figsize=(10.4, 3.1))
blue, orange, grey = "#2f6db3", "#d1722b", "#777777"

# 3) time to the target on four replicas, and where eq. 9 puts the best batch
grid = np.geomspace(16, 4096, 200)
draws = PlanDraws(steps=fit.draws(1000), step_time=step_time)
drawn = draws.steps.steps(grid) * step_time.seconds_per_step(grid, replicas)
low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
time.fill_between(grid, low, high, color=blue, alpha=0.15, lw=0)
time.loglog(grid, law.seconds_to_target(grid, replicas), color=blue)
time.loglog(
    batches, runs * step_time.seconds_per_step(batches, replicas), "o", ms=3, color=blue
)
time.axvspan(*plan.batch_sizes_within(0.05, replicas), color=orange, alpha=0.2, lw=0)
time.loglog(best, plan.optimal_seconds(replicas), "o", color=orange)
time.set(
    title=f"On 4 replicas {best:.0f} is best; a wide range is as good",
    xlabel="batch size, examples",
    ylabel="time to the target, s",
)

# 4) what any other batch loses
curve = regret_curve(draws, replicas, BatchLimits(), grid)
lost.fill_between(
    curve["batch_size"],
    100 * np.array(curve["low"]),
    100 * np.array(curve["high"]),
    color=blue,
    alpha=0.15,
    lw=0,
)
lost.semilogx(grid, 100 * plan.regret(grid, replicas), color=blue)
lost.axhline(5, color=orange, lw=0.8)
lost.set(
    title="A factor of 2 either way loses 12.5 % at most",
    xlabel="batch size, examples",
    ylabel="time lost, %",
    ylim=(0, 60),
)

# 5) the three scalings
counts = 2 ** np.arange(11)
curves = {
    "strong, B = 640": (scaling.strong(law, 640, counts), grey, "--"),
    "weak, B/P = 20": (scaling.weak(law, 20, counts), orange, "-."),
    "optimal": (scaling.optimal(law, counts), blue, "-"),
}
for name, (found, colour, style) in curves.items():
    grown.loglog(counts, found.seconds, style, color=colour, label=name)
grown.axvline(scaling.optimal_becomes_weak_at(law), color=grey, lw=0.6)
grown.axhline(scaling.limit_seconds(law), color=grey, lw=0.6)
grown.set(
    title=f"Optimal becomes weak at P = {scaling.optimal_becomes_weak_at(law):.0f}",
    xlabel="replicas, P",
    ylabel="time to the target, s",
)
grown.legend(frameon=False)

# 6) one file, without a date: the same code gives the same picture
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
