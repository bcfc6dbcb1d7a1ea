"""Averages over updates: against sums that are written out, and by their promises."""

import json
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.noise_scale import GradientMoments, MomentAverage

steps_lists = st.lists(
    st.tuples(st.floats(-5, 10), st.floats(-1, 100), st.integers(1, 512)),
    min_size=1,
    max_size=20,
)
horizons = st.one_of(st.none(), st.floats(50, 1e5))


def add_all(average, steps):
    for square, variance, examples in steps:
        moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
        average = average.add(moments, examples)
    return average


def numbers_of(average):
    """Return every number of an average, in one flat list."""
    state = average.state_dict()
    scatter = state.pop("scatter")
    parts = [scatter.pop("sums").values(), scatter.pop("squares").values()]
    state.pop("horizon")
    return [*state.values(), *scatter.values(), *(n for part in parts for n in part)]


def written_out(steps, horizon):
    """Return weights, positions, T and Q of updates as arrays."""
    square, variance, examples = (
        np.array(column, dtype=float) for column in zip(*steps, strict=True)
    )
    position = np.cumsum(examples) - examples.sum()
    kept = np.ones_like(position) if horizon is None else np.exp(position / horizon)
    return examples, kept, position, variance, square


@given(steps=steps_lists, horizon=horizons)
def test_it_is_the_weighted_mean_and_spread_of_all_updates(steps, horizon):
    examples, kept, x, t, q = written_out(steps, horizon)
    w = examples * kept
    average = add_all(MomentAverage(horizon=horizon), steps)
    scatter = average.scatter
    assert average.moments.grad_variance == pytest.approx(t @ w / w.sum(), abs=1e-9)
    assert average.moments.grad_sq_norm == pytest.approx(q @ w / w.sum(), abs=1e-9)
    assert average.effective_steps == pytest.approx(w.sum() ** 2 / (w @ w))
    assert average.examples == average.elapsed == examples.sum()
    assert average.num_steps == len(steps)
    for sums, weights in ((scatter.sums, w), (scatter.squares, w**2)):
        for a, b, name in ((x, x, "xx"), (x, t, "xt"), (x, q, "xq"), (t, q, "tq")):
            from_a = a - a @ weights / weights.sum()
            from_b = b - b @ weights / weights.sum()
            scale = np.abs(weights) @ (np.abs(a - a.mean()) * np.abs(b - b.mean()))
            assert getattr(sums, name) == pytest.approx(
                weights @ (from_a * from_b), rel=1e-7, abs=1e-7 * scale + 1e-9
            )
    v = examples * kept**2
    assert scatter.degrees == pytest.approx(v.sum() ** 2 / (v @ v) - 1, abs=1e-9)


@given(steps=steps_lists.filter(lambda steps: len(steps) > 2))
def test_with_equal_batches_the_errors_are_the_usual_ones(steps):
    steps = [(square, variance, 64) for square, variance, _ in steps]
    _, _, _, t, q = written_out(steps, None)
    found = add_all(MomentAverage(), steps).scatter.covariance()
    usual = np.cov(t, q) / len(steps)
    assert found.tt == pytest.approx(usual[0, 0], abs=1e-9)
    assert found.tq == pytest.approx(usual[0, 1], abs=1e-9)
    assert found.qq == pytest.approx(usual[1, 1], abs=1e-9)


@given(steps=steps_lists.filter(lambda steps: len(steps) > 2), horizon=horizons)
def test_the_errors_are_those_of_a_weighted_mean_of_unlike_updates(steps, horizon):
    examples, kept, _, t, q = written_out(steps, horizon)
    w, v = examples * kept, examples * kept**2
    n = v.sum() ** 2 / (v @ v)
    found = add_all(MomentAverage(horizon=horizon), steps).scatter.covariance()
    from_t, from_q = t - t @ w / w.sum(), q - q @ w / w.sum()
    factor = n / (n - 1) / w.sum() ** 2
    assert found.tt == pytest.approx(factor * (w**2 @ from_t**2), rel=1e-5, abs=1e-9)
    assert found.qq == pytest.approx(factor * (w**2 @ from_q**2), rel=1e-5, abs=1e-9)
    cross = factor * (w**2 @ (from_t * from_q))
    assert found.tq == pytest.approx(cross, rel=1e-5, abs=1e-5 * factor * w.sum() ** 2)


