"""Optimizer updates: one run's, and those of several runs in lockstep."""

from rightbatch.engine.flat import Update, make_update
from rightbatch.engine.forward import Forward, Found, find_forward, interleaved
from rightbatch.engine.stacked import Stack

__all__ = [
    "Forward",
    "Found",
    "Stack",
    "Update",
    "find_forward",
    "interleaved",
    "make_update",
]
