"""Print which choices matter at which batch sizes, and phi on the published bins.

.venv/bin/python docs/examples/noisy_quadratic_choices.py
"""

from rightbatch.quadratic import NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import centroid_bins, published_bins
from rightbatch.quadratic.choices import CHOICES, POWERS, compare_choices
from rightbatch.quadratic.curves import BATCH_SIZES

standard = Spectrum.inverse(10_000)

# 1) the table, on 84 nodes that keep the trace
problem = NoisyQuadratic(spectrum=centroid_bins(standard))
print(compare_choices(problem, CHOICES, POWERS, BATCH_SIZES, 0.01))

# 2) phi on the bins of the published code, which round curvatures down
problem = NoisyQuadratic(spectrum=published_bins(standard))
table = compare_choices(problem, CHOICES, POWERS, BATCH_SIZES, 0.01)
print("\nphi on the published bins\n" + f"{'power':13}", end="")
print("".join(f"{power:>9g}" for power in POWERS))
for name in CHOICES:
    fits = [table.row(name, power).fit for power in POWERS]
    print(f"{name:13}" + "".join(f"{fit.critical_batch_size:>9.3g}" for fit in fits))
