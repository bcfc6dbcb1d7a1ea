"""Measured seconds: of a step at each batch size, of a sum over replicas."""

from rightbatch.timing.communication import (
    CommTiming,
    measure_comm,
    ring_communication,
)
from rightbatch.timing.steps import (
    StepTiming,
    StepTimings,
    is_out_of_memory,
    measure_step_times,
)

__all__ = [
    "CommTiming",
    "StepTiming",
    "StepTimings",
    "is_out_of_memory",
    "measure_comm",
    "measure_step_times",
    "ring_communication",
]
