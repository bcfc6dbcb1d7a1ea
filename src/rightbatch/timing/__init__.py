"""Measured seconds: of a step at each batch size, of a sum over replicas."""

from rightbatch.timing.communication import (
    CommTiming,
    measure_comm,
    ring_communication,
)
from rightbatch.timing.micro_batch import (
    MemoryLimit,
    MicroBatchSearch,
    MicroBatchTry,
    find_micro_batch_size,
)
from rightbatch.timing.restoring import restored
from rightbatch.timing.steps import (
    StepTiming,
    StepTimings,
    is_out_of_memory,
    measure_step_times,
)

__all__ = [
    "CommTiming",
    "MemoryLimit",
    "MicroBatchSearch",
    "MicroBatchTry",
    "StepTiming",
    "StepTimings",
    "find_micro_batch_size",
    "is_out_of_memory",
    "measure_comm",
    "measure_step_times",
    "restored",
    "ring_communication",
]
