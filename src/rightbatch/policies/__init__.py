"""Batch-size policies: what one sees, what it answers, and the policies themselves."""

from rightbatch.policies.constant import Constant
from rightbatch.policies.contract import (
    CLOCK,
    OBSERVABLE,
    Decision,
    Observation,
    Policy,
    ask,
    check_policy,
    policy_name,
)

__all__ = [
    "CLOCK",
    "OBSERVABLE",
    "Constant",
    "Decision",
    "Observation",
    "Policy",
    "ask",
    "check_policy",
    "policy_name",
]
