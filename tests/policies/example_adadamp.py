"""adadamp 0.2's formulas and manners, slow and obvious, on a recorded run.

`damping` says which batch is wanted before update k. It is asked at update 0 and, from
update `wait` on, at the multiples of `dwell`. At or above the cap the learning rate is
set to the rate at the start times the cap over the batch wanted, and left so.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import mean, median


@dataclass
class OldDamper:
    initial: int
    losses: list = field(default_factory=list)
    norms: list = field(default_factory=list)
    batch_losses: list = field(default_factory=list)
    epochs: list = field(default_factory=list)
    dwell: int = 1
    wait: int = 0
    cap: float = math.inf

    def run(self, damping, updates):
        """Return the batch size wanted, the one taken, and lr over the lr at first."""
        rows, lr, wanted = [], 1.0, None
        for k in range(updates):
            if k == 0 or (k >= self.wait and k % self.dwell == 0):
                wanted = damping(k)
            taken = wanted
            if wanted >= self.cap:
                lr, taken = self.cap / wanted, self.cap
            rows.append((wanted, taken, lr))
        return rows

    def adadamp(self, k):
        first, now = Fraction(self.losses[0]), Fraction(self.losses[k])
        return math.ceil(self.initial * first / now)

    def adadampnn(self, k):
        first, now = Fraction(self.norms[0]), Fraction(self.norms[k])
        return math.ceil(self.initial * first / now)

    def padadamp(self, rate):
        return lambda k: math.ceil(self.initial + Fraction(rate) * k)

    def geodamp(self, factor, delay):
        return lambda k: self.initial * factor ** int(self.epochs[k] // delay)

    def cntsdamplr(self, rate):
        """Return the batch whose excess over the start becomes the rate's decay."""
        return lambda k: round(self.initial + 1 + rate * (k + 1))


class OldRadaDamp:
    """Its rolling average, which remembers."""

    def __init__(self, initial, batch_losses, norms, rho, reduction):
        self.initial, self.rho = initial, rho
        self.batch_losses, self.norms = batch_losses, norms
        reductions = {"min": min, "mean": mean, "median": median, "max": max}
        self.reduce = reductions[reduction]
        self.window_from = 0
        self.first = None

    def __call__(self, k):
        if k == 0:
            return self.initial
        # Updates 0 to k - 1 are done, and their batches were seen.
        loss = self.reduce(
            [Fraction(one) for one in self.batch_losses[:k]][self.window_from :]
        )
        norm = self.reduce(
            [Fraction(one) for one in self.norms[:k]][self.window_from :]
        )
        if self.first is None:
            self.first = self.now = (loss, norm)
            return self.initial
        rho = Fraction(self.rho)
        self.now = tuple(
            rho * old + (1 - rho) * new
            for old, new in zip(self.now, (loss, norm), strict=True)
        )
        self.window_from = k
        left = (self.now[0] / self.first[0] + self.now[1] / self.first[1]) / 2
        return max(self.initial, math.ceil(self.initial / left))
