"""What hardware to buy or rent, and for which job: eqs. 11 and 12 of Perrone et al.

==============  =============================================================
``prices``      money against an amount: linear, stepped, a list
``machine``     :class:`Machine`: what a job runs on
``components``  replicas, compute, bandwidth, memory
``job``         :class:`Job`: how soon a machine reaches its target
``sharing``     several jobs on one cluster: how many replicas to each
``design``      :class:`Design`: what can be bought for which jobs
``search``      the soonest mix for a price, the cheapest by a time
``marginal``    gain per unit of money, equal at the best mix
``mix``         :func:`best_mix`, :func:`pareto_front`
==============  =============================================================
"""

from rightbatch.cluster.components import (
    Bandwidth,
    Component,
    Compute,
    Memory,
    Replicas,
)
from rightbatch.cluster.design import Design
from rightbatch.cluster.job import Job
from rightbatch.cluster.machine import Machine
from rightbatch.cluster.marginal import Marginal, Worth
from rightbatch.cluster.mix import BestMix, JobShare, Mix, best_mix, pareto_front
from rightbatch.cluster.prices import (
    LinearPrice,
    PriceCurve,
    SteppedPrice,
    TablePrice,
)
from rightbatch.cluster.sharing import Sharing, share_replicas

__all__ = [
    "Bandwidth",
    "BestMix",
    "Component",
    "Compute",
    "Design",
    "Job",
    "JobShare",
    "LinearPrice",
    "Machine",
    "Marginal",
    "Memory",
    "Mix",
    "PriceCurve",
    "Replicas",
    "Sharing",
    "SteppedPrice",
    "TablePrice",
    "Worth",
    "best_mix",
    "pareto_front",
    "share_replicas",
]
