r"""The time of checks between steps: the second term of Perrone et al. (2019), eq. 6.

.. math:: \frac{\gamma_{CV} \max(M_{CV}, M_T)}{N}

seconds per step, where every N steps M_CV held-out examples are looked at.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import positive, positive_integer
from rightbatch.fitting import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    r"""A check on held-out examples every few steps, by one replica or by all.

    Args:
        every: Steps from one check to the next, N.
        num_examples: Examples of a check, :math:`M_{CV}`.
        seconds_per_example: :math:`\gamma_{CV}`, on one replica; None for the time of
            a training example, which is an upper bound: a check has no backward pass.
        shared: True where the replicas divide the examples among them; else one
            replica checks and the others wait.

    Example:
        >>> check = Evaluation(every=100, num_examples=5000, seconds_per_example=1e-4)
        >>> check.seconds_per_step(1e-3, 20)
        0.005
    """

    every: int
    num_examples: int
    seconds_per_example: float | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        positive_integer("Evaluation", "every", self.every)
        positive_integer("Evaluation", "num_examples", self.num_examples)
        if self.seconds_per_example is not None:
            positive("Evaluation", "seconds_per_example", self.seconds_per_example)

    def local_examples(self, num_replicas: ArrayLike = 1) -> FloatArray:
        """Return the examples of a check that one replica looks at.

        Args:
            num_replicas: P, any shape.

        Returns:
            Examples, fractions allowed, of that shape.
        """
        replicas = np.asarray(num_replicas, dtype=float)
        among = replicas if self.shared else np.ones_like(replicas)
        return np.asarray(self.num_examples / among, dtype=float)

    def seconds_per_step(
        self,
        seconds_per_example: ArrayLike,
        saturation_batch_size: ArrayLike,
        num_replicas: ArrayLike = 1,
    ) -> Any:
        r"""Return what checks add to a step, :math:`\gamma_{CV} \max(M, M_T) / N`.

        Args:
            seconds_per_example: Of training, :math:`\gamma`.
            saturation_batch_size: :math:`M_T`, local examples.
            num_replicas: P.

        Returns:
            Seconds per step: a float for numbers, else an array.
        """
        each = self.seconds_per_example
        rate = np.asarray(seconds_per_example if each is None else each, dtype=float)
        local = np.maximum(self.local_examples(num_replicas), saturation_batch_size)
        seconds = np.asarray(rate * local / self.every)
        return float(seconds) if seconds.ndim == 0 else seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)
