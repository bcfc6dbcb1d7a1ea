"""Data sets whose rows say their number, and what streams made of them hand out."""

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from rightbatch.sampler import ExampleStream, Loading, MicroBatchStream, UpdateBatch


def numbered(length: int) -> TensorDataset:
    rows = torch.arange(length)
    return TensorDataset(rows.float().unsqueeze(1).expand(length, 3), rows)


class Items(Dataset[Any]):
    """A map-style data set without tensors."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3,), float(index)), index


def named(items: list[tuple[Tensor, int]]) -> dict[str, Any]:
    """Collate into a dict."""
    return {
        "x": torch.stack([x for x, _ in items]),
        "row": torch.tensor([row for _, row in items]),
        "text": [str(row) for _, row in items],
    }


def padded(items: list[tuple[Tensor, int]]) -> dict[str, Any]:
    """Collate into sentences as long as the longest of the micro-batch."""
    longest = max(row for _, row in items) + 1
    return {
        "x": torch.zeros(len(items), longest),
        "row": torch.tensor([row for _, row in items]),
    }


KINDS = {
    "tensors": (numbered, None),
    "items": (Items, None),
    "collated": (Items, named),
    "padded": (Items, padded),
}


def stream_of(
    kind: str, length: int, size: int, *, rank: int = 0, of: int = 1, **settings: Any
) -> MicroBatchStream:
    """Make one replica's stream; what is no setting of the stream is of its loading."""
    make, collate = KINDS[kind]
    own = {k: settings.pop(k) for k in ("seed", "tail") if k in settings}
    loading = Loading(rank=rank, num_replicas=of, **settings)
    return MicroBatchStream(make(length), size, collate=collate, loading=loading, **own)


def streams_of(
    kind: str, length: int, size: int, of: int, **settings: Any
) -> list[MicroBatchStream]:
    return [stream_of(kind, length, size, rank=r, of=of, **settings) for r in range(of)]


def rows_in(batch: Any) -> list[int]:
    return (batch["row"] if isinstance(batch, dict) else batch[1]).tolist()


def rows_of(update: UpdateBatch) -> list[int]:
    """Return the rows of a replica's share; those of empty passes left out."""
    rows: list[int] = []
    for one in update.passes:
        found = rows_in(one.batch)
        assert len(found) == one.num_examples or 1 <= len(found) <= 2
        rows += found[: one.num_examples]
    assert len(rows) == update.local_examples
    return rows


def plain_order(length: int, count: int, seed: int = 0) -> list[int]:
    """Return the rows at the first positions, as ExampleStream hands them out."""
    stream = ExampleStream(numbered(length), seed)
    return [int(stream.next(1)[1]) for _ in range(count)]


kinds = st.sampled_from(sorted(KINDS))
joins = st.sampled_from(["doubling", "any", "never"])


@st.composite
def cut_streams(draw: st.DrawFn) -> dict[str, Any]:
    """Return a stream's settings and the batch sizes asked of it."""
    replicas, size = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    length = draw(st.integers(replicas * size, 40))
    sizes = st.tuples(st.integers(1, length), st.sampled_from([1, 1, 2, 8]))
    return {
        "kind": draw(kinds),
        "length": length,
        "size": size,
        "of": replicas,
        "join": draw(joins),
        "largest_pass": draw(st.sampled_from([None, size, 2 * size, 3 * size + 1])),
        "asked": draw(st.lists(sizes, min_size=1, max_size=8)),
        "repeats": draw(st.integers(1, 3)),
    }


def asked_of(case: dict[str, Any]) -> list[tuple[int, int]]:
    """Return batch sizes and units, each some times in a row."""
    return [pair for pair in case.pop("asked") for _ in range(case["repeats"])]
