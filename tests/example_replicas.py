"""Processes that stand for replicas, each leaving what it found in a file."""

import multiprocessing

import torch


def found_by_each(work, world, folder):
    """Return what ``work(rank, meeting, folder)`` left in its file, by rank."""
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=work, args=(rank, folder / "meeting", folder))
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]
