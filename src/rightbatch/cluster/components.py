"""What a cluster is bought from: replicas, their speed, the network, the memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from rightbatch._checks import nonnegative, positive, positive_array, positive_integer
from rightbatch.cluster.machine import Machine
from rightbatch.cluster.prices import PriceCurve
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray

# Where nothing says how much there is to buy: so many times the least.
FARTHEST = 4096
# Every number of replicas up to here starts a search; past it some 6 % apart.
EVERY_ONE = 32
RATIO = 1.06
MOST_SIZES = 64


class Component(Protocol):
    """Something to buy an amount of, which changes the machine.

    More of it never makes a step slower; replicas alone may, and are left idle then.
    `counts` is True where the amount is the number of replicas.
    """

    counts: ClassVar[bool]

    @property
    def name(self) -> str:
        """Unique among the components of a design."""
        ...

    @property
    def price(self) -> PriceCurve:
        """Money against the amount."""
        ...

    @property
    def low(self) -> float:
        """Least amount."""
        ...

    @property
    def high(self) -> float:
        """Largest amount."""
        ...

    @property
    def per_replica(self) -> bool:
        """True where every replica needs the amount, at its price."""
        ...

    def sizes(self) -> FloatArray | None:
        """Return the amounts a search starts from; None where any amount is sold."""
        ...

    def between(self, low: float, high: float) -> FloatArray:
        """Return the amounts from `low` to `high`, few enough to try, where sold so."""
        ...

    def bought(self, amount: Any) -> Any:
        """Return the amount paid for where so much is used."""
        ...

    def fit(self, machine: Machine, amount: Any) -> Machine:
        """Return the machine with the amount in it; arrays broadcast."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicas:
    """How many replicas.

    Args:
        price: Of so many replicas.
        low: Fewest.
        high: Most.
        choices: The only numbers sold; what is too many is left idle.
        name: As the result calls it.

    Raises:
        InputError: A number is not a whole number of at least one, or `high` is below
            `low`.

    Example:
        >>> from rightbatch.cluster.prices import LinearPrice
        >>> replicas = Replicas(price=LinearPrice(price_per_unit=2.5), high=4)
        >>> replicas.sizes()
        array([1., 2., 3., 4.])
    """

    price: PriceCurve
    low: float = 1
    high: float = FARTHEST
    choices: Sequence[float] | None = None
    name: str = "replicas"
    counts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive_integer(self.name, "low", self.low)
        positive_integer(self.name, "high", self.high)
        for choice in self.choices or ():
            positive_integer(self.name, "choices", choice)
        _set_bounds(self)

    @property
    def per_replica(self) -> bool:
        """False: replicas are not bought once for each replica."""
        return False

    def sizes(self) -> FloatArray | None:
        """Return numbers of replicas a search starts from: all, or some 6 % apart.

        Sold by the step, the ends of the steps; from one on, as some may be idle.
        """
        ends = _sold(self)
        if ends is None:
            return self.between(1, self.high)
        return np.unique(np.append(ends, 1.0))

    def between(self, low: float, high: float) -> FloatArray:
        """Return whole numbers: all of them where there are few."""
        first = np.arange(low, min(low + EVERY_ONE, high) + 1, dtype=float)
        if first[-1] >= high:
            return first
        count = int(np.log(high / first[-1]) / np.log(RATIO)) + 2
        far = np.rint(np.geomspace(first[-1], high, count))
        ends = _sold(self)
        ends = np.array([]) if ends is None else ends[-MOST_SIZES:]
        return np.unique(np.concatenate([first, far, _within(ends, low, high)]))

    def bought(self, amount: Any) -> Any:
        """Return the number paid for: the next one sold, at the same price."""
        least = np.maximum(np.asarray(amount, dtype=float), self.low)
        if self.choices is not None:
            listed = np.asarray(self.choices)
            return listed[np.minimum(np.searchsorted(listed, least), len(listed) - 1)]
        paid = np.asarray(self.price.price(least))
        whole = np.floor(self.price.amount_for(paid * (1 + 1e-12)) + 1e-9)
        return np.clip(whole, least, self.high)

    def fit(self, machine: Machine, amount: Any) -> Machine:
        """Return the machine with so many replicas."""
        return replace(machine, num_replicas=amount)


