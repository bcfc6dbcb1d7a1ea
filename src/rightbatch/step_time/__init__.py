"""Seconds per step against batch size and replicas: laws, measured times, fits.

=================  ==========================================================
``communication``  what replicas add: none, constant, linear in P, a ring
``law``            :class:`StepTimeLaw`, :class:`MeasuredStepTime`
``profile``        the least-squares surface over knees
``fit``            :func:`fit_step_time`
``fitted``         :class:`StepTimeFit`, what it returns
=================  ==========================================================
"""

from rightbatch.step_time.communication import (
    Communication,
    ConstantCommunication,
    LinearCommunication,
    NoCommunication,
    RingCommunication,
)
from rightbatch.step_time.fit import fit_step_time
from rightbatch.step_time.fitted import StepTimeDraws, StepTimeFit, TimedStep
from rightbatch.step_time.law import MeasuredStepTime, StepTimeLaw

__all__ = [
    "Communication",
    "ConstantCommunication",
    "LinearCommunication",
    "MeasuredStepTime",
    "NoCommunication",
    "RingCommunication",
    "StepTimeDraws",
    "StepTimeFit",
    "StepTimeLaw",
    "TimedStep",
    "fit_step_time",
]
