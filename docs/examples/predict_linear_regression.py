"""Predict the steps of real SGD on real data, then train and compare.

.venv/bin/python docs/examples/predict_linear_regression.py \
    docs/images/predict-linear-regression.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from rightbatch.quadratic import Optimizer
from rightbatch.quadratic.levels import LossCurve, fit_levels_to_curves
from rightbatch.quadratic.measured import from_measurements
from rightbatch.quadratic.prediction import predict_steps

picture = Path(sys.argv[1])

# 1) least squares: is a handwritten digit even (+1) or odd (-1)?
images, digits = load_digits(return_X_y=True)
images = (images - images.mean(0))[:, images.std(0) > 0] / 16
wanted = np.where(digits % 2 == 0, 1.0, -1.0)
wanted -= wanted.mean()

# 2) what there is to measure: curvatures, the distance to go, the noise at some point
curvatures, directions = np.linalg.eigh(images.T @ images / len(images))
features = images @ directions
minimum = features.T @ wanted / len(images) / curvatures
residual = wanted - features @ minimum
least, first = (residual**2).mean() / 2, (wanted**2).mean() / 2
target = least + 0.1 * (first - least)
start = -minimum  # seen from the minimum: training begins at zero


def noise_at(place):
    """Return the variance of one example's gradient along every direction."""
    errors = features @ place - residual
    return (features * errors[:, None]).var(axis=0)


def halfway(share):
    """Return where gradient flow has so much of the loss to win left."""
    times = np.geomspace(1e-2, 1e6, 4000)[:, None]
    places = start * np.exp(-curvatures * times)
    left = places**2 @ curvatures / (start**2 @ curvatures)
    return places[np.argmin(np.abs(left - share))]


# 3) and the real thing: 256 runs side by side, batches drawn with replacement
def train(optimizer, batch_size, num_steps, seed=0):
    """Return the mean loss of the runs after each step, until the target."""
    generator = np.random.default_rng(seed)
    place = np.tile(start, (256, 1))
    buffer, average, losses = np.zeros_like(place), place, []
    for _ in range(num_steps):
        rows = generator.integers(0, len(images), (256, batch_size))
        seen = features[rows]
        errors = np.einsum("rbd,rd->rb", seen, place) - residual[rows]
        gradient = np.einsum("rbd,rb->rd", seen, errors) / batch_size
        buffer = optimizer.momentum * buffer + gradient
        place = place - optimizer.lr * buffer
        average = optimizer.ema_decay * average + (1 - optimizer.ema_decay) * place
        losses.append(least + (average**2 @ curvatures).mean() / 2)
        if not losses[-1] < 100 * first or losses[-1] <= target:
            break
    return losses


def measured_steps(optimizer, batch_size, most):
    """Return the first step at which the mean loss is at the target, or nan."""
    losses = train(optimizer, batch_size, most)
    return len(losses) if losses[-1] <= target else np.nan


def tuned_steps(optimizer, batch_size, most):
    """Return the fewest over rates around those predicted."""
    lrs = optimizer.lr * np.array([0.3, 0.5, 0.7, 0.85, 1, 1.2, 1.4])
    return np.nanmin(
        [
            measured_steps(
                Optimizer(
                    name=optimizer.name,
                    lr=lr,
                    momentum=optimizer.momentum,
                    ema_decay=optimizer.ema_decay,
                ),
                batch_size,
                most,
            )
            for lr in lrs
        ]
    )


# 4) predicted from noise at the start and at the target, against what happened
problems = {
    where: from_measurements(
        nodes=curvatures,
        weights=np.ones_like(curvatures),
        noise=noise_at(place),
        initial_second_moments=start**2,
        irreducible_loss=least,
    ).problem
    for where, place in (("start", start), ("target", halfway(0.1)))
}
# One run of a few dozen steps can repair a noise measured in the wrong place.
run = Optimizer(name="sgd", lr=0.2)
losses = train(run, 16, 60)
curve = LossCurve(
    optimizer=run,
    batch_size=16,
    steps=range(1, len(losses) + 1),
    losses=losses,
)
level = fit_levels_to_curves(problems["start"], [curve], free=["noise"])
problems["one run"] = level.problem
print(f"noise at the start, calibrated on one run: {level}")

sizes = [1, 4, 16, 64, 256]
found = {}
for name in ("sgd", "momentum", "ema"):
    found[name] = {
        where: predict_steps(problem, name, sizes, target)
        for where, problem in problems.items()
    }
    cells = found[name]["target"].cells
    same = [
        measured_steps(cell.optimizer, int(cell.batch_size), 4 * cell.steps)
        for cell in cells
    ]
    best = [
        tuned_steps(cell.optimizer, int(cell.batch_size), 4 * cell.steps)
        for cell in cells
    ]
    found[name]["same"], found[name]["best"] = np.array(same), np.array(best)
    print(f"\n{name:9}   predicted from noise        trained at")
    print("    batch   at start one run at target  these settings  the best lr")
    for place, size in enumerate(sizes):
        guesses = [found[name][x].steps[place] for x in ("start", "one run", "target")]
        print(
            f"{size:9} {guesses[0]:10.0f} {guesses[1]:7.0f} {guesses[2]:9.0f}"
            f" {same[place]:15.0f} {best[place]:12.0f}"
        )
print(f"\nSGD:\n{found['sgd']['target']}\n\nEMA:\n{found['ema']['target']}")

# 5) three panels: where the model is right, and where it is not
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
figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.2), sharey=True)
blue, orange, grey = "#2f6db3", "#d1722b", "#8a8f98"
titles = ["SGD", "momentum", "EMA: a rate too bold here"]
for axes, steps, title in zip(panels, found.values(), titles, strict=True):
    axes.loglog(sizes, steps["start"].steps, "--", color=grey, lw=1)
    axes.loglog(sizes, steps["target"].steps, color=blue)
    axes.loglog(sizes, steps["best"], "o", ms=4, color=orange)
    axes.set(title=title, xlabel="batch size, examples")
panels[0].set_ylabel("steps to the target")
panels[0].legend(
    ["noise as at the start", "noise as at the target", "trained, best lr"],
    frameon=False,
    fontsize=8,
)

# 6) the file, the same bytes each time
figure.tight_layout()
figure.savefig(picture, metadata={"Date": None})
