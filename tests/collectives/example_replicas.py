"""What the processes of the tests do; a module of its own, to be spawned."""

import math
import os
import sys
import time
import traceback

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rightbatch.collectives import (
    agree,
    all_min_numbers,
    all_sum_numbers,
    barrier,
    exchange_device,
    num_replicas,
    rank,
    replicas,
    same_on_all,
)
from rightbatch.errors import ReplicaError

WORLD = 2
SILENCE_SECONDS = 3.0
ENDS = ("died", "raised", "stopped early", "silent", "never started")


def start(target, *given):
    """Start a process for each replica, quickly: torch is imported once for all."""
    # Under torchrun this file is a script, which has no tests to import from.
    from example_replicas import processes_of

    processes = processes_of(target, [(own, *given) for own in range(WORLD)])
    for process in processes:
        process.start()
    return processes


def stop(processes, seconds):
    """Wait for processes, and end those that take longer."""
    for process in processes:
        process.join(seconds)
        if process.is_alive():
            process.kill()


def as_torchrun_does(own, world=WORLD):
    os.environ.update(RANK=str(own), WORLD_SIZE=str(world), LOCAL_RANK=str(own))
    # Two processes on few cores: one thread each.
    torch.set_num_threads(1)


def exchange_all(own, meeting, folder):
    """Leave what this replica was told in a file."""
    as_torchrun_does(own)
    found = {}
    with replicas("gloo", init_method=f"file://{meeting}") as this:
        found["this"] = (this.rank, this.num_replicas, this.is_first, str(this.device))
        with replicas() as inner:
            found["inner"] = (inner.rank, inner.num_replicas)
        found["rank"] = (rank(), num_replicas(), str(exchange_device()))
        found["sum"] = all_sum_numbers([1.0, own])
        found["min"] = all_min_numbers([own, 5 - own, math.inf])
        found["agree"] = agree({"rank": own, "parts": (own, None, "ü", 0.1, math.inf)})
        found["nothing"] = agree(None if own == 0 else [1, 2])
        found["long"] = agree([own] * 2000 if own == 0 else "short")
        found["longer here"] = agree("x" if own == 0 else "y" * 5000)
        found["same"] = same_on_all({"b": 1, "a": [0.1]})
        found["other"] = same_on_all(own)
        barrier(timeout_seconds=20)
        found["waited"] = told_by(lambda: late_barrier(own))
        # What was late may still be on its way: nothing is exchanged after it.
    torch.save(found, os.path.join(folder, f"{own}.pt"))


def late_barrier(own):
    if own == 1:
        time.sleep(1.5)
    barrier(timeout_seconds=0.5)


def told_by(act):
    try:
        act()
    except ReplicaError as error:
        return str(error)
    return "nothing"


def end(own, how, meeting, folder):
    """Train a little; end as told; leave what was raised and when in a file."""
    if how == "never started" and own == 1:
        return
    as_torchrun_does(own)
    told, began = "nothing", time.monotonic()
    try:
        with replicas(
            "gloo", timeout_seconds=SILENCE_SECONDS, init_method=f"file://{meeting}"
        ):
            train(own, how)
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if type(error) not in (ReplicaError, ZeroDivisionError):
            traceback.print_exc()
    seconds = time.monotonic() - began
    torch.save((told, seconds), os.path.join(folder, f"{how} {own}.pt"))


def leave_often(own, folder):
    """Leave groups of one right after an exchange, a wrapped model still about."""
    os.environ.update(RANK="0", WORLD_SIZE="1")
    for turn in range(60):
        place = f"file://{folder}/{own}-{turn}"
        with replicas("gloo", init_method=place):
            model = DistributedDataParallel(nn.Linear(2, 2))
            all_min_numbers([1.0])
        del model


def train(own, how):
    model = DistributedDataParallel(nn.Linear(2, 2))
    for step in range(6):
        if own == 1 and step == 3:
            if how == "died":
                os._exit(3)
            if how == "raised":
                raise ZeroDivisionError("a loss of its own")
            if how == "stopped early":
                sys.exit(0)
            if how == "silent":
                time.sleep(SILENCE_SECONDS + 1.5)
        model(torch.ones(1, 2)).sum().backward()


if __name__ == "__main__":
    # Under torchrun, which sets the variables; one replica raises.
    torch.set_num_threads(1)
    with replicas("gloo", timeout_seconds=20) as own_place:
        assert agree(own_place.rank) == 0
        if own_place.rank == 1:
            raise ZeroDivisionError("a loss of its own")
        try:
            barrier(timeout_seconds=15)
        except ReplicaError as lost:
            print("told:", lost, flush=True)
            raise
