"""Draw steps against batch size in the noisy quadratic model, and what laws make of it.

.venv/bin/python docs/examples/theory_noisy_quadratic.py \
    docs/images/theory-noisy-quadratic.svg
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import EngFormatter, NullFormatter

from rightbatch.quadratic import NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import centroid_bins
from rightbatch.quadratic.bounds import bayes_steps
from rightbatch.quadratic.choices import POWERS
from rightbatch.quadratic.curves import BATCH_SIZES, fit_curve, steps_curve
from rightbatch.quadratic.noise_scales import scales_along

picture = Path(sys.argv[1])
names = ("sgd", "momentum", "ema", "momentum+ema")
colours = dict(zip(names, ["#8a8f98", "#2f6db3", "#d1722b", "#3b9c7a"], strict=True))
problem = NoisyQuadratic(spectrum=centroid_bins(Spectrum.inverse(10_000)))

# 1) curves of four optimizers at four powers, and the inverse law fitted to each
fits = {
    (name, power): fit_curve(
        steps_curve(problem.with_power(power), name, BATCH_SIZES, 0.01)
    )
    for name in names
    for power in POWERS
}

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
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6))

# 3) steps without preconditioning, the law dashed, and what nothing can beat
grid = np.geomspace(BATCH_SIZES[0], BATCH_SIZES[-1], 200)
for name in names:
    fit = fits[name, 0.0]
    left.loglog(BATCH_SIZES, fit.curve.steps, color=colours[name], label=name)
    left.loglog(grid, fit.inverse.steps(grid), "--", color=colours[name], lw=0.8)
bound = [bayes_steps(problem, size, 0.01) for size in BATCH_SIZES]
left.loglog(BATCH_SIZES, bound, ":", color="black", lw=1, label="Bayes bound")
left.legend(frameon=False, fontsize=8)
left.set(
    title="steps, and the inverse law (dashed)",
    xlabel="batch size, examples",
    ylabel="steps to the target",
    ylim=(50, 3e6),
)

# 4) where the law is off: at its corner, for every optimizer and power
for (name, _), fit in fits.items():
    place = np.array(BATCH_SIZES) / fit.critical_batch_size
    middle.semilogx(place, 100 * fit.errors(), color=colours[name], lw=0.8)
middle.axhline(0, color="black", lw=0.5)
middle.set(
    title="error of the inverse law, %",
    xlabel="batch size over phi",
    xlim=(1e-3, 1e3),
)

# 5) phi against what a meter reads in the last step of the run at about phi
for (name, power), fit in fits.items():
    phi = fit.critical_batch_size
    cell = min(fit.curve.cells, key=lambda one: abs(np.log(one.batch_size / phi)))
    along = scales_along(
        problem.with_power(power), cell.optimizer, cell.batch_size, cell.steps
    )
    right.loglog(along.target.simple, phi, "o", color=colours[name], ms=3 + 6 * power)
both = np.array([0.1, 3e5])
right.loglog(both, both, color="black", lw=0.5)
right.set(
    title="phi, and the noise scale at the target",
    xlabel="tr Sigma / |G|², examples",
    ylabel="phi, examples",
)
for axes in (left, right):
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(EngFormatter(sep=""))
        axis.set_minor_formatter(NullFormatter())

# 6) the file, the same bytes each time
figure.tight_layout()
figure.savefig(picture, metadata={"Date": None})
