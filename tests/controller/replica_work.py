"""What the processes of the tests of replicas do; a module of its own to be spawned."""

import os
import sys
import traceback
from contextlib import nullcontext

import torch
from controller.example_training import (
    Listed,
    data,
    loss_of,
    losses_of,
    net,
    run,
)
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam

from rightbatch.controller import (
    Acting,
    BatchSizeController,
    HostedController,
    MeanLoss,
    Sensing,
)
from rightbatch.policies import AdaDamp, Clip, Dwell, NoiseFollowing, RoundTo
from rightbatch.sampler import CountedStream, Loading, MicroBatchStream

WORLD = 2
STEPS = 200
GRANULE = 8


def policy(name):
    # Rounded to what both one process and two can serve.
    return {
        "listed": Listed((8, 24, 56, 16)),
        "adadamp": Clip(Dwell(AdaDamp(initial_batch_size=8), updates=5), high=64),
        # Powers of two up to 32 are cut into the same units by one process and by two.
        "noise": RoundTo(
            Clip(NoiseFollowing(initial_batch_size=8), low=8, high=32),
            multiple=8,
            powers_of_two=True,
        ),
    }[name]


def whole(model):
    """Return all weights as one vector, of a sharded model too."""
    parts = [getattr(p, "full_tensor", lambda p=p: p)() for p in model.parameters()]
    return torch.cat([part.detach().reshape(-1) for part in parts])


def trained(wrap, name, *, micro_batch_size=4, kind=SGD, tail="carry"):
    """Train as `wrap` has it, and return what became of it."""
    # The long run is for plain SGD; other optimizers and tails show within a few.
    steps = STEPS if kind is SGD and tail == "carry" else STEPS // 4
    model = wrap(net())
    stream = MicroBatchStream(
        data(), micro_batch_size, tail=tail, loading=Loading(largest_pass=8)
    )
    plain = name != "noise"
    controller = BatchSizeController(
        model,
        kind(model.parameters(), lr=0.05),
        policy(name),
        stream,
        lr_rule="square_root" if plain else "adascale",
        sensing=Sensing(
            noise="units",
            every=3,
            evaluate=MeanLoss(model, losses_of, data(256)),
        ),
        acting=Acting(max_grad_norm=1.0),
    )
    run(controller, loss_of, max_steps=steps)
    return {
        "weights": whole(model),
        "sizes": [record.batch_size for record in controller.records],
        "losses": [record.loss for record in controller.records],
        "lrs": [record.lr for record in controller.records],
        "passes": [record.accumulation_steps for record in controller.records],
    }


def sharded(model):
    fully_shard(model[0])
    fully_shard(model)
    return model


def resumed(rank, folder):
    """One process's state, gone on from by two sharded ones."""
    wrap = sharded
    model = wrap(net())
    controller = BatchSizeController(
        model,
        Adam(model.parameters(), lr=0.01),
        Listed((8, 16)),
        MicroBatchStream(data(), 2),
    )
    state = torch.load(os.path.join(folder, "alone.pt"), weights_only=True)
    controller.load_training_state(state)
    run(controller, loss_of, max_steps=20)
    return {"weights": whole(model), "examples": controller.examples}


def own_wish(rank):
    """Each replica's policy says something else; the first one's word counts."""
    model = DistributedDataParallel(net())
    controller = BatchSizeController(
        model,
        SGD(model.parameters(), lr=0.05),
        Listed((8, 16) if rank == 0 else (32, 64), (0.5,) if rank == 0 else (1.0,)),
        MicroBatchStream(data(), 4),
    )
    run(controller, loss_of, max_steps=4)
    return [(record.batch_size, record.lr) for record in controller.records]


def not_smaller(rank):
    model = DistributedDataParallel(net())
    controller = BatchSizeController(
        model,
        SGD(model.parameters(), lr=0.05),
        Listed((32,)),
        MicroBatchStream(data(), 4),
    )
    update = next(iter(controller.updates(max_steps=1)))
    try:
        update.in_smaller_passes()
    except ValueError as error:
        return str(error)
    return "nothing"


def lost(rank):
    """A loss that is not finite on one replica ends the run on both."""
    model = DistributedDataParallel(net())
    controller = BatchSizeController(
        model,
        SGD(model.parameters(), lr=0.05),
        Listed((8,)),
        MicroBatchStream(data(), 4),
    )

    def loss(model, batch):
        factor = float("nan") if rank == 1 and controller.step == 3 else 1.0
        return loss_of(model, batch) * factor

    try:
        run(controller, loss, max_steps=9)
    except RuntimeError as error:
        return f"hung: {error}"
    except Exception as error:
        return str(error)
    return "nothing"


COUNTS = ((5, 1), (2, 4))  # tokens of each replica's two micro-batches


def hosted_tokens(rank):
    """A framework's loop whose micro-batches weigh by tokens that differ."""
    model = DistributedDataParallel(net())
    controller = HostedController(
        model,
        SGD(model.parameters(), lr=0.05),
        Listed((16,)),
        CountedStream(4, num_replicas=2),
        sensing=Sensing(tokens=lambda count: count),
    )
    controller.begin()
    for place, count in enumerate(COUNTS[rank]):
        rows = slice(8 * rank + 4 * place, 8 * rank + 4 * place + 4)
        share = controller.enter(4, count)
        with model.no_sync() if place == 0 else nullcontext():
            loss = loss_of(model, data()[rows])
            (loss * share).backward()
        controller.leave(loss)
    gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    return gradient, controller.after_step().loss


CASES = {
    "ddp listed": lambda rank, f: trained(DistributedDataParallel, "listed"),
    "ddp adadamp": lambda rank, f: trained(DistributedDataParallel, "adadamp"),
    "ddp noise": lambda rank, f: trained(DistributedDataParallel, "noise"),
    "ddp adam": lambda rank, f: trained(DistributedDataParallel, "listed", kind=Adam),
    "ddp short": lambda rank, f: trained(
        DistributedDataParallel, "listed", tail="short", micro_batch_size=1
    ),
    "fsdp listed": lambda rank, f: trained(sharded, "listed"),
    "fsdp adadamp": lambda rank, f: trained(sharded, "adadamp"),
    "fsdp noise": lambda rank, f: trained(sharded, "noise"),
    "fsdp adam": lambda rank, f: trained(sharded, "listed", kind=Adam),
    "resumed": resumed,
    "own wish": lambda rank, f: own_wish(rank),
    "not smaller": lambda rank, f: not_smaller(rank),
    "lost": lambda rank, f: lost(rank),
    "hosted tokens": lambda rank, f: hosted_tokens(rank),
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
                found[name] = case(rank, folder)
            except Exception:
                found[name] = traceback.format_exc()
                break  # the other process may wait for this one: end both
    finally:
        torch.save(found, os.path.join(folder, f"{rank}.pt"))
        sys.stdout.flush()
        dist.destroy_process_group()
