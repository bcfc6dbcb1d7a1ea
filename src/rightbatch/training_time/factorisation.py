"""A global batch as micro-batch x accumulation x replicas, share by share."""

from dataclasses import dataclass
from typing import Any

from rightbatch._checks import positive_integer
from rightbatch.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Factorisation:
    """Who computes how many examples of a batch, in how many passes.

    Shares differ by one example at most, and so do the passes of a share. A step takes
    as long as `accumulation_steps` passes of `micro_batch_size` examples.

    Args:
        batch_size: Examples of one step, B.
        num_replicas: Replicas that share them, P.
        accumulation_steps: Passes of the largest share.

    Raises:
        InputError: A number is not whole, or a replica or a pass gets no example.

    Example:
        >>> cut = Factorisation(batch_size=1000, num_replicas=3, accumulation_steps=4)
        >>> cut.shares, cut.micro_batch_size, cut.passes_of(0)
        ((334, 333, 333), 84, (84, 84, 83, 83))
        >>> print(cut)
        84 x 4 x 3 = 1,008 places for 1,000 examples (0.79 % wasted)
    """

    batch_size: int
    num_replicas: int = 1
    accumulation_steps: int = 1

    def __post_init__(self) -> None:
        who = "Factorisation"
        for name in ("batch_size", "num_replicas", "accumulation_steps"):
            positive_integer(who, name, getattr(self, name))
        if self.num_replicas > self.batch_size:
            raise InputError(
                f"{who}: `num_replicas` must be at most the batch size, got "
                f"{self.num_replicas} for {self.batch_size}."
            )
        if self.accumulation_steps > self.largest_share:
            raise InputError(
                f"{who}: `accumulation_steps` must be at most the largest share, got "
                f"{self.accumulation_steps} for {self.largest_share}."
            )

    @property
    def largest_share(self) -> int:
        """Examples of the replica with most: it sets the pace."""
        return -(-self.batch_size // self.num_replicas)

    @property
    def num_largest(self) -> int:
        """How many replicas have the largest share; the others have one less."""
        return self.batch_size % self.num_replicas or self.num_replicas

    @property
    def micro_batch_size(self) -> int:
        """Examples of the largest pass."""
        return -(-self.largest_share // self.accumulation_steps)

    @property
    def shares(self) -> tuple[int, ...]:
        """Examples of every replica; they add up to the batch size."""
        small = self.num_replicas - self.num_largest
        most = self.largest_share
        return (most,) * self.num_largest + (most - 1,) * small

    @property
    def places(self) -> int:
        """Examples the same step could take: the product of the three factors."""
        return self.micro_batch_size * self.accumulation_steps * self.num_replicas

    @property
    def waste(self) -> float:
        """Share of the places that stay empty, while their replicas wait."""
        return 1 - self.batch_size / self.places

    @property
    def is_even(self) -> bool:
        """True where every pass of every replica has the same number of examples."""
        return self.places == self.batch_size

    def passes_of(self, replica: int) -> tuple[int, ...]:
        """Return the examples of each pass of one replica.

        Args:
            replica: From 0; the first have the largest share.

        Returns:
            They add up to its share; a share of one example less may need one pass
            less.

        Raises:
            InputError: There is no such replica.
        """
        if not 0 <= replica < self.num_replicas:
            raise InputError(
                f"Factorisation: `replica` must be from 0 to {self.num_replicas - 1}, "
                f"got {replica}."
            )
        share = self.shares[replica]
        low, more = divmod(share, self.accumulation_steps)
        passes = (low + 1,) * more + (low,) * (self.accumulation_steps - more)
        return tuple(examples for examples in passes if examples)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; shares as pairs of how many replicas and how many."""
        most, small = self.largest_share, self.num_replicas - self.num_largest
        shares = [{"replicas": self.num_largest, "examples": most}]
        if small:
            shares.append({"replicas": small, "examples": most - 1})
        return {
            "batch_size": self.batch_size,
            "num_replicas": self.num_replicas,
            "accumulation_steps": self.accumulation_steps,
            "micro_batch_size": self.micro_batch_size,
            "shares": shares,
            "waste": self.waste,
        }

    def __str__(self) -> str:
        factors = (
            f"{self.micro_batch_size} x {self.accumulation_steps} x {self.num_replicas}"
        )
        if self.is_even:
            return f"{factors} = {self.batch_size:,} examples"
        return (
            f"{factors} = {self.places:,} places for {self.batch_size:,} examples "
            f"({100 * self.waste:.2g} % wasted)"
        )
