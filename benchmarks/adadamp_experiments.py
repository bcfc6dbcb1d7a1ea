"""Updates and epochs per damper: a convex problem, a linear network and digits.

    python benchmarks/adadamp_experiments.py --out FILE.jsonl [--seeds 3]
        [--only convex] [--rows 20000] [--report] [--svg docs/images/adadamp.svg]

*convex*: softmax regression on synthetic rows like covertype's, 20,000 of its 200,000
(--rows), Nesterov's momentum .9, lr .03; *linear*: the linear network, SGD at .0025;
*digits*: the 64-64-10 network, SGD at .8. On each a training loss is to be reached that
lies by some excess above the least there is, for three excesses. The learning rate is
the same for all but the constant small batch, which is run at smaller ones as well,
since at the whole rate it stalls in its noise.

The loss of the whole training set is looked at on the sweep's grid of updates, 2 %
apart, and smoothed as there. What a policy has evaluated is not counted in the epochs.

Runs are kept in the file of --out as they end; a second call goes on from them, and
--report only prints what is there.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from rightbatch.controller import BatchSizeController, MeanLoss, Sensing
from rightbatch.experiments.crossing import Crossing, grid_step
from rightbatch.experiments.workloads import digits
from rightbatch.experiments.workloads.covertype import covertype_softmax, least_loss
from rightbatch.experiments.workloads.linear_network import (
    least_losses,
    linear_network,
)
from rightbatch.policies import (
    AdaDamp,
    Clip,
    CntsDampLR,
    Constant,
    Dwell,
    FullBatch,
    GeoDamp,
    GeoDampLR,
    PadaDamp,
    RadaDamp,
    RoundTo,
)
from rightbatch.sampler import Loading, MicroBatchStream
from rightbatch.training import Until, train
from rightbatch.workload import Workload

SMOOTHED = Crossing(definition="smoothed", direction="min", gate=None)
SAME_ORDER = 10**0.5  # on either side: within half an order of magnitude

# 1) Problems and what is tried on each ------------------------------------------------


@dataclass(frozen=True)
class Problem:
    name: str
    workload: Workload
    least: float
    lr: float
    start: int  # of AdaDamp, PadaDamp and RadaDamp
    small: int  # the constant small batch, and where GeoDamp begins
    large: int
    excesses: tuple[float, ...]
    epochs: int  # of a batch that grows
    sgd_epochs: int
    shares: tuple[int, ...]  # of the rate, at the constant small batch
    # adadamp tunes these by search; here by hand, once, to grow as far as AdaDamp does.
    pada_rate: float
    geo_delay: float
    dwell: int
    full_steps: int = 4000

    def dampers(self) -> Iterator[tuple[str, Any, float]]:
        """Yield name, policy and learning rate."""
        start, small, lr = self.start, self.small, self.lr
        geo: dict[str, Any] = {
            "initial_batch_size": small,
            "factor": 2,
            "delay": self.geo_delay,
        }
        for share in self.shares:
            shown = f", lr/{share}" if share > 1 else ""
            yield f"SGD {small}{shown}", Constant(batch_size=small), lr / share
        yield f"SGD {self.large}", Constant(batch_size=self.large), lr
        yield f"GeoDampLR {small}", GeoDampLR(**geo), lr
        rate = self.pada_rate
        cnts = CntsDampLR(initial_batch_size=small, rate=rate)
        yield f"CntsDampLR {small}", cnts, lr
        ada = AdaDamp(initial_batch_size=start, best_loss=self.least)
        yield f"AdaDamp {start}", Dwell(ada, updates=self.dwell), lr
        yield f"PadaDamp {start}", PadaDamp(initial_batch_size=start, rate=rate), lr
        yield f"GeoDamp {small}", GeoDamp(**geo), lr
        rada = RadaDamp(initial_batch_size=start, dwell=20, wait=100, rho=0.2)
        yield f"RadaDamp {start}", rada, lr
        yield "full gradient", FullBatch(), lr


def problems(rows: int, only: str | None) -> Iterator[Problem]:
    if only in (None, "linear"):
        yield Problem(
            "linear",
            linear_network(),
            least_losses()[0],
            lr=0.0025,
            start=2,
            small=16,
            large=64,
            excesses=(1.0, 0.1, 0.01),
            epochs=60,
            sgd_epochs=10,
            shares=(1, 8, 32),
            pada_rate=0.5,
            geo_delay=5,
            dwell=1,
        )
    if only in (None, "digits"):
        yield Problem(
            "digits",
            digits.mlp(),
            0.0,
            lr=0.8,
            start=16,
            small=16,
            large=128,
            excesses=(0.3, 0.1, 0.03),
            epochs=100,
            sgd_epochs=40,
            shares=(1, 4),
            pada_rate=1.0,
            geo_delay=5,
            dwell=5,
        )
    if only in (None, "convex"):
        workload = covertype_softmax(rows)
        yield Problem(
            "convex",
            workload,
            least_loss(*workload.train.tensors),
            lr=0.03,
            start=64,
            small=64,
            large=1024,
            excesses=(0.2, 0.14, 0.07),
            epochs=40,
            sgd_epochs=25,
            shares=(1, 4, 16),
            full_steps=800,
            pada_rate=2.0,
            geo_delay=2,
            dwell=5,
        )


# 2) One run ---------------------------------------------------------------------------


def run(problem: Problem, policy: Any, lr: float, seed: int) -> dict[str, Any]:
    """Return updates and examples at each excess, None where it was not reached."""
    workload, data = problem.workload, problem.workload.train
    model = workload.model(seed)
    whole_loss = MeanLoss(model, workload.loss, data)
    controller = BatchSizeController(
        model,
        workload.optimizer(model.parameters(), lr),
        RoundTo(Clip(policy, high=len(data)), multiple=1, how="up"),
        MicroBatchStream(data, 1, seed=seed, loading=Loading(join="any")),
        sensing=Sensing(evaluate=MeanLoss(model, workload.loss, data)),
    )
    targets = [problem.least + excess for excess in problem.excesses]
    trace, examples, index = [(0, whole_loss())], {0: 0}, 1

    def look(record: Any) -> bool:
        nonlocal index
        if record.step < grid_step(index):
            return False
        index += 1
        trace.append((record.step, whole_loss()))
        examples[record.step] = record.examples
        return any(loss <= min(targets) for _, loss in SMOOTHED.completed(trace[-5:]))

    begin = time.process_time()
    end = train(
        controller,
        workload.loss,
        until=limit_of(problem, policy),
        on_update=look,
    )
    crossed = [SMOOTHED.steps(trace, target) for target in targets]
    return {
        "updates": crossed,
        "epochs": [None if s is None else examples[s] / len(data) for s in crossed],
        "ended": [end.status, controller.step, controller.examples / len(data)],
        "largest": max(r.batch_size for r in controller.records),
        "least": min(loss for _, loss in trace) - problem.least,
        "seconds": round(time.process_time() - begin, 2),
    }


def limit_of(problem: Problem, policy: Any) -> Until:
    """Return where a run is given up: the full gradient's in updates."""
    if isinstance(policy, FullBatch):
        return Until(max_steps=problem.full_steps)
    if isinstance(policy, Constant | GeoDampLR | CntsDampLR):
        return Until(epochs=problem.sgd_epochs)
    return Until(epochs=problem.epochs)


