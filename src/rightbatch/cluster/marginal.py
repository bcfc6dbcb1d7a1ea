"""What a little more of each component is worth: eq. 12 of Perrone et al. (2019)."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from rightbatch.cluster.design import Amounts, Design
from rightbatch.cluster.machine import Machine
from rightbatch.cluster.sharing import share_replicas

At = Literal["interior", "low", "high", "step"]

# Relative step of the derivatives: time is known to 1e-15, its curvature is of order 1.
STEP = 1e-5
AT_BOUND = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Marginal:
    r"""The gain of a little more of one component, the batch re-chosen.

    .. math:: -\frac{\partial T_C / \partial a_i}{\partial C / \partial a_i}

    At the best mix for a budget it is the same for all components at an interior
    amount (eq. 12): money moved from one to the other would gain nothing. A component
    at its least amount gains less, one at its most gains more. Where amounts are sold
    in steps, the last step gained at least the common value per unit of money, and the
    next one would gain at most that, as far as steps are small.

    Args:
        component: Its name.
        amount: Used in the mix.
        price: Of that amount, for all replicas.
        at: ``interior``, ``low`` or ``high`` (a bound), or ``step``: sold in sizes.
        gain: Seconds saved per unit of money (of money per hour, where rented) by more;
            at ``high`` by having come so far. Of a ``step``, by the next one. None
            where there is no more.
        last_gain: Of a ``step``: what the last one saved per unit of money.
        next_amount: Of a ``step``: the next amount sold.
    """

    component: str
    amount: float
    price: float
    at: At
    gain: float | None
    last_gain: float | None = None
    next_amount: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What a change that may not be for sale would be worth.

    Args:
        what: ``one more replica`` or ``twice the bandwidth``.
        seconds_saved: Of the objective, the batch re-chosen; nothing else is changed.
        price: What the design asks for it; None where it does not sell it.
        worth: Where bought, the money that saves as much at the going rate, the common
            gain of the mix. Where rented, the money per hour for which the bill stays
            as it is. None where no rate is known.
    """

    what: str
    seconds_saved: float
    price: float | None
    worth: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields."""
        return asdict(self)


def marginals(design: Design, amounts: Amounts) -> tuple[Marginal, ...]:
    """Return what more of each component would gain.

    Args:
        design: What is bought.
        amounts: A mix, numbers.

    Returns:
        One for each component, in order.
    """
    prices = design.prices(amounts)
    found: list[Marginal] = []
    for i, component in enumerate(design.components):
        sold: dict[str, Any] = {
            "component": component.name,
            "amount": float(amounts[i]),
            "price": float(prices[i]),
        }
        if component.sizes() is not None:
            found.append(_of_steps(design, amounts, i, sold))
            continue
        amount = float(amounts[i])
        below = max(amount * (1 - STEP), component.low)
        above = min(amount * (1 + STEP), component.high)
        at: At = "interior"
        if amount <= component.low * (1 + AT_BOUND):
            at, below = "low", amount
        elif amount >= component.high * (1 - AT_BOUND):
            at, above = "high", amount
        gain = _gain(design, amounts, i, (below, above))
        found.append(Marginal(**sold, at=at, gain=gain))
    return tuple(found)


def going_rate(found: Sequence[Marginal]) -> float | None:
    """Return the common gain of a mix: seconds saved per unit of money.

    Args:
        found: Of its components.

    Returns:
        The mean over interior components; where all are sold in sizes, the best of the
        next steps. None where nothing more would gain.
    """
    inside = [each.gain for each in found if each.at == "interior" and each.gain]
    if inside:
        return float(np.mean(inside))
    known = [each.gain for each in found if each.gain and each.gain > 0]
    return max(known) if known else None


def worths(design: Design, amounts: Amounts, rate: float | None) -> tuple[Worth, ...]:
    """Return what one more replica and twice the bandwidth would be worth.

    Args:
        design: What is bought.
        amounts: A mix, numbers.
        rate: From :func:`going_rate`.

    Returns:
        Both.
    """
    machine = design.machine(amounts)
    now, done = _seconds(design, machine)
    price = float(design.price(amounts))
    changes = (
        ("one more replica", replace(machine, num_replicas=machine.num_replicas + 1)),
        ("twice the bandwidth", replace(machine, bandwidth=machine.bandwidth * 2)),
    )
    found: list[Worth] = []
    for what, changed in changes:
        then, done_then = _seconds(design, changed)
        saved = max(now - then, 0.0)
        worth = None if rate is None else saved / rate
        if design.renting:
            # The bill runs until the last job is done, whatever is made least.
            worth = price * (done / min(done_then, done) - 1)
        asked = _asked(design, amounts, what)
        found.append(Worth(what=what, seconds_saved=saved, price=asked, worth=worth))
    return tuple(found)


def _of_steps(
    design: Design, amounts: Amounts, i: int, sold: dict[str, Any]
) -> Marginal:
    component, amount = design.components[i], float(amounts[i])
    after, before = _neighbours(component, amount)
    gain = None if after is None else _gain(design, amounts, i, (amount, after))
    last = None if before is None else _gain(design, amounts, i, (before, amount))
    return Marginal(**sold, at="step", gain=gain, last_gain=last, next_amount=after)


def _neighbours(component: Any, amount: float) -> tuple[float | None, float | None]:
    """Return the next and the last amount that cost more and less."""
    if component.counts:
        paid = float(component.bought(amount))
        after = float(component.bought(min(paid + 1, component.high)))
        before = paid
        while before > 1 and component.bought(before) >= paid:
            before -= 1
        is_least = component.bought(before) >= paid
        return (
            after if after > paid else None,
            None if is_least else before,
        )
    sizes = component.between(component.low, component.high)
    above, below = sizes[sizes > amount], sizes[sizes < amount]
    price = component.price.price
    above = above[price(above) > price(amount)] if len(above) else above
    below = below[price(below) < price(amount)] if len(below) else below
    return (
        float(above[0]) if len(above) else None,
        float(below[-1]) if len(below) else None,
    )


def _gain(
    design: Design, amounts: Amounts, i: int, ends: tuple[float, float]
) -> float | None:
    tried = [
        tuple(end if j == i else each for j, each in enumerate(amounts)) for end in ends
    ]
    seconds = [float(design.objective(each)) for each in tried]
    money = [float(design.price(each)) for each in tried]
    if money[1] <= money[0] or not math.isfinite(seconds[0]):
        return None
    return max((seconds[0] - seconds[1]) / (money[1] - money[0]), 0.0)


def _seconds(design: Design, machine: Machine) -> tuple[float, float]:
    """Return the objective on one machine, and when the last job is done."""
    if len(design.jobs) == 1:
        alone = float(design.jobs[0].seconds(machine))
        return alone, alone
    count = int(machine.num_replicas)
    shared = share_replicas(design.jobs, count, machine=machine, aim=design.aim)
    return shared.objective, shared.latest


def _asked(design: Design, amounts: Amounts, what: str) -> float | None:
    """Return the price of the change, if every part of it is for sale."""
    for i, component in enumerate(design.components):
        amount = float(amounts[i])
        if what == "one more replica" and component.counts:
            more = amount + 1
        elif what == "twice the bandwidth" and component.name == "bandwidth":
            more = 2 * amount
        else:
            continue
        if more > component.high:
            return None
        tried = tuple(more if j == i else each for j, each in enumerate(amounts))
        return float(design.price(tried)) - float(design.price(amounts))
    return None
