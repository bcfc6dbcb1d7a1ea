"""Processes that stand for replicas, each leaving what it found in a file."""

import multiprocessing
from multiprocessing import forkserver

import torch

# Imported once for all processes of a test run. The first optimizer of a process
# imports all of dynamo, which takes as long as torch itself.
PRELOADED = (
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.nn.parallel",
    "rightbatch.collectives",
    "rightbatch.controller",
    "distributed",
)


def forks_with_torch():
    """Return the context whose processes begin with those imports, all done."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    forkserver.ensure_running()
    return context


def processes_of(target, arguments):
    """Return processes, not yet started, one for each tuple of arguments."""
    context = forks_with_torch()
    return [context.Process(target=target, args=given) for given in arguments]


def found_by_each(work, world, folder):
    """Return what ``work(rank, meeting, folder)`` left in its file, by rank."""
    meeting = folder / "meeting"
    processes = processes_of(work, [(rank, meeting, folder) for rank in range(world)])
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]
