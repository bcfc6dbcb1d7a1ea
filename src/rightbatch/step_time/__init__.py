"""Seconds per step against batch size and replicas: laws, measured times, fits.

=================  ==========================================================
``communication``  what replicas add: none, constant, a parameter server
``collectives``    ring, halving-doubling, sharded, two levels
``kinds``          all of them by name, and rebuilt from JSON
``evaluation``     checks between steps
``law``            :class:`StepTimeLaw`
``measured``       :class:`MeasuredStepTime`: measured times joined by lines
``surface``        least squares without negative terms, knees and draws at once
``profile``        the law of least squares at any knee and overlap
``candidates``     the communication laws that are fitted
``overlap``        the overlap exponent, where a table can carry it
``selection``      which law a table prefers
``findings``       what a table shows, in plain words
``intervals``      profile intervals of the law found
``remarks``        what to know of a fit before it is used
``fit``            :func:`fit_step_time`
``fitted``         :class:`StepTimeFit`, what it returns
``memory``         bytes against micro-batch size, and the largest that fits
=================  ==========================================================
"""

from rightbatch.step_time.collectives import (
    HalvingDoublingCommunication,
    RingCommunication,
    ShardedCommunication,
    TwoLevelCommunication,
)
from rightbatch.step_time.communication import (
    Communication,
    ConstantCommunication,
    LinearCommunication,
    NoCommunication,
)
from rightbatch.step_time.evaluation import Evaluation
from rightbatch.step_time.findings import StepTimeFinding
from rightbatch.step_time.fit import fit_step_time
from rightbatch.step_time.fitted import StepTimeDraws, StepTimeFit, TimedStep
from rightbatch.step_time.kinds import communication_from_dict
from rightbatch.step_time.law import StepTimeLaw
from rightbatch.step_time.measured import MeasuredStepTime, local_seconds
from rightbatch.step_time.memory import MemoryFit, MemoryLaw, fit_memory
from rightbatch.step_time.selection import StepTimeRival

__all__ = [
    "Communication",
    "ConstantCommunication",
    "Evaluation",
    "HalvingDoublingCommunication",
    "LinearCommunication",
    "MeasuredStepTime",
    "MemoryFit",
    "MemoryLaw",
    "NoCommunication",
    "RingCommunication",
    "ShardedCommunication",
    "StepTimeDraws",
    "StepTimeFinding",
    "StepTimeFit",
    "StepTimeLaw",
    "StepTimeRival",
    "TimedStep",
    "TwoLevelCommunication",
    "communication_from_dict",
    "fit_memory",
    "fit_step_time",
    "local_seconds",
]
