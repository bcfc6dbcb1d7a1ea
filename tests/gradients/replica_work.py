"""What the processes of the tests of replicas do; a module of its own to be spawned."""

import contextlib
import os
import sys
import traceback

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from rightbatch.gradients import NoiseMeter

WORLD = 2


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)
    ).double()


def data(count):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, generator=generator).double()
    return x, torch.randint(3, (count,), generator=generator)


def loss_of(model, a, b):
    return functional.cross_entropy(model(a), b)


def accumulate(meter, model, parts, *, sync=True, weights=None):
    """Accumulate the mean over this replica's parts; sum over replicas at the last."""
    total = sum(len(a) for a, _ in parts)
    for place, (a, b) in enumerate(parts):
        last = place == len(parts) - 1 and sync
        quiet = isinstance(model, DistributedDataParallel) and not last
        if hasattr(model, "set_requires_gradient_sync"):
            model.set_requires_gradient_sync(last)
        weight = None if weights is None else weights[place]
        with model.no_sync() if quiet else contextlib.nullcontext():
            loss = loss_of(model, a, b) * len(a) / total
            with meter.unit(examples=len(a), weight=weight):
                loss.backward()
    meter.update()


def shares(rank, sizes):
    """Return the parts of the batch that a replica gets, dealt out in turn."""
    x, y = data(WORLD * sum(sizes))
    pieces = list(zip(x.split(sizes * WORLD), y.split(sizes * WORLD), strict=True))
    return pieces[rank * len(sizes) : (rank + 1) * len(sizes)]


def result(meter):
    moments = meter.last_moments
    return (moments.grad_sq_norm, moments.grad_variance, meter.noise_scale.num_units)


def replicated(rank, *, view, source="units", sizes=(8, 8), **settings):
    model = DistributedDataParallel(net(), gradient_as_bucket_view=view)
    with NoiseMeter(model, source, **settings) as meter:
        for _ in range(3):
            model.zero_grad()
            accumulate(meter, model, shares(rank, list(sizes)))
        return result(meter)


def sharded(rank, *, sizes=(8, 8), whole=False):
    model = net()
    if not whole:
        fully_shard(model[0])
        fully_shard(model[3])
    fully_shard(model)
    with NoiseMeter(model) as meter:
        for _ in range(3):
            model.zero_grad()
            accumulate(meter, model, shares(rank, list(sizes)))
        return result(meter)


def parts_replicated(rank):
    model = DistributedDataParallel(net())
    with NoiseMeter(model, parts="layers") as meter:
        accumulate(meter, model, shares(rank, [8, 8]))
        return {n: p.moments.grad_variance for n, p in meter.noise_scale.parts.items()}


def told(rank):
    """Replica 1 has more units, and every unit says what it weighs."""
    model = DistributedDataParallel(net())
    x, y = data(32)
    sizes = [8, 8] if rank == 0 else [4, 4, 8]
    own = slice(16 * rank, 16 * (rank + 1))
    parts = list(zip(x[own].split(sizes), y[own].split(sizes), strict=True))
    with NoiseMeter(model) as meter:
        accumulate(meter, model, parts, weights=sizes)
        return result(meter)


def uneven(rank):
    """Replica 0 has five times the examples, and every other update is measured."""
    model = DistributedDataParallel(net())
    size = 20 if rank == 0 else 4
    x, y = data(2 * size)
    parts = list(zip(x.split(size), y.split(size), strict=True))
    with NoiseMeter(model, every=2, horizon=200) as meter:
        for _ in range(5):
            model.zero_grad()
            accumulate(meter, model, parts)
        return meter.state_dict()["averages"][""]


def refused(rank, case):
    """Return what each replica is told; nobody may be left waiting."""
    model = DistributedDataParallel(net())
    meter = NoiseMeter(model)
    try:
        if case == "counts":
            sizes = [8, 8] if rank == 0 else [4, 4, 8]
            accumulate(meter, model, shares(rank, sizes))
        elif case == "no sync":
            accumulate(meter, model, shares(rank, [8, 8]), sync=False)
        elif case == "clipped":
            accumulate_clipped(meter, model, rank)
        elif case == "weights":
            weights = [1, 1] if rank == 0 else None
            accumulate(meter, model, shares(rank, [8, 8]), weights=weights)
        else:
            meter.update()
    except ValueError as error:
        return str(error)
    return "nothing"


def accumulate_clipped(meter, model, rank):
    for a, b in shares(rank, [8, 8]):
        with meter.unit(examples=8):
            loss_of(model, a, b).backward()
    if rank == 1:
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    meter.update()


def examples_of_shards(rank):
    model = net()
    fully_shard(model)
    try:
        NoiseMeter(model, "examples")
    except ValueError as error:
        return str(error)
    return "nothing"


def count_exchanges(rank):
    """Return how many sums an update takes besides those of the gradient."""
    model = DistributedDataParallel(net())
    calls = []
    plain = dist.all_reduce

    def counted(tensor, *args, **kwargs):
        calls.append(tensor.numel())
        return plain(tensor, *args, **kwargs)

    with NoiseMeter(model) as meter:
        dist.all_reduce = counted
        accumulate(meter, model, shares(rank, [8, 8]))
        assert meter.noise_scale.num_units == 4
        dist.all_reduce = plain
    return calls


CASES = {
    "bucket views": lambda rank: replicated(rank, view=True),
    "own gradients": lambda rank: replicated(rank, view=False),
    "one unit each": lambda rank: replicated(rank, view=False, sizes=(16,)),
    "ragged": lambda rank: replicated(rank, view=False, sizes=(9, 4, 3)),
    "examples": lambda rank: replicated(rank, view=True, source="examples"),
    "examples, own gradients": lambda rank: replicated(
        rank, view=False, source="examples"
    ),
    "memory": uneven,
    "auto": lambda rank: replicated(rank, view=False, source="auto", sizes=(16,)),
    "shards": sharded,
    "shards of the whole": lambda rank: sharded(rank, whole=True),
    "shards, one unit each": lambda rank: sharded(rank, sizes=(16,)),
    "parts": parts_replicated,
    "told": told,
    "refused: counts": lambda rank: refused(rank, "counts"),
    "refused: no sync": lambda rank: refused(rank, "no sync"),
    "refused: clipped": lambda rank: refused(rank, "clipped"),
    "refused: weights": lambda rank: refused(rank, "weights"),
    "refused: nothing": lambda rank: refused(rank, "nothing"),
    "refused: examples of shards": examples_of_shards,
    "exchanges": count_exchanges,
}


def work(rank, meeting, folder):
    """Do all cases, and leave what came out in a file."""
    # Two processes on few cores: one thread each.
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD
    )
    found = {}
    try:
        for name, case in CASES.items():
            try:
                found[name] = case(rank)
            except Exception:
                found[name] = traceback.format_exc()
                break  # the other process may wait for this one: end both
    finally:
        torch.save(found, os.path.join(folder, f"{rank}.pt"))
        sys.stdout.flush()
        dist.destroy_process_group()