def run_all(problem: Problem, seeds: int, out: Path, done: dict[str, Any]) -> None:
    for seed in range(seeds):
        for name, policy, lr in problem.dampers():
            key = f"{problem.workload.name}|{problem.name}|{name}|{seed}"
            if key in done:
                continue
            done[key] = run(problem, policy, lr, seed)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: done[key]}) + "\n")
            print(key, done[key]["updates"], done[key]["seconds"], "s", flush=True)


# 3) Tables ----------------------------------------------------------------------------

Cell = tuple[float, float]


def cells(problem: str, done: dict[str, Any]) -> dict[str, list[Cell]]:
    """Return median updates and epochs by damper and excess; inf: not by every seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, one in done.items():
        _, name, damper, _ = key.split("|")
        if name == problem:
            found.setdefault(damper, []).append(one)
    return {
        damper: [
            tuple(
                median(math.inf if v is None else v for v in values)
                for values in (
                    [one["updates"][place] for one in runs],
                    [one["epochs"][place] for one in runs],
                )
            )
            for place in range(len(runs[0]["updates"]))
        ]
        for damper, runs in found.items()
    }


def show(problem: str, excesses: tuple[float, ...], done: dict[str, Any]) -> None:
    table = cells(problem, done)
    if not table:
        return
    seconds = sum(v["seconds"] for k, v in done.items() if k.split("|")[1] == problem)
    print(f"\n{problem}: updates and epochs to an excess loss of")
    print(f"{'':18s}" + "".join(f"{excess:>20g}" for excess in excesses))
    for damper, row in table.items():
        shown = [
            f"{u:>12,.0f}{e:8.2f}" if math.isfinite(u) else f"{'-':>12s}{'-':>8s}"
            for u, e in row
        ]
        print(f"{damper:18s}" + "".join(shown))
    full = table["full gradient"]
    plain = [row for name, row in table.items() if is_plain(name)]
    for damper, row in table.items():
        if damper.split()[0] in ("AdaDamp", "PadaDamp", "GeoDamp", "RadaDamp"):
            parts = [
                against(row[i], full[i], min((p[i] for p in plain), key=lambda c: c[1]))
                for i in range(len(row))
            ]
            print(f"  {damper:16s}" + "; ".join(parts))
    seeds = len({key.split("|")[3] for key in done if key.split("|")[1] == problem})
    print(f"  medians of {seeds} seeds; {seconds:.0f} s of one core")


def is_plain(damper: str) -> bool:
    """Whether it is SGD at one batch size, its rate falling or not."""
    return damper.startswith(("SGD", "GeoDampLR", "CntsDampLR"))


def against(cell: Cell, full: Cell, sgd: Cell) -> str:
    """Return ratios to the full gradient's updates and to the least epochs of SGD."""
    if not all(map(math.isfinite, (cell[0], full[0], sgd[0]))):
        return "not reached"
    updates, epochs = cell[0] / full[0], cell[1] / sgd[1]
    fits = updates <= SAME_ORDER and epochs <= SAME_ORDER
    fewer = cell[0] < sgd[0] and epochs <= 1.1
    return (
        f"{updates:.2f}x updates of full, {epochs:.2f}x epochs of SGD"
        f" [{'same order' if fits else 'not'}{', and fewer' if fewer else ''}]"
    )


