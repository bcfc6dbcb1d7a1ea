"""The soonest mix for a price, the cheapest by a time: searches over amounts."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rightbatch.cluster.components import Component
from rightbatch.cluster.design import SECONDS_PER_HOUR, Amounts, Design
from rightbatch.cluster.prices import TablePrice
from rightbatch.fitting import FloatArray

# Points of an axis: at first for one job and for several, then in each round.
FIRST, FIRST_OF_SEVERAL, POINTS = 25, 7, 9
MOST_MIXES, MOST_WITHOUT_CLOSED_FORM = 20_000, 3_000
ROUNDS = 40
# An axis this narrow is known; times of several jobs are not worth so many digits.
NARROW, NARROW_OF_SEVERAL = 1e-11, 1e-3
# So narrow while prices per hour are scanned for the least bill.
ROUGH = 1e-3
# Sizes that were best in so many rounds are settled.
SETTLED = 3
ALL_SIZES = 60_000
SAME = 1e-12
# A bill so many times the least one, or the budget, ends a scan of rising prices.
FAR_OFF = 8.0
# Of the highest price, where the lowest is nothing.
LEAST = 1e-9
# Prices per hour so near are one; those of several jobs, and around the least bill.
SAME_PRICE, CLOSE = 1e-9, 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A mix and what it is worth.

    Args:
        amounts: Of each component, used.
        price: Money, or money per hour.
        objective: Seconds that were made least.
    """

    amounts: tuple[float, ...]
    price: float
    objective: float


def soonest(design: Design, price: float, *, roughly: bool = False) -> Found | None:
    """Return the mix with the least time among those that cost at most a price.

    Components sold in sizes are tried size by size, those sold in any amount on grids
    that close in on the best; the last of these takes whatever money is left, as more
    of it never hurts. At the end every amount is made as small as it can be without
    losing time.

    Args:
        design: What can be bought.
        price: Money, or money per hour; infinity for no limit.
        roughly: True to stop early, some 1e-3 off in amounts.

    Returns:
        The mix; None where nothing is so cheap.
    """
    free = [i for i, one in enumerate(design.components) if one.sizes() is None]
    taker = free[-1] if free else None
    axes = [
        np.array([one.low]) if i == taker else _first_axis(design, i, price)
        for i, one in enumerate(design.components)
    ]
    narrow = NARROW if len(design.jobs) == 1 else NARROW_OF_SEVERAL
    most = _most_mixes(design)
    narrow = max(narrow, ROUGH) if roughly else narrow
    best: Found | None = None
    settled = 0
    for _ in range(ROUNDS):
        here = _best_on(design, _thinned(axes, most), taker, price)
        if here is None:
            break
        if best is None or here.objective <= best.objective:
            same = best is not None and all(
                here.amounts[i] == best.amounts[i]
                for i in range(len(axes))
                if i not in free
            )
            best, settled = here, settled + 1 if same else 0
        before = axes
        axes = [
            axis
            if i == taker
            else np.array([best.amounts[i]])
            if settled >= SETTLED and i not in free
            else _closer(design.components[i], axis, best.amounts[i])
            for i, axis in enumerate(axes)
        ]
        if all(_is_known(*pair, narrow) for pair in zip(before, axes, strict=True)):
            break
    return None if best is None else _trimmed(design, best)


def cheapest_price(design: Design) -> float:
    """Return the price of the least of everything: the smallest one that works."""
    jobs = len(design.jobs)
    least = tuple(
        max(1.0, float(jobs)) if one.counts else one.low for one in design.components
    )
    return float(design.price(least))


def most_expensive(design: Design) -> float:
    """Return the price of the most of everything."""
    most = tuple(component.high for component in design.components)
    return float(design.price(most))


def cheapest(design: Design, deadline: float, tolerance: float = 1e-9) -> Found | None:
    """Return the mix with the least price among those that meet a deadline.

    The least time for a price never rises with the price, so the price is bisected.

    Args:
        design: What can be bought.
        deadline: Seconds.
        tolerance: Of the price, relative, where amounts are not sold in sizes.

    Returns:
        The mix; None where no money buys so short a time.
    """

    def in_time(price: float) -> Found | None:
        found = soonest(design, price)
        return found if found and found.objective <= deadline * (1 + SAME) else None

    low = cheapest_price(design)
    best = in_time(low)
    if best is not None:
        return best
    # From below by doubling: without an upper bound on amounts the end is far away.
    high = low
    while best is None and high < most_expensive(design):
        low, high = high, max(2 * high, LEAST * most_expensive(design))
        best = in_time(high)
    if best is None:
        return None
    high = best.price
    while high > low * (1 + tolerance):
        middle = math.sqrt(low * high) if low > 0 else high / 2
        found = in_time(middle)
        if found is None:
            low = middle
        else:
            best, high = found, min(middle, found.price)
    return best


