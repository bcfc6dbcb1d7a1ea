"""Passages against the loss of every single step."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.quadratic import OPTIMIZERS, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic import passage as module
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.envelopes import Envelope
from rightbatch.quadratic.passage import first_passage, settling
from rightbatch.quadratic.steady_state import steady_state_moments

ALL = 3000  # steps looked at one by one
PUBLISHED = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))


def build(name, share, momentum, ema_decay, top_rate=1.0):
    momentum = momentum if name.startswith(("momentum", "nesterov")) else 0
    ema_decay = ema_decay if name.endswith("ema") else 0
    edge = Optimizer(name=name, lr=1.0, momentum=momentum, ema_decay=ema_decay)
    return Optimizer(
        name=name,
        lr=share * edge.max_stable_rate / top_rate,
        momentum=momentum,
        ema_decay=ema_decay,
        tail_fraction=0.3,
    )


optimizers = st.builds(
    build,
    st.sampled_from(OPTIMIZERS),
    st.floats(-2.5, -0.01).map(lambda x: 10**x),
    st.floats(-3, 0).map(lambda x: 1 - 10**x),
    st.floats(-3, 0).map(lambda x: 1 - 10**x),
)
problems = st.builds(
    lambda n, power, noise: NoisyQuadratic(
        spectrum=Spectrum.power_law(n, power), noise=np.full(n, noise)
    ),
    st.integers(1, 6),
    st.floats(0.5, 2),
    st.sampled_from([0.0, 0.01, 1.0]),
)
batches = st.floats(0, 6).map(lambda x: 10**x)


@pytest.fixture
def near(monkeypatch):
    """Bounds decide from the 16th step on, a few steps at a time."""
    monkeypatch.setattr(module, "_NEAR", 16)
    monkeypatch.setattr(module, "_CHUNK", 16)
    monkeypatch.setattr(module, "_PARTS", 8)


@pytest.mark.usefixtures("near")
@given(problems, optimizers, batches, st.floats(0.01, 0.99), st.sampled_from([5, 400]))
def test_no_passage_is_missed_whatever_the_loss_does(
    problem, optimizer, batch, level, stretches
):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_STRETCHES", stretches)
        losses = loss_after(problem, optimizer, batch, np.arange(ALL + 1))
        low, high = losses.min(), losses[0]
        assume(low < 0.999 * high)
        target = low + level**3 * (high - low)
        below = np.flatnonzero(losses <= target)
        found = first_passage(problem, optimizer, batch, target)
        assert found == below[0]
        settled = settling(problem, optimizer, batch, target)
        rest = problem.loss(steady_state_moments(problem, optimizer, batch))
        if settled is None:
            assert rest >= 0.999 * target
        elif settled <= ALL:
            assert (losses[settled:] <= target).all()
            assert losses[settled - 1] > target
        else:
            beyond = np.array([settled - 1, settled, 2 * settled, 10 * settled])
            above = loss_after(problem, optimizer, batch, beyond) > target
            assert above.tolist() == [True, False, False, False]


@given(problems, optimizers, batches, st.integers(2, 300), st.integers(2, 300))
def test_the_loss_stays_between_its_bounds(problem, optimizer, batch, start, length):
    envelope = Envelope(problem=problem, optimizer=optimizer, batch_size=batch)
    losses = loss_after(problem, optimizer, batch, np.arange(ALL + 1))
    ends = envelope.points(np.array([start, start + length]))
    within = losses[start : start + length + 1]
    assert envelope.lowest(ends)[0] <= within.min() * (1 + 1e-9)
    assert envelope.highest(ends)[0] >= within.max() * (1 - 1e-9)
    settled = np.zeros_like(problem.start)
    if not optimizer.averages:
        settled = steady_state_moments(problem, optimizer, batch)
    ever = envelope.highest_ever(ends, settled)
    assert ever[0] >= losses[start:].max() * (1 - 1e-9)
    assert ever[1] >= losses[start + length :].max() * (1 - 1e-9)


@pytest.mark.parametrize(
    ("name", "batch", "lr", "gap", "ema_gap", "first", "last"),
    [
        ("momentum+ema", 1024, 3.643, 0.08514, 0.005519, 868, 868),
        ("momentum", 2**20, 3.0, 0.03, 1, 184, 202),
        ("momentum", 64, 0.01, 0.1, 1, 156_318, 156_318),
        ("sgd", 64, 0.012, 1, 1, 1_163_090, 1_163_090),
        ("average", 64, 1.0, 1, 1, 54_527, 54_527),
        ("ema", 64, 1.0, 1, 1e-4, 35_424, 35_424),
    ],
)
def test_a_passage_is_where_the_loss_crosses(
    name, batch, lr, gap, ema_gap, first, last
):
    optimizer = Optimizer(name=name, lr=lr, momentum=1 - gap, ema_decay=1 - ema_gap)
    assert first_passage(PUBLISHED, optimizer, batch, 0.01) == first
    assert settling(PUBLISHED, optimizer, batch, 0.01) == last
    around = [first - 1, first, last - 1, last]
    above = loss_after(PUBLISHED, optimizer, batch, around) > 0.01
    assert above.tolist() == [True, False, True, False]


def test_long_oscillations_are_walked_through():
    # 400 stretches are soon looked at: every step after that is taken.
    optimizer = Optimizer(name="momentum", lr=0.01, momentum=1 - 1e-4)
    first = first_passage(PUBLISHED, optimizer, 2**20, 0.01)
    last = settling(PUBLISHED, optimizer, 2**20, 0.01)
    losses = loss_after(PUBLISHED, optimizer, 2**20, np.arange(first + 1))
    assert losses[first] <= 0.01 < losses[:first].min()
    ahead = loss_after(PUBLISHED, optimizer, 2**20, last - 1 + np.arange(3000))
    assert ahead[0] > 0.01 >= ahead[1:].max()
    assert first < last


def test_a_target_below_where_noise_settles_is_never_reached():
    sgd = Optimizer(name="sgd", lr=1.0)
    assert first_passage(PUBLISHED, sgd, 4, 0.01) is None
    assert settling(PUBLISHED, sgd, 4, 0.01) is None
    unstable = Optimizer(name="momentum", lr=9.0, momentum=0.5)
    assert first_passage(PUBLISHED, unstable, 4, 0.01) is None
    assert settling(PUBLISHED, unstable, 4, 0.01) is None


def test_a_passage_past_the_last_step_is_none():
    sgd = Optimizer(name="sgd", lr=0.012)
    first = first_passage(PUBLISHED, sgd, 64, 0.01)
    assert first_passage(PUBLISHED, sgd, 64, 0.01, max_steps=first) == first
    assert first_passage(PUBLISHED, sgd, 64, 0.01, max_steps=first - 1) is None
    assert first_passage(PUBLISHED, sgd, 64, 0.01, max_steps=100) is None
    assert settling(PUBLISHED, sgd, 64, 0.01, max_steps=first - 1) is None
    assert settling(PUBLISHED, sgd, 64, 0.01, max_steps=1) is None


@pytest.mark.parametrize("function", [first_passage, settling])
def test_both_backends_find_the_same_passage(function):
    pytest.importorskip("numba")
    optimizer = Optimizer(name="momentum+ema", lr=0.3, momentum=0.9, ema_decay=0.999)
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(30))
    found = {
        function(problem, optimizer, 64, 0.02, backend=backend)
        for backend in ("numpy", "numba")
    }
    assert len(found) == 1
    assert None not in found


@pytest.mark.parametrize("function", [first_passage, settling])
@pytest.mark.parametrize(
    ("batch", "target", "steps", "message"),
    [
        (0, 0.1, 9, "`batch_size` must be positive"),
        (4, 0.0, 9, "`target` must be above the irreducible loss"),
        (4, 9.0, 9, "`target` must be below the loss at the start"),
        (4, 0.1, 0, "`max_steps` must be a whole number >= 1"),
        (4, 0.1, 1.5, "`max_steps` must be a whole number >= 1"),
    ],
)
def test_passages_refuse(function, batch, target, steps, message):
    sgd = Optimizer(name="sgd", lr=0.1)
    with pytest.raises(InputError, match=f"{function.__name__}: {message}"):
        function(PUBLISHED, sgd, batch, target, max_steps=steps)


@pytest.mark.parametrize("function", [first_passage, settling])
def test_label_noise_is_refused(function):
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="label noise"):
        function(noisy, Optimizer(name="sgd", lr=0.1), 1, 0.1)


@pytest.mark.parametrize("floor", [-1e6, 0.0, 3.0])
def test_steps_do_not_depend_on_where_the_loss_is_counted_from(floor: float):
    spectrum = Spectrum.inverse(100)
    problem = NoisyQuadratic(spectrum=spectrum, irreducible_loss=floor)
    plain = NoisyQuadratic(spectrum=spectrum)
    sgd = Optimizer(name="sgd", lr=0.02)
    # A loss of 1e6 has ten digits left after the point: the gap itself is rounded.
    gap = (floor + 0.01) - floor
    for steps_to in (first_passage, settling):
        assert steps_to(problem, sgd, 64, floor + gap) == steps_to(plain, sgd, 64, gap)
