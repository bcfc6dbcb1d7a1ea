"""How an update's examples are dealt out to replicas and cut into forward passes.

Numbers in, numbers out. An update takes the next positions of the stream. They are
dealt out a micro-batch at a time, the j-th to replica j mod P; what is left past the
last full round is dealt out in shares as equal as can be.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

Join = Literal["doubling", "any", "never"]
JOINS = ("doubling", "any", "never")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dealing:
    """Which positions are whose.

    Args:
        micro_batch_size: Examples dealt out at a time.
        num_replicas: How many take turns.
        rank: Which of them this is.

    Example:
        >>> deal = Dealing(micro_batch_size=4, num_replicas=2, rank=1)
        >>> deal.pieces(first=100, count=19)
        ((104, 4), (112, 4), (118, 1))
        >>> deal.local(19), deal.most(19)
        (9, 10)
    """

    micro_batch_size: int
    num_replicas: int = 1
    rank: int = 0

    @property
    def granule(self) -> int:
        """Examples of one round: a micro-batch for each replica."""
        return self.micro_batch_size * self.num_replicas

    def share(self, count: int) -> tuple[int, int, int]:
        """Return this replica's part of the next `count` positions.

        Returns:
            The full rounds; of what is left past them, where this replica's share
            begins (counted from the first position) and how long it is.
        """
        rounds, left = divmod(count, self.granule)
        base, larger = divmod(left, self.num_replicas)
        begin = rounds * self.granule + self.rank * base + min(self.rank, larger)
        return rounds, begin, base + (self.rank < larger)

    def local(self, count: int) -> int:
        """Return how many of the next `count` positions are this replica's."""
        rounds, _, share = self.share(count)
        return rounds * self.micro_batch_size + share

    def most(self, count: int) -> int:
        """Return how many the replica with the most has."""
        return replace(self, rank=0).local(count)

    def pieces(self, first: int, count: int) -> tuple[tuple[int, int], ...]:
        """Return this replica's micro-batches, each a position and a length.

        Args:
            first: First position of the update.
            count: Positions it takes.

        Returns:
            In the order of the stream; the last may be shorter than a micro-batch.
        """
        rounds, begin, share = self.share(count)
        size = self.micro_batch_size
        own = first + self.rank * size
        whole = tuple((own + turn * self.granule, size) for turn in range(rounds))
        return (*whole, (first + begin, share)) if share else whole