def every_mix(design: Design) -> list[Found] | None:
    """Return all mixes where every component is sold in sizes and they are few."""
    axes = [_all_sizes(component) for component in design.components]
    if any(axis is None for axis in axes):
        return None
    known: list[Any] = axes
    if math.prod(len(axis) for axis in known) > ALL_SIZES:
        return None
    amounts = _mesh(known)
    prices = np.broadcast_to(design.price(amounts), amounts[0].shape)
    seconds = design.objective(amounts)
    return [
        Found(amounts=row[:-2], price=row[-2], objective=row[-1])
        for row in zip(
            *(each.tolist() for each in (*amounts, prices, seconds)), strict=True
        )
        if math.isfinite(row[-1])
    ]


def bill_of(design: Design, found: Found) -> float:
    """Return price times hours: the bill of a mix that is rented."""
    if _pays_the_objective(design):
        return found.price * found.objective / SECONDS_PER_HOUR
    return design.money(found.amounts)


def _pays_the_objective(design: Design) -> bool:
    # Of a weighted sum the finish, which is paid for, may not fall with the price.
    return design.aim == "latest" or len(design.jobs) == 1


def least_bill(
    design: Design, low: float, high: float, deadline: float = math.inf
) -> Found | None:
    """Return the mix with the least bill among prices per hour, and in time.

    Prices are scanned roughly, then ever closer around the best, which is then searched
    to the end.

    Args:
        design: What can be rented.
        low: Lowest price per hour.
        high: Highest.
        deadline: Seconds.

    Returns:
        The mix; None where none is in time.
    """
    several = len(design.jobs) > 1
    scanned = _Scanned(design=design, deadline=deadline)
    # What is there already may cost nothing, and has no logarithm.
    start, stop = max(low, LEAST * high), high
    points, asked = 9 if several else 17, 0.0
    for _ in range(3 if several else 12):
        prices = np.geomspace(start, stop, points).tolist()
        place = None
        for i, price in enumerate(prices):
            paid = scanned.bill_at(price)
            if math.isfinite(paid) and paid > FAR_OFF * scanned.bill:
                break  # bills rise from here on
            if paid < scanned.bill:
                scanned.bill, place, asked = paid, i, price
        if not math.isfinite(scanned.bill):
            return None
        if place is not None:
            start, stop = prices[max(place - 1, 0)], prices[min(place + 1, points - 1)]
        else:
            start, stop = math.sqrt(start * asked), math.sqrt(stop * asked)
        if stop <= start * (1 + CLOSE):
            break
        points = 9
    found = soonest(design, asked)
    rough = scanned.found[asked]
    if found is None or found.objective > deadline * (1 + SAME):
        return rough
    return found if bill_of(design, found) <= scanned.bill else rough


@dataclass(slots=True, kw_only=True)
class _Scanned:
    """Prices that were asked for, what each bought, and the least bill so far."""

    design: Design
    deadline: float
    found: dict[float, Found | None] = field(default_factory=dict[float, Found | None])
    bill: float = math.inf

    def bill_at(self, price: float) -> float:
        """Return the bill; infinity where it is too late or cannot be the least."""
        below = max((each for each in self.found if each < price), default=0.0)
        above = min((each for each in self.found if each >= price), default=None)
        dearer = None if above is None else self.found[above]
        if dearer is not None:
            if dearer.price <= price:
                self.found[price] = dearer  # more money bought nothing
            least = below * dearer.objective / SECONDS_PER_HOUR
            if _pays_the_objective(self.design) and least >= self.bill:
                return math.inf  # no mix between the two is so much sooner
        if price not in self.found:
            self.found[price] = soonest(self.design, price, roughly=True)
        found = self.found[price]
        if found is None or found.objective > self.deadline * (1 + SAME):
            return math.inf
        return bill_of(self.design, found)


