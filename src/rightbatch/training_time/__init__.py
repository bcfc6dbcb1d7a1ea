"""Seconds to a target: steps times seconds per step, and the batch size that is best.

=================  ============================================================
``law``            the two protocols, :class:`TrainingTimeLaw`, what can be served
``factorisation``  micro-batch x accumulation x replicas, share by share
``closed_form``    :class:`ClosedForm`: eqs. 7 to 10 of Perrone et al.
``search``         the best batch size over integers, for any two models
``support``        how far the runs behind a law of steps support a plan
``uncertainty``    intervals of a plan from draws of both fits
``comparison``     the regret of any batch size, and which of two is faster
``plan``           :func:`plan_batch_size`, :func:`plan_batch_sizes`
=================  ============================================================
"""

from rightbatch.training_time.closed_form import ClosedForm
from rightbatch.training_time.comparison import (
    Comparison,
    compare_batch_sizes,
    probability_faster,
    regret_curve,
    regret_interval,
)
from rightbatch.training_time.factorisation import Factorisation
from rightbatch.training_time.law import (
    BatchLimits,
    PassTimeModel,
    StepsModel,
    StepTimeModel,
    TrainingTimeLaw,
)
from rightbatch.training_time.plan import (
    Plan,
    PlanEntry,
    plan_batch_size,
    plan_batch_sizes,
)
from rightbatch.training_time.search import (
    batch_sizes_within,
    best_batch_size,
    limited_by,
    regret,
)
from rightbatch.training_time.support import FittedSteps, limits_of
from rightbatch.training_time.uncertainty import (
    PlanDraws,
    PlanIntervals,
    Probability,
)

__all__ = [
    "BatchLimits",
    "ClosedForm",
    "Factorisation",
    "PassTimeModel",
    "Comparison",
    "FittedSteps",
    "Plan",
    "PlanDraws",
    "PlanEntry",
    "PlanIntervals",
    "Probability",
    "StepTimeModel",
    "StepsModel",
    "TrainingTimeLaw",
    "batch_sizes_within",
    "best_batch_size",
    "compare_batch_sizes",
    "limited_by",
    "limits_of",
    "plan_batch_size",
    "plan_batch_sizes",
    "probability_faster",
    "regret",
    "regret_curve",
    "regret_interval",
]
