"""Schedules against long-double stepping, doubling against stepping, both backends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quadratic.oracles_dynamics import moments_by_stepping

from rightbatch.errors import InputError
from rightbatch.quadratic import OPTIMIZERS, NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.pieces import (
    Piece,
    loss_after_pieces,
    loss_after_schedule,
    loss_curve,
    loss_every_step,
)

PIECES = [
    Piece(steps=37, lr=0.9, batch_size=4),
    Piece(steps=0, lr=7.0, batch_size=1),
    Piece(steps=5, lr=1.3, batch_size=0.5),
    Piece(steps=64, lr=0.03, batch_size=4),
    Piece(steps=9, lr=0.0, batch_size=1),
    Piece(steps=20, lr=0.8, batch_size=1000),
]
LRS = np.repeat([p.lr for p in PIECES], [p.steps for p in PIECES])
BATCHES = np.repeat([p.batch_size for p in PIECES], [p.steps for p in PIECES])


def optimizer(name, momentum=0.7, ema_decay=0.9, tail_fraction=0.3):
    return Optimizer(
        name=name,
        lr=0.5,
        momentum=momentum if name.startswith(("momentum", "nesterov")) else 0,
        ema_decay=ema_decay if name.endswith("ema") else 0,
        tail_fraction=tail_fraction,
    )


@pytest.fixture(scope="module")
def problem():
    return NoisyQuadratic(
        spectrum=Spectrum(
            curvatures=np.array([1.0, 0.4, 0.03, 1e-4]),
            weights=np.array([1, 3, 2.5, 7]),
        ),
        noise=np.array([1.0, 0.2, 0.03, 0.0]),
        initial_second_moments=np.array([1.0, 0.0, 2.0, 5.0]),
        preconditioner_power=0.1,
        irreducible_loss=0.25,
    )


def stepped(problem, opt, lrs, batches):
    """The loss at the end, every step taken in long double."""
    steps = len(lrs)
    tail = steps if opt.name == "average" else max(1, round(opt.tail_fraction * steps))
    moments = moments_by_stepping(
        opt,
        lrs,
        problem.rates,
        problem.step_noise / np.asarray(batches)[:, None],
        problem.start,
        begin=steps - tail if opt.averages else 0,
    )
    return float(problem.irreducible_loss + moments @ problem.loss_weights)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_schedule_of_pieces_is_that_of_its_steps(problem, name):
    opt = optimizer(name)
    truth = stepped(problem, opt, LRS, BATCHES)
    assert loss_after_pieces(problem, opt, PIECES) == pytest.approx(truth, rel=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stepping_is_that_of_its_steps(problem, name):
    opt = optimizer(name)
    truth = stepped(problem, opt, LRS, BATCHES)
    found = loss_after_schedule(problem, opt, LRS, BATCHES)
    assert found.shape == ()
    assert found == pytest.approx(truth, rel=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_curve_passes_through_the_loss_of_every_shorter_schedule(problem, name):
    opt = optimizer(name)
    at = np.array([[0, 1, 2], [37, 40, 135], [106, 42, 115]])
    truth = [
        stepped(problem, opt, LRS[:k], BATCHES[:k]) if k else problem.initial_loss
        for k in at.ravel()
    ]
    truth = np.reshape(truth, at.shape)
    np.testing.assert_allclose(loss_curve(problem, opt, PIECES, at), truth, rtol=1e-13)
    every = loss_every_step(problem, opt, LRS, BATCHES)
    assert every.shape == (136,)
    np.testing.assert_allclose(every[at], truth, rtol=1e-13)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_piece_is_what_constant_settings_are(problem, name):
    opt = optimizer(name)
    halves = [Piece(steps=n, lr=opt.lr, batch_size=3) for n in (500, 501)]
    whole = loss_after(problem, opt, 3, 1001)
    assert loss_after_pieces(problem, opt, halves) == pytest.approx(whole, rel=1e-12)
    at = [0, 3, 500, 777, 1001]
    constant = loss_curve(problem, opt, 3, at)
    np.testing.assert_allclose(loss_curve(problem, opt, halves, at), constant, 1e-12)
    stepped = loss_after_schedule(problem, opt, np.full(1001, opt.lr), 3)
    assert stepped == pytest.approx(whole, rel=1e-12)


settings = st.tuples(
    st.sampled_from(OPTIMIZERS),
    st.floats(-5, 0).map(lambda x: 1 - 10**x),
    st.floats(-5, 0).map(lambda x: 1 - 10**x),
)
pieces = st.builds(
    Piece,
    steps=st.integers(0, 1000),
    lr=st.floats(-6, 0).map(lambda x: 1.3 * 10**x) | st.just(0.0),
    batch_size=st.floats(-1, 7).map(lambda x: 10**x),
)


@given(settings, st.lists(pieces, min_size=1, max_size=4))
def test_doubling_and_stepping_agree_on_any_schedule(problem, given_settings, given):
    opt = optimizer(*given_settings)
    lrs = np.repeat([p.lr for p in given], [p.steps for p in given])
    batches = np.repeat([p.batch_size for p in given], [p.steps for p in given])
    found = loss_after_pieces(problem, opt, given)
    stepped = loss_after_schedule(problem, opt, lrs, batches)
    assert found == pytest.approx(float(stepped), rel=1e-9)


@given(settings, st.integers(0, 2**32 - 1))
def test_numba_gives_the_very_numbers_of_numpy(problem, given_settings, seed):
    pytest.importorskip("numba")
    opt = optimizer(*given_settings)
    rng = np.random.default_rng(seed)
    lrs, batches = 2 * rng.random((3, 40)) ** 4, 10 ** rng.uniform(-1, 6, 40)
    some = [
        Piece(steps=int(n), lr=float(lr), batch_size=2)
        for n, lr in zip(rng.integers(0, 999, 3), lrs[0], strict=False)
    ]
    for function, arguments in (
        (loss_after_schedule, (lrs, batches)),
        (loss_every_step, (lrs[0], batches)),
        (loss_curve, (some, [0, sum(p.steps for p in some) // 2])),
        (loss_after_pieces, (some,)),
    ):
        numpy, numba = (
            function(problem, opt, *arguments, backend=backend)
            for backend in ("numpy", "numba")
        )
        np.testing.assert_array_equal(numpy, numba)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_schedules_together_are_what_they_are_alone(problem, name):
    opt = optimizer(name)
    rng = np.random.default_rng(3)
    lrs, batches = rng.random((5, 30)), rng.uniform(1, 99, (5, 30))
    together = loss_after_schedule(problem, opt, lrs, batches)
    alone = [
        loss_after_schedule(problem, opt, *one)
        for one in zip(lrs, batches, strict=True)
    ]
    assert together.shape == (5,)
    np.testing.assert_allclose(together, alone, rtol=1e-14)


def test_a_curve_longer_than_what_is_kept_at_once_is_whole(problem):
    opt = optimizer("average")
    every = loss_every_step(problem, opt, np.full(9000, 0.5), 8)
    at = np.array([1, 4095, 4096, 4097, 8192, 9000])
    np.testing.assert_allclose(every[at], loss_after(problem, opt, 8, at), rtol=1e-11)


def test_a_change_of_lr_acts_at_once_on_what_the_buffer_holds():
    # One direction, no noise: after a step of lr 1 at h = .5 the buffer holds .5 and
    # x = .5; a second one of lr .1 with momentum .5 moves by .1 (.5 x .5 + .25).
    problem = NoisyQuadratic(
        spectrum=Spectrum(curvatures=np.array([0.5])), noise=np.zeros(1)
    )
    opt = Optimizer(name="momentum", lr=1.0, momentum=0.5)
    found = loss_after_schedule(problem, opt, [1.0, 0.1], 1)
    assert found == pytest.approx(0.25 * 0.45**2)


def test_no_steps_leave_the_start(problem):
    opt = optimizer("momentum+ema")
    assert loss_after_pieces(problem, opt, []) == problem.initial_loss
    assert loss_after_schedule(problem, opt, [], 1) == problem.initial_loss
    assert loss_every_step(problem, opt, [], 1).tolist() == [problem.initial_loss]
    still = [Piece(steps=50, lr=0.0, batch_size=1)]
    assert loss_after_pieces(problem, opt, still) == pytest.approx(problem.initial_loss)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_past_the_edge_the_loss_ends_at_infinity(problem, name):
    opt = optimizer(name)
    wild = [Piece(steps=10_000, lr=9.0, batch_size=1)]
    assert loss_after_pieces(problem, opt, wild) == np.inf
    assert loss_after_schedule(problem, opt, np.full(10_000, 9.0), 1) == np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 1.5}, "Piece: `steps` must be whole, got 1.5"),
        ({"steps": -1}, "Piece: `steps` must not be negative, got -1"),
        ({"lr": -0.1}, "Piece: `lr` must not be negative, got -0.1"),
        ({"lr": np.inf}, "Piece: `lr` must not be negative, got inf"),
        ({"batch_size": 0}, "Piece: `batch_size` must be positive, got 0"),
    ],
)
def test_a_piece_refuses(change, message):
    with pytest.raises(InputError, match=message):
        Piece(**{"steps": 1, "lr": 0.1, "batch_size": 1, **change})


@pytest.mark.parametrize("function", [loss_after_schedule, loss_every_step])
@pytest.mark.parametrize(
    ("lrs", "batches", "message"),
    [
        ([0.1, -1], 1, "`lrs` must not be negative"),
        ([0.1, np.nan], 1, "`lrs` must not be negative"),
        (["a"], 1, "`lrs` must be numbers"),
        (0.1, 1, r"`lrs` must be of shape \(T,\) or \(m, T\), got \(\)"),
        ([0.1], 0, "`batch_sizes` must be positive"),
        ([0.1], None, "`batch_sizes` must be"),
        ([0.1] * 3, [1, 2], "`batch_sizes` must be one value or as many as `lrs`"),
    ],
)
def test_a_schedule_refuses(problem, function, lrs, batches, message):
    with pytest.raises(InputError, match=f"{function.__name__}: {message}"):
        function(problem, optimizer("sgd"), lrs, batches)


def test_a_curve_of_every_step_is_of_one_schedule(problem):
    with pytest.raises(InputError, match="`lrs` must be one schedule, got 2"):
        loss_every_step(problem, optimizer("sgd"), np.ones((2, 3)), 1)


def test_a_curve_ends_with_its_pieces(problem):
    with pytest.raises(InputError, match="`at` must not be past the 135 steps"):
        loss_curve(problem, optimizer("sgd"), PIECES, [0, 136])


def test_label_noise_is_refused():
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    sgd = optimizer("sgd")
    for call in (
        lambda: loss_after_pieces(noisy, sgd, PIECES),
        lambda: loss_curve(noisy, sgd, PIECES, [1]),
        lambda: loss_after_schedule(noisy, sgd, LRS, 1),
        lambda: loss_every_step(noisy, sgd, LRS, 1),
    ):
        with pytest.raises(InputError, match="label noise"):
            call()