def soonest_for_bill(
    design: Design, budget: float, low: float, high: float
) -> Found | None:
    """Return the soonest mix whose bill is within a budget.

    A dearer mix is no later, so it is the one of the largest price whose bill fits.
    Prices are scanned downwards. Where the time for a price p is T(p), none from
    budget / T(p) up to p fits, and those are passed over. Between the first that fits
    and the last that does not, the crossing is closed in on.

    Args:
        design: What can be rented.
        budget: Largest bill.
        low: Lowest price per hour.
        high: Highest.

    Returns:
        The mix; None where no price fits.
    """

    def excess(price: float) -> tuple[Found | None, float]:
        # Below zero where the bill fits, as is a price for which there is no mix.
        found = soonest(design, price)
        if found is None:
            return None, -math.inf
        bill = bill_of(design, found)
        return found, math.log(bill / budget) if bill > 0 else -math.inf

    end = high
    for price in np.geomspace(max(low, LEAST * high), high, 25)[::-1].tolist():
        if price > end:
            continue
        found, over = excess(price)
        if found is None:
            return None
        if over <= SAME:
            return _crossing(design, excess, (price, over, found), end)
        end = _last_to_fit(design, price, found, over)
    return None


def _last_to_fit(design: Design, price: float, found: Found, over: float) -> float:
    """Return the largest price whose bill may fit, below one whose bill does not."""
    if not _pays_the_objective(design):
        return price
    return min(price, found.price, found.price * math.exp(-over) * (1 + _same(design)))


def _crossing(
    design: Design,
    excess: Callable[[float], tuple[Found | None, float]],
    below: tuple[float, float, Found],
    end: float,
) -> Found:
    """Return the mix of the largest price that fits, between one that does and `end`.

    By secants, and by halves where those do not narrow it down: bills jump with sizes.
    """
    low, under, best = below
    # The end itself comes first: where times hardly change it is nearly the crossing.
    middle, width = end, math.inf
    high, over, halve = end, math.inf, False
    while end > low * (1 + _same(design)) and under < -_same(design):
        if math.isfinite(over):
            width = math.log(end / low)
            secant = under / (under - over) * math.log(high / low) / width
            share = 0.5 if halve else min(max(secant, 0.01), 0.99)
            middle = low * math.exp(share * width)
        found, at = excess(middle)
        if found is None or at <= SAME:
            low, under, best = middle, at, found or best
        else:
            high, over = middle, at
            end = _last_to_fit(design, middle, found, at)
        is_slow = math.log(end / low) > width / 2
        halve = not math.isfinite(under) or (is_slow and not halve)
    return best


def _same(design: Design) -> float:
    return CLOSE if len(design.jobs) > 1 else SAME_PRICE


def _first_axis(design: Design, i: int, price: float) -> FloatArray:
    component, several = design.components[i], len(design.jobs) > 1
    sizes = component.sizes()
    if sizes is None:
        money = price / design.num_replicas if component.per_replica else price
        high = min(component.high, float(component.price.amount_for(money)))
        points = FIRST_OF_SEVERAL if several else FIRST
        axis = np.geomspace(component.low, max(high, component.low), points)
        curve = component.price
        corners = curve.amounts if isinstance(curve, TablePrice) else ()
        inside = [each for each in corners if component.low < each < high]
        return np.unique(np.append(axis, inside))
    cheap = sizes[component.price.price(component.bought(sizes)) <= price * (1 + SAME)]
    most = len(cheap)
    if several:
        most = 3 * FIRST_OF_SEVERAL if component.counts else FIRST_OF_SEVERAL
    if len(cheap) > most:
        cheap = cheap[np.unique(np.linspace(0, len(cheap) - 1, most).astype(int))]
    return cheap if len(cheap) else sizes[:1]


