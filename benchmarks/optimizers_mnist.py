"""SGD, momentum, Adam and K-FAC against batch size, with averaged weights and without.

    python benchmarks/optimizers_mnist.py --data-dir DATA [--out optimizers.jsonl]
        [--workload shakespeare] [--only sgd:16,64] [--report]

The message of Zhang et al. (2019), figure 5, on a network small enough for one core:
MNIST at half its size (2 x 2 means, 14 x 14), conv5 1 -> 8, pool 2/2, conv3 8 -> 16,
144 -> 32 -> 10: 6,346 parameters, a narrow form of the paper's simple CNN. Steps to a
training loss of .15 on 1,000 fixed images, smoothed.

Each optimizer is tuned at each batch size by quasi-random search, eight trials on one
seed, twice from the same trials: for the weights themselves, and for the best of
five averages. Averaging does not change training, so one run tells of all. Where the
best trial lies at an edge, the space is moved and four more are made, twice at most.
The best settings are then run with three fresh seeds, whose mean is reported; where
one of them does not arrive, luck had chosen, and the next best are taken. While
tuning, a run is given up at 1.3 times the steps of the best so far of its cell.

With --workload shakespeare: the small transformer on tiny Shakespeare to a training
loss of 2.5 nats a byte on 64 fixed sequences; SGD, momentum and Adam at three batch
sizes, six trials, three averages. Runs are kept in the file of --out as they finish; a
second call goes on from them. --only runs a part; --report runs nothing more.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer
from torch.utils.data import Subset, TensorDataset

from rightbatch.experiments.crossing import Crossing, grid_step
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.optimizers.ema import AveragedWeights
from rightbatch.experiments.optimizers.kfac import Kfac, KfacSettings
from rightbatch.experiments.quasi_random import (
    Axis,
    SearchResult,
    Trial,
    quasi_random_points,
    quasi_random_search,
)
from rightbatch.experiments.randomness import OwnRandomness
from rightbatch.experiments.workloads import mnist
from rightbatch.experiments.workloads.classification import seeded
from rightbatch.sampler import ExampleStream
from rightbatch.workload import Target, Workload, load_workload

TUNING_SEED, FRESH_SEEDS = 0, (1, 2, 3)
MOVES, GIVE_UP = 2, 1.3
DECAYS = (0.8, 0.92, 0.97, 0.99, 0.996)
WEIGHTS = "weights"  # the weights themselves, beside the averages

Point = Mapping[str, float]


# 1) Problems --------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    workload: Workload
    batch_sizes: tuple[int, ...]
    optimizers: tuple[str, ...]
    max_steps: Callable[[int], int]
    num_trials: int = 8
    decays: tuple[float, ...] = DECAYS
    lr_scale: float = 1.0
    gate: float = 3.0  # times the target: checks begin there
    near: float = 1.3  # times the target: every grid point is checked from there
    evaluation: Evaluation = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluation", Evaluation(self.workload))


def _net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(144, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def mnist_problem(data_dir: Path | None) -> Problem:
    whole = mnist.lenet_small(data_dir)
    halved = [
        TensorDataset(functional.avg_pool2d(images, 2), labels)
        for images, labels in (whole.train.tensors, whole.evaluate_on.tensors)
    ]
    workload = replace(
        whole,
        name="mnist-narrow-cnn",
        model=seeded(_net),
        train=halved[0],
        evaluate_on=TensorDataset(*halved[1][:1000]),
        target=Target(value=0.15),
    )
    return Problem(
        workload,
        batch_sizes=(16, 64, 256, 1024, 4096),
        optimizers=("sgd", "momentum", "adam", "kfac"),
        max_steps=lambda size: 600 + 200_000 // size,
    )


def shakespeare_problem(data_dir: Path | None) -> Problem:
    workload = load_workload("shakespeare-transformer", data_dir)
    some = Subset(workload.evaluate_on, range(min(64, len(workload.evaluate_on))))
    return Problem(
        replace(workload, evaluate_on=some, target=Target(value=2.5)),
        batch_sizes=(4, 16, 64),
        optimizers=("adam", "momentum", "sgd"),
        max_steps=lambda size: 400 + 8_000 // size,
        num_trials=6,
        decays=(0.92, 0.97, 0.99),
        lr_scale=5.0,
        gate=1.15,
        near=1.03,
    )


# 2) Optimizers, and where they are searched -------------------------------------------


def space(name: str, batch_size: int, scale: float) -> dict[str, Axis]:
    """Around rules of thumb; what lies at an edge is moved."""
    root = (batch_size / 16) ** 0.5
    left = Axis(low=0.03, high=0.5, most=1.0)
    if name == "sgd":
        return {"lr": _around(scale * min(0.1 * root, 0.6), 5)}
    if name == "momentum":
        # Tuned as lr / (1 - momentum), what a gradient moves the weights by in all.
        return {"effective_lr": _around(scale * min(0.1 * root, 2), 5), "left": left}
    if name == "adam":
        return {"lr": _around(min(0.003 * root**0.5, 0.02), 5), "left": left}
    # A squared step in the Fisher metric, and the rate where steps are shorter.
    return {"lr": _around(min(0.15 * root, 1), 6), "clip": Axis(low=0.003, high=0.3)}


def _around(center: float, factor: float) -> Axis:
    return Axis(low=center / factor, high=center * factor)


def made(name: str, model: nn.Module, point: Point) -> Optimizer:
    if name == "sgd":
        return SGD(model.parameters(), lr=point["lr"])
    if name == "momentum":
        left = point["left"]
        lr = point["effective_lr"] * left
        return SGD(model.parameters(), lr=lr, momentum=1 - left)
    if name == "adam":
        betas = (1 - point["left"], 0.999)
        return Adam(model.parameters(), lr=point["lr"], betas=betas)
    settings = KfacSettings(clip=point["clip"], damping=0.03, momentum=0.5)
    return Kfac(model, point["lr"], settings)


# 3) One run ---------------------------------------------------------------------------


class Checks:
    """The traces of the weights and of their averages, and where they crossed."""

    def __init__(self, problem: Problem, model: nn.Module) -> None:
        self.problem, self.model = problem, model
        self.target = problem.workload.target.value
        self.crossing = Crossing()
        self.averages = {
            str(decay): AveragedWeights(model, decay) for decay in problem.decays
        }
        self.traces: dict[str, list[tuple[int, float]]] = {WEIGHTS: []}
        self.traces |= {name: [] for name in self.averages}
        self.steps: dict[str, int] = {}

    def check(self, step: int, index: int) -> None:
        for name, trace in self.traces.items():
            # The first average to arrive is the best one: the others may rest.
            done = name in self.steps or (name != WEIGHTS and self.averaged)
            far = trace and trace[-1][1] > self.problem.near * self.target
            if done or (far and index % 3):
                continue
            trace.append((step, self._value(name)))
            for at, value in self.crossing.completed(trace[-5:]):
                if value <= self.target and name not in self.steps:
                    self.steps[name] = at

    def _value(self, name: str) -> float:
        if name == WEIGHTS:
            return self.problem.evaluation.value(self.model)
        with self.averages[name].in_use():
            return self.problem.evaluation.value(self.model)

    @property
    def averaged(self) -> int | None:
        """Steps of the average that arrived first."""
        return min((s for n, s in self.steps.items() if n != WEIGHTS), default=None)


def run(
    problem: Problem, name: str, size: int, point: Point, seed: int, caps: list[float]
) -> dict[str, Any]:
    """Train until the weights and an average are there, or past their caps."""
    begin, workload = time.process_time(), problem.workload
    model = workload.model(seed)
    optimizer = made(name, model, point)
    checks = Checks(problem, model)
    stream = ExampleStream(workload.train, 1000 + seed, collate=workload.collate)
    step, index, is_open, running = 0, 0, False, math.inf
    with OwnRandomness(seed).in_use():
        while math.isfinite(running) or step == 0:
            stop = grid_step(index := index + 1)
            losses: list[torch.Tensor] = []
            while step < stop:
                optimizer.zero_grad()
                loss = workload.loss(model, stream.next(size)).mean()
                loss.backward()
                optimizer.step()
                for average in checks.averages.values():
                    average.update()
                losses.append(loss.detach())
                step += 1
            last = float(torch.stack(losses).mean())
            running = last if step <= 20 else 0.8 * running + 0.2 * last
            is_open = is_open or running <= problem.gate * checks.target
            if is_open:
                checks.check(step, index)
            own, averaged = checks.steps.get(WEIGHTS), checks.averaged
            # The window of a crossing ends 5 % after it.
            if (own or step > 1.06 * caps[0]) and (averaged or step > 1.06 * caps[1]):
                break
    return {
        "steps": checks.steps,
        "last_step": step,
        "loss": running if math.isfinite(running) else None,
        "seconds": round(time.process_time() - begin, 2),
    }


# 4) Tuning, and fresh seeds -----------------------------------------------------------


def own_steps(found: dict[str, Any]) -> float:
    return found["steps"].get(WEIGHTS, math.inf)


def averaged_steps(found: dict[str, Any]) -> float:
    steps = [s for name, s in found["steps"].items() if name != WEIGHTS]
    return min(steps, default=math.inf)


READINGS = {"off": own_steps, "on": averaged_steps}


class Kept:
    """The runs of a file, and those made now, which are added to it at once."""

    def __init__(self, path: Path, *, report: bool) -> None:
        self.path, self.report = path, report
        self.runs: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                self.runs |= json.loads(line)

    def get(self, key: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if key not in self.runs:
            if self.report:
                raise LookupError(f"{key} was not run")
            found = self.runs[key] = make()
            with self.path.open("a") as lines:
                lines.write(json.dumps({key: found}) + "\n")
            print(key, found["steps"], f"{found['seconds']} s", flush=True)
        return self.runs[key]


class Cell:
    """An optimizer at a batch size."""

    def __init__(self, problem: Problem, kept: Kept, name: str, size: int) -> None:
        self.problem, self.kept, self.name, self.size = problem, kept, name, size
        self.best = dict.fromkeys(READINGS, math.inf)

    def trial(self, point: Point, seed: int = TUNING_SEED) -> dict[str, Any]:
        said = ",".join(f"{key}={value:.6g}" for key, value in point.items())
        key = f"{self.problem.workload.name}|{self.name}|{self.size}|{said}|{seed}"
        factor, most = GIVE_UP, self.problem.max_steps(self.size)
        if seed != TUNING_SEED:
            factor, most = 3.0, 2 * most
        caps = [min(factor * self.best[kind], most) for kind in READINGS]
        found = self.kept.get(
            key,
            lambda: run(self.problem, self.name, self.size, point, seed, caps),
        )
        if seed == TUNING_SEED:
            for kind, steps in READINGS.items():
                self.best[kind] = min(self.best[kind], steps(found))
        return found

    def tuned(self) -> dict[str, SearchResult]:
        axes = space(self.name, self.size, self.problem.lr_scale)
        # The middle first: it sets the caps for what lies further out.
        points = quasi_random_points(axes, self.problem.num_trials, seed=self.size)
        for point in sorted(points, key=lambda one: _from_middle(one, axes)):
            self.trial(point)
        return {
            kind: quasi_random_search(
                lambda point, steps=steps: steps(self.trial(point)),
                axes,
                num_trials=self.problem.num_trials,
                seed=self.size,
                max_moves=MOVES,
            )
            for kind, steps in READINGS.items()
        }

    def measured(self) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for kind, search in self.tuned().items():
            taken, found = self._arriving(search, READINGS[kind])
            if taken is None:
                continue
            rows[kind] = {
                "optimizer": self.name,
                "ema": kind,
                "batch_size": self.size,
                "steps": [READINGS[kind](one) for one in found],
                "tuned_steps": taken.value,
                "settings": dict(taken.point),
                "is_best": taken is search.best,
                "decays": [_first(one) for one in found] if kind == "on" else [],
                "is_interior": search.is_interior,
                "edges": dict(search.edges),
                "num_trials": len(search.trials),
            }
        return rows

    def _arriving(
        self, search: SearchResult, steps: Callable[[dict[str, Any]], float]
    ) -> tuple[Trial | None, list[dict[str, Any]]]:
        """Return the best trial that arrives with every fresh seed, and its runs."""
        for trial in sorted(search.trials, key=lambda one: one.value):
            if math.isfinite(trial.value):
                found = [self.trial(trial.point, seed) for seed in FRESH_SEEDS]
                if all(math.isfinite(steps(one)) for one in found):
                    return trial, found
        return None, []


def _from_middle(point: Point, axes: Mapping[str, Axis]) -> float:
    return max(
        abs(math.log(point[name] / axis.at(0.5)) / math.log(axis.high / axis.low))
        for name, axis in axes.items()
    )


def _first(found: dict[str, Any]) -> str:
    steps = {name: s for name, s in found["steps"].items() if name != WEIGHTS}
    return min(steps, key=steps.__getitem__, default="-")


# 5) The table -------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("optimizers.jsonl"))
    parser.add_argument("--workload", choices=PROBLEMS, default="mnist")
    parser.add_argument("--only", help="sgd:16,64 for instance")
    parser.add_argument("--report", action="store_true", help="run nothing more")
    args = parser.parse_args()
    torch.set_num_threads(1)
    problem = PROBLEMS[args.workload](args.data_dir)
    kept = Kept(args.out, report=args.report)
    rows: list[dict[str, Any]] = []
    for name, size in wanted(problem, args.only):
        try:
            rows += Cell(problem, kept, name, size).measured().values()
        except LookupError as missing:
            print(missing, file=sys.stderr)
    show(rows)
    seconds = sum(found["seconds"] for found in kept.runs.values())
    print(f"{len(kept.runs)} runs, {seconds:,.0f} CPU seconds")
    args.out.with_suffix(".table.json").write_text(json.dumps(rows, indent=1))
    return 0


def wanted(problem: Problem, only: str | None) -> list[tuple[str, int]]:
    names, sizes = problem.optimizers, problem.batch_sizes
    if only:
        chosen, _, listed = only.partition(":")
        names = tuple(chosen.split("+"))
        sizes = tuple(map(int, listed.split(","))) if listed else sizes
    # The cheap batch sizes first: an interrupted call then has most of the cells.
    return [(name, size) for size in sizes for name in names]


def show(rows: list[dict[str, Any]]) -> None:
    print(f"{'optimizer':10s}{'ema':>4s}{'batch':>7s}{'steps':>8s}  seeds; settings")
    for row in sorted(rows, key=lambda one: (one["optimizer"], one["ema"])):
        settings = ", ".join(f"{k} {v:.3g}" for k, v in row["settings"].items())
        decays = "/".join(row["decays"])
        edge = "" if row["is_interior"] else f"  EDGE {row['edges']}"
        edge += "" if row["is_best"] else "  not the best trial"
        print(
            f"{row['optimizer']:10s}{row['ema']:>4s}{row['batch_size']:7d}"
            f"{fmean(row['steps']):8.0f}  {row['steps']}; {settings} {decays}"
            f" of {row['num_trials']}{edge}"
        )


PROBLEMS: dict[str, Callable[[Path | None], Problem]] = {
    "mnist": mnist_problem,
    "shakespeare": shakespeare_problem,
}

if __name__ == "__main__":
    sys.exit(main())
