"""Settings of every optimizer, drawn over decades and at the points that degenerate."""

import numpy as np

from rightbatch.quadratic.recursions.transition import Settings

RATES = np.array([1.0, 0.03, 1e-4])


def edge(name, gap):
    """The largest stable x, from 1 - momentum."""
    return 2 * (2 - gap) / (1 + 2 * (1 - gap) * name.startswith("nesterov"))


def has_momentum(name):
    return name.startswith(("momentum", "nesterov"))


def drawn(name, many, seed, least_gap=1e-6):
    """Random settings of an optimizer, each of shape (many,)."""
    rng = np.random.default_rng(seed)
    low = np.log10(least_gap)
    gap, ema_gap = 10 ** rng.uniform(low, 0, (2, many))
    gap = gap if has_momentum(name) else np.ones(many)
    ema_gap = ema_gap if name.endswith("ema") else np.ones(many)
    lr = edge(name, gap) * 10 ** rng.uniform(-6, 0, many)
    return Settings(lr, gap, ema_gap)


def degenerate(name, least_gap=1e-6):
    """Settings at, and next to, where formulas divide by zero."""
    gaps = (1.0, 0.5, 1e-2, least_gap) if has_momentum(name) else (1.0,)
    ema_gaps = (1.0, 0.3, 1e-3, least_gap) if name.endswith("ema") else (1.0,)
    found = []
    for gap in gaps:
        for ema_gap in ema_gaps:
            top, critical = edge(name, gap), (gap / (1 + np.sqrt(1 - gap))) ** 2
            if name.startswith("nesterov"):
                critical = (gap / (2 - gap)) ** 2
            lrs = [top, top * (1 - 1e-10), top * (1 - 1e-5), top / 2, 1.0, 1e-9]
            lrs += [ema_gap, critical, critical * (1 + 1e-12), critical / RATES[1]]
            lrs += [ema_gap / RATES[2], critical / RATES[2]]
            found += [(lr, gap, ema_gap) for lr in lrs if 0 < lr <= top]
    return Settings(*np.array(found).T)
