"""A language model on tiny Shakespeare, or on a text of one's own.

A small transformer, as one of the workloads of Zhang et al. is; they use LM1B, which
no single core can train on. It reads bytes, so any UTF-8 text will do, and its number
of parameters does not depend on the text. An example is a sequence of 64 bytes; the
byte after each is predicted from those up to it, and the example's loss is the mean
over them, in nats.

The last tenth of the text is held out; the rest is cut into sequences that do not
overlap, and the target is the loss on 512 of them, picked at random once.
"""

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Optimizer
from torch.utils.data import Dataset

from rightbatch.errors import InputError
from rightbatch.experiments.data.plain_text import read_text
from rightbatch.experiments.workloads.classification import seeded
from rightbatch.experiments.workloads.transformer import ByteTransformer
from rightbatch.workload import Target, Workload, find_data

DATA_SET = "lm_text"
FILES = ("tinyshakespeare.txt.gz",)
CONTEXT = 64
WIDTH = 64
NUM_LAYERS = 2
NUM_HEADS = 4
SUBSET = 512
LRS = (0.1, 0.2, 0.5, 1.0, 2.0)


def shakespeare_transformer(data_dir: Path | None = None) -> Workload:
    """Return shakespeare-transformer, 136,960 parameters, to a loss of 2.3 nats a byte.

    Example:
        >>> from rightbatch.workload import num_parameters
        >>> num_parameters(shakespeare_transformer())
        136960
    """

    def read() -> str:
        return read_text(find_data(DATA_SET, FILES, data_dir)[0])

    return _workload(
        "shakespeare-transformer",
        read,
        source="a small transformer on tiny Shakespeare, after Zhang et al.'s on LM1B",
        data_set=DATA_SET,
        file=FILES[0],
        data_dir=data_dir,
    )


def transformer_on(path: Path) -> Workload:
    """Return the same workload on a text of one's own, UTF-8, gzipped or not.

    Args:
        path: The text; at least 650 bytes.

    Example:
        >>> transformer_on(Path("letters.txt")).name
        'letters-transformer'
    """
    name = path.name.removesuffix(".gz").removesuffix(".txt")
    return _workload(
        f"{name}-transformer",
        partial(read_text, path),
        source=f"a small transformer on {path.name}",
        data_set="",
        file=path.name,
        data_dir=path.parent,
    )


class ByteSequences(Dataset[tuple[Tensor, Tensor]]):
    """Sequences of a text's bytes, each with the bytes that follow; read when used.

    Args:
        read: Returns the text.
        held_out: Those of its last tenth, instead of the rest.
        subset: How many of them, picked at random once; all when None, or when there
            are fewer.

    Raises:
        InputError: When first used: as `read` does, or the text is too short.

    Example:
        >>> inputs, following = ByteSequences(lambda: "to be or not " * 60)[0]
        >>> bytes(inputs[:5].tolist()), bytes(following[:5].tolist())
        (b'to be', b'o be ')
    """

    # The stream may gather many rows at once.
    rows_are_items = True

    def __init__(
        self,
        read: Callable[[], str],
        *,
        held_out: bool = False,
        subset: int | None = None,
    ) -> None:
        self._read = read
        self._held_out = held_out
        self._subset = subset

    @cached_property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """Bytes and the bytes after them, each of shape (sequences, 64).

        Raises:
            InputError: The text cannot be read or is too short.
        """
        text = np.frombuffer(self._read().encode(), dtype=np.uint8)
        start = len(text) - len(text) // 10
        part = text[start:] if self._held_out else text[:start]
        count = (len(part) - 1) // CONTEXT
        if count < 1:
            raise InputError(
                "language model: the text must have at least "
                f"{10 * (CONTEXT + 1)} bytes, got {len(text)}."
            )
        rows = np.arange(count)
        if self._subset is not None:
            rows = np.random.RandomState(0).permutation(count)[: self._subset]
        inputs, following = (
            torch.from_numpy(
                part[first : first + count * CONTEXT]
                .reshape(count, CONTEXT)[rows]
                .astype(np.int64)
            )
            for first in (0, 1)
        )
        return inputs, following

    def __len__(self) -> int:
        return len(self.tensors[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, following = self.tensors
        return inputs[index], following[index]


def sequence_losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of each sequence, the mean over its bytes, shape (B,), in nats.

    Args:
        model: Bytes to logits of the byte after each.
        batch: Bytes, and the bytes after them.
    """
    inputs, following = batch
    # Classes along the second axis is what the loss asks for.
    logits = model(inputs).transpose(1, 2)
    return functional.cross_entropy(logits, following, reduction="none").mean(1)


def _workload(
    name: str,
    read: Callable[[], str],
    *,
    source: str,
    data_set: str,
    file: str,
    data_dir: Path | None,
) -> Workload:
    build = partial(
        ByteTransformer,
        context=CONTEXT,
        width=WIDTH,
        num_layers=NUM_LAYERS,
        num_heads=NUM_HEADS,
    )
    return Workload(
        name=name,
        model=seeded(build),
        train=ByteSequences(read),
        evaluate_on=ByteSequences(read, subset=SUBSET),
        held_out=ByteSequences(read, held_out=True),
        loss=sequence_losses,
        optimizer=_sgd,
        target=Target(value=2.3, on="train_subset"),
        lrs=LRS,
        example_unit="sequence",
        source=source,
        data_set=data_set,
        data_files=(file,),
        data_dir=data_dir,
    )


def _sgd(parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    return SGD(parameters, lr=lr)
