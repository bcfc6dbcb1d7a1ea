"""Seconds that the best mix takes, and the front around it.

    python benchmarks/cluster_seconds.py [NAME ...]

The worked examples of docs/examples/clusters, and larger designs: several jobs that
buy or rent compute and bandwidth in any amount, and one that rents compute, bandwidth
and memory so; nothing says how much there is to buy. Names pick some of them. Printed
are the processor's seconds of `best_mix` and of `pareto_front`, once each, and what was
found.
"""

import sys
import time
from pathlib import Path

from rightbatch.cli.cluster import FRONT, FRONT_OF_SEVERAL
from rightbatch.cli.cluster_file import read_cluster
from rightbatch.cluster import (
    Bandwidth,
    Compute,
    Design,
    Job,
    LinearPrice,
    Memory,
    Replicas,
    best_mix,
    pareto_front,
)
from rightbatch.convergence import ConvergenceLaw
from rightbatch.step_time import ConstantCommunication, StepTimeLaw

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples" / "clusters"

# 1) The jobs


def job(name: str, steps: float, examples: float, weight: float = 1.0) -> Job:
    return Job(
        name=name,
        weight=weight,
        convergence=ConvergenceLaw(min_steps=steps, min_examples=examples),
        step_time=StepTimeLaw(
            seconds_per_example=0.001,
            saturation_batch_size=20,
            communication=ConstantCommunication(seconds=0.02),
        ),
    )


THREE = (
    job("vision", 1000, 7e5, 5),
    job("speech", 4000, 3e5),
    job("ranking", 300, 3e6, 2),
)

# 2) The designs: what is for sale, and the budget


def per(money: float) -> LinearPrice:
    return LinearPrice(price_per_unit=money)


SEVERAL = (
    Replicas(price=per(1000)),
    Compute(price=per(500)),
    Bandwidth(price=per(2000)),
)
BY_THE_HOUR = (
    Replicas(price=per(2.0)),
    Compute(price=per(1.0)),
    Bandwidth(price=per(1.0)),
    Memory(price=per(0.02), low=4),
)
designs = {
    path.stem: ((read := read_cluster(path)).design, read.budget, read.deadline)
    for path in sorted(EXAMPLES.glob("*.toml"))
} | {
    "three-jobs": (Design(jobs=THREE, components=SEVERAL), 400_000, None),
    "three-jobs-weighted": (
        Design(jobs=THREE, components=SEVERAL, aim="weighted"),
        400_000,
        None,
    ),
    "three-jobs-deadline": (Design(jobs=THREE, components=SEVERAL), None, 120.0),
    "three-jobs-rented": (
        Design(jobs=THREE, components=BY_THE_HOUR[:3], renting=True),
        20.0,
        None,
    ),
    "rented-memory": (
        Design(jobs=THREE[:1], components=BY_THE_HOUR, renting=True),
        4.0,
        None,
    ),
    "rented-memory-least": (
        Design(jobs=THREE[:1], components=BY_THE_HOUR, renting=True),
        None,
        None,
    ),
}

# 3) Time them

for name in sys.argv[1:] or designs:
    design, budget, deadline = designs[name]
    start = time.process_time()
    best = best_mix(design, budget=budget, deadline=deadline)
    middle = time.process_time()
    num = FRONT_OF_SEVERAL if len(design.jobs) > 1 else FRONT
    front = pareto_front(design, best.mix, num=num)
    end = time.process_time()
    mix = best.mix
    amounts = ", ".join(f"{each} {value:.4g}" for each, value in mix.amounts.items())
    print(
        f"{name:20}  best {middle - start:6.2f} s  front {end - middle:6.2f} s  "
        f"objective {mix.objective:.6g} s  money {mix.money:.6g}  ({amounts})",
        flush=True,
    )
