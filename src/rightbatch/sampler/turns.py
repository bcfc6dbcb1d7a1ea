"""Whose turn it is to take a micro-batch, by the process group where there is one."""

import torch
from torch import distributed as dist


def own_turn() -> tuple[int, int]:
    """Return which replica this process is, and how many there are.

    Example:
        >>> own_turn()
        (0, 1)
    """
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def all_can(this_one_can: bool) -> bool:
    """Return whether every process of the default group can; all have to ask.

    Args:
        this_one_can: Whether this process can.
    """
    on_gpu = dist.get_backend() == "nccl"
    flag = torch.tensor(int(this_one_can), device="cuda" if on_gpu else "cpu")
    dist.all_reduce(flag, op=dist.ReduceOp.MIN)
    return bool(flag)


def all_tell(numbers: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return three numbers of every process of the default group; all have to tell.

    Args:
        numbers: Of this process.
    """
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    table = torch.zeros(dist.get_world_size(), 3, dtype=torch.int64, device=device)
    table[dist.get_rank()] = torch.tensor(numbers)
    dist.all_reduce(table)
    return [(first, second, third) for first, second, third in table.tolist()]
