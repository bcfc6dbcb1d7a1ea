"""The policy that every other one is compared with."""

from dataclasses import dataclass

from rightbatch import _checks
from rightbatch.policies.contract import Decision, Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """The same batch size at every update.

    Args:
        batch_size: In examples.

    Raises:
        InputError: It is not positive.

    Example:
        >>> policy = Constant(batch_size=64)
        >>> start = Observation(step=0, examples=0, batch_size=0)
        >>> policy.update(policy.init(), start)
        (Decision(batch_size=64, lr_factor=1.0, reason='constant'), None)
    """

    batch_size: float

    def __post_init__(self) -> None:
        _checks.positive("Constant", "batch_size", self.batch_size)

    @property
    def needs(self) -> frozenset[str]:
        """Nothing but the clock."""
        return frozenset()

    def init(self) -> None:
        """Return nothing: there is nothing to remember."""

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return the same decision whatever is seen.

        Args:
            state: None.
            seen: Not looked at.

        Returns:
            The decision, and no memory.
        """
        return Decision(self.batch_size, reason="constant"), state
