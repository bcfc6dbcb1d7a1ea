"""Weighted means and spreads of the two moments over updates, and of their position.

Kept centred, so that a window far from zero or far along a run loses no digits, and
joined by the parallel rule (Chan, Golub and LeVeque, 1983): two windows in succession
give what one pass over both would.
"""

from dataclasses import asdict, dataclass, replace
from typing import NamedTuple


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
class Scatter:
    r"""Weighted sums over updates; x is where an update lies, in examples, 0 the last.

    Args:
        weight: :math:`\sum w`.
        square_weight: :math:`\sum w^2`.
        x: Weighted mean of the position, zero or below.
        t: Weighted mean of :math:`\mathrm{tr}\,\Sigma`.
        q: Weighted mean of :math:`|G|^2`.
        xx: :math:`\sum w (x - \bar x)^2`, and so on for the five others.
        xt: Of position and T.
        xq: Of position and Q.
        tt: Of T.
        tq: Of T and Q.
        qq: Of Q.
        square_x: Mean of the position by :math:`w^2`.
        square_xx: :math:`\sum w^2 (x - \bar x)^2` about that mean.

    Example:
        >>> two = Scatter.of(3.0, 1.0, weight=8.0).joined(
        ...     Scatter.of(5.0, 3.0, weight=8.0), 8.0)
        >>> two.t, two.q, two.x, two.effective_steps
        (4.0, 2.0, -4.0, 2.0)
    """

    weight: float = 0.0
    square_weight: float = 0.0
    x: float = 0.0
    t: float = 0.0
    q: float = 0.0
    xx: float = 0.0
    xt: float = 0.0
    xq: float = 0.0
    tt: float = 0.0
    tq: float = 0.0
    qq: float = 0.0
    square_x: float = 0.0
    square_xx: float = 0.0

    @classmethod
    def of(cls, t: float, q: float, *, weight: float) -> "Scatter":
        """Return the sums over one update."""
        return cls(weight=weight, square_weight=weight**2, t=t, q=q)

    @property
    def effective_steps(self) -> float:
        r""":math:`(\sum w)^2/\sum w^2`: as many equal weights would tell as much."""
        return self.weight**2 / self.square_weight if self.square_weight else 0.0

    def covariance(self) -> Covariance:
        r"""Return the covariance of the two averages from the scatter of the updates.

        The weighted covariance over :math:`n_{\mathrm{eff}} - 1`.
        """
        divisor = self.weight * (self.effective_steps - 1)
        return Covariance(self.tt / divisor, self.tq / divisor, self.qq / divisor)

    def joined(self, later: "Scatter", elapsed: float, keep: float = 1.0) -> "Scatter":
        """Return the sums over these updates and later ones.

        Args:
            later: Sums over the updates that followed.
            elapsed: Examples from the last update here to the last one there.
            keep: Share of the weights here that is not forgotten by then.

        Returns:
            The sums over both, positions counted from the last of all.
        """
        here = self._aged(elapsed, keep)
        if not later.weight:
            return here
        if not here.weight:
            return later
        weight = here.weight + later.weight
        share = later.weight / weight
        dx, dt, dq = later.x - here.x, later.t - here.t, later.q - here.q
        both = here.weight * share
        square = here.square_weight + later.square_weight
        square_share = later.square_weight / square
        square_dx = later.square_x - here.square_x
        return Scatter(
            weight=weight,
            square_weight=square,
            x=here.x + share * dx,
            t=here.t + share * dt,
            q=here.q + share * dq,
            xx=here.xx + later.xx + both * dx * dx,
            xt=here.xt + later.xt + both * dx * dt,
            xq=here.xq + later.xq + both * dx * dq,
            tt=here.tt + later.tt + both * dt * dt,
            tq=here.tq + later.tq + both * dt * dq,
            qq=here.qq + later.qq + both * dq * dq,
            square_x=here.square_x + square_share * square_dx,
            square_xx=here.square_xx
            + later.square_xx
            + here.square_weight * square_share * square_dx**2,
        )

    def _aged(self, elapsed: float, keep: float) -> "Scatter":
        return replace(
            self,
            weight=self.weight * keep,
            square_weight=self.square_weight * keep**2,
            x=self.x - elapsed,
            xx=self.xx * keep,
            xt=self.xt * keep,
            xq=self.xq * keep,
            tt=self.tt * keep,
            tq=self.tq * keep,
            qq=self.qq * keep,
            square_x=self.square_x - elapsed,
            square_xx=self.square_xx * keep**2,
        )

    def for_dataset(self, dataset_size: float) -> "Scatter":
        r"""Return the sums with :math:`Q + T/n` in place of Q."""
        share = 1 / dataset_size
        return replace(
            self,
            q=self.q + share * self.t,
            xq=self.xq + share * self.xt,
            tq=self.tq + share * self.tt,
            qq=self.qq + 2 * share * self.tq + share**2 * self.tt,
        )

    def to_dict(self) -> dict[str, float]:
        """Return the sums by name."""
        return asdict(self)
