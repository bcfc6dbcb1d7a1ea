"""The laws of the reference examples, and strategies for others."""

from hypothesis import strategies as st

from rightbatch.convergence import ConvergenceLaw
from rightbatch.step_time import (
    ConstantCommunication,
    LinearCommunication,
    NoCommunication,
    StepTimeLaw,
)
from rightbatch.training_time import (
    ClosedForm,
    TrainingTimeLaw,
)

STEPS = ConvergenceLaw(min_steps=1000, min_examples=7e5)


def step_time(**changed):
    values = {
        "seconds_per_example": 0.001,
        "saturation_batch_size": 20,
        "communication": ConstantCommunication(seconds=0.02),
    }
    return StepTimeLaw(**(values | changed))


def law_of(convergence=STEPS, **changed):
    return TrainingTimeLaw(steps=convergence, step_time=step_time(**changed))


def closed_form(convergence=STEPS, **changed):
    return ClosedForm(convergence=convergence, step_time=step_time(**changed))


PERRONE = law_of()
EQUATIONS = closed_form()

convergences = st.builds(
    ConvergenceLaw, min_steps=st.floats(1, 1e4), min_examples=st.floats(1, 1e6)
)
communications = st.one_of(
    st.just(NoCommunication()),
    st.builds(ConstantCommunication, seconds=st.floats(1e-6, 1)),
    st.builds(LinearCommunication, seconds_per_replica=st.floats(1e-6, 0.1)),
)
step_times = st.builds(
    StepTimeLaw,
    seconds_per_example=st.floats(1e-6, 1e-2),
    saturation_batch_size=st.floats(1, 100),
    overhead_seconds=st.one_of(st.just(0.0), st.floats(1e-5, 0.1)),
    communication=communications,
)
