"""What can be bought for which jobs: prices and times of any mix."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from rightbatch._checks import one_of
from rightbatch.cluster.components import Component
from rightbatch.cluster.job import Job
from rightbatch.cluster.machine import Machine
from rightbatch.cluster.sharing import Aim, Sharing, share_replicas, shared_seconds
from rightbatch.errors import InputError, NotReachedError
from rightbatch.fitting import FloatArray

SECONDS_PER_HOUR = 3600.0
Amounts = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    r"""Components with their prices, and the jobs they are for.

    .. math:: C = \sum_i C_i(a_i) \; [\times P \text{ where each replica pays}]

    Perrone et al. (2019), eq. 11, for any number of components.

    Args:
        jobs: One, or several that share the cluster.
        components: What is bought; one of them may be the number of replicas.
        num_replicas: Replicas there are where none are bought.
        renting: Prices are per hour, and money is the bill: the price times the hours
            until the last job is done.
        aim: What several jobs make least: the ``latest`` finish or the ``weighted`` sum
            of their times.

    Raises:
        InputError: There is no job or no component, two share a name, or two of them
            are numbers of replicas.
        NotReachedError: There are more jobs than replicas.
    """

    jobs: Sequence[Job]
    components: Sequence[Component]
    num_replicas: int = 1
    renting: bool = False
    aim: Aim = "latest"

    def __post_init__(self) -> None:
        one_of("cluster", "aim", self.aim, ["latest", "weighted"])
        for what in (self.jobs, self.components):
            kind = "jobs" if what is self.jobs else "components"
            if not what:
                raise InputError(f"cluster: `{kind}` must hold at least one, got none.")
            for one, other in pairwise(sorted(each.name for each in what)):
                if one == other:
                    raise InputError(f"cluster: two of `{kind}` are named {one!r}.")
        if sum(component.counts for component in self.components) > 1:
            raise InputError("cluster: only one component may be replicas.")
        sold = [one.high for one in self.components if one.counts]
        most = sold[0] if sold else self.num_replicas
        if most < len(self.jobs):
            raise NotReachedError(
                f"cluster: {len(self.jobs)} jobs need a replica each, and there are "
                f"{most:g}.",
                "give more replicas, or run the jobs one after another",
            )

    @property
    def unit(self) -> str:
        """Unit of a price: money, or money per hour."""
        return "money per hour" if self.renting else "money"

    def place(self, name: str) -> int:
        """Return the place of a component among the amounts."""
        return [component.name for component in self.components].index(name)

    def bought_replicas(self, amounts: Amounts) -> Any:
        """Return the replicas paid for, which may be more than are used."""
        for component, amount in zip(self.components, amounts, strict=True):
            if component.counts:
                return component.bought(amount)
        return self.num_replicas

    def prices(self, amounts: Amounts) -> list[Any]:
        """Return the price of each component of a mix; arrays broadcast."""
        replicas = self.bought_replicas(amounts)
        return [
            component.price.price(component.bought(amount))
            * (replicas if component.per_replica else 1)
            for component, amount in zip(self.components, amounts, strict=True)
        ]

    def price(self, amounts: Amounts) -> Any:
        """Return the price of a mix: money, or money per hour."""
        return sum(self.prices(amounts))

    def machine(self, amounts: Amounts) -> Machine:
        """Return the machine that a mix makes."""
        found = Machine(num_replicas=self.num_replicas)
        for component, amount in zip(self.components, amounts, strict=True):
            found = component.fit(found, amount)
        return found

    def objective(self, amounts: Amounts) -> FloatArray:
        """Return the seconds that are made least, at each of many mixes.

        Args:
            amounts: One array per component; they broadcast.

        Returns:
            Seconds to the target, or of all jobs; infinity where jobs outnumber the
            replicas.
        """
        together: Any = np.broadcast_arrays(*amounts)
        machine = self.machine(tuple(np.asarray(each, float) for each in together))
        if len(self.jobs) == 1:
            return self.jobs[0].seconds(machine)
        return shared_seconds(self.jobs, machine, self.aim)

    def finish(self, amounts: Amounts) -> float:
        """Return the seconds until the last job is done on one mix."""
        if len(self.jobs) == 1 or self.aim == "latest":
            return float(self.objective(amounts))
        return self.sharing(amounts).latest

    def sharing(self, amounts: Amounts) -> Sharing:
        """Return who gets how many replicas of one mix."""
        machine = self.machine(amounts)
        replicas = int(machine.num_replicas)
        return share_replicas(self.jobs, replicas, machine=machine, aim=self.aim)

    def money(self, amounts: Amounts) -> float:
        """Return what one mix costs in the end: its price, or the bill."""
        price = float(self.price(amounts))
        if not self.renting:
            return price
        return price * self.finish(amounts) / SECONDS_PER_HOUR
