"""What the processes of the tests of Lightning's replicas do; spawned as a module."""

import os
import traceback
import warnings
from pathlib import Path

import torch
from controller.example_training import Listed, data, weights
from integrations.example_lightning import QUIET, Net, trainer_of
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed as dist
from torch.optim import AdamW
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, DistributedSampler

from rightbatch.controller import Sensing
from rightbatch.integrations.lightning import BatchSizeCallback
from rightbatch.policies import Clip, GeoDamp, NoiseFollowing

WORLD = 2
# Two replicas with 2 examples each have the micro-batches of one with 4.
MICRO = 4
POLICIES = {
    "listed": Listed((4, 12, 20, 8)),
    "geodamp": GeoDamp(initial_batch_size=4, delay=1, factor=2),
    "noise": Clip(NoiseFollowing(initial_batch_size=8), low=8, high=24),
}


def schedule(optimizer):
    return {"scheduler": StepLR(optimizer, 5, 0.8), "interval": "step"}


def trained(folder, name, *, world=1, path=None, keep=False, **settings):
    """Train on so many replicas, and return what became of it."""
    sensing = Sensing(noise="examples", every=3)
    callback = BatchSizeCallback(POLICIES[name], sensing=sensing)
    settings = {"max_epochs": 2, "gradient_clip_val": 1.0} | settings
    if world > 1:
        settings |= {"strategy": "ddp", "devices": world}
    if keep:
        kept = ModelCheckpoint(folder, "kept")
        settings |= {"callbacks": [kept], "enable_checkpointing": True}
    module, dataset = Net(AdamW, schedule, lr=0.02), data(94)
    # Lightning gives replicas such a sampler itself, and one that shuffles.
    order = DistributedSampler(dataset, 1, 0, seed=0) if world == 1 else None
    loader = DataLoader(dataset, batch_size=MICRO // world, sampler=order)
    trainer_of(folder, callback, **settings).fit(module, loader, ckpt_path=path)
    records = callback.records
    return {
        "weights": weights(module.net),
        "sizes": [record.batch_size for record in records],
        "losses": [record.loss for record in records],
        "lrs": [record.lr for record in records],
        "noise": [record.noise_scale or 0.0 for record in records],
        "replicas": records[-1].num_replicas,
        "epoch": records[-1].epoch,
    }


def both(folder):
    """Return what two replicas find in all cases."""
    found = {name: trained(folder, name, world=WORLD) for name in POLICIES}
    kept = Path(folder) / "kept"
    trained(kept, "noise", world=WORLD, max_epochs=1, keep=True)
    found["resumed"] = trained(folder, "noise", world=WORLD, path=kept / "kept.ckpt")
    return found


def work(rank, meeting, folder):
    """Do all cases, and leave what came out in a file."""
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD
    )
    for one in QUIET:
        warnings.filterwarnings("ignore", one.partition(":")[2])
    try:
        found = both(folder)
    except Exception:
        found = traceback.format_exc()
    torch.save(found, os.path.join(folder, f"{rank}.pt"))
    if dist.is_initialized():
        dist.destroy_process_group()
