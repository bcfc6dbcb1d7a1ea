"""Loss against batch size and steps in three terms, for runs that never arrived too.

============  ===========================================================
``law``       :class:`LossLaw`, and the steps it gives to a target
``surface``   the least-squares surface over both exponents, searched whole
``fit``       :func:`fit_loss_law`
``target``    what a fit says of one target, with intervals
``crossing``  where recorded losses cross a target
============  ===========================================================
"""

from rightbatch.convergence.losses.fit import LossLawFit, fit_loss_law
from rightbatch.convergence.losses.law import LossLaw, StepsToLoss
from rightbatch.convergence.losses.target import LossTarget

__all__ = ["LossLaw", "LossLawFit", "LossTarget", "StepsToLoss", "fit_loss_law"]
