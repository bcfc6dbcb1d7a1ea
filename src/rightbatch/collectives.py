"""Sums over replicas; the values themselves where there is one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist


def all_sum(values: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the sum over replicas; the values themselves without a process group.

    Args:
        values: Of this replica, any shape; left as they are.
        group: The replicas; all processes when None.

    Example:
        >>> all_sum(torch.tensor([1.0, 2.0]))
        tensor([1., 2.])
    """
    if not is_distributed():
        return values
    total = values.clone()
    dist.all_reduce(total, group=group)
    return total


def all_sum_numbers(
    numbers: Sequence[float],
    device: torch.device | str = "cpu",
    group: dist.ProcessGroup | None = None,
) -> list[float]:
    """Return the sums over replicas of a few numbers, in one exchange.

    Args:
        numbers: Of this replica, as many on each.
        device: Where the process group exchanges: a GPU for nccl.
        group: The replicas; all processes when None.

    Example:
        >>> all_sum_numbers([1.0, 2.5])
        [1.0, 2.5]
    """
    if not is_distributed():
        return list(numbers)
    # Some accelerators have no float64; what is summed is known no better there.
    precision = torch.float32 if torch.device(device).type == "mps" else torch.float64
    values = torch.tensor(numbers, dtype=precision, device=device)
    return all_sum(values, group).tolist()


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


def all_min_numbers(
    numbers: Sequence[float], group: dist.ProcessGroup | None = None
) -> list[float]:
    """Return the smallest of each number over the replicas, in one exchange.

    Args:
        numbers: Of this replica, as many on each.
        group: The replicas; all processes when None.

    Example:
        >>> all_min_numbers([3, 1.5])
        [3.0, 1.5]
    """
    values = torch.tensor(numbers, dtype=torch.float64, device=exchange_device(group))
    if is_distributed():
        dist.all_reduce(values, op=dist.ReduceOp.MIN, group=group)
    return values.tolist()


def exchange_device(group: dist.ProcessGroup | None = None) -> torch.device:
    """Return where a process group exchanges tensors: this process's GPU for nccl.

    Example:
        >>> exchange_device()
        device(type='cpu')
    """
    if is_distributed() and dist.get_backend(group) == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
