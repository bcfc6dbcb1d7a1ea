"""The policy that every other one is compared with."""

from dataclasses import dataclass

from rightbatch.policies.contract import (
    CLOCK_ALONE,
    Decision,
    Observation,
    check_positive,
    nothing_remembered,
)


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

    needs = CLOCK_ALONE
    init = nothing_remembered

    def __post_init__(self) -> None:
        check_positive(self, "batch_size")

    def update(self, state: None, seen: Observation) -> tuple[Decision, None]:
        """Return the same decision whatever is seen."""
        return Decision(self.batch_size, reason="constant"), state
