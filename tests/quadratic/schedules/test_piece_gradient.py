"""The loss of any optimizer through pieces and its gradient, against differences."""

import numpy as np
import pytest
from quadratic.oracles_schedules import gradient

from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.pieces import Piece, loss_after_pieces
from rightbatch.quadratic.schedules.piece_gradient import PieceGradient

PROBLEM = NoisyQuadratic(
    spectrum=Spectrum.power_law(9, 1.4), noise=Noise(curvature=1, isotropic=0.1)
)
NAMES = ["momentum", "nesterov", "ema", "momentum+ema", "nesterov+ema", "average"]
COUNTS = np.array([5.0, 0.0, 17.0, 8.0])


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("log_top", [None, np.log(0.4), np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradient_are_those_of_the_pieces(name, log_top, backend):
    pieces = PieceGradient(PROBLEM, name, 4.0, log_top, backend)
    extras = pieces.has_momentum + pieces.has_ema
    generator = np.random.default_rng(len(name))
    for _ in range(3):
        head = generator.uniform(-3, -0.05, COUNTS.size)
        point = np.concatenate([head, generator.uniform(-3, -0.05, extras)])

        def loss(point):
            lrs, optimizer = pieces.settings(point, COUNTS.size)
            return loss_after_pieces(
                PROBLEM,
                optimizer,
                [
                    Piece(steps=int(steps), lr=lr, batch_size=4)
                    for steps, lr in zip(COUNTS, lrs, strict=True)
                ],
            )

        value, slope = pieces.expand(point, COUNTS)
        assert value == pytest.approx(loss(point), rel=1e-10)
        assert slope == pytest.approx(gradient(loss, point), abs=1e-7 * value)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_without_momentum_and_average_it_is_sgd(name):
    pieces = PieceGradient(PROBLEM, name, 4.0, None, "numpy")
    sgd = PieceGradient(PROBLEM, "ema", 4.0, None, "numpy")
    log_lrs = np.log([1.0, 0.5, 0.3, 0.1])
    value, _ = pieces.expand(pieces.adopt(log_lrs), COUNTS)
    assert value == pytest.approx(sgd.expand(sgd.adopt(log_lrs), COUNTS)[0], rel=1e-12)
    lrs, optimizer = pieces.settings(pieces.adopt(log_lrs), 4)
    assert lrs == pytest.approx(np.exp(log_lrs))
    assert optimizer.momentum == optimizer.ema_decay == 0
