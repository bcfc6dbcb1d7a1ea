"""The critical batch size from runs to a loss, beside the noise scale on the way there.

    python benchmarks/noise_vs_runs.py --store STORE.sqlite [--data-dir DATA]
        [--batch-size 256] [--seeds 3] [--json OUT.json] [--svg FILE]

The store is made by a sweep, as

    ./run sweep mnist-lenet-small --data-dir DATA --batch-sizes 8:1024:x2 \
        --lr .1,.2,.4,.8 --target .3,.2,.1 --seeds 3 --store STORE.sqlite

For each target of its runs: E_min/S_min fitted to the best learning rate of each batch
size, and tr(Sigma)/|G|^2 averaged over training runs that end at the same loss, at the
rate that the sweep found best for their batch. McCandlish et al. (2018) compare the
two in this way, and expect them to be about equal.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rightbatch.cli.calibration import calibrated_factor
from rightbatch.convergence import TunedFit, fit_tuned
from rightbatch.experiments.noise_record import NoiseMeasurement, run_average
from rightbatch.experiments.noise_run import NoiseRun
from rightbatch.experiments.noise_settings import (
    NoiseSettings,
    unit_sizes,
    window_ends,
)
from rightbatch.experiments.record import Run
from rightbatch.experiments.store import RunStore
from rightbatch.fitting import Interval
from rightbatch.workload import Workload, load_workload

MAX_STEPS, NUM_ROWS = 4000, 20


def fitted(runs: Sequence[Run], target: float) -> TunedFit:
    kept = [run for run in runs if target in run.targets]
    steps = [run.steps(target) for run in kept]
    return fit_tuned(
        [run.batch_size for run in kept],
        [math.nan if count is None else count for count in steps],
        [run.lr for run in kept],
    )


def noise_to(
    workload: Workload, target: float, batch_size: int, lr: float, seed: int
) -> tuple[list[NoiseMeasurement], str]:
    run = NoiseRun(
        workload,
        NoiseSettings(
            batch_size=batch_size,
            lr=lr,
            unit_sizes=unit_sizes(batch_size),
            seed=seed,
            max_steps=MAX_STEPS,
            target=target,
            window_ends=window_ends(MAX_STEPS, NUM_ROWS),
            dataset_size=len(workload.train),
        ),
    )
    run.advance()
    return run.measurements, str(run.status)


def compare(
    workload: Workload, runs: Sequence[Run], target: float, args: argparse.Namespace
) -> dict[str, Any]:
    tuned = fitted(runs, target)
    phi = tuned.fit.critical_batch_size
    lr = tuned.lr_at(args.batch_size) or 0.0
    rows: list[NoiseMeasurement] = []
    alone: list[float | None] = []
    for seed in range(args.seeds):
        found, status = noise_to(workload, target, args.batch_size, lr, seed)
        if status != "reached":
            print(f"  seed {seed}: {status}, left out", file=sys.stderr)
            continue
        # Windows of all seeds are independent of each other, as those of one are.
        rows += found
        one = run_average(found)
        alone.append(one and one.value)
    average = run_average(rows)
    ratio = None
    if average is not None and average.value and phi.value:
        ratio = calibrated_factor(phi, average)
    return {
        "target": target,
        "lr": lr,
        "status": tuned.fit.status,
        "phi": phi,
        "noise": average,
        "seeds": alone,
        "ratio": ratio,
        "edges": [one.batch_size for one in tuned.lrs if one.at_edge],
        "rows": [(row.examples, row.loss, row.reading.interval) for row in rows],
    }


def short(interval: Interval | None) -> str:
    if interval is None or interval.value is None:
        return "not known"
    low, high = interval.low, interval.high
    if high is None:
        return f"{interval.value:.3g} (>= {low or 0:.3g})"
    if low is None:
        return f"{interval.value:.3g} (<= {high:.3g})"
    return f"{interval.value:.3g} ({low:.3g} to {high:.3g})"


def show(found: dict[str, Any]) -> None:
    ratio = found["ratio"]
    print(
        f"{found['target']:>8g}{short(found['phi']):>26s}{short(found['noise']):>26s}"
        f"{short(ratio):>26s}{found['lr']:>7g}  {found['status']}",
        flush=True,
    )


def draw(all_found: list[dict[str, Any]], batch_size: int, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "svg.hashsalt": "rightbatch",
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    figure, panel = plt.subplots(figsize=(5.6, 3.8))
    hardest = min(all_found, key=lambda one: one["target"])
    seen = [(loss, i) for _, loss, i in hardest["rows"] if i.value and i.value > 0]
    panel.plot(
        [loss for loss, _ in seen],
        [i.value for _, i in seen],
        ".",
        color="#7a7a7a",
        label=f"noise scale in a window, batch {batch_size}",
    )
    for key, color, label in (
        ("noise", "#2f6db3", "its average to the loss"),
        ("phi", "#b03a48", "critical batch size from runs to the loss"),
    ):
        known = [(one["target"], one[key]) for one in all_found if one[key]]
        known = [(target, i) for target, i in known if i.value]
        panel.errorbar(
            [target for target, _ in known],
            [i.value for _, i in known],
            yerr=[
                [i.value - (i.low or 0.0) for _, i in known],
                [(i.high or i.value) - i.value for _, i in known],
            ],
            fmt="o",
            color=color,
            label=label,
        )
    panel.set(xscale="log", yscale="log", xlabel="training loss", ylabel="examples")
    panel.invert_xaxis()
    panel.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Interval) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with RunStore(args.store) as store:
        name, runs = store.identity.workload, store.runs()
    workload = load_workload(name, args.data_dir)
    targets = sorted({t for run in runs for t in run.targets}, reverse=True)
    begin = time.process_time()
    print(f"{name}: {len(runs)} runs; noise at batch {args.batch_size}")
    print(
        f"{'loss':>8s}{'critical batch, 90 %':>26s}{'noise scale, 95 %':>26s}", end=""
    )
    print(f"{'their ratio, 90 %':>26s}{'lr':>7s}  fit")
    found = []
    for target in targets:
        found.append(compare(workload, runs, target, args))
        show(found[-1])
    for one in found:
        values = ", ".join(f"{v:.3g}" if v else "-" for v in one["seeds"])
        edges = ", ".join(f"{size:g}" for size in one["edges"]) or "none"
        print(f"  to {one['target']:g}: noise of each seed {values};", end=" ")
        print(f"best lr at an edge of those tried at batch sizes: {edges}")
    print(f"{time.process_time() - begin:.0f} s of one core")
    if args.json:
        document = [
            {key: plain(value) for key, value in one.items() if key != "rows"}
            for one in found
        ]
        args.json.write_text(json.dumps(document), encoding="utf-8")
    if args.svg:
        draw(found, args.batch_size, args.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
