"""A stream of examples cut into batches; its position is counted in examples."""

from rightbatch.sampler.contract import Stream
from rightbatch.sampler.counted import CountedStream
from rightbatch.sampler.examples import ExampleStream, chunks, whole
from rightbatch.sampler.iterable import IterableStream
from rightbatch.sampler.loading import Loading
from rightbatch.sampler.micro_batches import MicroBatchStream
from rightbatch.sampler.side_by_side import SideBySide
from rightbatch.sampler.update_batch import ForwardPass, UpdateBatch

__all__ = [
    "CountedStream",
    "ExampleStream",
    "ForwardPass",
    "IterableStream",
    "Loading",
    "MicroBatchStream",
    "SideBySide",
    "Stream",
    "UpdateBatch",
    "chunks",
    "whole",
]
