import pytest
import torch
from torch.utils.data import TensorDataset

from rightbatch.sampler import ExampleStream, SideBySide
from rightbatch.sampler import side_by_side as module

DATA = TensorDataset(torch.arange(10), 2 * torch.arange(10))


def streams(count=3):
    return [ExampleStream(DATA, seed) for seed in range(count)]


@pytest.mark.parametrize("batch_size", [1, 3, 10])
@pytest.mark.parametrize("chunk_bytes", [1, 300, 2**20])
def test_each_stream_gives_the_examples_that_it_gives_alone(
    batch_size, chunk_bytes, monkeypatch
):
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    together, alone = SideBySide(streams(), batch_size), streams()
    for _ in range(25):
        values, doubled = together.next()
        assert torch.equal(doubled, 2 * values)
        for member, stream in enumerate(alone):
            assert torch.equal(values[member::3], stream.next(batch_size)[0])


def test_a_stream_goes_on_alone_where_it_was_left():
    members, alone = streams(), streams()
    members[0].next(4), alone[0].next(4)
    for group in (members, members[:2], members[1:2]):
        together = SideBySide(group, 3)
        for _ in range(4):
            together.next()
        together.settle()
    for stream, taken in zip(alone, (8, 12, 4), strict=True):
        for _ in range(taken):
            stream.next(3)
    assert [s.examples for s in members] == [s.examples for s in alone]
    for ours, theirs in zip(members, alone, strict=True):
        assert torch.equal(ours.next(3)[0], theirs.next(3)[0])


def test_only_streams_of_the_same_tensors_fit():
    other = TensorDataset(torch.arange(10), 2 * torch.arange(10))

    class Augmented(TensorDataset):
        def __getitem__(self, index):
            return (self.tensors[0][index] + 1,)

    assert SideBySide.fits(streams())
    assert not SideBySide.fits([*streams(), ExampleStream(other, 0)])
    assert not SideBySide.fits([ExampleStream(Augmented(torch.arange(4)), 0)])


def test_rows_that_belong_to_nobody_are_drawn_from_no_stream():
    members, alone = streams(), streams()
    together = SideBySide(members, 2, width=5)
    for _ in range(12):
        values, doubled = together.next()
        assert len(values) == 2 * 5
        assert torch.equal(doubled, 2 * values)
        for member, stream in enumerate(alone):
            assert torch.equal(values[member::5], stream.next(2)[0])
    together.settle()
    assert [s.examples for s in members] == [s.examples for s in alone]
