"""Optimizer updates: one run's, and those of several runs in lockstep."""

from rightbatch.engine.compiled import (
    CompiledStack,
    CompiledSteps,
    compile_steps,
    objection_to_compiling,
)
from rightbatch.engine.flat import Update, make_update
from rightbatch.engine.forward import Forward, Found, find_forward, interleaved
from rightbatch.engine.stacked import Stack

__all__ = [
    "CompiledStack",
    "CompiledSteps",
    "Forward",
    "Found",
    "Stack",
    "Update",
    "compile_steps",
    "find_forward",
    "interleaved",
    "make_update",
    "objection_to_compiling",
]
