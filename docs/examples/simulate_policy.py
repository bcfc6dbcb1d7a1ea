"""Drive a policy of your own on a noisy quadratic, and draw what it promises.

.venv/bin/python docs/examples/simulate_policy.py docs/images/simulate-policy.svg
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from rightbatch.policies import Constant, Decision, Observation
from rightbatch.quadratic import Noise, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import Conditions, replay, simulate

target = Path(sys.argv[1])


# 1) a policy: the batch grows as the loss falls, B0 F_0 / F_k (AdaDamp)
@dataclass(frozen=True)
class GrowsAsTheLossFalls:
    batch_size: float
    needs: frozenset[str] = frozenset({"eval_loss"})

    def init(self) -> float | None:
        return None

    def update(
        self, first_loss: float | None, seen: Observation
    ) -> tuple[Decision, float | None]:
        assert seen.eval_loss is not None
        first_loss = seen.eval_loss if first_loss is None else first_loss
        return Decision(self.batch_size * first_loss / seen.eval_loss), first_loss


# 2) a strongly convex problem: curvatures from .2 to 1, the same noise everywhere
problem = NoisyQuadratic(
    spectrum=Spectrum(curvatures=np.linspace(0.2, 1, 9)),
    noise=Noise(curvature=0, isotropic=1),
)
sgd = Optimizer(name="sgd", lr=0.2)
least = 1e-4

# 3) three runs to the same loss, each loss the exact expectation
decay = Conditions(lr_schedule=lambda step: 1 / (1 + 0.02 * step))
runs = {
    "batch 64, rate decays as 1/k": simulate(
        problem, sgd, Constant(batch_size=64), target=least, conditions=decay
    ),
    "batch grows from 64": simulate(
        problem, sgd, GrowsAsTheLossFalls(64), target=least
    ),
    "batch of a million: full gradient": simulate(
        problem, sgd, Constant(batch_size=1_000_000), target=least
    ),
}
for label, run in runs.items():
    print(f"{label:34s} {run.steps:7,} updates {run.examples:15,.0f} examples")

# 4) the same policy asked about the run at a constant batch: it changes nothing there
print(replay(GrowsAsTheLossFalls(64), runs["batch 64, rate decays as 1/k"].trace))

# 5) updates and examples to every loss
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
figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4), sharey=True)
colours = dict(zip(runs, ["#8a8f98", "#2f6db3", "#d1722b"], strict=True))
losses = np.geomspace(1, least, 200)
for label, run in runs.items():
    passed = [run.trace.first_passage(loss) for loss in losses]
    steps = np.array([one.steps for one in passed if one])
    examples = np.array([one.examples for one in passed if one])
    style = "--" if "full" in label else "-"
    left.loglog(steps, losses, style, color=colours[label], label=label)
    right.loglog(examples, losses, style, color=colours[label])
left.legend(frameon=False, fontsize=8)
left.set(
    title="updates: as few as the full gradient's, log(1/loss)",
    xlabel="updates",
    ylabel="expected loss",
)
right.set(title="examples: as SGD's, 1/loss", xlabel="examples")

# 6) the file, the same bytes each time
figure.tight_layout()
figure.savefig(target, metadata={"Date": None})
