"""Where a policy, a measurement and an optimizer meet: a batch that grows in training.

=============  =============================================================
``sensing``    measure: gradient noise, losses, norms, for those who need them
``mean_loss``  the loss on a fraction of the data, leaving no trace in the model
``acting``     act: learning rate and kin follow the batch, on top of a scheduler
``guard``      a lost run is noticed, and the last good state put back
``update``     one update: its forward passes, backward, step
``record``     what each update was, as rows and as a trace
``controller`` :class:`BatchSizeController`, the only meeting point
``hosted``     the same in a loop that belongs to a framework
``window``     what came of one of its updates
=============  =============================================================
"""

from rightbatch.controller.acting import Acting
from rightbatch.controller.controller import BatchSizeController
from rightbatch.controller.guard import Guard
from rightbatch.controller.hosted import HostedController
from rightbatch.controller.mean_loss import MeanLoss
from rightbatch.controller.record import UpdateRecord, trace_of
from rightbatch.controller.sensing import Sensing
from rightbatch.controller.update import Update

__all__ = [
    "Acting",
    "BatchSizeController",
    "Guard",
    "HostedController",
    "MeanLoss",
    "Sensing",
    "Update",
    "UpdateRecord",
    "trace_of",
]
