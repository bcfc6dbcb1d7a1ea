"""Recorded runs, policies of every kind, and what follows one update by update."""

import math
import random

from hypothesis import strategies as st

from rightbatch.fitting import Interval
from rightbatch.lr_scaling import named_schedule
from rightbatch.noise_scale import GradientMoments
from rightbatch.policies import (
    POLICIES,
    AdaDamp,
    Clip,
    Constant,
    Dwell,
    InTurn,
    NoiseFollowing,
    Observation,
    OnlyGrow,
    OnlyIfSure,
    PadaDamp,
    PolicyContext,
    Relative,
    RoundTo,
    SpillToLr,
    Wait,
    ask,
    named_policy,
)
from rightbatch.step_time import StepTimeLaw

STEP_TIME = StepTimeLaw(
    seconds_per_example=1e-3, saturation_batch_size=4, overhead_seconds=0.02
)
CONTEXT = PolicyContext(
    dataset_size=10_000,
    step_time=STEP_TIME,
    epochs=4,
    lr_schedule=named_schedule("cosine"),
)
# What the policies without a default for everything are told.
PARAMETERS = {
    "schedule": ":0:8 100:32 300:64,unit=step",
    "linear-ramp": ":over=100,to=64",
    "doubling": ":every=2",
    "geometric": ":factor=1.05",
    "exchange-rate": ":examples_per_update=64",
}
TEXTS = [name + PARAMETERS.get(name, "") for name in POLICIES]


def named(text, **others):
    given = {"initial_batch_size": 8, "max_batch_size": 512, "context": CONTEXT}
    return named_policy(text, **{**given, **others})


WRAPPED = [
    Wait(AdaDamp(initial_batch_size=8), updates=4),
    Clip(AdaDamp(initial_batch_size=8), low=2, high=100),
    RoundTo(AdaDamp(initial_batch_size=8), multiple=4, powers_of_two=True),
    SpillToLr(AdaDamp(initial_batch_size=8), cap=32),
    OnlyGrow(AdaDamp(initial_batch_size=8)),
    Relative(NoiseFollowing(initial_batch_size=8), change=0.5),
    OnlyIfSure(NoiseFollowing(initial_batch_size=8)),
    Dwell(Wait(OnlyIfSure(NoiseFollowing(initial_batch_size=8)), updates=5), updates=3),
    InTurn(
        policies=(
            Constant(batch_size=8),
            Dwell(AdaDamp(initial_batch_size=8), updates=2),
            SpillToLr(PadaDamp(initial_batch_size=8, rate=5), cap=20),
        ),
        until=(3, 9),
        unit="step",
    ),
]


def every_policy():
    """Return a policy of every kind, and the wrappers around some."""
    return [named(text) for text in TEXTS] + WRAPPED


def follow(policy, observations):
    """Return what a policy decides on observations, one after the other."""
    state, decisions = policy.init(), []
    for seen in observations:
        decision, state = ask(policy, state, seen)
        decisions.append(decision)
    return decisions


def sizes(policy, observations):
    return [one.batch_size for one in follow(policy, observations)]


def clock(steps, **columns):
    """Return observations at steps 0, 1, ... with a column per measurement."""
    return [
        Observation(
            step=step,
            examples=8 * step,
            batch_size=8 if step else 0,
            **{name: values[step] for name, values in columns.items()},
        )
        for step in range(steps)
    ]


def scale(value, low=None, high=None):
    return Interval(value=value, low=low, high=high, level=0.95, unit="examples")


def at_noise(*values, **others):
    """Return observations of known noise scales; None for one that is unresolved."""
    points = [None if value is None else scale(value, value, value) for value in values]
    return clock(len(points), noise_scale=points, **others)


def odd_run(seed, steps=15):
    """Return a run on which anything may be unknown or come out odd."""
    draw = random.Random(seed)

    def number():
        size = 10 ** draw.uniform(-6, 6)
        return draw.choice([size, size, size, -size, 0.0, math.nan, math.inf])

    def finite():
        return draw.choice([1, 1, -1, 0]) * 10 ** draw.uniform(-6, 6)

    def interval():
        ends = sorted(10 ** draw.uniform(-2, 8) for _ in range(3))
        low, value, high = (draw.choice([one, one, None]) for one in ends)
        return scale(value, low, draw.choice([high, math.inf]))

    told = {
        "eval_loss": number,
        "batch_loss": number,
        "batch_grad_sq_norm": number,
        "inner_product_variance": number,
        "lr": lambda: 10 ** draw.uniform(-6, 1),
        "epoch": lambda: draw.uniform(0, 100),
        "tokens": lambda: draw.uniform(0, 1e13),
        "dataset_size": lambda: draw.randint(1, 10**6),
        "noise_scale": interval,
        "moments": lambda: GradientMoments(
            grad_sq_norm=finite(), grad_variance=finite()
        ),
    }
    columns = {
        name: [draw.choice([make, make, lambda: None])() for _ in range(steps)]
        for name, make in told.items()
    }
    return clock(steps, **columns)


odd_runs = st.integers(0, 10**9).map(odd_run)
