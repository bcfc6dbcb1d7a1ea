"""What the processes of the tests of replicas do; a module of its own to be spawned."""

import gc
import os
import signal
import time
import traceback
from datetime import timedelta

import torch
from controller.example_training import Listed, data, losses_of, weights
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam

from rightbatch.controller import BatchSizeController
from rightbatch.sampler import MicroBatchStream
from rightbatch.training import Checkpoint, Until, load_checkpoint, train

WORLD = 2
# What hangs is found out by this, long before a test's own patience ends.
TIMEOUT_SECONDS = 20.0


def network():
    torch.manual_seed(0)
    layers = [nn.Linear(5, 16), nn.Dropout(), nn.Linear(16, 3)]
    return nn.Sequential(*layers).double()


def sharded(model):
    fully_shard(model[0])
    fully_shard(model)
    return model


def controlled(wrap):
    model = wrap(network())
    return BatchSizeController(
        model,
        Adam(model.parameters(), lr=0.01),
        Listed((8, 16)),
        MicroBatchStream(data(), 4),
    )


def own_draws(rank):
    torch.manual_seed(100 + rank)


def ended(controller, end):
    return {"status": end.status, "step": end.step, "said": end.said}


def late_to_write(rank, folder):
    """The second replica's clock says later that it is time to write its shards."""
    if rank:
        time.sleep(0.15)
    controller = controlled(sharded)
    files = Checkpoint(path=folder / "late.pt", every_seconds=0.1)

    def wait(record):
        time.sleep(0.004 * rank)

    end = train(
        controller,
        losses_of,
        until=Until(max_steps=60),
        on_update=wait,
        checkpoint=files,
    )
    return ended(controller, end)


def slow_on_one(rank, folder):
    """Time is up on the first replica long before it is on the second."""
    controller = controlled(DistributedDataParallel)

    def wait(record):
        time.sleep(0.05 if rank == 0 and record.step % 2 else 0.0)

    until = Until(max_steps=2000, max_seconds=0.2)
    end = train(controller, losses_of, until=until, on_update=wait)
    return ended(controller, end)


def interrupted(rank, folder):
    """Each replica hears its own Ctrl-C, the second one an update later."""
    controller = controlled(DistributedDataParallel)

    def loss(model, batch):
        if controller.step == 4 + rank:
            signal.raise_signal(signal.SIGINT)
        return losses_of(model, batch)

    end = train(controller, loss, until=Until(max_steps=50))
    return ended(controller, end)


def stopped_by_one(rank, folder):
    controller = controlled(DistributedDataParallel)

    def stop(record):
        return rank == 1 and record.step == 3

    end = train(controller, losses_of, until=Until(max_steps=50), on_update=stop)
    return ended(controller, end)


def written_by_one(rank, folder):
    """Only the first replica was told to write, as many a script has it."""
    files = Checkpoint(path=folder / "one.pt", every_seconds=0) if rank == 0 else None
    controller = controlled(sharded)
    until = Until(max_steps=4)
    return ended(
        controller, train(controller, losses_of, until=until, checkpoint=files)
    )


def no_disk(rank, folder):
    """The first replica cannot write its file: training goes on, on both."""
    files = Checkpoint(path=folder / "full.pt", every_seconds=0)
    replace = os.replace
    if rank == 0:

        def full(beside, path):
            raise OSError(28, "No space left on device")

        os.replace = full
    try:
        controller = controlled(sharded)
        until = Until(max_steps=4)
        end = train(controller, losses_of, until=until, checkpoint=files)
    finally:
        os.replace = replace
    return ended(controller, end)


def no_folder(rank, folder):
    files = Checkpoint(path=folder)
    controller = controlled(DistributedDataParallel)
    try:
        train(controller, losses_of, until=Until(max_steps=4), checkpoint=files)
    except ValueError as error:
        return str(error)
    return "nothing"


def found_by_one(rank, folder):
    """Hosts without a shared disk: only the first one has the file."""
    own = folder / f"host {rank}" / "run.pt"
    files = Checkpoint(path=own)
    train(
        controlled(DistributedDataParallel),
        losses_of,
        until=Until(max_steps=5),
        checkpoint=files,
    )
    again = controlled(DistributedDataParallel)
    files = Checkpoint(path=own, resume=True)
    try:
        train(again, losses_of, until=Until(max_steps=9), checkpoint=files)
    except ValueError as error:
        return str(error)
    return f"went on to {again.step}"


def others_file(rank, folder):
    """Each host has a file, of another run."""
    own = folder / f"other host {rank}.pt"
    for place in range(WORLD):
        path = folder / f"other host {place}.pt"
        until = Until(max_steps=3 + place)
        files = Checkpoint(path=path)
        train(
            controlled(DistributedDataParallel),
            losses_of,
            until=until,
            checkpoint=files,
        )
    try:
        load_checkpoint(own, controlled(DistributedDataParallel))
    except ValueError as error:
        return str(error)
    return "nothing"


def resumed(rank, folder):
    """With dropout: the run that was broken off is the run, on each replica."""
    path = folder / "resumed.pt"
    own_draws(rank)
    whole = controlled(DistributedDataParallel)
    own_draws(rank)
    train(whole, losses_of, until=Until(max_steps=20))
    own_draws(rank)
    for end in (11, 20):
        part = controlled(DistributedDataParallel)
        own_draws(rank) if end == 11 else torch.manual_seed(7)
        files = Checkpoint(path=path, resume=True)
        train(part, losses_of, until=Until(max_steps=end), checkpoint=files)
    return {
        "whole": weights(whole.model),
        "part": weights(part.model),
        "draws": torch.rand(4),
    }


def from_one_process(rank, folder):
    draws = []
    for _ in range(2):
        load_checkpoint(folder / "alone.pt", controlled(DistributedDataParallel))
        draws.append(torch.rand(4))
    return draws


CASES = {
    "late": late_to_write,
    "slow": slow_on_one,
    "interrupted": interrupted,
    "stopped": stopped_by_one,
    "written by one": written_by_one,
    "no disk": no_disk,
    "no folder": no_folder,
    "found by one": found_by_one,
    "others file": others_file,
    "resumed": resumed,
    "from one": from_one_process,
}


def work(rank, meeting, folder):
    """Do all cases, and leave what came out in a file."""
    # Two processes on few cores: one thread each.
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=TIMEOUT_SECONDS),
    )
    found = {}
    try:
        for name, case in CASES.items():
            try:
                found[name] = case(rank, folder)
            except BaseException:
                found[name] = traceback.format_exc()
                break  # the other process may wait for this one: end both
            gc.collect()
    finally:
        torch.save(found, os.path.join(folder, f"{rank}.pt"))
        # Before the group: taking it down can wait for ever for what holds on to it.
        gc.collect()
        dist.destroy_process_group()
