"""The reference job, and designs of it with components at prices."""

from rightbatch.cluster import (
    Bandwidth,
    Compute,
    Design,
    Job,
    LinearPrice,
    Replicas,
)
from rightbatch.convergence import ConvergenceLaw
from rightbatch.step_time import ConstantCommunication, StepTimeLaw

STEPS = ConvergenceLaw(min_steps=1000, min_examples=7e5)
STEP_TIME = StepTimeLaw(
    seconds_per_example=0.001,
    saturation_batch_size=20,
    communication=ConstantCommunication(seconds=0.02),
)


def job(**changed):
    return Job(**({"convergence": STEPS, "step_time": STEP_TIME} | changed))


def linear(price, **more):
    return LinearPrice(price_per_unit=price, **more)


def replicas(price=1000.0, **more):
    return Replicas(price=linear(price), **more)


def bandwidth(price=2000.0, **more):
    return Bandwidth(price=linear(price), **more)


def compute(price=500.0, **more):
    return Compute(price=linear(price), **more)


def design(*components, **more):
    return Design(**({"jobs": [job()], "components": components} | more))
