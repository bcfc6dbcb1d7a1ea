"""Which process this is, of how many."""

import torch
from torch import distributed as dist


def is_distributed() -> bool:
    """Return whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def num_replicas(group: dist.ProcessGroup | None = None) -> int:
    """Return how many processes share the work; 1 without a process group.

    Example:
        >>> num_replicas()
        1
    """
    return dist.get_world_size(group) if is_distributed() else 1


def rank(group: dist.ProcessGroup | None = None) -> int:
    """Return which replica this process is; 0 without a process group.

    Example:
        >>> rank()
        0
    """
    return dist.get_rank(group) if is_distributed() else 0


def exchange_device(group: dist.ProcessGroup | None = None) -> torch.device:
    """Return where a process group exchanges tensors: this process's GPU for nccl.

    Example:
        >>> exchange_device()
        device(type='cpu')
    """
    if is_distributed() and dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
