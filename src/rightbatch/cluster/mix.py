"""The best mix for a budget or a deadline, and the front of time against money."""

import math
from dataclasses import dataclass, replace

import numpy as np

from rightbatch._checks import positive
from rightbatch.cluster.design import Design
from rightbatch.cluster.marginal import (
    Marginal,
    Worth,
    going_rate,
    marginals,
    worths,
)
from rightbatch.cluster.search import (
    Found,
    bill_of,
    cheapest,
    cheapest_price,
    every_mix,
    least_bill,
    most_expensive,
    soonest,
    soonest_for_bill,
)
from rightbatch.errors import InputError, NotReachedError

SAME = 1e-12
# The front reaches so far on either side of the best mix's price.
REACH = 8.0
OUT_OF_REACH = "cluster: no mix runs every job to its target."


@dataclass(frozen=True, slots=True, kw_only=True)
class JobShare:
    """What one job gets of a mix.

    Args:
        name: Of the job.
        num_replicas: Replicas it uses.
        batch_size: Best global batch size there.
        micro_batch_size: Examples per forward pass.
        accumulation_steps: Passes per step.
        steps: Steps to the target.
        seconds: Seconds to the target.
    """

    name: str
    num_replicas: int
    batch_size: int
    micro_batch_size: int
    accumulation_steps: int
    steps: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Amounts of every component, what they cost and how soon the target is reached.

    Args:
        amounts: By the component's name; of replicas, those paid for.
        used: The same, of replicas those that are not idle.
        prices: By the component's name, for all replicas.
        price: Their sum: money, or money per hour where rented.
        money: What is paid in the end: the price, or the bill.
        objective: Seconds that were made least: to the target, to the last job's
            finish, or a weighted sum.
        seconds: Until the (last) job is done.
        num_replicas: Paid for.
        idle_replicas: Better left idle.
        jobs: What each job gets.
    """

    amounts: dict[str, float]
    used: dict[str, float]
    prices: dict[str, float]
    price: float
    money: float
    objective: float
    seconds: float
    num_replicas: int
    idle_replicas: int
    jobs: tuple[JobShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BestMix:
    """The best mix, and what more of anything would be worth.

    Args:
        mix: The mix.
        marginal: Gain per unit of money of each component (eq. 12).
        rate: The gain that components share, seconds per unit of money.
        worth: Of one more replica and of twice the bandwidth.
    """

    mix: Mix
    marginal: tuple[Marginal, ...]
    rate: float | None
    worth: tuple[Worth, ...]


def best_mix(
    design: Design, *, budget: float | None = None, deadline: float | None = None
) -> BestMix:
    r"""Return the mix that is soonest for a budget, or cheapest by a deadline.

    .. math:: \min_{a} T_C(a) \quad\text{where}\quad \sum_i C_i(a_i) \le \text{budget}

    Perrone et al. (2019), eqs. 11 and 12, for any number of components; the batch size
    is re-chosen for every mix. With a deadline the cheapest mix in time, within the
    budget if both are given. Where rented, the money is the bill.

    Args:
        design: Components, their prices, and the jobs.
        budget: Money, or the largest bill.
        deadline: Seconds.

    Returns:
        The mix with the marginal value of every component.

    Raises:
        InputError: Neither is given, or one is not positive, or a deadline is asked of
            a weighted sum.
        NotReachedError: Nothing fits: says the smallest budget that works, or the least
            time that can be reached and its price.

    Example:
        >>> from rightbatch.cluster import Bandwidth, Job, LinearPrice, Replicas
        >>> from rightbatch.convergence import ConvergenceLaw
        >>> from rightbatch.step_time import ConstantCommunication, StepTimeLaw
        >>> job = Job(
        ...     convergence=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001,
        ...         saturation_batch_size=20,
        ...         communication=ConstantCommunication(seconds=0.02),
        ...     ),
        ... )
        >>> design = Design(
        ...     jobs=[job],
        ...     components=[
        ...         Replicas(price=LinearPrice(price_per_unit=1000)),
        ...         Bandwidth(price=LinearPrice(price_per_unit=2000)),
        ...     ],
        ... )
        >>> best = best_mix(design, budget=50_000)
        >>> best.mix.amounts, round(best.mix.seconds, 2)
        ({'replicas': 38.0, 'bandwidth': 6.0}, 44.82)
    """
    if budget is not None:
        positive("best_mix", "budget", budget)
    if deadline is not None:
        positive("best_mix", "deadline", deadline)
        if design.aim == "weighted" and len(design.jobs) > 1:
            raise InputError(
                "best_mix: `deadline` needs the aim latest, got weighted.",
                "a sum of times has no deadline",
            )
    if budget is None and deadline is None and not design.renting:
        raise InputError("best_mix: give a `budget` or a `deadline`, got neither.")
    found = (
        _rented(design, budget, deadline)
        if design.renting
        else _bought(design, budget, deadline)
    )
    gains = marginals(design, found.amounts)
    rate = going_rate(gains)
    return BestMix(
        mix=mix_of(design, found),
        marginal=gains,
        rate=rate,
        worth=worths(design, found.amounts, rate),
    )


def pareto_front(
    design: Design, best: Mix | None = None, *, num: int = 20
) -> tuple[Mix, ...]:
    """Return mixes than which none is both sooner and cheaper, cheapest first.

    Args:
        design: Components, their prices, and the jobs.
        best: A mix that is to be on it, around whose price it is drawn.
        num: Prices looked at.

    Returns:
        Mixes of rising money and falling time.

    Raises:
        NotReachedError: No mix reaches the target.
    """
    low = cheapest_price(design)
    high = most_expensive(design)
    if best is not None and best.price > 0:
        low = min(max(low, best.price / REACH), best.price)
        high = max(min(high, best.price * REACH), best.price)
    prices = np.geomspace(max(low, high * 1e-6), high, num).tolist()
    found = [one for price in prices if (one := soonest(design, price)) is not None]
    if best is not None:
        names = [component.name for component in design.components]
        found.append(
            Found(
                amounts=tuple(best.used[name] for name in names),
                price=best.price,
                objective=best.objective,
            )
        )
    if not found:
        raise NotReachedError(OUT_OF_REACH)
    return tuple(mix_of(design, one) for one in _not_worse(design, found))


def mix_of(design: Design, found: Found) -> Mix:
    """Return a found mix in full.

    Args:
        design: Components, their prices, and the jobs.
        found: Amounts that were found.

    Returns:
        Prices, batch sizes and times.
    """
    names = [component.name for component in design.components]
    bought = [
        float(component.bought(amount))
        for component, amount in zip(design.components, found.amounts, strict=True)
    ]
    shares = _shares(design, found)
    paid = int(design.bought_replicas(found.amounts))
    used = sum(share.num_replicas for share in shares)
    return Mix(
        amounts=dict(zip(names, bought, strict=True)),
        used=dict(zip(names, found.amounts, strict=True)),
        prices=dict(zip(names, map(float, design.prices(found.amounts)), strict=True)),
        price=found.price,
        money=bill_of(design, found) if design.renting else found.price,
        objective=found.objective,
        seconds=max(share.seconds for share in shares),
        num_replicas=paid,
        idle_replicas=paid - used,
        jobs=shares,
    )


def _shares(design: Design, found: Found) -> tuple[JobShare, ...]:
    machine = design.machine(found.amounts)
    counts = (
        (int(machine.num_replicas),)
        if len(design.jobs) == 1
        else design.sharing(found.amounts).num_replicas
    )
    shares: list[JobShare] = []
    for job, count in zip(design.jobs, counts, strict=True):
        own = replace(machine, num_replicas=count)
        batch, limits = job.batch_size(own), job.limits_on(own)
        micro, passes = limits.split(batch, count)
        seconds = job.training_time(own).seconds_as_served(batch, count, limits)
        shares.append(
            JobShare(
                name=job.name,
                num_replicas=count,
                batch_size=batch,
                micro_batch_size=micro,
                accumulation_steps=passes,
                steps=float(job.convergence.steps(batch)),
                seconds=float(seconds),
            )
        )
    return tuple(shares)


def _bought(design: Design, budget: float | None, deadline: float | None) -> Found:
    everything = every_mix(design)
    if everything is not None:
        return _chosen(design, everything, budget, deadline)
    if deadline is None:
        found = soonest(design, budget or 0.0)
        if found is None:
            raise _too_small(design, budget or 0.0, cheapest_price(design))
        return found
    tolerance = 1e-9 if len(design.jobs) == 1 else 1e-3
    found = cheapest(design, deadline, tolerance)
    if found is None:
        raise _too_late(design, deadline, soonest(design, math.inf))
    if budget is not None and found.price > budget * (1 + SAME):
        raise _too_dear(design, budget, deadline, found)
    return found


def _rented(design: Design, budget: float | None, deadline: float | None) -> Found:
    everything = every_mix(design)
    if everything is not None:
        return _chosen(design, everything, budget, deadline)
    low, high = cheapest_price(design), most_expensive(design)
    if deadline is not None:
        first = cheapest(design, deadline, 1e-6)
        if first is None:
            raise _too_late(design, deadline, soonest(design, math.inf))
        later = least_bill(design, first.price, high, deadline) or first
        found = min(first, later, key=lambda one: bill_of(design, one))
        if budget is not None and bill_of(design, found) > budget * (1 + SAME):
            raise _too_dear(design, budget, deadline, found)
        return found
    best = None if budget is None else soonest_for_bill(design, budget, low, high)
    if best is None:
        # The bill is least somewhere between the prices that were looked at.
        best = least_bill(design, low, high)
    if best is None:
        raise NotReachedError(OUT_OF_REACH)
    if budget is not None and bill_of(design, best) > budget * (1 + SAME):
        raise _too_small(design, budget, bill_of(design, best))
    return best


def _chosen(
    design: Design, mixes: list[Found], budget: float | None, deadline: float | None
) -> Found:
    # The best of all mixes there are.
    if not mixes:
        raise NotReachedError(OUT_OF_REACH)
    paid = {id(one): _money(design, one) for one in mixes}
    in_time = [
        one for one in mixes if one.objective <= (deadline or math.inf) * (1 + SAME)
    ]
    if not in_time:
        least = min(one.objective for one in mixes)
        near = [one for one in mixes if one.objective <= least * (1 + SAME)]
        raise _too_late(design, deadline or 0, min(near, key=lambda m: paid[id(m)]))
    fits = [
        one for one in in_time if paid[id(one)] <= (budget or math.inf) * (1 + SAME)
    ]
    if not fits:
        least_money = min(in_time, key=lambda one: paid[id(one)])
        if deadline is not None:
            raise _too_dear(design, budget or 0, deadline, least_money)
        raise _too_small(design, budget or 0, paid[id(least_money)])
    if deadline is None and budget is not None:
        return min(fits, key=lambda one: (one.objective, one.price))
    return min(fits, key=lambda one: (paid[id(one)], one.objective))


def _money(design: Design, found: Found) -> float:
    return bill_of(design, found) if design.renting else found.price


def _not_worse(design: Design, found: list[Found]) -> list[Found]:
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (_money(design, one), one.objective)):
        if not kept or one.objective < kept[-1].objective * (1 - 1e-9):
            kept.append(one)
    return kept


def _too_small(design: Design, budget: float, least: float) -> NotReachedError:
    what = "bill" if design.renting else "budget"
    return NotReachedError(
        f"cluster: a budget of {budget:,.6g} buys no mix that runs every job.",
        f"the smallest {what} that works is {_up(least):,.10g}",
    )


def _too_late(
    design: Design, deadline: float, nearest: Found | None
) -> NotReachedError:
    if nearest is None:
        return NotReachedError(OUT_OF_REACH)
    hourly = " per hour" if design.renting else ""
    return NotReachedError(
        f"cluster: no mix is done within {deadline:,.6g} s.",
        f"the least time that can be reached is {nearest.objective:,.6g} s, at a price "
        f"of {nearest.price:,.6g}{hourly}",
    )


def _too_dear(
    design: Design, budget: float, deadline: float, found: Found
) -> NotReachedError:
    return NotReachedError(
        f"cluster: no mix is done within {deadline:,.6g} s for {budget:,.6g}.",
        f"the cheapest in time costs {_up(_money(design, found)):,.6g}",
    )


def _up(money: float) -> float:
    # Rounded up: a budget of the number printed must do.
    if money <= 0:
        return 0.0
    digits = 10.0 ** (math.floor(math.log10(money)) - 5)
    return math.ceil(money / digits - 1e-9) * digits
