"""What an update costs on Dask workers, and how much of that is transport.

    python benchmarks/dask_updates.py [--updates 60] [--default-malloc]

Seconds per update of one process, and of one and two worker processes on this machine,
at the same network, batch size and order of examples: the median over updates, the
three in turn. Each has one thread. Transport is what is left of an update's wait when
the computing of the worker with most to do is taken off: pickling, Dask's scheduler and
the copies between processes.

glibc's allocator is told to keep its memory, here and in the workers, as sweep_rate.py
explains; --default-malloc leaves it as Dask sets it, to trim at 64 KiB.
"""

import argparse
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dask
import torch
from distributed import Client, LocalCluster
from sweep_rate import KEEP_MEMORY
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import TensorDataset

from rightbatch.controller import BatchSizeController, Sensing
from rightbatch.experiments.workloads import digits, mnist
from rightbatch.integrations.dask import DaskGradients, Work, Workers
from rightbatch.policies import Constant
from rightbatch.sampler import MicroBatchStream

Loss = Callable[[nn.Module, object], Tensor]


@dataclass(frozen=True)
class Case:
    name: str
    model: Callable[[int], nn.Module]
    data: TensorDataset
    batch_size: int


def images() -> TensorDataset:
    """Return images made up: nothing has to be there for their speed."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4096, 1, 28, 28, generator=generator)
    return TensorDataset(x, torch.randint(10, (4096,), generator=generator))


def cases() -> list[Case]:
    mlp, small = digits.mlp(), mnist.lenet_small()
    return [
        Case("digits MLP", mlp.model, mlp.train, 128),
        Case("LeNet small", small.model, images(), 512),
    ]


def loss_of(model: nn.Module, batch: list[Tensor]) -> Tensor:
    x, y = batch[:2]
    return nn.functional.cross_entropy(model(x), y, reduction="none")


def here(case: Case) -> Iterator[float]:
    model = case.model(0)
    controller = controlled(case, model, MicroBatchStream(case.data, 16))
    for update in controller.updates(max_steps=10**6):
        begin = time.perf_counter()
        for part in update:
            update.backward(loss_of(model, part.batch))
        update.step()
        yield time.perf_counter() - begin


def there(
    case: Case, client: Client, workers: int
) -> tuple[Iterator[float], DaskGradients]:
    model = case.model(0)
    each = -(-case.batch_size // workers)
    source = DaskGradients(
        client,
        Workers(grads_per_worker=each, maximum=workers, follow="none"),
        Work(module=model, loss=loss_of, dataset=case.data),
    )
    controller = controlled(case, model, source.stream())

    def updates() -> Iterator[float]:
        for update in controller.updates(max_steps=10**6):
            begin = time.perf_counter()
            source.accumulate(update)
            update.step()
            yield time.perf_counter() - begin

    return updates(), source


def controlled(
    case: Case, model: nn.Module, stream: MicroBatchStream
) -> BatchSizeController:
    return BatchSizeController(
        model,
        SGD(model.parameters(), lr=0.01),
        Constant(batch_size=case.batch_size),
        stream,
        sensing=Sensing(noise="off"),
    )


def compare(case: Case, client: Client, updates: int) -> None:
    one, on_one = there(case, client, 1)
    two, on_two = there(case, client, 2)
    runs = {"one process": here(case), "1 worker": one, "2 workers": two}
    found: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(updates + 5):
        for name, run in runs.items():
            seconds = next(run)
            if turn >= 5:  # the first ones import, connect and compile
                found[name].append(seconds)
    medians = {name: statistics.median(times) for name, times in found.items()}
    for name, source in (
        ("one process", None),
        ("1 worker", on_one),
        ("2 workers", on_two),
    ):
        share = ""
        if source is not None:
            parts = [1 - s.computing_seconds / s.seconds for s in source.shares[5:]]
            share = f"{100 * statistics.median(parts):10.0f} %"
            source.close()
        ratio = medians[name] / medians["one process"]
        print(
            f"{case.name:14s}{case.batch_size:6d}  {name:12s}"
            f"{1e3 * medians[name]:10.1f} ms{ratio:9.2f}{share}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--default-malloc", action="store_true")
    args = parser.parse_args()
    if not args.default_malloc and not KEEP_MEMORY.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)
    torch.set_num_threads(1)
    spawned = "distributed.nanny.pre-spawn-environ"
    kept = {} if args.default_malloc else KEEP_MEMORY
    with dask.config.set({spawned: dask.config.get(spawned) | kept}):
        cluster = LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        )
    titles = f"{'an update':>13s}{'ratio':>9s}{'transport':>12s}"
    print(f"{'':14s}{'batch':>6s}  {'':12s}{titles}")
    with cluster, Client(cluster, set_as_default=False) as client:
        for case in cases():
            compare(case, client, args.updates)
    return 0


if __name__ == "__main__":
    sys.exit(main())
