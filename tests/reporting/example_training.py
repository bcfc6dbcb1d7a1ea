"""Documents of training and of replays, made from formulas."""

import math

REPLICAS = (1, 8)


def seconds_of(batch_size, replicas):
    return 2e-4 + 1e-5 * batch_size / replicas + (5e-5 if replicas > 1 else 0.0)


def trained(policy, batch_of, *, seed=0, rate=2e-4, baseline=False, status="finished"):
    """Return a run whose batch size follows a function of the examples taken."""
    examples, steps, clock = [0], [0], {p: [0.0] for p in REPLICAS}
    sizes = []
    while examples[-1] < 24_000:
        size = batch_of(examples[-1])
        sizes.append(size)
        examples.append(examples[-1] + size)
        steps.append(steps[-1] + 1)
        for p in REPLICAS:
            clock[p].append(clock[p][-1] + seconds_of(size, p))
    losses = [2.3 * math.exp(-rate * e) + 0.02 * (seed + 1) for e in examples]
    every = max(1, len(examples) // 40)
    places = [*range(0, len(examples), every)]
    if places[-1] != len(examples) - 1:
        places.append(len(examples) - 1)
    return {
        "policy": policy,
        "seed": seed,
        "baseline": baseline,
        "status": status,
        "steps": steps[-1],
        "examples": examples[-1],
        "seconds": 1.1 * clock[1][-1],
        "evaluation_seconds": 0.4,
        "policy_examples": 0,
        "loss": losses[-1],
        "best_loss": min(losses),
        "initial_loss": losses[0],
        "prices": [
            {
                "num_replicas": p,
                "seconds": clock[p][-1],
                "replica_seconds": p * clock[p][-1],
                "cost": None,
            }
            for p in REPLICAS
        ],
        "evaluations": [
            {
                "step": steps[i],
                "examples": examples[i],
                "loss": losses[i],
                "seconds": [clock[p][i] for p in REPLICAS],
            }
            for i in places
        ],
        "curve": {
            "steps": steps[1:],
            "examples": examples[1:],
            "batch_size": sizes,
            "lr": [0.1 * math.sqrt(size / 16) for size in sizes],
        },
    }


def spread(value, low=None, high=None):
    return {"value": value, "low": low or value, "high": high or value}


def comparison_of(policy, ratios, *, seeds=1, against="constant"):
    return {
        "policy": policy,
        "against": against,
        "loss": 0.31,
        "basis": "lowest",
        "target": None,
        "reached_target": 0,
        "against_reached_target": 0,
        "num_seeds": seeds,
        "steps": spread(0.25),
        "examples": spread(1.05),
        "measured_seconds": spread(0.8),
        "seconds": [
            {
                "num_replicas": p,
                **(
                    spread(ratio, 0.9 * ratio, 1.1 * ratio)
                    if seeds > 1
                    else spread(ratio)
                ),
                "pays": "yes" if ratio < 0.9 else "no",
                "taken": 3.0 * ratio,
                "against_taken": 3.0,
            }
            for p, ratio in zip(REPLICAS, ratios, strict=True)
        ],
        "taken": {"steps": 300.0, "examples": 12_000.0, "measured_seconds": 1.0},
        "against_taken": {"steps": 1200.0, "examples": 1.0, "measured_seconds": 1.0},
    }


def document_of(*runs, **more):
    return {
        "schema": 1,
        "command": "train",
        "inputs": {"workload": "made <up>", "lr": 0.1, "seeds": [0]},
        "workload": {"name": "made <up>"},
        "trace": [],
        "summary": {"policy": runs[0]["policy"], "steps": 1, "examples": 1},
        "trained": list(runs),
        "comparison": [],
        "course": [
            {
                "step": 10,
                "examples": 160,
                "batch_size": 16,
                "micro_batch_size": 16,
                "accumulation_steps": 1,
                "lr": 0.1,
                "loss": 1.9,
                "noise_scale": 42.0,
                "reason": "noise scale 42 (30 to 61)",
            }
        ],
        "warnings": ["made up"],
        "sentence": "adadamp pays on 8 replicas, not on 1. One seed tells little.",
        **more,
    }


def grown(examples):
    return min(512, 16 * 2 ** (examples // 4000))


def training(**more):
    """Return a document of a policy beside the constant batch."""
    comparison = [comparison_of("adadamp", (1.2, 0.4))]
    return document_of(
        trained("adadamp", grown),
        trained("constant", lambda _: 16, baseline=True),
        **({"comparison": comparison} | more),
    )


def replay_of(policy, batch_of, grid):
    sizes = [batch_of(e) for e in grid]
    return {
        "policy": policy,
        "steps": sum(16 / size for size in sizes),
        "first": sizes[0],
        "last": sizes[-1],
        "smallest": min(sizes),
        "largest": max(sizes),
        "curve": {"examples": list(grid), "batch_size": sizes},
        "points": [
            {"examples": e, "step": e // 16, "loss": 2.0 - e / 1e5, "batch_size": s}
            for e, s in zip(grid, sizes, strict=True)
        ],
    }


def replayed(**more):
    """Return a document of two policies asked about a recorded run."""
    grid = range(1600, 16_001, 1600)
    noise = {"examples": list(grid), "batch_size": [20 + e / 200 for e in grid]}
    return {
        "schema": 1,
        "command": "replay",
        "inputs": {"trace": "run.json"},
        "open_loop": True,
        "trace": [],
        "recorded": {**replay_of("recorded", lambda _: 16, grid), "noise": noise},
        "replays": [
            replay_of(
                "geodamp:delay=5,factor=2", lambda e: 16 * 2 ** (e // 6000), grid
            ),
            replay_of("noise-following", lambda e: 20 + e / 200, grid),
        ],
        "warnings": [],
        "sentence": "Asked on a recorded run.",
        **more,
    }
