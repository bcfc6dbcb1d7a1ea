"""Who shares one gradient: a process alone, DDP's replicas, FSDP2's shards."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rightbatch.collectives import all_sum_numbers, is_distributed, num_replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """The processes whose units add into one gradient.

    Args:
        num: How many.
        sharded: Whether each holds a part of every parameter, as FSDP2's do.
        group: The process group; None for all processes.
        device: Where the group exchanges numbers.
    """

    num: int = 1
    sharded: bool = False
    group: Any = None
    device: torch.device = torch.device("cpu")

    def sum(self, numbers: list[float]) -> list[float]:
        """Return sums over the replicas, in one exchange."""
        if self.num == 1:
            return numbers
        return all_sum_numbers(numbers, self.device, self.group)


def replicas_of(model: nn.Module) -> Replicas:
    """Return who shares the gradient of a model, by how it was wrapped.

    A model that is neither in DistributedDataParallel nor sharded by ``fully_shard`` is
    taken to be trained by this process alone.

    Args:
        model: As it is called in the loop.

    Example:
        >>> replicas_of(nn.Linear(1, 1)).num
        1
    """
    if not is_distributed():
        return Replicas()
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    device = next(model.parameters()).device
    for module in model.modules():
        if isinstance(module, DistributedDataParallel):
            group = module.process_group
            return Replicas(num=num_replicas(group), group=group, device=device)
        if isinstance(module, FSDPModule):
            return Replicas(num=num_replicas(), sharded=True, device=device)
    return Replicas()


def local_part(gradient: Tensor) -> tuple[Tensor, int]:
    """Return this process's part of a gradient, and how many processes hold the same.

    Args:
        gradient: A tensor, or a distributed one.

    Returns:
        The local tensor and the number of its copies.
    """
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(gradient, DTensor):
        return gradient, 1
    copies = 1
    for dimension, placement in enumerate(gradient.placements):
        if isinstance(placement, Replicate):
            copies *= gradient.device_mesh.size(dimension)
    return gradient.to_local(), copies
