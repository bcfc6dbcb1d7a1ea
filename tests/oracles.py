"""Slow and obvious implementations that tests compare the real ones with."""

import itertools
import math

import numpy as np
from scipy import optimize


def ring_all_reduce_seconds(num_replicas, latency_seconds, bytes_per_second, num_bytes):
    """Pass chunks round a ring until everyone has every sum, and count the time."""
    held = [[{replica} for _ in range(num_replicas)] for replica in range(num_replicas)]
    everyone = set(range(num_replicas))
    seconds = 0.0
    sent = list(range(num_replicas))
    while any(chunk != everyone for chunks in held for chunk in chunks):
        messages = [
            (replica, sent[replica], set(held[replica][sent[replica]]))
            for replica in range(num_replicas)
        ]
        for replica, place, chunk in messages:
            to = (replica + 1) % num_replicas
            held[to][place] = held[to][place] | chunk
            sent[to] = place
        seconds += latency_seconds + num_bytes / num_replicas / bytes_per_second
    return seconds


def halving_doubling_seconds(
    num_replicas, latency_seconds, bytes_per_second, num_bytes
):
    """Exchange halves with ever nearer partners, then join them, counting the time."""
    seconds, span, held = 0.0, num_replicas, num_bytes
    while span > 1:  # reduce-scatter: send one half, keep summing the other
        held, span = held / 2, span // 2
        seconds += latency_seconds + held / bytes_per_second
    while span < num_replicas:  # all-gather: send all that is held, own twice as much
        seconds += latency_seconds + held / bytes_per_second
        held, span = held * 2, span * 2
    return seconds


def knee_fit_squares(local, seconds, law_seconds, knee):
    """Least squares of relative residuals at one knee, by scipy's active set."""
    terms = np.column_stack([np.ones_like(local), np.maximum(local, knee)])
    weighted = terms / law_seconds[:, None]
    coefficients, norm = optimize.nnls(weighted, seconds / law_seconds)
    return coefficients, norm**2


def step_time_log_fit(local, seconds):
    """Overhead, slope and knee with the least squares of ln T, by general search."""

    def squares(logs):
        overhead, slope, knee = np.exp(logs)
        law = overhead + slope * np.maximum(local, knee)
        return float((np.log(seconds / law) ** 2).sum())

    best = None
    for knee in np.geomspace(local.min(), local.max() * 0.9, 25):
        slope = seconds.max() / local.max()
        start = np.log([seconds.min() / 2, slope, knee])
        found = optimize.minimize(
            squares,
            start,
            method="Nelder-Mead",
            options={"maxiter": 4000, "xatol": 1e-10, "fatol": 1e-14},
        )
        if best is None or found.fun < best.fun:
            best = found
    return np.exp(best.x), best.fun


def served_seconds(steps, seconds_per_step, batch_size, num_replicas, max_micro=None):
    """Time to target of one batch: its examples dealt out one by one."""
    shares = [0] * num_replicas
    for example in range(batch_size):
        shares[example % num_replicas] += 1
    share = max(shares)
    passes = 1
    while max_micro is not None and math.ceil(share / passes) > max_micro:
        passes += 1
    micro = math.ceil(share / passes)
    step = seconds_per_step(micro * num_replicas, num_replicas)
    step += (passes - 1) * seconds_per_step(micro, 1)
    return steps(batch_size) * step


def plan(
    steps,
    seconds_per_step,
    num_replicas,
    max_batch_size,
    max_micro=None,
    tolerance=0.05,
):
    """Best batch, its time and the range within tolerance, by trying them all."""
    times = {
        batch: served_seconds(steps, seconds_per_step, batch, num_replicas, max_micro)
        for batch in range(num_replicas, max_batch_size + 1)
    }
    least = min(time for time in times.values() if time > 0)
    best = min(
        batch for batch, time in times.items() if 0 < time <= least * (1 + 1e-12)
    )
    even = [b for b in times if b % num_replicas == 0 or b in (best, max_batch_size)]
    low = high = even.index(best)
    while low > 0 and times[even[low - 1]] <= (1 + tolerance) * least:
        low -= 1
    while high < len(even) - 1 and times[even[high + 1]] <= (1 + tolerance) * least:
        high += 1
    return best, least, (even[low], even[high])


def loss_law_fit(batch, steps, losses, scale, exponents, num_starts=40, seed=0):
    """Three-term loss law with the least relative squares, from many random starts."""

    def residuals(at):
        floor, batch_part, steps_part = at[:3]
        law = floor + batch_part * batch ** -at[3] + steps_part * steps ** -at[4]
        return (law - losses) / scale

    generator = np.random.default_rng(seed)
    low = [0, 0, 0, exponents[0], exponents[0]]
    high = [np.inf, np.inf, np.inf, exponents[1], exponents[1]]
    best = None
    for _ in range(num_starts):
        share = generator.dirichlet(np.ones(3)) * np.median(losses)
        b, c = np.exp(generator.uniform(np.log(0.2), np.log(2), 2))
        weights = [1, np.median(batch) ** b, np.median(steps) ** c]
        found = optimize.least_squares(
            residuals, [*(share * weights), b, c], bounds=(low, high), x_scale="jac"
        )
        if best is None or found.cost < best.cost:
            best = found
    return best.x, 2 * best.cost


def exchange_steps(factor, batch_size, total_steps, max_batch_size, cells=1_000_000):
    """Steps of a run whose batch grows as the rate would have fallen, cell by cell."""
    t = (np.arange(cells) + 0.5) / cells
    batch = np.minimum(batch_size / factor(t), max_batch_size)
    return float((batch_size * total_steps / cells / batch).sum())


def convex_ramp_steps(factor, batch_size, total_steps, max_batch_size, cells=400_000):
    """Steps of the ramp f/sqrt(rest) from a batch size over the same examples."""
    t = (np.arange(cells) + 0.5) / cells
    f = factor(t)
    rest = (np.cumsum(f[::-1])[::-1] - f / 2) / cells
    shape = f / np.sqrt(rest)
    batch = np.minimum(batch_size * shape / shape[0], max_batch_size)
    return batch_size * total_steps / float(batch.mean())


def best_sharing(tables, num_replicas, objective):
    """Deal replicas to jobs in every possible way; `tables[j][p - 1]` is a time."""
    ways = itertools.product(range(1, num_replicas + 1), repeat=len(tables))
    return min(
        objective([table[p - 1] for table, p in zip(tables, way, strict=True)])
        for way in ways
        if sum(way) <= num_replicas
    )


def best_mix_on_a_grid(design, grids, price):
    """Try every mix of a grid: the least time among those that cost at most a price."""
    least = math.inf
    for amounts in itertools.product(*grids):
        if float(design.price(amounts)) <= price * (1 + 1e-12):
            least = min(least, float(design.objective(amounts)))
    return least
