"""The published search of Zhang et al. (2019), for comparison: slow, kept as it is.

    python benchmarks/published_quadratic.py sgd --power 0 --batch-sizes 4,16,64
    python benchmarks/published_quadratic.py momentum --power 0 --batch-sizes 4
    python benchmarks/published_quadratic.py schedule --power 0 --batch-sizes 64

Curvatures 1/i of 10 000 directions, counted in 100 bins, the noise of one example's
gradient as large as the curvature, target .01. One point of the grid at a time, one k
at a time: second moments after k steps from an eigendecomposition of the matrix that
moves them, and bisection over k as if the loss fell all the way. Its faults are part of
it: the 1e-8 below a fraction (SGD), matrices without a full set of eigenvectors, and an
answer which is the last step above the target. Bins without directions are left out,
which makes it a sixth faster than it was.

Prints one JSON document a line: the cell, its answer and the seconds it took.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize

TARGET = 0.01
NUM_PIECES = 10
FLOOR = 1e-8  # as published; it hides noise, and a floor of zero answers what is true
SGD_LRS = np.logspace(-5, 0.5, 100)
LRS = np.logspace(-8, 1, 100)
MEMORIES = 1 - np.logspace(-5, 0, 20)  # momenta, and decays of the average
# Just below the edge at 2, where the floor makes the moments of one direction huge.
LARGEST_LOG_LR = math.log(1.999)


class Problem(NamedTuple):
    """Bins of the spectrum under one preconditioner and one batch size."""

    curvatures: np.ndarray
    counts: np.ndarray
    preconditioner: np.ndarray
    noise: np.ndarray  # variance of the gradient of a batch

    def loss(self, moments: np.ndarray) -> float:
        return 0.5 * float(np.sum(self.counts * self.curvatures * moments))


class Cell(NamedTuple):
    """Where a search ended: the last step above the target, and the settings."""

    steps: int
    lr: float
    memory: float = 0.0


Moments = Callable[[Problem, float, float, int], np.ndarray]


def bins(num_dims: int = 10_000, num_edges: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Count each curvature 1/i at the largest edge that is not above it."""
    curvatures = 1.0 / np.arange(1, num_dims + 1)
    edges = np.geomspace(curvatures[0], curvatures[-1], num_edges)
    counts = np.zeros(num_edges)
    place = 0
    for curvature in curvatures:
        while curvature < edges[place]:
            place += 1
        counts[place] += 1
    return edges[counts > 0], counts[counts > 0]


def make_problem(power: float, batch_size: float) -> Problem:
    curvatures, counts = bins()
    return Problem(curvatures, counts, curvatures**-power, curvatures / batch_size)


# 1) Second moments after some steps -----------------------------------------------


def after_sgd(problem: Problem, start: np.ndarray, lr: float, steps: int) -> np.ndarray:
    shrink = (1 - lr * problem.preconditioner * problem.curvatures) ** 2
    noise = (lr * problem.preconditioner) ** 2 * problem.noise
    settled = noise / (1 - shrink + FLOOR)
    return settled + shrink**steps * (start - settled)


def sgd(problem: Problem, lr: float, _: float, steps: int) -> np.ndarray:
    return after_sgd(problem, np.ones_like(problem.curvatures), lr, steps)


def momentum(problem: Problem, lr: float, memory: float, steps: int) -> np.ndarray:
    """Moments of place and velocity: (place^2, velocity^2, place x velocity)."""
    rate = lr * problem.preconditioner * problem.curvatures
    start = np.zeros((rate.size, 3))
    start[:, 0] = 1
    matrix = np.empty((rate.size, 3, 3))
    matrix[:, 0, 0] = (1 - rate) ** 2
    matrix[:, 1, 0] = rate**2
    matrix[:, 2, 0] = -(1 - rate) * rate
    matrix[:, :, 1] = memory**2
    matrix[:, 0, 2] = 2 * (1 - rate) * memory
    matrix[:, 1, 2] = -2 * rate * memory
    matrix[:, 2, 2] = (1 - 2 * rate) * memory
    return after_linear(problem, lr, matrix, start, steps)[:, 0]


