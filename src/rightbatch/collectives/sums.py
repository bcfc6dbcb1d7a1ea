"""Sums and minima over replicas; the values themselves where there is one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import distributed as dist

from rightbatch.collectives.group import exchange_device, is_distributed


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


def all_min_numbers(
    numbers: Sequence[float], group: dist.ProcessGroup | None = None
) -> list[float]:
    """Return the smallest of each number over the replicas, in one exchange.

    Args:
        numbers: Of this replica, as many on each.
        group: The replicas; all processes when None.

    Example:
        >>> all_min_numbers([3, 1.5])
        [3, 1.5]
    """
    if not is_distributed():
        return list(numbers)
    values = torch.tensor(numbers, dtype=torch.float64, device=exchange_device(group))
    dist.all_reduce(values, op=dist.ReduceOp.MIN, group=group)
    return values.tolist()
