"""AdaDamp on a linear network: few updates, as of full gradients; few examples.

    python benchmarks/linear_network.py [--seeds 2]

The workload linear-network: y = A x + noise, 10,000 rows of 100 normal numbers, of
which 8,051 train; three linear layers without biases, squared error, lr .0025. The
least training loss is .98605 and its test loss 1.0378, by least squares.

The bars: AdaDamp from batch 2 reaches a test loss of 1.045 within 200 updates and 41
epochs; a constant batch of 64 stalls above it. The exit status is 1 where one is
missed.
"""

import argparse
import sys

import torch
from torch.optim import SGD

from rightbatch.controller import BatchSizeController, MeanLoss, Sensing
from rightbatch.experiments.workloads.linear_network import (
    least_losses,
    linear_network,
)
from rightbatch.policies import (
    AdaDamp,
    Clip,
    Constant,
    GeoDamp,
    PadaDamp,
    RoundTo,
)
from rightbatch.sampler import Loading, MicroBatchStream
from rightbatch.training import Until, train

# 1) The problem -----------------------------------------------------------------------

LR, EPOCHS, BAR = 0.0025, 41, 1.045
PROBLEM = linear_network()
TRAIN, TEST, losses_of = PROBLEM.train, PROBLEM.evaluate_on, PROBLEM.loss
LEAST, LEAST_TEST = least_losses()


# 2) One run ---------------------------------------------------------------------------


def run(policy: object, seed: int) -> tuple[int, float, float, int]:
    """Return updates and epochs at the best test loss, that loss, and all updates."""
    model = PROBLEM.model(seed)
    controller = BatchSizeController(
        model,
        SGD(model.parameters(), lr=LR),
        RoundTo(Clip(policy, high=len(TRAIN)), multiple=1, how="up"),
        MicroBatchStream(TRAIN, 1, seed=seed, loading=Loading(join="any")),
        sensing=Sensing(evaluate=MeanLoss(model, losses_of, TRAIN)),
    )
    test = MeanLoss(model, losses_of, TEST)
    best, at, epochs, crossed = float("inf"), 0, 0.0, 0

    def look(record) -> None:
        nonlocal best, at, epochs, crossed
        # Many small updates: looked at once in ten, and always while they are few.
        if record.step > 500 and record.step % 10:
            return
        loss = test()
        if loss < best:
            best, at, epochs = loss, record.step, record.epoch
        if loss <= BAR and not crossed:
            crossed = record.step

    train(controller, losses_of, until=Until(epochs=EPOCHS), on_update=look)
    return crossed, epochs, best, controller.step


# 3) All of them -----------------------------------------------------------------------

POLICIES = {
    "AdaDamp B0 2": AdaDamp(initial_batch_size=2, best_loss=LEAST),
    "PadaDamp B0 2": PadaDamp(initial_batch_size=2, rate=0.5),
    "GeoDamp B0 16": GeoDamp(initial_batch_size=16, delay=5, factor=2),
    "SGD 64": Constant(batch_size=64),
    "full batch": Constant(batch_size=len(TRAIN)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"least training loss {LEAST:.5f}, its test loss {LEAST_TEST:.4f}")
    print(f"within {EPOCHS} epochs; updates to a test loss of {BAR}")
    print(f"{'':16s}{'seed':>5s}{'to 1.045':>10s}{'updates':>9s}{'best test':>11s}")
    good = True
    for name, policy in POLICIES.items():
        for seed in range(args.seeds):
            crossed, _, best, updates = run(policy, seed)
            shown = f"{crossed:,}" if crossed else "never"
            print(
                f"{name:16s}{seed:5d}{shown:>10s}{updates:9,}{best:11.4f}", flush=True
            )
            if name.startswith("AdaDamp"):
                good &= 0 < crossed <= 200
            if name == "SGD 64":
                good &= not crossed
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
