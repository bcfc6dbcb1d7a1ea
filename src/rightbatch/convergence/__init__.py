"""Steps to a target against batch size: laws, fits, and how far to trust them.

=================  =========================================================
``law``            :class:`ConvergenceLaw`: the inverse law, a knee, a floor
``bounds``         what theory bounds, :class:`ConvexBound` and Bottou's
``equivalents``    other people's forms of the one curve
``definitions``    what "critical batch size" has been called, named
``runs``           repeated runs grouped by batch size
``outliers``       typing errors set aside
``mixture``        two workloads in one table
``profile``        the least-squares surface, searched whole
``choice``         which law, and what the others were worth
``rivals``         the bounds fitted to runs
``fit``            :func:`fit_convergence`
``noise``          what is noise and what is the law's own error
``findings``       what is wrong with a table, in plain words
``prospects``      what a fit would be with more runs
``next_runs``      the runs worth buying
``diagnosis``      status, findings and next runs of a fit
``tuning``         the best learning rate of each batch size, :func:`fit_tuned`
``lr_optimum``     where steps are least over learning rates
``learning_rate``  the best learning rate against the batch size
``losses``         the three-term law of losses
=================  =========================================================
"""

from rightbatch.convergence.bounds import ConvexBound, LinearRateBound
from rightbatch.convergence.choice import Candidate
from rightbatch.convergence.diagnosis import Diagnosis
from rightbatch.convergence.findings import Finding
from rightbatch.convergence.fit import BatchPoint, ConvergenceFit, fit_convergence
from rightbatch.convergence.law import ConvergenceDraws, ConvergenceLaw
from rightbatch.convergence.learning_rate import LearningRateFit, fit_learning_rate
from rightbatch.convergence.losses import LossLaw, LossLawFit, fit_loss_law
from rightbatch.convergence.next_runs import NextRun
from rightbatch.convergence.tuning import (
    TunedBatch,
    TunedFit,
    best_learning_rates,
    fit_tuned,
)

__all__ = [
    "BatchPoint",
    "Candidate",
    "ConvergenceDraws",
    "ConvergenceFit",
    "ConvergenceLaw",
    "ConvexBound",
    "Diagnosis",
    "Finding",
    "LearningRateFit",
    "LinearRateBound",
    "LossLaw",
    "LossLawFit",
    "NextRun",
    "TunedBatch",
    "TunedFit",
    "best_learning_rates",
    "fit_convergence",
    "fit_learning_rate",
    "fit_loss_law",
    "fit_tuned",
]
