r"""Optimal batch size and time in closed form: eqs. 7 to 10 of Perrone et al. (2019).

The fixed cost `o` of a step and its part `e` of the checks (eq. 6) join the
communication: D(P) = o + e(P) + Delta(P) stands where the paper has its constant delta.

A floor F of the convergence law moves the origin: with x = B - F the time is again of
the paper's form, with D + gamma F / P in the place of D.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rightbatch._checks import positive
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.fitting import FloatArray
from rightbatch.step_time import StepTimeLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    r"""The plan where steps follow the inverse law and step times the law with a knee.

    .. math:: T_C(B, P) = (S_{\min} + E_{\min}/(B - F))
        \left[\gamma \max(B/P, M_T) + D(P)\right]

    Args:
        convergence: Inverse law with `min_steps` above zero, or one with a floor F.
        step_time: Law with `seconds_per_example` above zero, without overlap.

    Raises:
        InputError: A law has no optimum in closed form: S_min is not positive, so that
            larger batches never cost more examples; or the knee exponent is not 1; or
            a step's time does not grow; or communication overlaps with computing.

    Example:
        >>> from rightbatch.step_time import ConstantCommunication
        >>> plan = ClosedForm(
        ...     convergence=ConvergenceLaw(min_steps=1000, min_examples=7e5),
        ...     step_time=StepTimeLaw(
        ...         seconds_per_example=0.001,
        ...         saturation_batch_size=20,
        ...         communication=ConstantCommunication(seconds=0.02),
        ...     ),
        ... )
        >>> round(plan.optimal_batch_size(4), 2)
        236.64
        >>> plan.optimal_seconds([1, 4, 88, 1000]).round(3).tolist()
        [720.0, 313.322, 55.909, 41.4]
    """

    convergence: ConvergenceLaw
    step_time: StepTimeLaw

    def __post_init__(self) -> None:
        who = "ClosedForm"
        if self.convergence.min_steps <= 0:
            raise InputError(
                f"{who}: `min_steps` must be positive, got "
                f"{self.convergence.min_steps:g}: larger batches cost no extra "
                "examples, so the largest batch served is only a lower bound."
            )
        if self.convergence.knee_exponent != 1:
            raise InputError(
                f"{who}: `knee_exponent` must be 1, got "
                f"{self.convergence.knee_exponent:g}.",
                "plan_batch_size finds the optimum of any law",
            )
        positive(who, "seconds_per_example", self.step_time.seconds_per_example)
        law = self.step_time
        if law.overlap_exponent != 1 and law.communication.kind != "none":
            raise InputError(
                f"{who}: `overlap_exponent` must be 1, got {law.overlap_exponent:g}.",
                "plan_batch_size finds the optimum of any law",
            )

    @property
    def branch_point(self) -> float:
        r"""Number of replicas from which the knee sets the batch size.

        .. math:: P = E_{\min} D / (\gamma M_T^2 S_{\min})

        The condition of eq. 10. It speaks of two replicas or more. With a floor F it
        is the larger root of :math:`(M_T P - F)^2 = \phi (D P / \gamma + F)`.

        Raises:
            InputError: Communication is not constant in P.
        """
        knee, floor = self.step_time.saturation_batch_size, self._floor
        half = knee * floor + self._trade * self._constant_fixed() / 2
        product = floor * (floor - self._phi)
        return (half + math.sqrt(half**2 - knee**2 * product)) / knee**2

    @property
    def limit_seconds(self) -> float:
        r"""Seconds to the target on ever more replicas.

        .. math:: S_{\min} (D + \gamma M_T)

        Raises:
            InputError: Communication is not constant in P.
        """
        law = self.step_time
        saturated = law.seconds_per_example * law.saturation_batch_size
        return self.convergence.min_steps * (self._constant_fixed() + saturated)

    def optimal_batch_size(self, num_replicas: ArrayLike = 1) -> Any:
        r"""Return the batch size that reaches the target soonest (eqs. 8 and 9).

        .. math:: B = \max\left(F + \sqrt{\frac{E_{\min}}{S_{\min}}
            \left(\frac{D(P) P}{\gamma} + F\right)}, M_T P\right)

        Args:
            num_replicas: P, any shape.

        Returns:
            Examples, not rounded: a float for a number, else an array.
        """
        return _plain(
            np.maximum(self._balanced(num_replicas), self._knee(num_replicas))
        )

    def optimal_seconds(self, num_replicas: ArrayLike = 1) -> Any:
        r"""Return the least seconds to the target (eqs. 7 and 10).

        .. math::
            \left(\sqrt{D S_{\min}} + \sqrt{E_{\min} \gamma / P}\right)^2
            \quad\text{or, where the knee binds,}\quad
            (S_{\min} + E_{\min} / (M_T P - F)) (D + \gamma M_T)

        with D + gamma F / P for D in the first.

        Args:
            num_replicas: P, any shape. At P = 1 there is no communication.

        Returns:
            Seconds: a float for a number, else an array.
        """
        first, second = self._roots(num_replicas)
        law, knee = self.step_time, self._knee(num_replicas)
        step = law.seconds_per_example * law.saturation_batch_size + self._fixed(
            num_replicas
        )
        saturated = self.convergence.steps(knee) * step
        balanced = self._balanced(num_replicas) > knee
        return _plain(np.where(balanced, (first + second) ** 2, saturated))

    def batch_sizes_within(
        self, tolerance: float = 0.05, num_replicas: float = 1
    ) -> tuple[float, float]:
        r"""Return the batch sizes past the knee that lose at most `tolerance` of time.

        On the branch of the square root
        :math:`B_{opt} e^{\pm \operatorname{arccosh}(1 + \epsilon (a + b)^2 / (2 a b))}`
        with a^2 = D S_min and b^2 = E_min gamma / P, clipped at M_T P. A little below
        the knee may do as well: the range of a plan is not clipped.

        Args:
            tolerance: Share of the least time, epsilon.
            num_replicas: P.

        Returns:
            Smallest and largest such batch size.

        Raises:
            InputError: `tolerance` is not positive.
        """
        positive("ClosedForm", "tolerance", tolerance)
        first, second = (float(root) for root in self._roots(num_replicas))
        knee = float(self._knee(num_replicas))
        allowed = (1 + tolerance) * self.optimal_seconds(num_replicas)
        if first == 0:
            slope = self.step_time.seconds_per_example / num_replicas
            return knee, (allowed - second**2) / (self.convergence.min_steps * slope)
        # T_C = a^2 + b^2 + 2 a b cosh(ln(x / x_balanced)) wherever B >= M_T P.
        reach = math.acosh((allowed - first**2 - second**2) / (2 * first * second))
        floor = self._floor
        above = float(self._balanced(num_replicas)) - floor
        low, high = (floor + above * math.exp(sign * reach) for sign in (-1, 1))
        return max(low, knee), high

    def regret(self, batch_size: ArrayLike, num_replicas: float = 1) -> Any:
        r"""Return the share of time that a batch size loses against the best.

        At :math:`B_{opt} e^u` on the branch of the square root
        :math:`2ab(\cosh u - 1)/(a + b)^2`, never above :math:`(\cosh u - 1)/2`.

        Args:
            batch_size: Batch sizes, any shape.
            num_replicas: P.

        Returns:
            Fractions, 0 at the optimum: a float for a number, else an array.
        """
        steps = np.asarray(self.convergence.steps(batch_size))
        seconds = self.step_time.seconds_per_step(batch_size, num_replicas)
        return _plain(steps * seconds / self.optimal_seconds(num_replicas) - 1)

    @property
    def _phi(self) -> float:
        return self.convergence.min_examples / self.convergence.min_steps

    @property
    def _trade(self) -> float:
        return self._phi / self.step_time.seconds_per_example

    @property
    def _floor(self) -> float:
        return self.convergence.min_batch_size

    def _fixed(self, num_replicas: ArrayLike) -> FloatArray:
        law = self.step_time
        comm = np.asarray(law.communication.comm_seconds(num_replicas), dtype=float)
        return law.overhead_seconds + law.evaluation_seconds(num_replicas) + comm

    def _constant_fixed(self) -> float:
        communication = self.step_time.communication
        if communication.kind not in {"none", "constant"}:
            raise InputError(
                "ClosedForm: `communication` must be none or constant for a branch "
                f"point or a limit, got {communication.kind}."
            )
        evaluation = self.step_time.evaluation
        if evaluation is not None and evaluation.shared:
            raise InputError(
                "ClosedForm: a branch point or a limit needs a fixed cost constant in "
                "P, and checks shared among replicas are not."
            )
        return float(self._fixed(2))

    def _balanced(self, num_replicas: ArrayLike) -> FloatArray:
        replicas = np.asarray(num_replicas, dtype=float)
        area = self._trade * self._fixed(replicas) * replicas
        return self._floor + np.sqrt(area + self._phi * self._floor)

    def _knee(self, num_replicas: ArrayLike) -> FloatArray:
        replicas = np.asarray(num_replicas, dtype=float)
        return self.step_time.saturation_batch_size * replicas

    def _roots(self, num_replicas: ArrayLike) -> tuple[FloatArray, FloatArray]:
        # a and b: roots of the time that fixed costs, and that examples, cannot avoid.
        replicas = np.asarray(num_replicas, dtype=float)
        law = self.convergence
        per_example = self.step_time.seconds_per_example / replicas
        fixed = self._fixed(replicas) + per_example * self._floor
        return np.sqrt(fixed * law.min_steps), np.sqrt(law.min_examples * per_example)


def _plain(values: FloatArray) -> float | FloatArray:
    return float(values) if np.ndim(values) == 0 else values
