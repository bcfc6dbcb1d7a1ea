"""A parallel corpus as numbers: what is trained on, what is held out, vocabularies.

Training pairs with more than 50 words on a side, the end mark aside, are left out, as
is usual; of the held-out pairs 300 are picked at random, once.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rightbatch.errors import InputError
from rightbatch.experiments.data.parallel_text import SentencePair
from rightbatch.experiments.workloads.vocabulary import END, Vocabulary, words

MAX_WORDS = 50
NUM_HELD_OUT = 300

Pairs = Sequence[SentencePair]
Numbers = tuple[Tensor, Tensor]


class ParallelCorpus:
    """Training and held-out sentence pairs as numbers, read once when first used.

    Args:
        read: Returns the pairs to train on and those held out.
        vocabulary_size: Numbers there are on each side, at most; those of the most
            frequent words of the pairs trained on.

    Example:
        >>> pairs = [SentencePair("ja", "yes"), SentencePair("nein", "no")]
        >>> corpus = ParallelCorpus(lambda: (pairs, pairs[:1]), vocabulary_size=6)
        >>> [(source.tolist(), target.tolist()) for source, target in corpus.training]
        [([4], [5, 3]), ([5], [4, 3])]
    """

    def __init__(
        self, read: Callable[[], tuple[Pairs, Pairs]], *, vocabulary_size: int
    ) -> None:
        self._read = read
        self.vocabulary_size = vocabulary_size

    @property
    def training(self) -> Sequence[Numbers]:
        """Numbers of the source and target words of each pair to train on."""
        return self._contents[0]

    @property
    def held_out(self) -> Sequence[Numbers]:
        """Those of the held-out pairs."""
        return self._contents[1]

    @property
    def references(self) -> Sequence[str]:
        """The held-out target sentences as they stand in the file."""
        return self._contents[2]

    @property
    def target_vocabulary(self) -> Vocabulary:
        """The words behind the target's numbers."""
        return self._contents[3]

    @cached_property
    def _contents(self) -> tuple["_Flat", "_Flat", list[str], Vocabulary]:
        training, held_out = self._read()
        kept, counts = _short_enough(training)
        source, target = (Vocabulary(c, self.vocabulary_size) for c in counts)
        rows = np.random.RandomState(0).permutation(len(held_out))[:NUM_HELD_OUT]
        chosen = [held_out[row] for row in rows.tolist()]

        def numbers(pairs: Pairs) -> _Flat:
            return _Flat(
                (
                    source.numbers(words(pair.source)),
                    [*target.numbers(words(pair.target)), END],
                )
                for pair in pairs
            )

        return numbers(kept), numbers(chosen), [pair.target for pair in chosen], target


class Sentences(Dataset[Numbers]):
    """One half of a corpus; an item is the numbers of a sentence and its translation.

    Args:
        corpus: Whose.
        held_out: The pairs held out, instead of those trained on.
    """

    def __init__(self, corpus: ParallelCorpus, *, held_out: bool) -> None:
        self.corpus = corpus
        self._held_out = held_out

    @property
    def _pairs(self) -> Sequence[Numbers]:
        return self.corpus.held_out if self._held_out else self.corpus.training

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Numbers:
        return self._pairs[index]


class _Flat(Sequence[Numbers]):
    """Pairs of sentences in two flat arrays: Europarl's two million fit in memory."""

    def __init__(self, pairs: Iterable[tuple[list[int], list[int]]]) -> None:
        flat, ends = (array("i"), array("i")), (array("q", [0]), array("q", [0]))
        for pair in pairs:
            for side in (0, 1):
                flat[side].extend(pair[side])
                ends[side].append(len(flat[side]))
        self._flat = [torch.frombuffer(side, dtype=torch.int32) for side in flat]
        self._ends = ends

    def __len__(self) -> int:
        return len(self._ends[0]) - 1

    def __getitem__(self, row: int) -> Numbers:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self._side(0, row), self._side(1, row)

    def _side(self, side: int, row: int) -> Tensor:
        ends = self._ends[side]
        return self._flat[side][ends[row] : ends[row + 1]].long()


def _short_enough(
    pairs: Pairs,
) -> tuple[list[SentencePair], tuple[Counter[str], Counter[str]]]:
    """Return the pairs that are trained on, and how often each word is in them.

    Raises:
        InputError: All are too long.
    """
    kept: list[SentencePair] = []
    counts = Counter[str](), Counter[str]()
    for pair in pairs:
        both = words(pair.source), words(pair.target)
        if max(map(len, both)) <= MAX_WORDS:
            kept.append(pair)
            counts[0].update(both[0])
            counts[1].update(both[1])
    if not kept:
        raise InputError(
            f"parallel text: all {len(pairs)} pairs have more than {MAX_WORDS} words "
            "on a side.",
            "are its lines sentences?",
        )
    return kept, counts
