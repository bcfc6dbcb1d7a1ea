"""Growing batches on MNIST's LeNet, to a fixed training loss, each tuned as much.

    python benchmarks/adaptive_mnist.py --data-dir DATA [--out mnist.jsonl] [--report]

Perrone et al.'s small LeNet, SGD with weight decay 1e-4, to a loss of .1 on 3,000 fixed
training images. Six families: the best constant batch, GeoDamp, PadaDamp,
AdaDamp, NoiseFollowing and Planned. Each has four settings and four learning rates on
one seed, 16 runs; its best by the seconds on one replica, and its best on eight, are
then run with fresh seeds, whose medians stand in the table.

Updates and examples are those of the runs. Seconds are priced: the step times of this
machine, measured once and interpolated, and a ring's communication between processes on
it, summed over the batches of the run. Evaluations of the loss are not in them: the
checks of the target are this script's, and those a policy asks for are counted apart.

A tuning run is given up at 1.5 times the best seconds of its family so far, or 2.25
times those of any, on one replica and on eight. Runs are kept in the file of --out as
they finish; a second call goes on from them.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from torch import nn
from torch.optim import SGD

from rightbatch.controller import Acting, BatchSizeController, MeanLoss, Sensing
from rightbatch.experiments.train_pricing import OnReplicas, price_run
from rightbatch.experiments.workloads import mnist
from rightbatch.policies import PolicyContext, named_policy
from rightbatch.sampler import MicroBatchStream
from rightbatch.step_time import MeasuredStepTime
from rightbatch.timing import measure_comm, measure_step_times, ring_communication
from rightbatch.training import Until, train
from rightbatch.workload import Workload

TARGET, LARGEST, REPLICAS = 0.1, 1024, (1, 8)
RATES = (0.1, 0.2, 0.05, 0.4)  # the middle first: it sets the limits
TUNING_SEED, FRESH_SEEDS = 0, (1, 2, 3, 4, 5)
EPOCHS = 2
GIVE_UP = 1.5  # times what the best of a family took: no longer in the race


# 1) Families --------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    family: str
    policy: str
    initial: int
    rule: str = "none"
    planned_for: int = 1

    def key(self, lr: float, seed: int) -> str:
        parts = (self.family, self.policy, self.initial, self.rule, self.planned_for)
        return "|".join(map(str, (*parts, lr, seed)))

    def __str__(self) -> str:
        rule = "" if self.rule == "none" else f", {self.rule}"
        return f"{self.policy} from {self.initial}{rule}"


RULES = ("none", "square_root")
GAINS = ("adascale", "square_root")


def settings() -> list[Setting]:
    noise = [(f, r) for f in (0.5, 1.0) for r in GAINS]
    return [
        *(Setting("constant", "constant", size) for size in (16, 32, 96, 192)),
        *(
            Setting("GeoDamp", f"geodamp:factor=2,delay={delay}", initial, rule)
            for initial, delay in ((16, 0.1), (32, 0.2))
            for rule in RULES
        ),
        *(
            Setting("PadaDamp", f"padadamp:rate={rate}", 16, rule)
            for rate in (0.1, 0.4)
            for rule in RULES
        ),
        *(
            Setting("AdaDamp", "adadamp", initial, rule)
            for initial in (16, 32)
            for rule in RULES
        ),
        *(
            Setting("NoiseFollowing", f"noise-following:sure={sure}", 16, rule)
            for sure in ("false", "true")
            for rule in GAINS
        ),
        *(
            Setting("Planned", f"planned:factor={factor}", 16, rule, replicas)
            for replicas in REPLICAS
            for factor, rule in noise
        ),
    ]


# 2) One run ---------------------------------------------------------------------------


class Race:
    """The workload with what all runs share."""

    def __init__(self, workload: Workload, step_time: MeasuredStepTime) -> None:
        self.workload, self.step_time = workload, step_time

    def run(
        self, setting: Setting, lr: float, seed: int, limits: dict[int, float]
    ) -> dict[str, Any]:
        """Train until the target, or until it cannot be the best any more."""
        model = self.workload.model(seed)
        loss_now = MeanLoss(
            model, self.workload.loss, self.workload.train, fraction=0.05, seed=9
        )
        controller = self._controller(setting, model, lr, seed)
        reached, due, spent = False, 0.0, dict.fromkeys(limits, 0.0)
        costs: dict[tuple[int, int], float] = {}

        def is_over_the_limits(size: int) -> bool:
            for replicas in limits:
                if (size, replicas) not in costs:
                    one = price_run([size], self.step_time, replicas)
                    costs[size, replicas] = one.seconds
                spent[replicas] += costs[size, replicas]
            return all(spent[replicas] > limits[replicas] for replicas in limits)

        def check(record) -> bool:
            nonlocal reached, due
            if is_over_the_limits(record.batch_size):
                return True
            recent = controller.records[-max(20, record.step // 10) :]
            near = fmean(one.loss for one in recent) < 1.4 * TARGET
            if not near or record.step < due:
                return False
            due = record.step + max(5, record.step / 20)
            reached = loss_now() <= TARGET
            return reached

        end = train(
            controller, self.workload.loss, until=Until(epochs=EPOCHS), on_update=check
        )
        return {
            "reached": reached,
            "status": end.status,
            "batch_sizes": [record.batch_size for record in controller.records],
            "evaluating_seconds": end.evaluating_seconds,
        }

    def _controller(
        self, setting: Setting, model: nn.Module, lr: float, seed: int
    ) -> BatchSizeController:
        train_set = self.workload.train
        policy = named_policy(
            setting.policy,
            initial_batch_size=setting.initial,
            max_batch_size=None if setting.family == "constant" else LARGEST,
            context=PolicyContext(
                dataset_size=len(train_set),
                step_time=OnReplicas(
                    step_time=self.step_time, num_replicas=setting.planned_for
                ),
            ),
        )
        loss = self.workload.loss
        fraction = MeanLoss(model, loss, train_set, fraction=0.05)
        return BatchSizeController(
            model,
            SGD(model.parameters(), lr=lr, weight_decay=mnist.WEIGHT_DECAY),
            policy,
            MicroBatchStream(train_set, 16, seed=seed),
            lr_rule=setting.rule,
            sensing=Sensing(evaluate=fraction),
            acting=Acting(lr_batch_size=setting.initial),
        )


def seconds(run: dict[str, Any], step_time: MeasuredStepTime, replicas: int) -> float:
    if not run["reached"]:
        return math.inf
    return price_run(run["batch_sizes"], step_time, replicas).seconds


# 3) Step times, once ------------------------------------------------------------------


def measured(workload: Workload, kept: dict[str, Any]) -> MeasuredStepTime:
    if "times" not in kept:
        sizes = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
        timed = measure_step_times(workload, sizes, budget_seconds=60)
        parameters = sum(p.numel() for p in workload.model(0).parameters())
        comm = measure_comm(4 * parameters, 2)
        kept["times"] = [sizes, list(timed.seconds), comm.seconds, comm.tiny_seconds]
    sizes, times, full, tiny = kept["times"]
    parameters = sum(p.numel() for p in workload.model(0).parameters())
    from rightbatch.timing import CommTiming

    comm = CommTiming(
        num_replicas=2,
        num_bytes=4 * parameters,
        seconds=full,
        spread=(full, full),
        tiny_seconds=tiny,
    )
    return MeasuredStepTime(
        batch_sizes=sizes, seconds=times, communication=ring_communication(comm)
    )


# 4) Tuning, fresh seeds, the table ----------------------------------------------------


class Kept:
    """The runs of a file, and those made now, which are added to it at once."""

    def __init__(self, path: Path, workload: Workload, *, report: bool) -> None:
        self.path, self.report, self.known = path, report, dict[str, Any]()
        if path.exists():
            for line in path.read_text().splitlines():
                self.known |= json.loads(line)
        had_times = "times" in self.known
        self.step_time = measured(workload, self.known)
        if not had_times:
            self._keep("times")
        self.race = Race(workload, self.step_time)

    def run(self, setting: Setting, lr: float, seed: int) -> dict[str, Any]:
        key = setting.key(lr, seed)
        if key not in self.known:
            if self.report:
                return {"reached": False, "batch_sizes": []}
            begin = time.perf_counter()
            limits = self._limits(setting, seed)
            found = self.known[key] = self.race.run(setting, lr, seed, limits)
            self._keep(key)
            took, steps = time.perf_counter() - begin, len(found["batch_sizes"])
            print(f"{key} {found['reached']} {steps} {took:.1f} s", file=sys.stderr)
        return self.known[key]

    def _limits(self, setting: Setting, seed: int) -> dict[int, float]:
        """Return GIVE_UP times the family's best seconds so far, while tuning."""
        replicas = REPLICAS
        if setting.family == "Planned":
            replicas = (setting.planned_for,)
        if seed != TUNING_SEED:
            return dict.fromkeys(replicas, math.inf)
        ended = f"|{TUNING_SEED}"
        tuned = {key: run for key, run in self.known.items() if key.endswith(ended)}
        own = [run for key, run in tuned.items() if key.startswith(setting.family)]

        def best(runs: Iterable[dict[str, Any]], replicas: int) -> float:
            times = (seconds(run, self.step_time, replicas) for run in runs)
            return min(times, default=math.inf)

        return {
            p: GIVE_UP * min(best(own, p), GIVE_UP * best(tuned.values(), p))
            for p in replicas
        }

    def _keep(self, key: str) -> None:
        with self.path.open("a") as lines:
            lines.write(json.dumps({key: self.known[key]}) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("adaptive-mnist.jsonl"))
    parser.add_argument("--report", action="store_true", help="run nothing more")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(args.out, mnist.lenet_small(args.data_dir), report=args.report)
    families: dict[str, list[Setting]] = {}
    for setting in settings():
        families.setdefault(setting.family, []).append(setting)
    print(f"loss {TARGET}; medians of {len(FRESH_SEEDS)} fresh seeds; not reached: -")
    head = f"{'family':15s}{'P':>3s}  {'setting':44s}{'lr':>6s}{'updates':>9s}"
    print(f"{head}{'examples':>10s}{'seconds':>9s}  spread")
    for family, own in families.items():
        for replicas in REPLICAS:
            _show(family, own, replicas, kept)
    return 0


def _show(family: str, own: list[Setting], replicas: int, kept: Kept) -> None:
    run, step_time = kept.run, kept.step_time
    tried = [
        (seconds(run(setting, lr, TUNING_SEED), step_time, replicas), lr, setting)
        for setting in own
        if family != "Planned" or setting.planned_for == replicas
        for lr in RATES
    ]
    _, lr, best = min(tried, key=lambda one: one[:2])
    fresh = [run(best, lr, seed) for seed in FRESH_SEEDS]
    reached = [one for one in fresh if one["reached"]]
    if not reached:
        print(f"{family:15s}{replicas:3d}  {best!s:44s}{lr:6g}        -")
        return
    took = [seconds(one, step_time, replicas) for one in fresh]
    updates = median(len(one["batch_sizes"]) for one in reached)
    examples = median(sum(one["batch_sizes"]) for one in reached)
    spread = f"{min(took):.2f}-{max(took):.2f}"
    missed = len(fresh) - len(reached)
    note = f", {missed} not reached" if missed else ""
    print(
        f"{family:15s}{replicas:3d}  {best!s:44s}{lr:6g}{updates:9,.0f}"
        f"{examples:10,.0f}{median(took):9.2f}  {spread}{note}",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
