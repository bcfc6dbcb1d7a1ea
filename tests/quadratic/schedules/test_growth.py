"""Growing the batch instead of decaying the learning rate, and its guard."""

import numpy as np
import pytest
from quadratic.oracles_schedules import expanded, sgd_loss

from rightbatch.errors import InputError
from rightbatch.quadratic import NoisyQuadratic, Optimizer, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.pieces import Piece
from rightbatch.quadratic.schedules.growth import grow_batch
from rightbatch.quadratic.schedules.piecewise import search_pieces

PUBLISHED = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))
SMALL = NoisyQuadratic(spectrum=Spectrum.inverse(30))
DECAY = [Piece(steps=400, lr=lr, batch_size=4) for lr in (0.2, 0.1, 0.03, 0.01)]


@pytest.mark.parametrize(
    ("power", "size", "saving", "increase"),
    [(0, 4, 5.17, 0.0099), (0.5, 64, 4.56, 0.0010), (0.75, 64, 4.36, 0.0001)],
)
def test_growth_saves_as_many_updates_as_is_known(power, size, saving, increase):
    problem = PUBLISHED.with_power(power)
    schedule = search_pieces(problem, "sgd", [size], 0.01, 10)[0]
    grown = grow_batch(problem, schedule.pieces)
    assert not grown.guarded
    assert grown.saving == pytest.approx(saving, abs=0.01)
    assert grown.loss_increase == pytest.approx(increase, abs=2e-4)


def test_at_the_stability_edge_the_guard_holds_a_smaller_rate_and_says_so():
    schedule = search_pieces(PUBLISHED, "sgd", [64], 0.01, 10)[0]
    free = grow_batch(PUBLISHED, schedule.pieces, max_increase=np.inf)
    assert not free.guarded
    assert free.held_lr == pytest.approx(2)
    assert free.loss > 1000 * free.loss_before
    grown = grow_batch(PUBLISHED, schedule.pieces)
    assert grown.guarded
    assert grown.held_lr < 2
    assert 0.04 < grown.loss_increase <= 0.05
    assert 1 < grown.saving < free.saving
    assert grown.unguarded_loss == free.loss
    assert "held at the largest, the loss would be x" in str(grown)


def test_every_piece_reads_as_many_examples_and_none_loses_its_rate():
    grown = grow_batch(SMALL, DECAY)
    assert grown.held_lr == 0.2
    for old, new in zip(DECAY, grown.pieces, strict=True):
        assert new.lr == 0.2
        assert new.steps * new.batch_size == pytest.approx(old.steps * old.batch_size)
    assert grown.updates == sum(piece.steps for piece in grown.pieces)
    assert grown.examples == 4 * 1600
    wished = sum(piece.steps * piece.lr / 0.2 for piece in DECAY)
    assert abs(grown.updates - wished) <= 0.5


def test_losses_are_those_of_single_steps():
    grown = grow_batch(SMALL, DECAY)

    def loss(pieces):
        steps = [piece.steps for piece in pieces]
        lrs = expanded([piece.lr for piece in pieces], steps)
        return sgd_loss(SMALL, lrs, expanded([p.batch_size for p in pieces], steps))

    assert grown.loss_before == pytest.approx(loss(DECAY), rel=1e-10)
    assert grown.loss == pytest.approx(loss(grown.pieces), rel=1e-10)


def test_a_constant_rate_stays_as_it_is():
    pieces = [Piece(steps=50, lr=0.3, batch_size=8)] * 3
    grown = grow_batch(SMALL, pieces)
    assert grown.pieces == tuple(pieces)
    assert grown.saving == 1
    assert grown.loss_increase == 0


def test_another_optimizer_takes_the_same_pieces():
    heavy = Optimizer(name="momentum", lr=1.0, momentum=0.5)
    grown = grow_batch(SMALL, DECAY, optimizer=heavy)
    assert grown.loss_before != grow_batch(SMALL, DECAY).loss_before
    assert grown.saving > 1
    assert grown.loss_increase <= 0.05


def test_growth_is_a_dictionary_for_programs():
    found = grow_batch(SMALL, DECAY).to_dict()
    assert found["saving"] == found["updates_before"] / found["updates"]
    assert len(found["pieces"]) == 4


def test_bad_input_is_refused():
    still = [Piece(steps=5, lr=0.0, batch_size=4), Piece(steps=0, lr=1, batch_size=4)]
    with pytest.raises(InputError, match="`pieces` must have one with steps"):
        grow_batch(SMALL, still)
    with pytest.raises(InputError, match="`max_increase` must not be negative"):
        grow_batch(SMALL, DECAY, max_increase=-0.1)
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="grow_batch: .*label noise"):
        grow_batch(noisy, DECAY)