@given(steps=steps_lists, horizon=horizons, at=st.integers(0, 20))
def test_merged_parts_are_the_whole(steps, horizon, at):
    empty = MomentAverage(horizon=horizon)
    whole = add_all(empty, steps)
    merged = add_all(empty, steps[:at]).merge(add_all(empty, steps[at:]))
    found, expected = numbers_of(merged), numbers_of(whole)
    size = max(map(abs, expected))
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-12 * size + 1e-9)


@given(steps=steps_lists, seed=st.integers(0, 100))
def test_without_a_horizon_the_order_is_of_no_account(steps, seed):
    turned = [steps[i] for i in np.random.default_rng(seed).permutation(len(steps))]
    one, other = (add_all(MomentAverage(), way).scatter for way in (steps, turned))
    assert other.t == pytest.approx(one.t, abs=1e-9)
    assert other.q == pytest.approx(one.q, abs=1e-9)
    for name in ("tt", "tq", "qq"):
        there, here = getattr(other.sums, name), getattr(one.sums, name)
        assert there == pytest.approx(here, rel=1e-6, abs=1e-6)


def test_the_memory_does_not_depend_on_the_batch_size():
    # the same stream at batch sizes 8 and 64: as much is remembered of its first half
    kept = []
    for examples in (8, 64):
        steps = [(1.0, 100.0, examples)] * (4096 // examples)
        steps += [(1.0, 200.0, examples)] * (4096 // examples)
        average = add_all(MomentAverage(horizon=4096), steps)
        kept.append((200 - average.moments.grad_variance) / 100)
    assert kept[0] == pytest.approx(kept[1], abs=1e-3)
    assert kept[0] == pytest.approx(math.exp(-1) / (1 + math.exp(-1)), abs=1e-3)


def test_updates_that_were_not_measured_age_the_others():
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=9.0)
    every = MomentAverage(horizon=1000).add(moments, 10).add(moments, 10)
    tenth = MomentAverage(horizon=1000).add(moments, 10)
    tenth = tenth.add(moments, 10, elapsed=100)
    assert tenth.scatter.sums.weight == pytest.approx(10 + 10 * math.exp(-0.1))
    assert every.scatter.sums.weight == pytest.approx(10 + 10 * math.exp(-0.01))
    assert (tenth.examples, tenth.elapsed) == (20, 110)


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_small_spread_on_a_large_mean_keeps_its_digits(offset):
    draws = np.random.default_rng(0).normal(0, 1e-3, size=2000)
    steps = [(offset + d, 10 * (offset + d), 64) for d in draws]
    found = add_all(MomentAverage(), steps).scatter.covariance()
    assert found.qq == pytest.approx(draws.var(ddof=1) / 2000, rel=1e-4)
    # as the difference of two mean squares, nothing would be left of it
    if offset:
        squares = np.square([square for square, _, _ in steps])
        naive = squares.mean() - np.mean([square for square, _, _ in steps]) ** 2
        assert abs(naive / draws.var() - 1) > 0.5


def test_a_million_examples_on_the_positions_keep_their_digits():
    far = MomentAverage(horizon=1000)
    rows = [(1.0, float(i % 7), 64) for i in range(400)]
    once = add_all(far, rows[200:]).scatter
    later = add_all(far.merge(add_all(far, [(1.0, 3.0, 64)] * 20_000)), rows[200:])
    assert later.scatter.sums.xx == pytest.approx(once.sums.xx, rel=1e-2)
    assert later.elapsed > 1e6


@given(steps=steps_lists, horizon=horizons)
def test_a_saved_state_is_read_back_exactly(steps, horizon):
    average = add_all(MomentAverage(horizon=horizon), steps).skip()
    state = json.loads(json.dumps(average.state_dict()))
    assert MomentAverage.from_state_dict(state) == average
    assert pickle.loads(pickle.dumps(average)) == average
    square, variance, examples = steps[0]
    more = GradientMoments(grad_sq_norm=square, grad_variance=variance)
    there = MomentAverage.from_state_dict(state).add(more, examples)
    assert there == average.add(more, examples)


def test_skipped_updates_are_counted_and_change_nothing_else():
    average = add_all(MomentAverage(horizon=512), [(1.0, 9.0, 64)] * 3)
    skipped = average.skip().skip()
    assert skipped.num_skipped == 2
    assert skipped.moments == average.moments
    assert skipped.scatter == average.scatter
    assert skipped.reset() == MomentAverage(horizon=512)
    assert skipped.merge(average.skip()).num_skipped == 3


@pytest.mark.parametrize("size", [1e160, 1e308, -1e200])
def test_an_update_whose_square_overflows_is_skipped(size):
    average = add_all(MomentAverage(horizon=512), [(1.0, 9.0, 64)] * 3)
    for square, variance in ((1.0, abs(size)), (size, 1.0)):
        moments = GradientMoments(grad_sq_norm=square, grad_variance=variance)
        assert average.add(moments, 64) == average.skip()


def test_what_is_long_forgotten_does_not_count():
    old = add_all(MomentAverage(horizon=1.0), [(1.0, 1e9, 8)] * 5)
    fresh = old.add(GradientMoments(grad_sq_norm=1.0, grad_variance=9.0), 10_000)
    assert fresh.moments.grad_variance == 9.0
    assert fresh.effective_steps == 1.0
    assert fresh.merge(MomentAverage(horizon=1.0)) == fresh
    assert fresh.noise_scale().status == "too few steps"


def test_what_cannot_be_averaged_is_refused():
    moments = GradientMoments(grad_sq_norm=1.0, grad_variance=9.0)
    average = MomentAverage()
    with pytest.raises(ValueError, match="no update was added. .add one first"):
        _ = average.moments
    with pytest.raises(ValueError, match="MomentAverage: `horizon` must be positive"):
        MomentAverage(horizon=0)
    with pytest.raises(ValueError, match="add: `examples` must be positive, got 0"):
        average.add(moments, 0)
    for elapsed in (9, math.inf, math.nan):
        with pytest.raises(ValueError, match="`elapsed` must be at least `examples`"):
            average.add(moments, 10, elapsed=elapsed)
    with pytest.raises(ValueError, match="`horizon` must be the same, got None and 9"):
        average.merge(MomentAverage(horizon=9))
    with pytest.raises(ValueError, match="`level` must be between 0 and 1"):
        average.noise_scale(level=95)
    with pytest.raises(ValueError, match="`dataset_size` must be positive"):
        average.noise_scale(dataset_size=0)


def test_a_state_with_other_keys_is_refused():
    state = MomentAverage().state_dict()
    who = "MomentAverage.from_state_dict"
    with pytest.raises(ValueError, match=f"{who}: the state has an unknown extra"):
        MomentAverage.from_state_dict({**state, "extra": 1})
    sums = {k: v for k, v in state["scatter"]["sums"].items() if k != "qq"}
    for scatter, message in (({"fifth": 1.0}, "unknown fifth"), ({"sums": sums}, "qq")):
        broken = {**state, "scatter": {**state["scatter"], **scatter}}
        with pytest.raises(ValueError, match=f"{who}: the state .*{message}"):
            MomentAverage.from_state_dict(broken)
    del state["horizon"]
    with pytest.raises(ValueError, match="the state lacks horizon"):
        MomentAverage.from_state_dict(state)
