"""Machine translation of Perrone et al.: German to English, batches in target words.

"Each mini-batch is created by adding sentences until the number of target language
words meets or exceeds the batch size": an example is a target word, and the end mark of
a sentence counts as one, since it is predicted like the others. The loss is the mean
over the target words of the batch. SGD, lr not adjusted, as published.

The model is :mod:`rightbatch.experiments.workloads.gru_attention`; the paper gives
neither its sizes nor those of the vocabularies. Here ``europarl-gru`` has 512 and
30,000, and ``multi30k-gru``, which one core can train, 128 and 4,000.

The target is a BLEU score (:mod:`rightbatch.experiments.workloads.bleu`) of greedy
translations of held-out sentences: 300 of Multi30k's validation set or of newstest2013,
picked at random once. Upper and lower case are alike throughout.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_sequence
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset

from rightbatch.experiments.data.parallel_text import (
    read_parallel,
    read_parallel_archive,
)
from rightbatch.experiments.workloads.bleu import corpus_bleu
from rightbatch.experiments.workloads.classification import seeded
from rightbatch.experiments.workloads.gru_attention import GruAttention
from rightbatch.experiments.workloads.parallel_corpus import (
    MAX_WORDS,
    Numbers,
    Pairs,
    ParallelCorpus,
    Sentences,
)
from rightbatch.experiments.workloads.vocabulary import BEGIN
from rightbatch.workload import Target, Workload, find_any

LRS = (0.1, 0.2, 0.5, 1.0)
# Groups, and where the words of the first item, the second, ... are in them.
Batch = tuple[tuple[tuple[Tensor, ...], ...], Tensor]

# A group of this many sentences of like length fits the cache, and pads little.
GROUP = 64

MULTI30K = "multi30k_de_en"
MULTI30K_FILES = ("train.de.gz", "train.en.gz", "val.de.gz", "val.en.gz")
EUROPARL = "europarl"
EUROPARL_FILES = (
    "europarl-v7.de-en.de",
    "europarl-v7.de-en.en",
    "newstest2013.de",
    "newstest2013.en",
)
EUROPARL_ARCHIVE = ("de-en.tgz", *EUROPARL_FILES[2:])


def multi30k_gru(data_dir: Path | None = None) -> Workload:
    """Return multi30k-gru, hidden size 128, to a BLEU of 5 on 300 held-out captions.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(multi30k_gru())
        2133408
    """

    def read() -> tuple[Pairs, Pairs]:
        files = find_any(MULTI30K, [MULTI30K_FILES], data_dir)
        return read_parallel(*files[:2]), read_parallel(*files[2:])

    return _workload(
        "multi30k-gru",
        ParallelCorpus(read, vocabulary_size=4_000),
        hidden_size=128,
        source="Perrone et al.'s translation model, made small, on Multi30k de-en",
        data_set=MULTI30K,
        files=(MULTI30K_FILES,),
        data_dir=data_dir,
    )


def europarl_gru(data_dir: Path | None = None) -> Workload:
    """Return europarl-gru, hidden size 512, to a BLEU of 5 on 300 news sentences.

    Europarl v7 is taken from its two files or from ``de-en.tgz``, which holds them.

    Example:
        >>> europarl_gru().lrs
        (0.1, 0.2, 0.5, 1.0)
    """
    choices = (EUROPARL_FILES, EUROPARL_ARCHIVE)

    def read() -> tuple[Pairs, Pairs]:
        *training, source, target = find_any(EUROPARL, choices, data_dir)
        if len(training) == 2:
            pairs = read_parallel(*training)
        else:
            pairs = read_parallel_archive(training[0], *EUROPARL_FILES[:2])
        return pairs, read_parallel(source, target)

    return _workload(
        "europarl-gru",
        ParallelCorpus(read, vocabulary_size=30_000),
        hidden_size=512,
        source="Perrone et al., attentional translation, Europarl v7 de-en",
        data_set=EUROPARL,
        files=choices,
        data_dir=data_dir,
    )


def target_words(item: Numbers) -> int:
    """Return how many target words a sentence pair counts for, its end mark included.

    Example:
        >>> target_words((torch.tensor([4]), torch.tensor([7, 8, 3])))
        3
    """
    return len(item[1])


def collate(items: Sequence[Numbers]) -> Batch:
    """Return sentence pairs as groups of like length, ready for the model.

    Args:
        items: Numbers of source and target words; each target with its end mark.

    Returns:
        The groups, and where each target word of the items is found in them. Of each
        group: the source words, padded; their lengths; the word before each target
        word; the target words; how many there are at each step.
    """
    rows = sorted(range(len(items)), key=lambda row: sum(map(len, items[row])))
    starts = list(accumulate((len(target) for _, target in items), initial=0))
    num_groups = -(-len(rows) // GROUP)
    cuts = [len(rows) * place // num_groups for place in range(num_groups + 1)]
    groups: list[tuple[Tensor, ...]] = []
    places: list[Tensor] = []
    for first, last in pairwise(cuts):
        chosen = sorted(rows[first:last], key=lambda row: -len(items[row][1]))
        groups.append(_group([items[row] for row in chosen]))
        within = [torch.arange(starts[row], starts[row + 1]) for row in chosen]
        places.append(_by_step(within).data)
    return tuple(groups), torch.cat(places).argsort()


def word_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss of each target word, in nats, shape (words,).

    The words of the first sentence come first, then those of the second, ...

    Args:
        model: A `GruAttention`.
        batch: From :func:`collate`.
    """
    groups, places = batch
    losses = [
        functional.cross_entropy(
            model(source, lengths, previous, sizes), target, reduction="none"
        )
        for source, lengths, previous, target, sizes in groups
    ]
    return torch.cat(losses)[places]


