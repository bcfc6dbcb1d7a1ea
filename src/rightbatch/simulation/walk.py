"""What a walk over a noisy quadratic is: a step at a time, measured as it goes."""

from typing import NamedTuple, Protocol

from rightbatch.fitting import Interval
from rightbatch.noise_scale import GradientMoments

EXACT = "tr Sigma / |G|^2 at the point before the update, exact"


class Measured(NamedTuple):
    """What the batch of one update told, named as in an observation."""

    batch_loss: float | None = None
    batch_grad_sq_norm: float | None = None
    moments: GradientMoments | None = None
    noise_scale: Interval | None = None
    inner_product_variance: float | None = None


MEASURED = frozenset(Measured._fields)


class Walk(Protocol):
    """An iterate that moves by one update at a time."""

    @property
    def loss(self) -> float:
        """The loss now, at the average where the optimizer keeps one."""
        ...

    def step(self, lr: float, batch_size: float, wanted: frozenset[str]) -> Measured:
        """Take one update and return what of `wanted` its batch told."""
        ...


def exact_noise_scale(moments: GradientMoments) -> Interval:
    """Return the noise scale of known moments, an interval without width."""
    known = moments.grad_sq_norm > 0
    value = moments.simple_noise_scale if known else None
    low = value if known else 0.0
    return Interval(
        value=value, low=low, high=value, level=0.95, unit="examples", definition=EXACT
    )
