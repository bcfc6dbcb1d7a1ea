"""What two processes do with one stream; a module of its own, to be spawned."""

import os

import torch
from collectives.example_replicas import as_torchrun_does
from sampler.example_streams import Items, padded, rows_of

from rightbatch.collectives import replicas
from rightbatch.sampler import IterableStream, MicroBatchStream


def take(own, meeting, folder):
    """Leave in a file what this replica was handed out."""
    as_torchrun_does(own)
    with replicas("gloo", init_method=f"file://{meeting}", timeout_seconds=30):
        found = {
            "items": items(),
            "padded": ragged_on_one_replica(own),
            "iterable": iterable(own),
            "texts": texts(own),
        }
    torch.save(found, os.path.join(folder, f"{own}.pt"))


def items():
    stream = MicroBatchStream(Items(30), 3)
    return [rows_of(stream.next(size)) for size in (6, 12, 5, 1)]


def ragged_on_one_replica(own):
    """Collate into one width on the first replica, into several on the other."""

    def collate(rows):
        batch = padded(rows)
        return batch if own else {**batch, "x": torch.zeros(len(rows), 2)}

    update = MicroBatchStream(Items(30), 3, collate=collate).next(24)
    again = update.recut(1)
    return [[one.num_examples for one in u.passes] for u in (update, again)]


def iterable(own):
    """Take items of which the second replica's last is shorter."""
    items = list(torch.arange(8 - own).split(2))
    stream = IterableStream(items, 2)
    updates = [stream.next(8, min_units=units) for units in (1, 1, 8)]
    return [
        (u.num_examples, u.local_examples, len(u.passes), u.first_example)
        for u in updates
    ]


def texts(own):
    """Take items that can be joined on the first replica only."""
    items = [torch.ones(2, 3 + own * place) for place in range(4)]
    return len(IterableStream(items, 2).next(16).passes)
