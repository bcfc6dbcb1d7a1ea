"""What else must change when the batch size does: rules, transfer, schedules."""

from rightbatch.lr_scaling.catalogue import (
    LR_RULES,
    SETTING_RULES,
    Rule,
    find_rule,
    lr_factor,
    steps_factor,
)
from rightbatch.lr_scaling.growth import Growth, Stage, grow
from rightbatch.lr_scaling.schedule import Schedule, named_schedule, sampled_schedule
from rightbatch.lr_scaling.settings import OPTIMIZERS, Settings
from rightbatch.lr_scaling.transfer import Change, Transfer, transfer

__all__ = [
    "LR_RULES",
    "OPTIMIZERS",
    "SETTING_RULES",
    "Change",
    "Growth",
    "Rule",
    "Schedule",
    "Settings",
    "Stage",
    "Transfer",
    "find_rule",
    "grow",
    "lr_factor",
    "named_schedule",
    "sampled_schedule",
    "steps_factor",
    "transfer",
]
