"""Whether memory grows on a Dask cluster as training goes on.

    python benchmarks/dask_memory.py [--updates 1000]

Resident memory of the scheduler, which lives in this process with the client, and of
two worker processes, after 200 updates and after so many more, with the tasks that the
scheduler knows and the results that the workers hold.
"""

import argparse
import gc
import logging
import sys

import psutil
import torch
from dask_updates import cases, controlled, loss_of
from distributed import Client, LocalCluster

from rightbatch.integrations.dask import DaskGradients, Work, Workers


def resident(dask_worker) -> tuple[float, int]:
    return psutil.Process().memory_info().rss / 2**20, len(dask_worker.data)


def row(name: str, client: Client, cluster: LocalCluster) -> None:
    gc.collect()
    found = list(client.run(resident).values())
    here = psutil.Process().memory_info().rss / 2**20
    print(
        f"{name:14s}{here:12.0f}{max(one for one, _ in found):14.0f}"
        f"{len(cluster.scheduler.tasks):8d}{sum(count for _, count in found):10d}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--updates", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    case = cases()[0]
    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    )
    print(f"{'':14s}{'scheduler':>12s}{'worker':>14s}{'tasks':>8s}{'results':>10s}")
    with cluster, Client(cluster, set_as_default=False) as client:
        model = case.model(0)
        source = DaskGradients(
            client,
            Workers(grads_per_worker=64, maximum=2, follow="none"),
            Work(module=model, loss=loss_of, dataset=case.data),
        )
        controller = controlled(case, model, source.stream())
        row("before", client, cluster)
        for steps in (200, 200 + args.updates):
            for update in controller.updates(max_steps=steps):
                source.accumulate(update)
                update.step()
            row(f"{steps} updates", client, cluster)
        source.close()
        row("closed", client, cluster)
    return 0


if __name__ == "__main__":
    sys.exit(main())