def draw(done: dict[str, Any], path: Path, place: int = 1) -> None:
    """Draw updates against epochs at the middle excess, a panel for each problem."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    plt.rcParams.update(
        {
            "svg.hashsalt": "rightbatch",
            "font.size": 8,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    names = list(dict.fromkeys(key.split("|")[1] for key in done))
    figure, panels = plt.subplots(
        1, len(names), figsize=(3.3 * len(names), 3.3), squeeze=False
    )
    for panel, name in zip(panels[0], names, strict=True):
        labels: dict[tuple[int, int], list[str]] = {}
        for damper, row in cells(name, done).items():
            updates, epochs = row[place]
            if not math.isfinite(updates):
                continue
            color = "#7a7a7a" if is_plain(damper) else "#2f6db3"
            color = "#b03a48" if damper == "full gradient" else color
            panel.plot(updates, epochs, "o", ms=5, color=color)
            # Points on top of each other share a label.
            spot = (round(6 * math.log(updates)), round(3 * math.log(epochs)))
            labels.setdefault(spot, []).append(damper)
            panel.annotate(
                "\n" * (len(labels[spot]) - 1) + damper,
                (updates, epochs),
                (5, -2),
                textcoords="offset points",
                size=6,
                va="top" if len(labels[spot]) > 1 else "baseline",
            )
        panel.set(xscale="log", yscale="log", title=name, xlabel="updates")
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(0.35, 0.2)
    panels[0][0].set_ylabel("epochs")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=["convex", "linear", "digits"])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--svg", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, Any] = {}
    if args.out.exists():
        for line in args.out.read_text(encoding="utf-8").splitlines():
            done |= json.loads(line)
    for problem in problems(args.rows, args.only):
        if not args.report:
            run_all(problem, args.seeds, args.out, done)
        show(problem.name, problem.excesses, done)
    if args.svg:
        draw(done, args.svg)
    return 0


if __name__ == "__main__":
    sys.exit(main())
