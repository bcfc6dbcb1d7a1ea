"""Seconds to a target: steps times seconds per step, and the batch size that is best.

===============  ============================================================
``law``          the two protocols, :class:`TrainingTimeLaw`, what can be served
``closed_form``  :class:`ClosedForm`: eqs. 7 to 10 of Perrone et al.
``search``       the best batch size over integers, for any two models
``uncertainty``  intervals of a plan from draws of both fits
``plan``         :func:`plan_batch_size`, :func:`plan_batch_sizes`
===============  ============================================================
"""

from rightbatch.training_time.closed_form import ClosedForm
from rightbatch.training_time.law import (
    BatchLimits,
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
from rightbatch.training_time.uncertainty import PlanDraws, PlanIntervals

__all__ = [
    "BatchLimits",
    "ClosedForm",
    "Plan",
    "PlanDraws",
    "PlanEntry",
    "PlanIntervals",
    "StepTimeModel",
    "StepsModel",
    "TrainingTimeLaw",
    "batch_sizes_within",
    "best_batch_size",
    "limited_by",
    "plan_batch_size",
    "plan_batch_sizes",
    "regret",
]
