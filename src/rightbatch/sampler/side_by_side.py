"""The next batches of several streams of one data set, gathered as one."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rightbatch.sampler.examples import CHUNK_BYTES, ExampleStream


class SideBySide:
    """Streams of one data set, from which batches are taken in lockstep.

    Rows of the same place in their batches are neighbours: of S streams' batches of M
    rows, row m S + s is stream s's m-th. Batches are gathered ahead; the streams
    themselves learn by :meth:`settle` how many were taken.

    Args:
        streams: Of one and the same data set, which :meth:`fits` tells.
        batch_size: Examples of each stream in a batch.
        width: As if there were so many streams: after those of the real ones come
            rows that belong to nobody. As many as there are when None.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> data = TensorDataset(torch.arange(4))
        >>> streams = [ExampleStream(data, seed=seed) for seed in (0, 1)]
        >>> together = SideBySide(streams, 2)
        >>> both = together.next()[0]
        >>> together.settle()
        >>> again = [ExampleStream(data, seed=seed).next(2)[0] for seed in (0, 1)]
        >>> bool((both == torch.stack(again, dim=1).flatten()).all())
        True
    """

    def __init__(
        self,
        streams: Sequence[ExampleStream],
        batch_size: int,
        *,
        width: int | None = None,
    ) -> None:
        self._streams = tuple(streams)
        self._width = len(streams) if width is None else width
        self._batch_size = batch_size
        tensors = streams[0].tensors
        assert tensors is not None
        self._tensors = tensors
        self._views: Iterator[tuple[Tensor, ...]] = iter(())
        self._gathered = 0
        self._taken = 0
        length = len(tensors[0])
        row_bytes = sum(tensor.nbytes for tensor in tensors) / length
        step_bytes = row_bytes * batch_size * self._width
        steps = min(length // batch_size, int(CHUNK_BYTES / max(step_bytes, 1)))
        self._steps = max(1, steps)

    @staticmethod
    def fits(streams: Sequence[ExampleStream]) -> bool:
        """Return whether all streams take rows of the same tensors."""
        places = {
            None if s.tensors is None else tuple(t.data_ptr() for t in s.tensors)
            for s in streams
        }
        return len(places) == 1 and None not in places

    def next(self) -> tuple[Tensor, ...]:
        """Return the next batch of all streams, `width` times `batch_size` rows."""
        for batch in self._views:
            self._taken += self._batch_size
            return batch
        self._gather()
        return self.next()

    def settle(self) -> None:
        """Take what was handed out as handed out by the streams themselves."""
        for stream in self._streams:
            stream.skip(self._taken)
        self._views = iter(())
        self._gathered = self._taken = 0

    def _gather(self) -> None:
        count = self._steps * self._batch_size
        columns = [stream.rows(count, ahead=self._gathered) for stream in self._streams]
        # The first stream's again: nothing is drawn for rows that nobody has.
        columns += columns[:1] * (self._width - len(columns))
        rows = torch.stack(columns, dim=1).flatten()
        self._gathered += count
        chunk = [t.index_select(0, rows.to(t.device)) for t in self._tensors]
        size = self._batch_size * self._width
        self._views = zip(*(part.split(size) for part in chunk), strict=True)
