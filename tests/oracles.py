"""Slow and obvious implementations that tests compare the real ones with."""

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
