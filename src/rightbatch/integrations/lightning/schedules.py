"""The learning-rate schedules of a Lightning Trainer, as the updates move them."""

import math
import sys
from dataclasses import replace
from typing import Any

from rightbatch.controller import Acting

# So seldom that Lightning never steps one by itself.
_NEVER = sys.maxsize


def acting_in(trainer: Any, acting: Acting) -> Acting:
    """Return what is done to the optimizer, for what ends the run.

    Where ``max_steps`` ends it, ``trainer.estimated_stepping_batches`` is that number,
    and a schedule that was made for so many steps counts updates.

    Args:
        trainer: As training begins.
        acting: The user's; what it says of ``counts`` holds, but for "auto".

    Returns:
        It, or with ``counts="steps"``.
    """
    most = trainer.max_steps
    if acting.counts != "auto" or most <= 0:
        return acting
    if trainer.estimated_stepping_batches != most:
        return acting
    return replace(acting, counts="steps")


class Schedules:
    """Those that count updates: of interval "step" and frequency 1.

    Args:
        trainer: With its schedules set up.
    """

    def __init__(self, trainer: Any) -> None:
        self._module = trainer.lightning_module
        self._moved = [
            config
            for config in trainer.lr_scheduler_configs
            if config.interval == "step"
            and config.frequency == 1
            and not config.reduce_on_plateau
        ]

    def hold(self) -> None:
        """Keep Lightning from stepping past its last one that is at its end."""
        for config in self._moved:
            if _is_over(config.scheduler):
                config.frequency = _NEVER

    def advance(self, steps: int) -> None:
        """Take steps beyond Lightning's own.

        Args:
            steps: Of each schedule; one that has an end stays there.
        """
        for _ in range(steps):
            for config in self._moved:
                if not _is_over(config.scheduler):
                    self._module.lr_scheduler_step(config.scheduler, None)

    def release(self) -> None:
        """Leave them to Lightning, as they were."""
        for config in self._moved:
            config.frequency = 1


def _is_over(scheduler: Any) -> bool:
    most = scheduler.total_steps if hasattr(scheduler, "total_steps") else math.inf
    return scheduler.last_epoch >= most