def ema(problem: Problem, lr: float, memory: float, steps: int) -> np.ndarray:
    """Moments of place and sum, (place^2, sum^2, both); average = (1 - decay) sum."""
    rate = lr * problem.preconditioner * problem.curvatures
    start = np.ones((rate.size, 3)) / (1 - memory) ** np.array([0, 2, 1])
    matrix = np.zeros((rate.size, 3, 3))
    matrix[:, :, 0] = ((1 - rate) ** 2)[:, None]
    matrix[:, 1, 1] = memory**2
    matrix[:, 1, 2] = 2 * memory * (1 - rate)
    matrix[:, 2, 2] = memory * (1 - rate)
    summed = after_linear(problem, lr, matrix, start, steps)[:, 1]
    return (1 - memory) ** 2 * summed


def after_linear(
    problem: Problem, lr: float, matrix: np.ndarray, start: np.ndarray, steps: int
) -> np.ndarray:
    """Move moments by the same matrix and noise at every step. Shapes (n, 3)."""
    noise = (lr * problem.preconditioner) ** 2 * problem.noise
    values, vectors = np.linalg.eig(matrix)
    inverse = np.linalg.inv(vectors)
    start = np.matmul(inverse, start[:, :, None])[:, :, 0]
    added = np.matmul(inverse, np.tile(noise[:, None], 3)[:, :, None])[:, :, 0]
    settled = added / (1 - values)
    ended = values**steps * (start - settled) + settled
    return np.matmul(vectors, ended[:, :, None])[:, :, 0].real


# 2) Steps to the target -----------------------------------------------------------


def last_step_above(above: Callable[[int], bool], most: int) -> int:
    """Bisect, which is right only where the loss falls all the way."""
    low, high = 0, most
    while low < high - 1:
        middle = (low + high) // 2
        if above(middle):
            low = middle
        else:
            high = middle
    return low


def search(
    problem: Problem, moments: Moments, lrs: np.ndarray, memories: np.ndarray, most: int
) -> Cell:
    best = Cell(most, math.nan)
    for lr in lrs:
        for memory in memories:

            def above(steps: int, lr: float = lr, memory: float = memory) -> bool:
                return not problem.loss(moments(problem, lr, memory, steps)) < TARGET

            steps = last_step_above(above, most)
            if steps < best.steps:
                best = Cell(steps, float(lr), float(memory))
    return best


def schedule(problem: Problem) -> Cell:
    """Search the total length of ten equally long pieces with the best lr each."""

    def loss(log_lrs: np.ndarray, steps: int) -> float:
        moments = np.ones_like(problem.curvatures)
        for lr in np.exp(log_lrs):
            moments = after_sgd(problem, moments, lr, steps)
        return problem.loss(moments)

    def above(steps: int) -> bool:
        found = optimize.minimize(
            loss,
            np.full(NUM_PIECES, -5.0),
            args=(steps,),
            method="L-BFGS-B",
            bounds=[(None, LARGEST_LOG_LR)] * NUM_PIECES,
        )
        return not found.fun < TARGET

    return Cell(NUM_PIECES * last_step_above(above, 10**8), math.nan)


SEARCHES: dict[str, Callable[[Problem], Cell]] = {
    "sgd": lambda problem: search(problem, sgd, SGD_LRS, np.zeros(1), 10**9),
    "momentum": lambda problem: search(problem, momentum, LRS, MEMORIES, 10**7),
    "ema": lambda problem: search(problem, ema, LRS, MEMORIES, 10**7),
    "schedule": schedule,
}


def run(optimizer: str, power: float, batch_size: float) -> Cell:
    """Return what the published search answers for one cell of its tables."""
    with np.errstate(all="ignore"):  # unstable points overflow, and are never best
        return SEARCHES[optimizer](make_problem(power, batch_size))


def main() -> int:
    parser = argparse.ArgumentParser(description="The published search, cell by cell.")
    parser.add_argument("optimizer", choices=sorted(SEARCHES))
    parser.add_argument("--power", default="0,.25,.5,.75")
    parser.add_argument(
        "--batch-sizes", default=",".join(f"{4**n}" for n in range(1, 11))
    )
    args = parser.parse_args()
    for power in map(float, args.power.split(",")):
        for batch_size in map(int, args.batch_sizes.split(",")):
            begun = time.perf_counter()
            cell = run(args.optimizer, power, batch_size)
            answer = {
                "optimizer": args.optimizer,
                "power": power,
                "batch_size": batch_size,
                **cell._asdict(),
                "seconds": round(time.perf_counter() - begun, 4),
            }
            print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
