"""Other policies asked about a recorded run."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from example_policies import Growing, Listed, Watching
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.policies import OBSERVABLE, Constant, Decision
from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
from rightbatch.simulation import Conditions, Trace, read_trace, replay, simulate
from rightbatch.simulation.walk import MEASURED
from rightbatch.step_time import StepTimeLaw

SGD = Optimizer(name="sgd", lr=0.5)
PROBLEM = NoisyQuadratic(spectrum=Spectrum.inverse(5))


@dataclass(frozen=True)
class FollowsNoise:
    """The noise scale as the moments tell it, half of it, and 3 before."""

    needs: frozenset[str] = frozenset({"moments"})

    def init(self):
        return None

    def update(self, state, seen):
        if seen.moments is None:
            return Decision(3), None
        return Decision(0.5 * seen.moments.simple_noise_scale), None


@pytest.mark.parametrize("policy", [Growing(4), FollowsNoise(), Listed((3, 9))])
@settings(max_examples=10, deadline=None)
@given(steps=st.integers(1, 40), seed=st.none() | st.integers(0, 99))
def test_a_policy_asked_about_its_own_run_decides_as_it_did(policy, steps, seed):
    conditions = Conditions(whole_batches=False, seed=seed, num_units=2)
    if isinstance(policy, FollowsNoise) and seed is not None:
        return  # a draw's estimate of |G|^2 may be negative: no batch size at all
    run = simulate(PROBLEM, SGD, policy, max_steps=steps, conditions=conditions)
    asked = replay(policy, run.trace)
    assert np.maximum(1, asked.batch_sizes).tolist() == run.trace.batch_sizes.tolist()
    assert [one.reason for one in asked.decisions] == list(run.trace.reasons)


def test_a_policy_sees_in_a_replay_what_it_saw_in_the_run():
    conditions = Conditions(
        record=MEASURED,
        dataset_size=100,
        tokens_per_example=3,
        step_time=StepTimeLaw(seconds_per_example=0.1, saturation_batch_size=1),
        num_replicas=2,
    )
    live, later = Watching(6, OBSERVABLE), Watching(6, OBSERVABLE)
    run = simulate(PROBLEM, SGD, live, max_steps=4, conditions=conditions)
    replay(later, run.trace, dataset_size=100, num_replicas=2)
    for one, other in zip(live.seen, later.seen, strict=True):
        for name in OBSERVABLE - {"noise_scale"}:
            assert getattr(one, name) == getattr(other, name), name
        assert (one.step, one.examples, one.batch_size, one.num_replicas) == (
            other.step,
            other.examples,
            other.batch_size,
            other.num_replicas,
        )
    one, other = live.seen[3].noise_scale, later.seen[3].noise_scale
    assert (one.value, one.low, one.high) == (other.value, other.low, other.high)


def test_decisions_change_nothing_and_the_answer_says_so():
    run = simulate(PROBLEM, SGD, Constant(batch_size=8), max_steps=6)
    asked = replay(Growing(8), run.trace)
    told = json.loads(json.dumps(asked.to_dict(), allow_nan=False))
    assert told["open_loop"] is True
    assert [row["loss"] for row in told["trace"]] == run.trace.losses.tolist()
    assert {row["recorded_batch_size"] for row in told["trace"]} == {8}
    assert told["trace"][3]["batch_size"] == asked.batch_sizes[3] > 8
    assert told["trace"][3]["lr_factor"] == 1.0
    assert told["trace"][3]["reason"] == "damped"
    assert "Growing would have asked for 8 to " in str(asked)
    assert "Open loop: losses and examples are those of the recorded run" in str(asked)


def test_the_one_recorded_loss_stands_for_that_of_a_batch_too():
    rows = [
        {"step": k, "examples": 8 * k, "batch_size": 8, "loss": 3.0 - k} for k in (1, 2)
    ]
    policy = Watching(8, frozenset({"batch_loss", "eval_loss"}))
    replay(policy, read_trace(rows))
    assert (policy.seen[0].batch_loss, policy.seen[0].eval_loss) == (None, None)
    assert (policy.seen[1].batch_loss, policy.seen[1].eval_loss) == (2.0, 2.0)


def test_moments_that_one_row_lacks_are_unknown_there():
    trace = Trace(
        steps=np.array([1, 2, 3]),
        examples=np.array([8, 16, 24]),
        batch_sizes=np.full(3, 8),
        lrs=np.ones(3),
        losses=np.ones(3),
        reasons=[""] * 3,
        measurements={
            "grad_sq_norm": np.array([1.0, np.nan, 1]),
            "grad_variance": np.array([20.0, 20, 20]),
        },
    )
    assert replay(FollowsNoise(), trace).batch_sizes.tolist() == [3, 10, 3]


def test_epochs_are_counted_where_the_size_of_the_data_is_given():
    run = simulate(PROBLEM, SGD, Constant(batch_size=8), max_steps=3)
    policy = Watching(8, frozenset({"epoch", "dataset_size"}))
    replay(policy, run.trace, dataset_size=16)
    assert [seen.epoch for seen in policy.seen] == [0.0, 0.5, 1.0]
    assert {seen.dataset_size for seen in policy.seen} == {16}


def test_a_run_without_updates_has_nothing_to_ask_about():
    none = np.empty(0)
    trace = Trace(
        steps=none, examples=none, batch_sizes=none, lrs=none, losses=none, reasons=[]
    )
    asked = replay(Constant(batch_size=4), trace)
    assert asked.decisions == ()
    assert str(asked) == "Constant: the recorded run has no updates"


@pytest.mark.parametrize(
    ("need", "lacks"),
    [
        ("moments", "grad_sq_norm and no grad_variance"),
        ("noise_scale", "noise_scale"),
        ("batch_grad_sq_norm", "batch_grad_sq_norm"),
        ("inner_product_variance", "inner_product_variance"),
        ("seconds", "seconds"),
        ("tokens", "tokens"),
        ("epoch", "epoch"),
        ("lr", "lr"),
    ],
)
def test_a_policy_that_needs_what_was_not_recorded_is_told_what(need, lacks):
    trace = read_trace([{"step": 1, "examples": 8, "batch_size": 8, "loss": 2.0}])
    policy = Watching(8, frozenset({need}))
    with pytest.raises(
        InputError, match=f"needs `{need}`, but the trace has no {lacks}"
    ):
        replay(policy, trace)


def test_a_policy_that_needs_the_size_of_the_data_is_told_to_give_it():
    trace = read_trace([{"step": 1, "examples": 8, "batch_size": 8, "loss": 2.0}])
    policy = Watching(8, frozenset({"dataset_size"}))
    with pytest.raises(InputError, match="Watching needs `dataset_size`, got None"):
        replay(policy, trace)


def test_a_bad_decision_names_the_policy_and_the_step():
    run = simulate(PROBLEM, SGD, Constant(batch_size=8), max_steps=3)
    with pytest.raises(InputError, match=r"Listed: `batch_size` .* at step 1\."):
        replay(Listed((4, float("nan"))), run.trace)


@pytest.mark.parametrize("name", ["dataset_size", "num_replicas"])
def test_counts_out_of_range_are_refused(name):
    run = simulate(PROBLEM, SGD, Constant(batch_size=8), max_steps=3)
    with pytest.raises(InputError, match=f"replay: `{name}` must be a whole number"):
        replay(Constant(batch_size=8), run.trace, **{name: 0})
