"""Draw why the batch should grow, and what it promises: updates and examples.

.venv/bin/python docs/examples/theory_growing_batch.py \
    docs/images/theory-growing-batch.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from rightbatch.policies import AdaDamp, Constant, NoiseFollowing
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import Conditions, simulate

target = Path(sys.argv[1])
grey, blue, orange, green = "#8a8f98", "#2f6db3", "#d1722b", "#3b9c7a"

# 1) ten points y_i on a line, and their gradients y_i - w from far away to the optimum
points = np.linspace(1.5, 2.5, 10)
models = (1.0, 1.5, 1.9, 2.0)


def diversity(gradients):
    """Return n sum g_i^2/(sum g_i)^2, which is 1 + the noise scale."""
    total = gradients.sum()
    return np.inf if abs(total) < 1e-9 else 10 * (gradients**2).sum() / total**2


# 2) a strongly convex loss in nine directions, with the same noise everywhere
problem = NoisyQuadratic(
    spectrum=Spectrum(curvatures=np.linspace(0.2, 1, 9)),
    noise=Noise(curvature=0, isotropic=1),
)
sgd = Optimizer(name="sgd", lr=0.2)
least = 1e-4

# 3) four runs to the same loss, each loss the exact expectation
decay = Conditions(lr_schedule=lambda step: 1 / (1 + 0.02 * step))
real = Conditions(whole_batches=False)
runs = {
    "batch 4, rate decays as 1/k": (Constant(batch_size=4), decay, grey, "-"),
    "AdaDamp from 4": (AdaDamp(initial_batch_size=4), real, blue, "-"),
    "batch = noise scale": (NoiseFollowing(initial_batch_size=4), real, green, "-"),
    "full gradient": (Constant(batch_size=1e6), real, orange, "--"),
}
traces = {
    label: simulate(problem, sgd, policy, target=least, conditions=conditions).trace
    for label, (policy, conditions, _, _) in runs.items()
}
for label, trace in traces.items():
    print(f"{label:30s} {len(trace):7,} updates {trace.examples[-1]:15,.0f} examples")

# 4) three panels, quiet
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
figure, (why, left, right) = plt.subplots(1, 3, figsize=(12, 3.6))

# 5) gradients that agree far away and cancel at the optimum
for row, model in enumerate(models):
    gradients = points - model
    colours = np.where(gradients > 0, blue, orange)
    why.scatter(gradients, np.full(10, -row), s=16, c=colours, zorder=3)
    why.plot(gradients.mean(), -row, "|", color="black", ms=16)
    found = diversity(gradients)
    told = "no bound" if np.isinf(found) else f"{found:.3g}"
    why.text(1.6, -row, told, va="center")
why.axvline(0, color=grey, lw=0.8)
why.text(1.62, 0.55, "diversity", color=grey)
why.set(
    title="example gradients: they agree, then cancel",
    xlabel="gradient of each of ten points, and the mean",
    xlim=(-0.7, 2.1),
    ylim=(-3.6, 0.8),
    yticks=[0, -1, -2, -3],
    yticklabels=[f"w = {model:g}" for model in models],
    xticks=[-0.5, 0, 0.5, 1, 1.5],
)

# 6) updates and examples to every loss
losses = np.geomspace(1, least, 200)
for label, (_, _, colour, style) in runs.items():
    passed = [traces[label].first_passage(loss) for loss in losses]
    steps = np.array([one.steps for one in passed])
    examples = np.array([one.examples for one in passed])
    left.loglog(1 / losses, steps, style, color=colour, label=label)
    right.loglog(1 / losses, examples, style, color=colour)
left.legend(frameon=False, fontsize=8)
left.set(
    title="updates: log(1/eps), not 1/eps",
    xlabel="1/eps, one over the loss left",
    ylabel="updates",
)
right.set(
    title="examples: 1/eps, as SGD's",
    xlabel="1/eps, one over the loss left",
    ylabel="examples",
)

# 7) one file, without a date
figure.tight_layout()
figure.savefig(target, metadata={"Date": None})
