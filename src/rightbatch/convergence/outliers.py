"""Batch sizes and runs that a typing error must have moved: set aside, and named.

Never down-weighted: a robust loss across batch sizes narrows the intervals falsely.
"""

import math

import numpy as np
from numpy.typing import NDArray

from rightbatch.convergence.profile import best_law
from rightbatch.convergence.runs import (
    RepeatedRuns,
    group_runs,
    runs_far_from_their_batch,
)
from rightbatch.fitting import FloatArray

TYPING_ERROR = math.log(4)
# Rms residual, in ln S, at which the batch sizes left over do fit a law.
REST_FITS = 0.3


def set_aside_typing_errors(
    batch: FloatArray, count: FloatArray
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which runs to fit, and a sentence for each that is set aside.

    A single run four-fold off its repeats, or a batch size four-fold off the law of a
    rest that fits.

    Args:
        batch: One per run, shape (N,).
        count: Steps of each, shape (N,).

    Returns:
        A mask (N,) and the sentences.
    """
    keep = np.ones(len(batch), dtype=bool)
    notes: list[str] = []
    for place in runs_far_from_their_batch(batch, count):
        keep[place] = False
        notes.append(
            f"set aside: the run of {count[place]:g} steps at batch size "
            f"{batch[place]:g} is more than four-fold off its repeats"
        )
    runs = group_runs(batch[keep], count[keep])
    if len(runs.batch_sizes) < 4:
        return keep, notes
    suspect = _suspect(runs)
    if suspect is None:
        return keep, notes
    place, predicted = suspect
    size = runs.batch_sizes[place]
    at_size = keep & (batch == size)
    far = at_size & (np.abs(np.log(count / predicted)) > TYPING_ERROR / 2)
    keep &= ~(at_size if far.sum() == at_size.sum() else far)
    notes.append(
        f"set aside: batch size {size:g} took {runs.mean_steps[place]:.4g} steps where "
        f"the others predict {predicted:.4g}; a typing error?"
    )
    return keep, notes


def _suspect(runs: RepeatedRuns) -> tuple[int, float] | None:
    """Return the place of a batch size four-fold off the law of a rest that fits."""
    rests = [runs.without(j) for j in range(len(runs.batch_sizes))]
    fits = [best_law(rest, "inverse") for rest in rests]
    place = int(np.argmin([chi2 for _, chi2 in fits]))
    law, rest = fits[place][0], rests[place]
    predicted = float(law.steps(runs.batch_sizes[place]))
    residuals = rest.log_steps - np.log(law.steps(rest.batch_sizes))
    if predicted <= 0 or math.sqrt(float(np.mean(residuals**2))) > REST_FITS:
        return None
    off = abs(math.log(runs.mean_steps[place] / predicted))
    return (place, predicted) if off > TYPING_ERROR else None
