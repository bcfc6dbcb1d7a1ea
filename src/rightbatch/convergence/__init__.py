"""Steps to a target against batch size: the law, its fits, and how far to trust them.

==============  =========================================================
``law``         :class:`ConvergenceLaw`, definitions of a critical batch size
``runs``        repeated runs grouped by batch size
``tuning``      the best learning rate of each batch size
``profile``     the least-squares surface, searched whole
``fit``         :func:`fit_convergence`
``diagnosis``   status and what to run next
==============  =========================================================
"""

from rightbatch.convergence.fit import BatchPoint, ConvergenceFit, fit_convergence
from rightbatch.convergence.law import ConvergenceDraws, ConvergenceLaw
from rightbatch.convergence.tuning import (
    TunedBatch,
    TunedFit,
    best_learning_rates,
    fit_tuned,
)

__all__ = [
    "BatchPoint",
    "ConvergenceDraws",
    "ConvergenceFit",
    "ConvergenceLaw",
    "TunedBatch",
    "TunedFit",
    "best_learning_rates",
    "fit_convergence",
    "fit_tuned",
]
