"""Result documents made from formulas, as a command would print them."""

import copy
import math
from typing import Any

import pytest

OVERHEAD, GAMMA, DELTA = 212e-6, 0.65e-6, 12e-6
REPLICAS = (1, 2, 4, 8, 16)
BATCHES = [2**k for k in range(11)]
LRS = [0.05] * 3 + [0.2] * 2 + [0.5] * 3 + [1.0] * 3
CURVE = [2 ** (k / 4) for k in range(45)]
# target -> S_min, E_min
LAWS = {0.3: (52.0, 1500.0), 0.15: (80.0, 3600.0), 0.1: (118.0, 6700.0)}


def interval(value: float | None, low: float | None, high: float | None, **more: Any):
    return {"value": value, "low": low, "high": high, "level": 0.9, **more}


def around(value: float, share: float = 0.12):
    return interval(value, value * (1 - share), value * (1 + share))


def seconds_per_step(batch_size: float, num_replicas: int) -> float:
    delta = DELTA if num_replicas > 1 else 0.0
    return OVERHEAD + GAMMA * batch_size / num_replicas + delta


def optimum(min_steps: float, min_examples: float, num_replicas: int) -> int:
    fixed = OVERHEAD + (DELTA if num_replicas > 1 else 0.0)
    return round(math.sqrt(min_examples * fixed * num_replicas / (min_steps * GAMMA)))


def fit_entry(target: float, min_steps: float, min_examples: float) -> dict[str, Any]:
    phi = min_examples / min_steps
    steps = [min_steps + min_examples / b for b in CURVE]
    wobble = [1 + 0.08 * math.sin(7 * k) for k in range(len(BATCHES))]
    return {
        "workload": "digits-mlp",
        "target": target,
        "lrs": [
            {"batch_size": b, "lr": lr, "at_edge": b >= 512}
            for b, lr in zip(BATCHES, LRS, strict=True)
        ],
        "law": "inverse",
        "knee_exponent": 1.0,
        "status": "ok",
        "advice": "The law describes these runs; no more are needed.",
        "min_steps": around(min_steps),
        "min_examples": around(min_examples),
        "critical_batch_size": around(phi, 0.2),
        "median_relative_error": 0.041,
        "leave_one_out_error": 0.063,
        "num_batch_sizes": len(BATCHES),
        "warnings": [],
        "points": [
            {
                "batch_size": b,
                "mean_steps": (min_steps + min_examples / b) * w,
                "num_runs": 3,
                "relative_sd": 0.07,
                "lr": 0.5,
                "excluded": b == 1 and target == 0.1,
            }
            for b, w in zip(BATCHES, wobble, strict=True)
        ],
        "curve": {
            "batch_size": CURVE,
            "steps": steps,
            "low": [s * 0.9 for s in steps],
            "high": [s * 1.12 for s in steps],
        },
    }


def time_entry(min_steps: float, min_examples: float, num_replicas: int):
    def total(b: float, slower: float = 1.0) -> float:
        step = seconds_per_step(b, num_replicas) * slower
        return (min_steps + min_examples / b) * step

    best = optimum(min_steps, min_examples, num_replicas)
    inside = [b for b in range(1, 8 * best) if total(b) <= 1.05 * total(best)]
    seconds = [total(b) for b in CURVE]
    return {
        "num_replicas": num_replicas,
        "curve": {
            "batch_size": CURVE,
            "seconds": seconds,
            "low": [s * 0.88 for s in seconds],
            "high": [s * 1.15 for s in seconds],
        },
        "measured": {
            "batch_size": BATCHES,
            "seconds": [total(b, 1 + 0.06 * math.sin(b)) for b in BATCHES],
        },
        "optimum": {"batch_size": best, "seconds": total(best)},
        "within_5_percent": [inside[0], inside[-1]],
    }


def plan_entry(
    one: dict[str, Any], first: dict[str, Any], min_steps: float, phi: float
):
    best, replicas = one["optimum"]["batch_size"], one["num_replicas"]
    return {
        "num_replicas": replicas,
        "batch_size": best,
        "batch_size_interval": around(best, 0.2),
        "lr": 0.5,
        "micro_batch_size": math.ceil(best / replicas),
        "accumulation_steps": 1,
        "steps": min_steps * (1 + phi / best),
        "seconds": one["optimum"]["seconds"],
        "seconds_interval": around(one["optimum"]["seconds"], 0.1),
        "speedup": first["optimum"]["seconds"] / one["optimum"]["seconds"],
        "limited_by": "balance",
        "within_5_percent": one["within_5_percent"],
        "extrapolated": best > BATCHES[-1],
    }


def run_entries(targets: list[float]) -> list[dict[str, Any]]:
    return [
        {
            "batch_size": b,
            "lr": 0.5,
            "seed": seed,
            "target": target,
            "steps": (steps := round((LAWS[target][0] + LAWS[target][1] / b) * w)),
            "examples": steps * b,
            "status": "reached",
        }
        for target in targets
        for b in BATCHES
        for seed, w in enumerate((0.93, 1.02, 1.06))
    ]


