"""rightbatch finds the mini-batch size that reaches your target soonest.

Everything else lives one level down: ``rightbatch.scaling.strong(...)``. Names resolve
when they are first used, so that ``import rightbatch`` loads neither torch nor scipy.

Example:
    >>> import rightbatch
    >>> fit = rightbatch.fit_convergence([8, 32, 128, 512], [500, 212, 140, 118])
    >>> round(fit.law.critical_batch_size)
    27
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rightbatch.controller import BatchSizeController
    from rightbatch.convergence import (
        ConvergenceFit,
        ConvergenceLaw,
        LossLaw,
        fit_convergence,
        fit_learning_rate,
        fit_loss_law,
        fit_tuned,
    )
    from rightbatch.errors import RightbatchError
    from rightbatch.experiments.sweep import sweep
    from rightbatch.fitting import Interval
    from rightbatch.gradients import NoiseMeter, NoiseReading
    from rightbatch.lr_scaling import transfer
    from rightbatch.sampler import MicroBatchStream
    from rightbatch.step_time import (
        ConstantCommunication,
        LinearCommunication,
        MeasuredStepTime,
        NoCommunication,
        RingCommunication,
        StepTimeFit,
        StepTimeLaw,
        fit_step_time,
    )
    from rightbatch.timing import measure_comm, measure_step_times
    from rightbatch.training import train
    from rightbatch.training_time import (
        BatchLimits,
        Plan,
        TrainingTimeLaw,
        plan_batch_size,
        plan_batch_sizes,
    )
    from rightbatch.workload import Target, Workload, load_workload

__version__ = "0.1.0"

__all__ = [
    "BatchLimits",
    "BatchSizeController",
    "ConstantCommunication",
    "ConvergenceFit",
    "ConvergenceLaw",
    "Interval",
    "LinearCommunication",
    "LossLaw",
    "MeasuredStepTime",
    "MicroBatchStream",
    "NoCommunication",
    "NoiseMeter",
    "NoiseReading",
    "Plan",
    "RightbatchError",
    "RingCommunication",
    "StepTimeFit",
    "StepTimeLaw",
    "Target",
    "TrainingTimeLaw",
    "Workload",
    "__version__",
    "fit_convergence",
    "fit_learning_rate",
    "fit_loss_law",
    "fit_step_time",
    "fit_tuned",
    "load_workload",
    "measure_comm",
    "measure_step_times",
    "plan_batch_size",
    "plan_batch_sizes",
    "sweep",
    "train",
    "transfer",
]

_HOME = {
    "BatchLimits": "training_time",
    "BatchSizeController": "controller",
    "ConstantCommunication": "step_time",
    "ConvergenceFit": "convergence",
    "ConvergenceLaw": "convergence",
    "Interval": "fitting",
    "LinearCommunication": "step_time",
    "LossLaw": "convergence",
    "MeasuredStepTime": "step_time",
    "MicroBatchStream": "sampler",
    "NoCommunication": "step_time",
    "NoiseMeter": "gradients",
    "NoiseReading": "gradients",
    "Plan": "training_time",
    "RightbatchError": "errors",
    "RingCommunication": "step_time",
    "StepTimeFit": "step_time",
    "StepTimeLaw": "step_time",
    "Target": "workload",
    "TrainingTimeLaw": "training_time",
    "Workload": "workload",
    "fit_convergence": "convergence",
    "fit_learning_rate": "convergence",
    "fit_loss_law": "convergence",
    "fit_step_time": "step_time",
    "fit_tuned": "convergence",
    "load_workload": "workload",
    "measure_comm": "timing",
    "measure_step_times": "timing",
    "plan_batch_size": "training_time",
    "plan_batch_sizes": "training_time",
    "sweep": "experiments.sweep",
    "train": "training",
    "transfer": "lr_scaling",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'rightbatch' has no attribute {name!r}")
    return getattr(import_module(f"rightbatch.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
