"""The three sets of labelled images a workload of Perrone et al. has."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

from torch import Tensor

from rightbatch.experiments.data.labelled_images import LabelledImages
from rightbatch.experiments.workloads.fifths import (
    cross_validation,
    trained_on,
    training_subset,
)


class ImageSets(NamedTuple):
    """What is trained on, a fifth of all that is part of it, and a fifth that is not.

    Args:
        train: Four fifths.
        subset: A fifth, trained on; its loss is the training loss.
        held_out: A fifth, not trained on; its loss is the cross-validation loss.
    """

    train: LabelledImages
    subset: LabelledImages
    held_out: LabelledImages


def fifths_of(
    read: Callable[[], tuple[Tensor, Tensor]],
    relabel: Callable[[Tensor], Tensor] | None = None,
    *,
    center: float = 0.0,
    spread: float = 1.0,
) -> ImageSets:
    """Return the sets of rows on which Perrone et al. train and record losses.

    Args:
        read: As :class:`LabelledImages` takes it; called once, when first needed.
        relabel: Maps labels to others.
        center: Taken from all pixels, once they are in 0..1.
        spread: What pixels are then divided by.

    Example:
        >>> import torch
        >>> sets = fifths_of(lambda: (torch.zeros(10, 1, 1, 1), torch.arange(10)))
        >>> [len(rows) for rows in sets]
        [8, 2, 2]
    """
    images = partial(
        LabelledImages, cache(read), relabel=relabel, center=center, spread=spread
    )
    return ImageSets(
        train=images(rows=trained_on),
        subset=images(rows=training_subset),
        held_out=images(rows=cross_validation),
    )