# No slots: what is worked out once per batch size is kept.
@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an update of one batch size is cut into forward passes on this replica.

    Every replica has as many passes, so that those that wait for each other do not
    wait for ever; one that runs out of examples has a pass of none.

    Args:
        dealing: Which positions are whose.
        num_examples: Of the update, over all replicas.
        largest_pass: Examples of one replica in one pass at most; None for any.
        join: "doubling": 1, 2, 4, 8 ... micro-batches to a pass, largest first;
            "any": as few passes as can be, of about one size; "never": one each.
        min_units: Passes wanted over all replicas at least. Above 1 the examples are
            cut as equally as can be, through micro-batches where there are too few.

    Example:
        >>> deal = Dealing(micro_batch_size=4)
        >>> Layout(dealing=deal, num_examples=46, largest_pass=16).passes
        ((16, 4), (16, 4), (8, 2), (4, 1), (2, 1))
        >>> Layout(dealing=deal, num_examples=46, min_units=8).passes[:2]
        ((6, 2), (6, 2))
    """

    dealing: Dealing
    num_examples: int
    largest_pass: int | None = None
    join: Join = "doubling"
    min_units: int = 1

    @cached_property
    def passes(self) -> tuple[tuple[int, int], ...]:
        """Examples and micro-batches of each pass of this replica."""
        return _passes(self)

    @cached_property
    def sizes(self) -> list[int]:
        """Examples of each pass."""
        return [examples for examples, _ in self.passes]

    @cached_property
    def local_examples(self) -> int:
        """Examples of this replica."""
        return self.dealing.local(self.num_examples)

    @property
    def num_pieces(self) -> int:
        """Micro-batches of the replica with the most, the shorter last one counted."""
        return -(-self.dealing.most(self.num_examples) // self.dealing.micro_batch_size)

    @property
    def units_per_piece(self) -> int:
        """Passes to make of each micro-batch where they cannot be joined."""
        return -(-self.min_units // (self.dealing.num_replicas * self.num_pieces))

    @property
    def most_examples(self) -> int | None:
        """Examples of a pass at most; None for any."""
        return self.largest_pass

    def with_largest(self, largest_pass: int) -> Self:
        """Return the cut of the same examples into passes of so many at most."""
        return replace(self, largest_pass=largest_pass)

    @property
    def is_padded(self) -> bool:
        """Whether some replica has a pass of no examples."""
        last = replace(self.dealing, rank=self.dealing.num_replicas - 1)
        return any(
            examples == 0 for examples, _ in _passes(replace(self, dealing=last))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RaggedLayout:
    """How items of any length are cut into forward passes, as many on every replica.

    Args:
        rows: Length of each item of this replica.
        least: Rows of the replica with the fewest.
        most: Rows of the replica with the most.
        micro_batch_size: Rows of an item, the usual ones.
        largest_pass: Rows of a pass at most; None for any.
        join: How items are joined.
        units: Passes wanted on each replica at least.

    Example:
        >>> layout = RaggedLayout(rows=(4, 4, 3), least=11, most=11, micro_batch_size=4)
        >>> layout.passes, layout.with_largest(2).passes[:2]
        (((8, 2), (3, 1)), ((2, 1), (2, 1)))
    """

    rows: tuple[int, ...]
    least: int
    most: int
    micro_batch_size: int
    largest_pass: int | None = None
    join: Join = "doubling"
    units: int = 1

    @property
    def passes(self) -> tuple[tuple[int, int], ...]:
        """Rows and items of each pass."""
        size = self.micro_batch_size
        if self.units > 1 or (self.largest_pass or size) < size:
            fewest = -(-self.most // (self.largest_pass or self.most))
            num = min(max(fewest, self.units), self.least)
            per_pass = max(1, len(self.rows) // num)
            return tuple((length, per_pass) for length in dealt(sum(self.rows), num))
        largest = (self.largest_pass or len(self.rows) * size) // size
        left, passes = list(self.rows), list[tuple[int, int]]()
        for num in grouped(len(left), largest, self.join):
            passes.append((sum(left[:num]), num))
            del left[:num]
        return tuple(passes)

    @property
    def num_pieces(self) -> int:
        """Items of each replica."""
        return len(self.rows)

    @property
    def units_per_piece(self) -> int:
        """Passes to make of each item where they cannot be joined."""
        return -(-self.units // len(self.rows))

    @property
    def most_examples(self) -> int | None:
        """Rows of a pass at most; None for any."""
        return self.largest_pass

    @property
    def is_padded(self) -> bool:
        """Never: every replica has as many items."""
        return False

    def with_largest(self, largest_pass: int) -> Self:
        """Return the cut of the same rows into passes of so many at most."""
        return replace(self, largest_pass=largest_pass)


Cut = Layout | RaggedLayout


def _passes(layout: Layout) -> tuple[tuple[int, int], ...]:
    deal, size = layout.dealing, layout.dealing.micro_batch_size
    most, own = deal.most(layout.num_examples), layout.local_examples
    if layout.min_units > 1 or (layout.largest_pass or size) < size:
        return _equal_passes(layout, most, own)
    rounds, _, share = deal.share(layout.num_examples)
    groups = _groups(rounds, most > rounds * size, layout)
    sizes: list[tuple[int, int]] = []
    for micro_batches, holds_share in groups:
        examples = micro_batches * size + (share if holds_share else 0)
        pieces = micro_batches + (holds_share and share > 0)
        sizes.append((examples, pieces))
    return tuple(sizes)


def _groups(rounds: int, has_share: bool, layout: Layout) -> list[tuple[int, bool]]:
    """Return how many full micro-batches each pass has, and whether also the rest."""
    size = layout.dealing.micro_batch_size
    largest = (layout.largest_pass or (rounds + 1) * size) // size
    if layout.join == "any" and has_share:
        counts = grouped(rounds + 1, largest, "any")
        full = [(count, False) for count in counts[:-1]]
        return [*full, (counts[-1] - 1, True)]
    counts = grouped(rounds, largest, layout.join)
    return [(count, False) for count in counts] + [(0, True)] * has_share


def grouped(num: int, largest: int, join: Join) -> list[int]:
    """Return how many of `num` micro-batches go into each pass.

    Args:
        num: Of one replica.
        largest: How many a pass holds at most.
        join: By which rule.

    Example:
        >>> grouped(7, 4, "doubling"), grouped(7, 4, "any"), grouped(3, 4, "never")
        ([4, 2, 1], [4, 3], [1, 1, 1])
    """
    if join == "any":
        return dealt(num, -(-num // largest))
    counts: list[int] = []
    largest = 1 if join == "never" else _power_of_two(largest)
    while num:
        counts.append(min(_power_of_two(num), largest))
        num -= counts[-1]
    return counts


def _equal_passes(layout: Layout, most: int, own: int) -> tuple[tuple[int, int], ...]:
    deal = layout.dealing
    fewest = -(-most // (layout.largest_pass or most))
    wanted = -(-layout.min_units // deal.num_replicas)
    # Not so many that a replica would have more passes than examples.
    wanted = min(wanted, max(1, layout.num_examples // deal.num_replicas))
    size = deal.micro_batch_size
    passes: list[tuple[int, int]] = []
    done = 0
    for examples in dealt(own, max(fewest, wanted)):
        touched = -(-(done + examples) // size) - done // size if examples else 0
        passes.append((examples, touched))
        done += examples
    return tuple(passes)


def dealt(count: int, num: int) -> list[int]:
    """Return `num` shares of a count, as equal as whole numbers can be.

    Args:
        count: What is dealt out.
        num: To how many.

    Example:
        >>> dealt(7, 3)
        [3, 2, 2]
    """
    if not num:
        return []
    base, larger = divmod(count, num)
    return [base + (place < larger) for place in range(num)]


def _power_of_two(value: int) -> int:
    """Return the largest power of two up to a number."""
    return 1 << (value.bit_length() - 1)