class _AsSold:
    """What is paid for as it is used, and sold in any amount or as listed."""

    __slots__ = ()

    def sizes(self) -> FloatArray | None:
        """Return the amounts sold; None where any is."""
        return _sold(self)

    def between(self, low: float, high: float) -> FloatArray:
        """Return the amounts sold between two; the two where any is."""
        sold = _sold(self)
        return np.unique([low, high]) if sold is None else _within(sold, low, high)

    def bought(self, amount: Any) -> Any:
        """Return the amount itself."""
        return amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute(_AsSold):
    r"""How fast each replica is: :math:`\gamma` is divided by the amount.

    Args:
        price: Of a speed; 1 is the machine the laws were measured on.
        low: Slowest.
        high: Fastest.
        choices: The only speeds sold.
        per_replica: True where each replica pays the price.
        name: As the result calls it.

    Raises:
        InputError: A value is not positive, or `high` is below `low`.

    Example:
        >>> from rightbatch.cluster.prices import LinearPrice
        >>> faster = Compute(price=LinearPrice(price_per_unit=100.0))
        >>> faster.fit(Machine(), 3.0).speed
        3.0
    """

    price: PriceCurve
    low: float = 1.0
    high: float = FARTHEST
    choices: Sequence[float] | None = None
    per_replica: bool = True
    name: str = "compute"
    counts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _set_bounds(self)

    def fit(self, machine: Machine, amount: Any) -> Machine:
        """Return the machine with replicas so many times as fast."""
        return replace(machine, speed=machine.speed * amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth(_AsSold):
    r"""How wide the network is: the volume of :math:`\Delta` is divided by the amount.

    Perrone's :math:`\delta` is 1 over the bandwidth where communication is constant;
    the latency of a ring is not bought away.

    Args:
        price: Of a bandwidth; 1 is the network the laws were measured on.
        low: Narrowest.
        high: Widest.
        choices: The only ones sold.
        per_replica: True where each replica pays the price, as for network cards.
        name: As the result calls it.

    Raises:
        InputError: A value is not positive, or `high` is below `low`.
    """

    price: PriceCurve
    low: float = 1.0
    high: float = FARTHEST
    choices: Sequence[float] | None = None
    per_replica: bool = False
    name: str = "bandwidth"
    counts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _set_bounds(self)

    def fit(self, machine: Machine, amount: Any) -> Machine:
        """Return the machine with a network so many times as wide."""
        return replace(machine, bandwidth=machine.bandwidth * amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    r"""Memory of each replica, which sets the largest forward pass.

    .. math:: b_{\max} = \lfloor (a - a_0) / e \rfloor

    Shares beyond it are accumulated over several passes, each paying the fixed cost of
    a step.

    Args:
        price: Of an amount.
        low: Least.
        high: Most.
        choices: The only amounts sold.
        per_example: What one example more needs, e; 1 where amounts are examples.
        reserved: What the model needs before the first example, :math:`a_0`.
        per_replica: True where each replica pays the price.
        name: As the result calls it.

    Raises:
        InputError: A value is not positive, `high` is below `low`, or `low` does not
            hold one example.

    Example:
        >>> from rightbatch.cluster.prices import TablePrice
        >>> price = TablePrice(amounts=[16, 40], prices=[0, 900], listed_only=True)
        >>> gigabytes = Memory(price=price, low=16, per_example=0.5, reserved=4)
        >>> gigabytes.fit(Machine(), 40.0).max_micro_batch_size
        72.0
    """

    price: PriceCurve
    low: float = 1.0
    high: float = FARTHEST
    choices: Sequence[float] | None = None
    per_example: float = 1.0
    reserved: float = 0.0
    per_replica: bool = True
    name: str = "memory"
    counts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        positive(self.name, "per_example", self.per_example)
        nonnegative(self.name, "reserved", self.reserved)
        _set_bounds(self)
        if self._examples(self.low) < 1:
            raise InputError(
                f"{self.name}: `low` must hold one example, got {self.low:g} where "
                f"{self.reserved:g} are reserved and an example needs "
                f"{self.per_example:g}."
            )

    def sizes(self) -> FloatArray | None:
        """Return the amounts worth having: what holds a whole number of examples."""
        return self.between(self.low, self.high)

    def between(self, low: float, high: float) -> FloatArray:
        """Return such amounts between two, all of them where there are few."""
        sold = _sold(self)
        if sold is not None:
            return _within(sold, low, high)
        least, most = (float(self._examples(end)) for end in (low, high))
        if most - least < MOST_SIZES:
            examples = np.arange(least, most + 1)
        else:
            examples = np.unique(np.rint(np.geomspace(least, most, MOST_SIZES)))
        amounts = self.reserved + self.per_example * examples
        return np.unique(np.maximum(amounts, low))

    def bought(self, amount: Any) -> Any:
        """Return the amount itself."""
        return amount

    def fit(self, machine: Machine, amount: Any) -> Machine:
        """Return the machine whose replicas have so much memory."""
        return replace(machine, max_micro_batch_size=self._examples(amount))

    def _examples(self, amount: Any) -> Any:
        held = (np.asarray(amount, dtype=float) - self.reserved) / self.per_example
        whole = np.floor(held + 1e-9)
        return float(whole) if whole.ndim == 0 else whole


def _set_bounds(component: Any) -> None:
    # Checks the bounds, and draws them in to what is sold.
    who = component.name
    low = positive(who, "low", component.low)
    high = positive(who, "high", component.high)
    if component.choices is not None:
        listed = np.unique(positive_array(who, "choices", component.choices))
        listed = listed[(low <= listed) & (listed <= high)]
        if not listed.size:
            raise InputError(f"{who}: none of `choices` is within {low:g} to {high:g}.")
        low, high = float(listed[0]), float(listed[-1])
        object.__setattr__(component, "choices", tuple(listed.tolist()))
    end = float(component.price.amount_for(np.inf)) if high == FARTHEST else np.inf
    high = min(high, end)
    if high < low:
        raise InputError(f"{who}: `high` must be >= `low`, got {high:g} and {low:g}.")
    if not np.isfinite(component.price.price(high)):
        raise InputError(
            f"{who}: there is no price for {high:g}.",
            "let the list of prices go as far as `high`",
        )
    object.__setattr__(component, "low", low)
    object.__setattr__(component, "high", high)


def _sold(component: Any) -> Any:
    if component.choices is not None:
        return np.asarray(component.choices, dtype=float)
    sizes = component.price.sizes(component.high)
    if sizes is None:
        return None
    return np.unique(np.append(sizes[sizes >= component.low], component.low))


def _within(values: Any, low: float, high: float) -> FloatArray:
    return values[(values >= low) & (values <= high)]
