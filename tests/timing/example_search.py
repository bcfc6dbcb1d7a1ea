"""What two processes search together; a module of its own, to be spawned."""

import os

import torch
from collectives.example_replicas import as_torchrun_does
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

from rightbatch.collectives import replicas
from rightbatch.timing import find_micro_batch_size

ROWS = TensorDataset(torch.ones(200, 3))


def search(own, meeting, folder):
    """Leave in a file what this replica found, and whether it left a trace."""
    as_torchrun_does(own)
    place = f"file://{meeting}"
    with replicas("gloo", init_method=place, timeout_seconds=30):
        found = {"replicated": replicated(own), "sharded": sharded()}
    torch.save(found, os.path.join(folder, f"{own}.pt"))


def failing_above(limit):
    def loss(model, batch):
        values = model(batch[0])[:, 0]
        if len(values) > limit:
            raise MemoryError
        return values

    return loss


def found_and_traces(model, limit):
    optimizer = torch.optim.Adam(model.parameters())
    before = [local(p) for p in model.parameters()]
    found = find_micro_batch_size(
        model, failing_above(limit), ROWS, optimizer=optimizer
    )
    after = [local(p) for p in model.parameters()]
    clean = before == after and not optimizer.state
    return found.micro_batch_size, [one.size for one in found.tried], clean


def local(parameter):
    sharded = hasattr(parameter, "to_local")
    return (parameter.to_local() if sharded else parameter).detach().tolist()


def replicated(own):
    """The second replica has less memory than the first."""
    model = DistributedDataParallel(nn.Linear(3, 2))
    return found_and_traces(model, 16 if own else 100)


def sharded():
    model = nn.Linear(3, 2)
    fully_shard(model)
    return found_and_traces(model, 40)