def _best_on(
    design: Design, axes: list[FloatArray], taker: int | None, price: float
) -> Found | None:
    amounts = list(_mesh(axes))
    limit = price * (1 + SAME)
    if taker is None:
        kept = np.asarray(design.price(tuple(amounts))) <= limit
    else:
        component = design.components[taker]
        replicas = design.bought_replicas(tuple(amounts))
        prices = design.prices(tuple(amounts))
        others = sum(each for i, each in enumerate(prices) if i != taker)
        each = (price - others) / (replicas if component.per_replica else 1)
        amounts[taker] = np.minimum(component.price.amount_for(each), component.high)
        kept = amounts[taker] >= component.low * (1 - SAME)
        amounts[taker] = np.maximum(amounts[taker], component.low)
    kept = np.broadcast_to(kept, amounts[0].shape)
    if not kept.any():
        return None
    chosen = tuple(np.broadcast_to(each, kept.shape)[kept] for each in amounts)
    seconds = design.objective(chosen)
    least = float(seconds.min())
    if not math.isfinite(least):
        return None
    prices = np.broadcast_to(np.asarray(design.price(chosen)), seconds.shape)
    near = np.flatnonzero(seconds <= least * (1 + SAME))
    place = int(near[prices[near].argmin()])
    return Found(
        amounts=tuple(float(each[place]) for each in chosen),
        price=float(prices[place]),
        objective=float(seconds[place]),
    )


def _mesh(axes: list[FloatArray]) -> tuple[FloatArray, ...]:
    return tuple(each.ravel() for each in np.meshgrid(*axes, indexing="ij"))


def _most_mixes(design: Design) -> int:
    is_quick = all(job.has_closed_form for job in design.jobs)
    return MOST_MIXES if is_quick else MOST_WITHOUT_CLOSED_FORM


def _thinned(axes: list[FloatArray], most: int) -> list[FloatArray]:
    # The longest axis is halved until the mixes are few enough to try.
    axes = list(axes)
    while math.prod(len(axis) for axis in axes) > most:
        longest = max(range(len(axes)), key=lambda i: len(axes[i]))
        axis = axes[longest]
        axes[longest] = np.unique(np.append(axis[::2], axis[-1]))
    return axes


def _closer(component: Component, axis: FloatArray, amount: float) -> FloatArray:
    # From the neighbour on one side to the neighbour on the other; past the end of the
    # axis where the best is there, as shares of whole examples make small ripples.
    below, above = axis[axis < amount], axis[axis > amount]
    if len(axis) == 1:
        return axis
    width = (axis[1] / axis[0]) if not len(below) else (axis[-1] / axis[-2])
    low = float(below[-1]) if len(below) else amount / float(width)
    high = float(above[0]) if len(above) else amount * float(width)
    low, high = max(low, _least_amount(component)), min(high, component.high)
    if component.sizes() is None:
        fine = np.geomspace(low, high, POINTS)
        # The amount itself joins them; one a rounding error off would be in its way.
        fine = fine[np.abs(fine - amount) > 1e-3 * (high - low) / POINTS]
    else:
        fine = component.between(low, high)
    if len(fine) >= len(axis) > POINTS:
        fine = fine[:: len(fine) // POINTS + 1]
    return np.unique(np.append(fine, amount))


def _least_amount(component: Component) -> float:
    return 1.0 if component.counts else component.low


def _is_known(before: FloatArray, axis: FloatArray, narrow: float) -> bool:
    return np.array_equal(before, axis) or axis[-1] <= axis[0] * (1 + narrow)


def _all_sizes(component: Component) -> FloatArray | None:
    if component.counts:
        return np.arange(1, component.high + 1)
    return component.sizes()


def _trimmed(design: Design, found: Found) -> Found:
    """Return the mix without what it does not need: bandwidth on one replica, say."""
    amounts = list(found.amounts)

    def as_soon(i: int, amount: Any) -> Any:
        tried = tuple(amount if j == i else each for j, each in enumerate(amounts))
        return design.objective(tried) <= found.objective * (1 + SAME)

    for i, component in enumerate(design.components):
        if as_soon(i, component.low):
            amounts[i] = 1.0 if component.counts else component.low
            if component.counts and not as_soon(i, 1.0):
                amounts[i] = component.low
            continue
        sizes = component.sizes()
        if sizes is not None:
            smaller = sizes[sizes < amounts[i]]
            enough = smaller[as_soon(i, smaller)] if len(smaller) else smaller
            amounts[i] = float(enough[0]) if len(enough) else amounts[i]
        elif as_soon(i, amounts[i] * 0.999):
            low, high = component.low, amounts[i]
            while high > low * (1 + 1e-9):
                middle = math.sqrt(low * high)
                low, high = (low, middle) if as_soon(i, middle) else (middle, high)
            amounts[i] = high
    mix: Amounts = tuple(amounts)
    return Found(
        amounts=mix,
        price=float(design.price(mix)),
        objective=float(design.objective(mix)),
    )
