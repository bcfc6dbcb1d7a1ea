"""Batch-size policies: what one sees, what it answers, and the policies themselves.

=================  ===============================================================
``contract``       observation, decision, policy; what a policy will look at next
``constant``       the policy that all are compared with
``damped``         AdaDamp, AdaDampNN, PadaDamp: as the loss falls
``radadamp``       RadaDamp: as the training batches' loss and gradient fall
``geometric``      GeoDamp, GeoDampLR, CntsDampLR, Geometric: by factors
``schedules``      FullBatch; by step, epoch, example or token; Megatron's text form
``noise_driven``   off the gradient noise scale, each by its formula
``norm_tests``     norm test, inner-product tests, CABS
``planned``        the soonest batch at the noise of now
``lr_driven``      Seesaw, ConvexRamp: a learning-rate schedule turned into growth
``wrappers``       Clip, RoundTo, SpillToLr, OnlyGrow
``hysteresis``     Dwell, Wait, Relative, OnlyIfSure
``sequence``       InTurn
``saving``         memory and identity of a policy, as JSON has them
``catalogue``      the policies by name, from a text
=================  ===============================================================
"""

from rightbatch.policies.catalogue import (
    POLICIES,
    WRAPPER_PARAMETERS,
    Parameter,
    PolicyContext,
    PolicyEntry,
    named_policy,
)
from rightbatch.policies.constant import Constant
from rightbatch.policies.contract import (
    CLOCK,
    OBSERVABLE,
    UNBOUNDED,
    Decision,
    Observation,
    Policy,
    Sparing,
    ask,
    check_policy,
    needs_now,
    policy_name,
)
from rightbatch.policies.damped import AdaDamp, AdaDampNN, PadaDamp, padadamp_rate
from rightbatch.policies.geometric import CntsDampLR, GeoDamp, GeoDampLR, Geometric
from rightbatch.policies.hysteresis import Dwell, OnlyIfSure, Relative, Wait
from rightbatch.policies.lr_driven import ConvexRamp, Seesaw
from rightbatch.policies.noise_driven import (
    Diversity,
    DoublingWarmup,
    EfficiencyFloor,
    ExchangeRate,
    NoiseFollowing,
    Similarity,
)
from rightbatch.policies.norm_tests import CABS, InnerProductTest, NormTest
from rightbatch.policies.planned import Planned
from rightbatch.policies.radadamp import RadaDamp
from rightbatch.policies.saving import pack_state, policy_signature, unpack_state
from rightbatch.policies.schedules import (
    FullBatch,
    Schedule,
    doubling_schedule,
    linear_ramp,
    parse_schedule,
)
from rightbatch.policies.sequence import InTurn
from rightbatch.policies.wrappers import Clip, OnlyGrow, RoundTo, SpillToLr

__all__ = [
    "CABS",
    "CLOCK",
    "OBSERVABLE",
    "POLICIES",
    "UNBOUNDED",
    "WRAPPER_PARAMETERS",
    "AdaDamp",
    "AdaDampNN",
    "Clip",
    "CntsDampLR",
    "Constant",
    "ConvexRamp",
    "Decision",
    "Diversity",
    "DoublingWarmup",
    "Dwell",
    "EfficiencyFloor",
    "ExchangeRate",
    "FullBatch",
    "GeoDamp",
    "GeoDampLR",
    "Geometric",
    "InTurn",
    "InnerProductTest",
    "NoiseFollowing",
    "NormTest",
    "Observation",
    "OnlyGrow",
    "OnlyIfSure",
    "PadaDamp",
    "Parameter",
    "Planned",
    "Policy",
    "PolicyContext",
    "PolicyEntry",
    "RadaDamp",
    "Relative",
    "RoundTo",
    "Schedule",
    "Seesaw",
    "Similarity",
    "Sparing",
    "SpillToLr",
    "Wait",
    "ask",
    "check_policy",
    "doubling_schedule",
    "linear_ramp",
    "named_policy",
    "needs_now",
    "pack_state",
    "padadamp_rate",
    "parse_schedule",
    "policy_name",
    "policy_signature",
    "unpack_state",
]
