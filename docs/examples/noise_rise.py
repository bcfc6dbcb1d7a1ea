"""Print how far the noise scale rises within runs, and where they begin on average.

.venv/bin/python docs/examples/noise_rise.py RESULT.json ...

A RESULT is what `./run noise --json` prints. An average over several runs is that of
the two moments, divided last, with the scatter between runs for its interval.
"""

import json
import sys
from pathlib import Path

from rightbatch.noise_scale import GradientMoments, MomentAverage

results = [json.loads(Path(name).read_text("utf-8")) for name in sys.argv[1:]]


def number(value):
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def told(scale):
    high = "∞" if scale["high"] is None else number(scale["high"])
    return f"{number(scale['value'])} ({number(scale['low'])}–{high})"


# 1) each run: its first window, the lowest that is resolved, the last
rows, firsts = [], MomentAverage()
for result in results:
    first, *later = [row for row in result["measurements"] if row["step"]]
    moments = GradientMoments(
        grad_sq_norm=first["grad_sq_norm"], grad_variance=first["grad_variance"]
    )
    firsts = firsts.add(moments, examples=first["examples"])
    known = [row for row in later if row["status"] == "resolved"]
    if not known:
        continue
    scales = [row["simple_noise_scale"] for row in (first, *known)]
    values = [scale["value"] for scale in scales]
    given = result["inputs"]
    rows.append(
        (
            *(str(given[name]) for name in ("batch_size", "lr", "seed")),
            told(scales[0]),
            told(min(scales[1:], key=lambda scale: scale["value"])),
            told(scales[-1]),
            f"{known[-1]['loss']:.3f}",
            f"{values[-1] / values[0]:.1f}×",
            f"{values[-1] / min(values[1:]):.1f}×",
        )
    )
heads = (
    "batch",
    "lr",
    "seed",
    "first",
    "lowest",
    "last",
    "at loss",
    "rise",
    "from low",
)
widths = (5, 3, 4, 16, 17, 15, 7, 5, 8)
for row in [heads, *rows] if rows else []:
    print(" ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)))

# 2) the first windows together, where no more than the seed differs
same = ("workload", "batch_size", "lr", "unit_sizes")
kinds = {str([result["inputs"][name] for name in same]) for result in results}
if len(results) > 1 and len(kinds) == 1:
    print(f"first windows of {len(results)} runs: {firsts.noise_scale()}")
