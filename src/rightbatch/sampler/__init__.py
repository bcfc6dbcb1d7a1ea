"""A stream of examples cut into batches; its position is counted in examples."""

from rightbatch.sampler.cuts import Layout
from rightbatch.sampler.examples import ExampleStream, chunks, whole
from rightbatch.sampler.micro_batches import Loading, MicroBatchStream
from rightbatch.sampler.update_batch import ForwardPass, UpdateBatch

__all__ = [
    "ExampleStream",
    "ForwardPass",
    "Layout",
    "Loading",
    "MicroBatchStream",
    "UpdateBatch",
    "chunks",
    "whole",
]