def step_time_entry() -> dict[str, Any]:
    return {
        "communication": {"kind": "constant", "seconds": DELTA},
        "overhead_seconds": around(OVERHEAD, 0.03),
        "seconds_per_example": around(GAMMA, 0.05),
        "saturation_batch_size": interval(None, None, 1.0),
        "knee_seen": False,
        "warnings": ["No knee is seen down to batch 1."],
        "points": [
            {
                "batch_size": b,
                "num_replicas": 1,
                "seconds": (t := seconds_per_step(b, 1) * (1 + 0.03 * math.cos(b))),
                "low": t * 0.96,
                "high": t * 1.07,
            }
            for b in BATCHES
        ],
        "curve": {
            "batch_size": CURVE,
            "seconds": [seconds_per_step(b, 1) for b in CURVE],
        },
    }


def scaling_entry(times: list[dict[str, Any]], min_steps: float, min_examples: float):
    def total(b: float, num_replicas: int) -> float:
        return (min_steps + min_examples / b) * seconds_per_step(b, num_replicas)

    replicas = [one["num_replicas"] for one in times]
    base, reference = times[0]["optimum"]["batch_size"], times[0]["optimum"]["seconds"]
    series = {
        "strong": [total(base, p) for p in replicas],
        "weak": [total(base * p, p) for p in replicas],
        "optimal": [one["optimum"]["seconds"] for one in times],
    }
    made: dict[str, Any] = {
        kind: {"seconds": values, "speedup": [reference / value for value in values]}
        for kind, values in series.items()
    }
    made["strong"]["batch_size"] = made["weak"]["local_batch_size"] = base
    made["optimal"]["batch_sizes"] = [one["optimum"]["batch_size"] for one in times]
    return {"replicas": replicas, **made}


def make_plan(
    targets: tuple[float, ...] = (0.15,), replicas: tuple[int, ...] = REPLICAS
):
    min_steps, min_examples = LAWS[targets[-1]]
    phi = min_examples / min_steps
    series = [time_entry(min_steps, min_examples, p) for p in replicas]
    best = series[0]["optimum"]["batch_size"]
    low, high = series[0]["within_5_percent"]
    plan = [plan_entry(one, series[0], min_steps, phi) for one in series]
    checks = [
        {
            "batch_size": b,
            "lr": 0.5,
            "predicted_steps": min_steps + min_examples / b,
            "measured_steps": (min_steps + min_examples / b) * off,
            "predicted_seconds": (
                predicted := (min_steps + min_examples / b) * seconds_per_step(b, 1)
            ),
            "measured_seconds": predicted * off,
            "checking_seconds": 0.0123,
        }
        for b, off in ((best // 2, 1.07), (best, 0.94), (2 * best, 1.13))
    ]
    return {
        "schema": 1,
        "command": "plan",
        "inputs": {
            "workload": "digits-mlp",
            "targets": list(targets),
            "replicas": list(replicas),
            "lrs": [0.05, 0.1, 0.2, 0.5, 1.0],
            "batch_sizes": BATCHES,
            "seeds": [0, 1, 2],
            "crossing": "smoothed",
            "device": "cpu",
            "versions": {"rightbatch": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
        },
        "workload": {
            "name": "digits-mlp",
            "parameters": 4810,
            "num_examples": 1438,
            "example_unit": "image",
            "source": "scikit-learn's digits",
        },
        "optimal": plan,
        "optimal_measured": copy.deepcopy(plan),
        "convergence": [fit_entry(target, *LAWS[target]) for target in targets],
        "step_time": step_time_entry(),
        "seconds_to_target": series,
        "scaling": scaling_entry(series, min_steps, min_examples),
        "runs": run_entries(list(targets)),
        "verification": checks,
        "warnings": ["The best lr is at the edge of those tried at batch 512, 1,024."],
        "sentence": f"Train at {best}; {low} to {high} are within 5 % of the best. "
        "On 16 replicas it is faster with the batch re-chosen.",
    }


@pytest.fixture
def plan_document() -> dict[str, Any]:
    """One target, 1 to 16 replicas."""
    return make_plan()


@pytest.fixture
def targets_document() -> dict[str, Any]:
    """Three targets, 1 to 16 replicas."""
    return make_plan(targets=(0.3, 0.15, 0.1))


@pytest.fixture
def bare_document() -> dict[str, Any]:
    """One replica, nothing verified, no single runs, beyond the measured batches."""
    document = make_plan(replicas=(1,))
    document["verification"], document["runs"] = [], []
    document["optimal"][0]["extrapolated"] = True
    for key in ("workload", "warnings", "optimal_measured"):
        del document[key]
    return document


@pytest.fixture
def unidentifiable_document() -> dict[str, Any]:
    """A flat table: neither the fewest steps nor the critical batch size is known."""
    document = make_plan()
    fit = document["convergence"][0]
    fit["status"] = "unidentifiable"
    fit["advice"] = "Run batch sizes above 1,024."
    fit["min_steps"] = interval(-3.5, None, 40.0)
    fit["critical_batch_size"] = interval(None, 96.0, None)
    fit["curve"]["low"] = [None] * len(CURVE)
    document["optimal"][0]["batch_size_interval"] = interval(121, 96.0, None)
    return document


@pytest.fixture(scope="session")
def shared_targets_document() -> dict[str, Any]:
    """Three targets, for tests that only look."""
    return make_plan(targets=(0.3, 0.15, 0.1))
