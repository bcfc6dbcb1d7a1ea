"""What the runs of optimizers_mnist.py say, and what the noisy quadratic model says.

    python benchmarks/optimizers_verdict.py RUNS.table.json ... [--figure FILE.svg]
        [--data-dir DATA]

Of each optimizer, with averaged weights and without, the law fitted to the fresh seeds
and its critical batch size; then the claims of Zhang et al. (2019), figure 5, each with
the numbers that bear on it. With --data-dir the noisy quadratic's prediction beside
them: the Gauss-Newton spectrum of the narrow CNN and the noise along it, measured part
of the way, optimizers tuned in the model at each batch size; preconditioning of power
.5 stands for Adam and K-FAC, which the model does not hold.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.nn import functional
from torch.optim import SGD

from rightbatch.convergence import ConvergenceFit, fit_convergence
from rightbatch.curvature import (
    OutputLoss,
    gauss_newton,
    in_units,
    lanczos_spectrum,
    unit_gradients,
)
from rightbatch.quadratic.measured import from_measurements
from rightbatch.quadratic.prediction import predict_steps

Curve = dict[int, list[float]]
NAMES = ("sgd", "momentum", "adam", "kfac")
WARM_UP, SPECTRUM_IMAGES, NOISE_IMAGES = 150, 2000, 500
MODEL_POWERS = (0.0, 0.5)
MODEL_OPTIMIZERS = ("sgd", "ema", "momentum", "momentum+ema")


# 1) What was measured -----------------------------------------------------------------


def curves(paths: list[Path]) -> dict[tuple[str, str], Curve]:
    """Return steps of the fresh seeds by optimizer, average and batch size."""
    found: dict[tuple[str, str], Curve] = {}
    for path in paths:
        for row in json.loads(path.read_text()):
            steps = [float(s) for s in row["steps"] if math.isfinite(float(s))]
            if steps:
                key = (row["optimizer"], row["ema"])
                found.setdefault(key, {})[row["batch_size"]] = steps
    return {key: dict(sorted(curve.items())) for key, curve in found.items()}


def fitted(curve: Curve) -> ConvergenceFit | None:
    if len(curve) < 3:
        return None
    pairs = [(size, s) for size, steps in curve.items() for s in steps]
    return fit_convergence(*map(list, zip(*pairs, strict=True)))


def show_fits(found: dict[tuple[str, str], Curve]) -> dict[tuple[str, str], float]:
    sizes = sorted({size for curve in found.values() for size in curve})
    head = "".join(f"{size:>8,d}" for size in sizes)
    print(
        f"{'optimizer':10s}{'ema':>4s}{head}  critical batch size (90 %), law, status"
    )
    critical: dict[tuple[str, str], float] = {}
    for name in NAMES:
        for ema in ("off", "on"):
            if (name, ema) not in found:
                continue
            curve = found[name, ema]
            cells = "".join(
                f"{fmean(curve[size]):8,.0f}" if size in curve else f"{'-':>8s}"
                for size in sizes
            )
            fit, said = fitted(curve), "too few batch sizes"
            if fit:
                one = fit.critical_batch_size
                critical[name, ema] = one.value
                high = "unbounded" if one.high is None else f"{one.high:,.0f}"
                said = f"{one.value:,.0f} ({one.low or 0:,.0f} to {high}), "
                said += f"{fit.law.name}, {fit.status}"
            print(f"{name:10s}{ema:>4s}{cells}  {said}")
    return critical


# 2) The claims ------------------------------------------------------------------------


def show_claims(
    found: dict[tuple[str, str], Curve], critical: dict[tuple[str, str], float]
) -> None:
    own = [name for name in NAMES if (name, "off") in critical]
    ordered = [critical[name, "off"] for name in own]
    print("\ncritical batch size, weights themselves: ", end="")
    print(
        " < ".join(f"{n} {c:,.0f}" for n, c in zip(own, ordered, strict=True)), end=""
    )
    print(
        ": " + ("in this order" if ordered == sorted(ordered) else "NOT in this order")
    )
    for name in NAMES:
        if (name, "on") not in found or (name, "off") not in found:
            continue
        off, on = found[name, "off"], found[name, "on"]
        ratios = [
            f"{size:,d}: {fmean(on[size]) / fmean(off[size]):.2f}"
            for size in off
            if size in on
        ]
        print(f"averages, steps over those of the weights, {name}: {', '.join(ratios)}")
    if ("sgd", "off") in found:
        for name in NAMES[1:]:
            if (name, "off") not in found:
                continue
            base, other = found["sgd", "off"], found[name, "off"]
            ratios = [
                f"{size:,d}: {fmean(other[size]) / fmean(base[size]):.2f}"
                for size in base
                if size in other
            ]
            print(f"steps over SGD's, {name}: {', '.join(ratios)}")


# 3) The noisy quadratic ---------------------------------------------------------------


def predicted(data_dir: Path, sizes: list[int]) -> dict[str, list[float]]:
    from optimizers_mnist import mnist_problem

    torch.manual_seed(0)
    problem = mnist_problem(data_dir)
    workload = problem.workload
    images, labels = workload.train.tensors
    model = workload.model(0)
    sgd = SGD(model.parameters(), lr=0.2)
    for _ in range(WARM_UP):
        places = torch.randint(len(labels), (64,))
        sgd.zero_grad()
        workload.loss(model, (images[places], labels[places])).mean().backward()
        sgd.step()
    model = model.double()
    loss = OutputLoss(
        outputs=lambda model, batch: model(batch[0]),
        loss_of_outputs=lambda outputs, batch: functional.cross_entropy(
            outputs, batch[1], reduction="none"
        ),
    )

    def drawn(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        places = torch.randint(len(labels), (count,))
        return images[places].double(), labels[places]

    product = gauss_newton(model, loss, [drawn(SPECTRUM_IMAGES)])
    units = unit_gradients(model, loss, in_units(drawn(NOISE_IMAGES)))
    spectrum = lanczos_spectrum(product, num_steps=40, num_probes=2, units=units)
    print(f"\nspectrum after {WARM_UP} updates: {spectrum}")
    start = loss(model, drawn(SPECTRUM_IMAGES)).mean().item()
    measured = from_measurements(
        nodes=spectrum.nodes,
        weights=spectrum.weights,
        noise=spectrum.noise,
        initial_second_moments=spectrum.grad_sq.clip(0) / spectrum.nodes**2,
        initial_loss=start,
        drop_below=1e-3,
    )
    target = workload.target.value
    print(f"left out: {measured.left_out}; loss {start:.3f} there, to {target:g}")
    lines: dict[str, list[float]] = {}
    for power in MODEL_POWERS:
        held = measured.problem.with_power(power)
        for name in MODEL_OPTIMIZERS:
            steps = predict_steps(held, name, sizes, target).steps.tolist()
            lines[f"{name}, power {power:g}"] = steps
    print("the noisy quadratic, tuned at each batch size")
    print(f"{'':26s}" + "".join(f"{size:>8,d}" for size in sizes) + "  critical")
    for name, steps in lines.items():
        fit = fit_convergence(sizes, steps)
        cells = "".join(f"{s:8,.0f}" for s in steps)
        print(f"{name:26s}{cells}{fit.critical_batch_size.value:10,.0f}")
    return lines


# 4) The figure ------------------------------------------------------------------------


def draw(
    found: dict[tuple[str, str], Curve],
    model: dict[str, list[float]],
    sizes: list[int],
    path: Path,
) -> None:
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
    figure, panels = plt.subplots(1, 2 if model else 1, figsize=(8.6, 3.9), sharey=True)
    panels = list(panels) if model else [panels]
    colors = dict(zip(NAMES, ("#7a7a7a", "#2f6db3", "#3a8f5c", "#d1722b"), strict=True))
    for (name, ema), curve in found.items():
        panels[0].plot(
            list(curve),
            [fmean(steps) for steps in curve.values()],
            "o-" if ema == "off" else "o--",
            mfc=colors[name] if ema == "off" else "white",
            color=colors[name],
            ms=4,
            label=name + (" + averages" if ema == "on" else ""),
        )
    looks = {"sgd": colors["sgd"], "momentum": colors["momentum"]}
    for label, steps in model.items():
        name, _, power = label.partition(", power ")
        base = "momentum" if name.startswith("momentum") else "sgd"
        panels[1].plot(
            sizes,
            steps,
            "--" if name.endswith("ema") else "-",
            color=looks[base],
            lw=1 if power == "0" else 2.2,
            label=label,
        )
    for panel, title in zip(panels, ("runs", "noisy quadratic"), strict=False):
        panel.set(xscale="log", yscale="log", title=title)
        panel.set_xticks(sizes, [f"{size:,d}" for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("batch size")
        panel.legend(frameon=False, fontsize=7)
    panels[0].set_ylabel("steps to the target")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--data-dir", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = curves(args.tables)
    critical = show_fits(found)
    show_claims(found, critical)
    sizes = sorted({size for curve in found.values() for size in curve})
    model: dict[str, list[Any]] = {}
    if args.data_dir:
        model = predicted(args.data_dir, sizes)
    if args.figure:
        draw(found, model, sizes, args.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
