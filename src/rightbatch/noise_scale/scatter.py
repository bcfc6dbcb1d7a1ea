r"""Weighted means and spreads of the two moments over updates, and of their position.

Kept centred, so that a window far from zero or far along a run loses no digits, and
joined by the parallel rule (Chan, Golub and LeVeque, 1983): two windows in succession
give what one pass over both would.

Sums are kept twice, by w and by :math:`w^2`. The variance of a weighted mean is
:math:`\sum w_k^2 \sigma_k^2/(\sum w)^2`, and as batches grow the :math:`\sigma_k` fall:
squared weights on the squared residuals follow that, whatever the law of the fall.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple


class Covariance(NamedTuple):
    r"""Covariance of the averages of T = :math:`\mathrm{tr}\,\Sigma` and Q = |G|^2.

    Args:
        tt: Variance of T.
        tq: Covariance.
        qq: Variance of Q.
    """

    tt: float
    tq: float
    qq: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    r"""Weighted means, and sums of products of distances from them.

    Args:
        weight: :math:`\sum w`.
        x: Mean of the position in examples, zero at the last update, below before.
        t: Mean of T = :math:`\mathrm{tr}\,\Sigma`.
        q: Mean of Q = :math:`|G|^2`.
        xx: :math:`\sum w (x - \bar x)^2`, and so on for the five others.
        xt: Of position and T.
        xq: Of position and Q.
        tt: Of T.
        tq: Of T and Q.
        qq: Of Q.
    """

    weight: float = 0.0
    x: float = 0.0
    t: float = 0.0
    q: float = 0.0
    xx: float = 0.0
    xt: float = 0.0
    xq: float = 0.0
    tt: float = 0.0
    tq: float = 0.0
    qq: float = 0.0

    def aged(self, elapsed: float, keep: float) -> "Spread":
        """Return the sums so many examples later, all weights times `keep`."""
        return Spread(
            weight=self.weight * keep,
            x=self.x - elapsed,
            t=self.t,
            q=self.q,
            xx=self.xx * keep,
            xt=self.xt * keep,
            xq=self.xq * keep,
            tt=self.tt * keep,
            tq=self.tq * keep,
            qq=self.qq * keep,
        )

    def joined(self, other: "Spread") -> "Spread":
        """Return the sums over both."""
        if not other.weight:
            return self
        if not self.weight:
            return other
        weight = self.weight + other.weight
        share = other.weight / weight
        dx, dt, dq = other.x - self.x, other.t - self.t, other.q - self.q
        both = self.weight * share
        return Spread(
            weight=weight,
            x=self.x + share * dx,
            t=self.t + share * dt,
            q=self.q + share * dq,
            xx=self.xx + other.xx + both * dx * dx,
            xt=self.xt + other.xt + both * dx * dt,
            xq=self.xq + other.xq + both * dx * dq,
            tt=self.tt + other.tt + both * dt * dt,
            tq=self.tq + other.tq + both * dt * dq,
            qq=self.qq + other.qq + both * dq * dq,
        )

    def about(self, x: float, t: float, q: float) -> "Spread":
        """Return the sums of products of distances from another point."""
        dx, dt, dq, weight = self.x - x, self.t - t, self.q - q, self.weight
        return Spread(
            weight=weight,
            x=x,
            t=t,
            q=q,
            xx=self.xx + weight * dx * dx,
            xt=self.xt + weight * dx * dt,
            xq=self.xq + weight * dx * dq,
            tt=self.tt + weight * dt * dt,
            tq=self.tq + weight * dt * dq,
            qq=self.qq + weight * dq * dq,
        )

    def for_dataset(self, dataset_size: float) -> "Spread":
        r"""Return the sums with :math:`Q + T/n` in place of Q."""
        share = 1 / dataset_size
        return replace(
            self,
            q=self.q + share * self.t,
            xq=self.xq + share * self.xt,
            tq=self.tq + share * self.tt,
            qq=self.qq + 2 * share * self.tq + share**2 * self.tt,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scatter:
    r"""What is kept of the updates of a window.

    Args:
        sums: By the weights w.
        squares: By :math:`w^2`.
        parts: :math:`\sum v`, where an update of B examples that is kept to the share
            f has :math:`w = B f` and :math:`v = B f^2`: its part in the variance of
            the averages if its own variance goes as 1/B.
        square_parts: :math:`\sum v^2`.

    Example:
        >>> two = Scatter.of(3.0, 1.0, weight=8.0).joined(
        ...     Scatter.of(5.0, 3.0, weight=8.0), 8.0)
        >>> two.t, two.q, two.sums.x, two.effective_steps
        (4.0, 2.0, -4.0, 2.0)
        >>> two.covariance()
        Covariance(tt=1.0, tq=1.0, qq=1.0)
    """

    sums: Spread = field(default_factory=Spread)
    squares: Spread = field(default_factory=Spread)
    parts: float = 0.0
    square_parts: float = 0.0

    @classmethod
    def of(cls, t: float, q: float, *, weight: float) -> "Scatter":
        """Return what is kept of one update."""
        return cls(
            sums=Spread(weight=weight, t=t, q=q),
            squares=Spread(weight=weight**2, t=t, q=q),
            parts=weight,
            square_parts=weight**2,
        )

    @property
    def t(self) -> float:
        r"""Average of :math:`\mathrm{tr}\,\Sigma`."""
        return self.sums.t

    @property
    def q(self) -> float:
        r"""Average of :math:`|G|^2`."""
        return self.sums.q

    @property
    def effective_steps(self) -> float:
        r""":math:`(\sum w)^2/\sum w^2`: as many equal weights would tell as much."""
        return self.sums.weight**2 / self.squares.weight if self.squares.weight else 0.0

    @property
    def degrees(self) -> float:
        r"""Degrees of freedom of the scatter, :math:`(\sum v)^2/\sum v^2 - 1`.

        One less than the updates where all weights are equal; :math:`n_{\mathrm{eff}} -
        1` where nothing is forgotten; less where much is, as squared residuals count
        by squared weights.
        """
        if not self.square_parts:
            return -1.0
        return self.parts**2 / self.square_parts - 1

    @property
    def is_finite(self) -> bool:
        """False where an update was so large that its square overflowed."""
        squares = self.squares
        return math.isfinite(squares.tt + squares.qq + abs(squares.tq))

    def covariance(self) -> Covariance:
        r"""Return the covariance of the two averages from the scatter of the updates.

        :math:`\frac{n}{n - 1} \sum w^2 r r'/(\sum w)^2` with the residuals r from the
        averages, and n one more than the degrees of freedom. With equal weights, the
        usual :math:`\sum r r'/(n(n - 1))`.
        """
        near = self.squares.about(0.0, self.t, self.q)
        divisor = self.sums.weight**2 * self.degrees / (self.degrees + 1)
        return Covariance(near.tt / divisor, near.tq / divisor, near.qq / divisor)

    def joined(self, later: "Scatter", elapsed: float, keep: float = 1.0) -> "Scatter":
        """Return the sums over these updates and later ones.

        Args:
            later: Sums over the updates that followed.
            elapsed: Examples from the last update here to the last one there.
            keep: Share of the weights here that is not forgotten by then.

        Returns:
            The sums over both, positions counted from the last of all.
        """
        return Scatter(
            sums=self.sums.aged(elapsed, keep).joined(later.sums),
            squares=self.squares.aged(elapsed, keep**2).joined(later.squares),
            parts=self.parts * keep**2 + later.parts,
            square_parts=self.square_parts * keep**4 + later.square_parts,
        )

    def for_dataset(self, dataset_size: float) -> "Scatter":
        r"""Return the sums with :math:`Q + T/n` in place of Q."""
        return replace(
            self,
            sums=self.sums.for_dataset(dataset_size),
            squares=self.squares.for_dataset(dataset_size),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers by name."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Scatter":
        """Return what :meth:`to_dict` was taken of."""
        return cls(
            sums=Spread(**values["sums"]),
            squares=Spread(**values["squares"]),
            parts=values["parts"],
            square_parts=values["square_parts"],
        )
