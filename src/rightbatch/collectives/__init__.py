"""What replicas tell each other, and how they start and end together.

Everything is the identity where there is one process and no process group.
"""

from rightbatch.collectives.agreement import agree, barrier, same_on_all
from rightbatch.collectives.group import (
    exchange_device,
    is_distributed,
    num_replicas,
    rank,
)
from rightbatch.collectives.launch import ThisReplica, replicas
from rightbatch.collectives.sums import all_min_numbers, all_sum, all_sum_numbers

__all__ = [
    "ThisReplica",
    "agree",
    "all_min_numbers",
    "all_sum",
    "all_sum_numbers",
    "barrier",
    "exchange_device",
    "is_distributed",
    "num_replicas",
    "rank",
    "replicas",
    "same_on_all",
]