def bleu(model: nn.Module, dataset: Dataset[Any]) -> float:
    """Return the BLEU score of a model's translations of the held-out sentences.

    Args:
        model: A `GruAttention`.
        dataset: The held-out `Sentences` of a corpus.

    Raises:
        InputError: sacrebleu is not installed.
    """
    corpus = cast(Sentences, dataset).corpus
    translations = _translations(cast(GruAttention, model), corpus)
    return corpus_bleu(translations, corpus.references)


def _translations(model: GruAttention, corpus: ParallelCorpus) -> list[str]:
    sources = [source for source, _ in corpus.held_out]
    # Of like length together: a group is done when its slowest sentence is.
    order = sorted(range(len(sources)), key=lambda row: len(sources[row]))
    found = [""] * len(sources)
    for start in range(0, len(order), GROUP):
        rows = order[start : start + GROUP]
        source, lengths = _padded([sources[row] for row in rows])
        longest = min(MAX_WORDS, 2 * int(lengths.max()) + 5)
        device = next(model.parameters()).device
        chosen = model.translate(source.to(device), lengths.to(device), longest)
        for row, numbers in zip(rows, chosen.tolist(), strict=True):
            found[row] = corpus.target_vocabulary.text(numbers)
    return found


def _group(longest_first: Sequence[Numbers]) -> tuple[Tensor, ...]:
    begin = torch.tensor([BEGIN])
    targets = [target for _, target in longest_first]
    packed = _by_step(targets)
    previous = _by_step([torch.cat([begin, target[:-1]]) for target in targets])
    source, lengths = _padded([source for source, _ in longest_first])
    return source, lengths, previous.data, packed.data, packed.batch_sizes


def _by_step(longest_first: Sequence[Tensor]) -> PackedSequence:
    lengths = torch.tensor([len(target) for target in longest_first])
    padded = pad_sequence(list(longest_first), batch_first=True)
    return pack_padded_sequence(padded, lengths, batch_first=True)


def _padded(sources: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(source) for source in sources])
    return pad_sequence(list(sources), batch_first=True), lengths


def _workload(
    name: str,
    corpus: ParallelCorpus,
    *,
    hidden_size: int,
    source: str,
    data_set: str,
    files: tuple[tuple[str, ...], ...],
    data_dir: Path | None,
) -> Workload:
    build = partial(
        GruAttention, vocabulary_size=corpus.vocabulary_size, hidden_size=hidden_size
    )
    return Workload(
        name=name,
        model=seeded(build),
        train=Sentences(corpus, held_out=False),
        evaluate_on=Sentences(corpus, held_out=True),
        loss=word_losses,
        optimizer=_sgd,
        target=Target(
            metric="bleu",
            value=5.0,
            direction="max",
            on="held_out",
            crossing="first",
            every=20,
        ),
        lrs=LRS,
        example_unit="word",
        source=source,
        collate=collate,
        example_count=target_words,
        corpus_metrics={"bleu": bleu},
        data_set=data_set,
        data_files=files[0],
        other_data_files=files[1:],
        data_dir=data_dir,
    )


def _sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(parameters, lr=lr)
