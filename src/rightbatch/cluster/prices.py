"""What an amount of something costs: by the unit, by the step, or by a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import nonnegative, positive, positive_array
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray

# Whole steps are counted a little generously: 0.3 / 0.1 is one step too few.
_ROUNDING = 1e-9


class PriceCurve(Protocol):
    """Money against an amount, never falling."""

    def price(self, amount: ArrayLike) -> Any:
        """Return the money that an amount costs; arrays broadcast."""
        ...

    def amount_for(self, money: ArrayLike) -> Any:
        """Return the largest amount for the money; minus infinity where there is none.

        An array in, an array out.
        """
        ...

    def sizes(self, high: float) -> FloatArray | None:
        """Return the amounts worth buying up to `high`; None where any amount is."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearPrice:
    r"""So much for every unit.

    .. math:: C(a) = c_0 + c \max(a - a_0, 0)

    Args:
        price_per_unit: c, money for one unit more.
        fixed_price: :math:`c_0`, money for any amount at all.
        included: :math:`a_0`, units that cost nothing more.

    Raises:
        InputError: `price_per_unit` is not positive, or another value is negative.

    Example:
        >>> price = LinearPrice(price_per_unit=100.0, fixed_price=50.0)
        >>> price.price(3), price.amount_for(350.0)
        (350.0, 3.0)
    """

    price_per_unit: float
    fixed_price: float = 0.0
    included: float = 0.0

    def __post_init__(self) -> None:
        positive("LinearPrice", "price_per_unit", self.price_per_unit)
        nonnegative("LinearPrice", "fixed_price", self.fixed_price)
        nonnegative("LinearPrice", "included", self.included)

    def price(self, amount: ArrayLike) -> Any:
        """Return the money that an amount costs."""
        paid = np.maximum(np.asarray(amount, dtype=float) - self.included, 0.0)
        return _plain(self.fixed_price + self.price_per_unit * paid)

    def amount_for(self, money: ArrayLike) -> Any:
        """Return the largest amount for the money."""
        left = np.asarray(money, dtype=float) - self.fixed_price
        units = self.included + left / self.price_per_unit
        return _plain(np.where(left >= 0, units, -np.inf))

    def sizes(self, high: float) -> FloatArray | None:
        """Return None: any amount can be bought."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SteppedPrice:
    r"""Sold by the box: a part of a step costs as much as the whole.

    .. math:: C(a) = c_0 + c \lceil \max(a - a_0, 0) / d \rceil

    Args:
        step: Units in one step, d.
        price_per_step: Money for it, c.
        fixed_price: :math:`c_0`, money for any amount at all.
        included: :math:`a_0`, units that cost nothing more.

    Raises:
        InputError: `step` or `price_per_step` is not positive, or another value is
            negative.

    Example:
        >>> nodes = SteppedPrice(step=8, price_per_step=200_000.0)
        >>> nodes.price([1, 8, 9]).tolist(), nodes.amount_for(5e5)
        ([200000.0, 200000.0, 400000.0], 16.0)
    """

    step: float
    price_per_step: float
    fixed_price: float = 0.0
    included: float = 0.0

    def __post_init__(self) -> None:
        positive("SteppedPrice", "step", self.step)
        positive("SteppedPrice", "price_per_step", self.price_per_step)
        nonnegative("SteppedPrice", "fixed_price", self.fixed_price)
        nonnegative("SteppedPrice", "included", self.included)

    def price(self, amount: ArrayLike) -> Any:
        """Return the money that an amount costs."""
        paid = np.maximum(np.asarray(amount, dtype=float) - self.included, 0.0)
        steps = np.ceil(paid / self.step - _ROUNDING)
        return _plain(self.fixed_price + self.price_per_step * steps)

    def amount_for(self, money: ArrayLike) -> Any:
        """Return the largest amount for the money: whole steps."""
        left = np.asarray(money, dtype=float) - self.fixed_price
        steps = np.floor(left / self.price_per_step + _ROUNDING)
        units = self.included + self.step * steps
        return _plain(np.where((left >= 0) & (units > 0), units, -np.inf))

    def sizes(self, high: float) -> FloatArray | None:
        """Return the ends of the steps up to `high`, and `high` itself."""
        count = int(max((high - self.included) / self.step + _ROUNDING, 0.0))
        ends = self.included + self.step * np.arange(count + 1)
        return np.unique(np.append(ends[ends > 0], high))


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePrice:
    """A list of prices, with straight lines between them or sold as listed only.

    Args:
        amounts: Increasing.
        prices: Money for each, never falling; the first may be 0, for what is there
            already.
        listed_only: True where nothing between the listed amounts is sold: who needs
            more than one pays for the next.

    Raises:
        InputError: The lists differ in length, amounts do not increase, a price is
            negative or falls, or one that is not the first is 0.

    Example:
        >>> cards = TablePrice(amounts=[1, 2, 4], prices=[0, 300, 1200])
        >>> cards.price(3), cards.amount_for(750.0)
        (750.0, 3.0)
    """

    amounts: Sequence[float]
    prices: Sequence[float]
    listed_only: bool = False

    def __post_init__(self) -> None:
        who = "TablePrice"
        amounts = positive_array(who, "amounts", self.amounts)
        first = nonnegative(who, "prices", self.prices[0]) if len(self.prices) else 0.0
        later = [first, *self.prices[1:]]
        if len(later) > 1:
            positive_array(who, "prices", later[1:])
        if len(amounts) != len(self.prices):
            raise InputError(
                f"{who}: `prices` must be as many as `amounts`, got "
                f"{len(self.prices)} and {len(amounts)}."
            )
        if np.any(np.diff(amounts) <= 0):
            raise InputError(
                f"{who}: `amounts` must increase, got {list(self.amounts)}."
            )
        if np.any(np.diff(np.asarray(later, dtype=float)) < 0):
            raise InputError(
                f"{who}: `prices` must not fall as amounts grow, got "
                f"{list(self.prices)}.",
                "leave out the amounts that nobody would buy",
            )
        object.__setattr__(self, "amounts", tuple(amounts.tolist()))
        object.__setattr__(self, "prices", tuple(float(each) for each in later))

    def price(self, amount: ArrayLike) -> Any:
        """Return the money that an amount costs; infinity past the end of the list."""
        wanted = np.asarray(amount, dtype=float)
        beyond = wanted > self.amounts[-1] * (1 + _ROUNDING)
        if self.listed_only:
            place = np.searchsorted(self.amounts, wanted * (1 - _ROUNDING))
            found = np.asarray(self.prices)[np.minimum(place, len(self.prices) - 1)]
        else:
            found = np.interp(wanted, self.amounts, self.prices)
        return _plain(np.where(beyond, np.inf, found))

    def amount_for(self, money: ArrayLike) -> Any:
        """Return the largest amount for the money, never past the list."""
        held = np.minimum(np.asarray(money, dtype=float), self.prices[-1])
        place = np.searchsorted(self.prices, held * (1 + 1e-12), side="right") - 1
        found = np.asarray(self.amounts)[np.maximum(place, 0)]
        if not self.listed_only:
            # Several amounts may cost the same: the line starts at the last of them.
            after = np.minimum(place + 1, len(self.prices) - 1)
            left = held - np.asarray(self.prices)[np.maximum(place, 0)]
            rise = np.diff(self.prices, append=np.inf)[np.maximum(place, 0)]
            span = np.asarray(self.amounts)[after] - found
            found = found + span * np.clip(left / rise, 0.0, 1.0)
        return _plain(np.where(place >= 0, found, -np.inf))

    def sizes(self, high: float) -> FloatArray | None:
        """Return the listed amounts up to `high`, where only those are sold."""
        if not self.listed_only:
            return None
        listed = np.asarray(self.amounts)
        return listed[listed <= high * (1 + _ROUNDING)]


def _plain(values: FloatArray) -> float | FloatArray:
    return float(values) if np.ndim(values) == 0 else values
