"""What the callback adds to a Lightning Trainer's updates.

    python benchmarks/lightning_overhead.py [--only noise] [--cpu-clock]

Each line is the time of updates under the callback over that of the same Trainer
without it, at the same constant batch and accumulation: same network, loader and
optimizer. The two run in turn in one process on one thread, a pair at a time, and are
timed from the end of their third update to that of their last; what counts is the upper
end of the 90 % interval of the median ratio. The exit status is 1 where that is above
the bar.

* constant: the policy is asked at every update, nothing is measured;
* noise: NoiseFollowing with AdaScale, held at one batch size; noise measured at every
  10th update, as is the default.

glibc's allocator is told to keep its memory, for both alike, as sweep_rate.py explains;
--default-malloc leaves it alone.
"""

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from sweep_rate import KEEP_MEMORY, median_interval
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from rightbatch.controller import Acting
from rightbatch.experiments.workloads import mnist
from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.policies import Clip, Constant, NoiseFollowing, Policy

WARM_UP = 3


# 1) Settings --------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    name: str
    policy: Policy
    batch_size: int
    micro_batch_size: int
    rule: str = "none"
    bar: float = 1.05


def cases() -> list[Case]:
    def noise(size: int) -> Policy:
        return Clip(NoiseFollowing(initial_batch_size=size), low=size, high=size)

    return [
        Case("64 in 1, constant", Constant(batch_size=64), 64, 64),
        Case("64 in 4, constant", Constant(batch_size=64), 64, 16),
        Case("64 in 1, noise", noise(64), 64, 64, rule="adascale"),
        Case("256 in 4, constant", Constant(batch_size=256), 256, 64),
        Case("256 in 4, noise", noise(256), 256, 64, rule="adascale"),
    ]


# 2) The two loops ---------------------------------------------------------------------


class Lenet(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = mnist.lenet_small().model(0)

    def training_step(self, batch, batch_idx):
        return functional.cross_entropy(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.001)


def images() -> TensorDataset:
    """Return images made up: nothing has to be there for the network's speed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8192, 1, 28, 28, generator=generator)
    return TensorDataset(x, torch.randint(10, (len(x),), generator=generator))


class Rows(torch.utils.data.Dataset):
    """Whole batches at once: what loading rows one by one takes is not looked at."""

    def __init__(self, data: TensorDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, places):
        return self.data[torch.tensor(places)]


class Clock(pl.Callback):
    def __init__(self, read) -> None:
        self.read, self.begin, self.end = read, 0.0, 0.0

    def on_train_batch_end(self, trainer, *told):
        if trainer.global_step == WARM_UP and not self.begin:
            self.begin = self.read()
        self.end = self.read()


def seconds(case: Case, data: Rows, num_steps: int, read, *, followed: bool) -> float:
    """Return the seconds of an update of a run of its own."""
    clock = Clock(read)
    settings = {"accumulate_grad_batches": case.batch_size // case.micro_batch_size}
    callbacks = [clock]
    if followed:
        acting = Acting(lr_batch_size=case.batch_size / 2)
        ours = BatchSizeCallback(case.policy, lr_rule=case.rule, acting=acting)
        callbacks, settings = [ours, clock], {}
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=-1,
            max_steps=num_steps + WARM_UP,
            accelerator="cpu",
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            **settings,
        )
        loader = DataLoader(
            data, case.micro_batch_size, drop_last=True, collate_fn=lambda rows: rows
        )
        trainer.fit(Lenet(), loader)
    return (clock.end - clock.begin) / num_steps


# 3) Turn by turn ----------------------------------------------------------------------


def compared(case: Case, data: Rows, args: argparse.Namespace):
    """Return Lightning's own median seconds an update, and the ratios."""
    read = time.process_time if args.cpu_clock else time.perf_counter
    once = seconds(case, data, 20, read, followed=False)
    seconds(case, data, 20, read, followed=True)
    # Multiples of 10: every turn has its share of measured updates.
    count = max(20, 10 * round(args.seconds / once / 10))
    plain, found = [], []
    for pair in range(args.pairs):
        # Who goes first changes: neither always follows the other.
        took = {}
        for followed in ((True, False), (False, True))[pair % 2]:
            took[followed] = seconds(case, data, count, read, followed=followed)
        plain.append(took[False])
        found.append(took[True] / took[False])
    return statistics.median(plain), found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn")
    parser.add_argument("--only", default="", help="lines whose name holds this")
    parser.add_argument("--cpu-clock", action="store_true")
    parser.add_argument("--default-malloc", action="store_true")
    args = parser.parse_args()
    if not args.default_malloc and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    good, data = True, Rows(images())
    heads = ("ms", "median", "90 % interval", "bar")
    print("{:24s}{:>8s}{:>8s}{:>20s}{:>7s}".format("lenet", *heads))
    for case in cases():
        if args.only not in case.name:
            continue
        plain, found = compared(case, data, args)
        low, high = median_interval(found, 0.9)
        good &= high <= case.bar
        verdict = "" if high <= case.bar else "  missed"
        print(
            f"{case.name:24s}{plain * 1000:8.1f}{statistics.median(found):8.3f}"
            f"{low:12.3f}-{high:.3f}{case.bar:9.2f}{verdict}",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
