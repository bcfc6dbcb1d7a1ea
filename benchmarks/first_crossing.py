"""The first update at or below a target, checked cheaply and after every update.

    python benchmarks/first_crossing.py --data-dir DATA [--cpu-clock]

mnist-lenet-small at a batch size of 8, to a loss of .3 on its 12,000 training examples.
The dear way evaluates all of them after every update. ``hard first`` evaluates hard
examples first and gives up once their sum alone is above what the whole may be, for the
same answer by construction. ``gated`` begins with that when the running mini-batch loss
is within twice the target: a heuristic, and the default. The three are trained in turn,
20 updates at a time, on one thread. The exit status is 1 when an answer is another one,
or the gated checks are not 3 times cheaper for each seed.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from rightbatch.experiments import run as run_module
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.evaluation import Evaluation
from rightbatch.experiments.run import LiveRun, RunSettings
from rightbatch.workload import load_workload

BAR = 3.0
TURN = 20
CROSSINGS = {
    "hard first": Crossing(definition="first"),
    "gated": Crossing(definition="first", gate=2.0),
}


class EveryUpdate:
    """The dear way: updates of its own, and the whole set after each."""

    def __init__(self, live: LiveRun, evaluation: Evaluation, args: argparse.Namespace):
        self._live, self._evaluation, self._args = live, evaluation, args
        self.step, self.steps, self.seconds = 0, None, 0.0

    def advance(self, budget: int) -> None:
        live, args = self._live, self._args
        while self.steps is None and self.step < budget:
            live.update(live.layout(live.stream.next(args.batch_size)))
            self.step += 1
            start = args.clock()
            value = float(self._evaluation.values(live.model).mean())
            self.seconds += args.clock() - start
            if value <= args.target:
                self.steps = self.step


def compare(workload, evaluation, seed, args) -> bool:
    """Print a line; return whether answers agree and the bar is met."""

    def live(crossing: Crossing) -> LiveRun:
        settings = RunSettings(
            batch_size=args.batch_size,
            lr=args.lr,
            seed=seed,
            targets=(args.target,),
            crossing=crossing,
        )
        return LiveRun(workload, settings, evaluation)

    dear = EveryUpdate(live(Crossing(definition="first")), evaluation, args)
    cheap = {name: live(crossing) for name, crossing in CROSSINGS.items()}
    budget = 0
    while dear.steps is None or any(one.status is None for one in cheap.values()):
        budget += TURN
        dear.advance(budget)
        for one in cheap.values():
            one.advance(budget)
    results = {name: one.result(budget) for name, one in cheap.items()}
    ratios = {n: dear.seconds / run.seconds_checking for n, run in results.items()}
    answers = [run.steps() for run in results.values()]
    print(
        f"{seed:>5}{dear.steps:>14}{answers[0]:>12}{answers[1]:>8}"
        f"{dear.seconds:>16.1f}{ratios['hard first']:>12.2f}{ratios['gated']:>8.2f}",
        flush=True,
    )
    return set(answers) == {dear.steps} and ratios["gated"] >= BAR


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--target", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--cpu-clock",
        dest="clock",
        action="store_const",
        const=time.process_time,
        default=time.perf_counter,
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    # The clock of the runs' own seconds.
    run_module.perf_counter = args.clock
    workload = load_workload("mnist-lenet-small", args.data_dir)
    evaluation = Evaluation(workload)
    print("      first crossing, in updates        seconds of    times cheaper")
    print(" seed  every update  hard first   gated    every update  hard first   gated")
    good = [compare(workload, evaluation, seed, args) for seed in range(args.seeds)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
