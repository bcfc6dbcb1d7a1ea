"""Draw where the noise scale comes from, how it settles, and what short cuts read.

.venv/bin/python docs/examples/theory_noise_scale.py docs/images/theory-noise-scale.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter

from rightbatch.noise_scale import MomentAverage, unit_moments

target = Path(sys.argv[1])

# 1) gradients of 20 directions: |G|^2 = 1, tr Sigma = 500, so a noise scale of 500
generator = np.random.default_rng(7)
phi, dims = 500.0, 20
mean = np.full(dims, dims**-0.5)


def draw_units(num_steps, num_units, examples):
    """Return mean gradients of units, shape (steps, R, d)."""
    noise = generator.standard_normal((num_steps, num_units, dims))
    return mean + noise * np.sqrt(phi / dims / examples)


def sq_norm(vectors):
    return (vectors**2).sum(-1)


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
figure, (line, settling, cap) = plt.subplots(1, 3, figsize=(11.5, 3.6))
blue, orange, grey = "#2f6db3", "#d1722b", "#888888"

# 3) the squared norm of a mean gradient is a line in 1/b; units and batch are two of it
inverse = np.linspace(0, 1 / 24, 50)
line.plot(inverse, 1 + phi * inverse, color=blue)
for examples, name in ((32, "a unit of 32: A"), (256, "the batch of 256: M")):
    draws = sq_norm(draw_units(60, 1, examples)[:, 0])
    line.plot(
        np.full(draws.size, 1 / examples), draws, ".", ms=3, color=grey, alpha=0.4
    )
    height = 1 + phi / examples
    line.plot(1 / examples, height, "o", color=orange)
    line.annotate(
        name,
        (1 / examples, height),
        xytext=(-8, 6) if examples == 32 else (10, -6),
        textcoords="offset points",
        ha="right" if examples == 32 else "left",
        color=orange,
    )
line.plot(0, 1, "o", color=blue, clip_on=False)
line.annotate("|G|²", (0, 1), xytext=(7, -12), textcoords="offset points", color=blue)
line.set(
    title="Two norms tell the line",
    xlabel="1/examples",
    ylabel="squared norm of a mean gradient",
    xlim=(0, 1 / 24),
    ylim=(-3, 40),
)
line.text(0.011, 9.5, "slope tr Σ", color=blue, rotation=29)

# 4) how the ratio of averages settles, and the mean of ratios does not
average, ratios, rows = MomentAverage(), [], []
for units in draw_units(200, 8, 16):
    moments = unit_moments(sq_norm(units), float(sq_norm(units.mean(0))), 16)
    average = average.add(moments, 128)
    ratios.append(moments.grad_variance / moments.grad_sq_norm)
    found = average.noise_scale()
    high = np.inf if found.interval.high is None else found.interval.high
    value = np.nan if found.interval.value is None else found.interval.value
    rows.append((value, found.interval.low, high, np.mean(ratios)))
value, low, high, mean_of_ratios = np.array(rows).T
steps = np.arange(1, len(rows) + 1)
settling.axhline(phi, color=grey, lw=0.8, ls=":")
settling.fill_between(
    steps, np.maximum(low, 1), np.minimum(high, 1e5), color=blue, alpha=0.15, lw=0
)
settling.plot(steps, value, color=blue, label="ratio of averages, 95 %")
settling.plot(
    steps,
    np.where(mean_of_ratios > 0, mean_of_ratios, np.nan),
    color=orange,
    lw=1,
    label="mean of ratios",
)
settling.set(
    title="Average first, divide last",
    xlabel="updates of 128 examples",
    ylabel="noise scale, examples",
    yscale="log",
    xlim=(1, 200),
    ylim=(40, 20_000),
)
settling.yaxis.set_major_formatter(EngFormatter(sep=""))
settling.legend(frameon=False, loc="upper right")

# 5) what short cuts read at each batch size, and 30 updates without bias
sizes = 2.0 ** np.arange(3, 14)
cap.loglog(sizes, sizes, color=grey, lw=0.8, ls=":")
cap.text(20, 32, "the batch itself", color=grey, rotation=38, fontsize=8)
cap.loglog(sizes, phi * sizes / (phi + sizes), color=orange, label="with |g|² for |G|²")
for batch_size in 2.0 ** np.arange(4, 13, 2):
    average = MomentAverage()
    for units in draw_units(30, 8, batch_size / 8):
        moments = unit_moments(
            sq_norm(units), float(sq_norm(units.mean(0))), batch_size / 8
        )
        average = average.add(moments, batch_size)
    found = average.noise_scale()
    high = found.interval.high
    if high is None:
        cap.annotate(
            "",
            (batch_size, 9000),
            (batch_size, found.lower_bound),
            arrowprops={"arrowstyle": "->", "color": blue},
        )
        cap.plot(batch_size, found.lower_bound, "_", color=blue)
        continue
    cap.plot([batch_size] * 2, [found.interval.low, high], color=blue)
    cap.plot(batch_size, found.interval.value, "o", ms=4, color=blue)
cap.plot([], [], "o-", ms=4, color=blue, label="30 updates; arrow: at least")
cap.axhline(phi, color=grey, lw=0.8)
cap.set(
    title="A short cut reads no more than B",
    xlabel="batch size, examples",
    ylabel="noise scale read, examples",
    ylim=(5, 12_000),
)
cap.xaxis.set_major_formatter(EngFormatter(sep=""))
cap.yaxis.set_major_formatter(EngFormatter(sep=""))
cap.legend(frameon=False, loc="lower right")

# 6) one file, without a date
figure.tight_layout()
target.parent.mkdir(parents=True, exist_ok=True)
figure.savefig(target, metadata={"Date": None})
