"""A batch that grows, shared by replicas; run as one process, it is one replica.

torchrun --nproc-per-node 2 docs/examples/train_on_replicas.py
"""

import torch
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from rightbatch import BatchSizeController, MicroBatchStream
from rightbatch.collectives import replicas
from rightbatch.experiments.workloads.digits import mlp
from rightbatch.policies import Clip, PadaDamp
from rightbatch.sampler import Loading

with replicas() as here:
    workload = mlp()
    model = workload.model(0).to(here.device)  # the same weights on each: one seed
    if here.num_replicas > 1:
        model = DistributedDataParallel(model)
    controller = BatchSizeController(
        model,
        torch.optim.SGD(model.parameters(), lr=0.1),
        Clip(PadaDamp(initial_batch_size=32, rate=0.5), high=256),
        MicroBatchStream(workload.train, 8, loading=Loading(device=here.device)),
        lr_rule="linear",
    )
    for update in controller.updates(epochs=4):
        for part in update:
            images, labels = part.batch
            update.backward(functional.cross_entropy(model(images), labels))
        update.step()
    if here.rank == 0:
        last = controller.records[-1]
        print(
            f"{last.num_replicas} replicas, {last.step} updates, batch "
            f"{last.batch_size}, loss {last.loss:.4f}"
        )
