"""Shapes with their peak tuned: known answers, optimality, every optimizer."""

import numpy as np
import pytest
from quadratic.oracles_schedules import sgd_loss
from scipy import optimize

from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import published_bins
from rightbatch.quadratic.pieces import loss_after_schedule
from rightbatch.quadratic.schedules.schedule_search import search_shape
from rightbatch.quadratic.schedules.shaped_runs import Space
from rightbatch.quadratic.schedules.shapes import SHAPES, Shape, schedule_named
from rightbatch.quadratic.search import search

PUBLISHED = NoisyQuadratic(spectrum=published_bins(Spectrum.inverse(10_000)))
SMALL = NoisyQuadratic(
    spectrum=Spectrum.inverse(30), noise=Noise(curvature=1, isotropic=0.05)
)


@pytest.mark.parametrize(
    ("power", "name", "steps", "peak"),
    [
        (0, "constant", 95_633, None),
        (0, "cosine", 18_487, 2),
        (0, "linear", 18_624, 2),
        (0.5, "cosine", 12_434, None),
        (0.5, "linear", 11_475, None),
    ],
)
def test_shapes_reach_the_published_problem_when_they_are_known_to(
    power, name, steps, peak
):
    problem = PUBLISHED.with_power(power)
    found = search_shape(problem, "sgd", Shape(name=name), [64], 0.01)[0]
    assert found.steps == steps
    assert found.optimizer is not None
    if peak is not None:
        assert found.optimizer.lr == peak


@pytest.mark.parametrize("text", ["cosine", "wsd:.3", "wsd", "step", "inverse_time"])
def test_one_step_less_does_not_reach_the_target_from_any_start(text):
    shape, size, target = schedule_named(text), 32.0, 0.05
    assert isinstance(shape, Shape)
    found = search_shape(SMALL, "sgd", shape, [size], target)[0]
    assert found.steps is not None
    assert found.loss is not None
    assert sgd_loss(SMALL, found.lrs(), size) == pytest.approx(found.loss, rel=1e-9)
    low, high = shape.parameter_bounds if shape.is_tuned else (0.1, 0.1)
    low, high = max(low, 1e-3), min(high, 100.0)

    def least(steps):
        def loss(point):
            one = shape.with_parameter(np.exp(point[1])) if shape.is_tuned else shape
            return sgd_loss(SMALL, one.lrs(float(np.exp(point[0])), steps), size)

        starts = [
            np.log([2.0 * 3.0**-k, parameter])
            for k in (0, 3)
            for parameter in (np.geomspace(low, high, 5)[1:4] if low < high else [low])
        ]
        bounds = [(None, np.log(2)), (np.log(low), np.log(high))]
        return min(
            optimize.minimize(loss, start, method="Nelder-Mead", bounds=bounds).fun
            for start in starts
        )

    assert found.loss <= target
    assert least(found.steps - 1) > target * (1 - 1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_and_numba_find_the_same_runs(shape):
    first, second = (
        search_shape(SMALL, "sgd", Shape(name=shape), [16], 0.05, backend=backend)[0]
        for backend in ("numpy", "numba")
    )
    assert first.steps == second.steps
    assert first.loss == pytest.approx(second.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        *(("sgd", shape) for shape in SHAPES),
        ("momentum", "cosine"),
        ("nesterov+ema", "wsd"),
        ("average", "inverse_time"),
        ("tail-average", "linear"),
    ],
)
def test_the_loss_is_that_of_the_schedule_and_just_reaches_the_target(name, shape):
    found = search_shape(SMALL, name, Shape(name=shape), [16], 0.05)[0]
    assert found.optimizer is not None
    assert found.optimizer.name == name
    again = loss_after_schedule(SMALL, found.optimizer, found.lrs(), 16)
    assert float(again) == pytest.approx(found.loss, rel=1e-9)
    assert 0.05 * (1 - 0.05) < again <= 0.05


@pytest.mark.parametrize("name", ["sgd", "momentum", "momentum+ema"])
def test_a_constant_shape_is_the_search_over_constant_settings(name):
    sizes = [4.0, 256.0]
    found = search_shape(SMALL, name, Shape(name="constant"), sizes, 0.05)
    wanted = search(SMALL, name, sizes, 0.05)
    for one, other in zip(found, wanted, strict=True):
        assert one.steps is not None
        assert other.steps is not None
        assert one.steps <= other.steps


def test_a_tuned_parameter_is_no_worse_than_a_given_one():
    def steps(text):
        shape = schedule_named(text)
        assert isinstance(shape, Shape)
        return search_shape(SMALL, "sgd", shape, [4], 0.05)[0].steps

    assert steps("wsd") <= min(map(steps, ("wsd:.1", "wsd:.5", "linear")))
    assert steps("inverse_time") <= steps("inverse_time:.05")
    assert steps("step") <= min(map(steps, ("step:3", "step:10")))


def test_the_peak_keeps_to_the_cap():
    shape = Shape(name="linear")
    low = search_shape(SMALL, "sgd", shape, [4096], 0.05, max_lr=0.3)[0]
    edge = search_shape(SMALL, "sgd", shape, [4096], 0.05)[0]
    free = search_shape(SMALL, "sgd", shape, [4096], 0.05, max_lr=np.inf)[0]
    for found, peak in ((low, 0.3), (edge, 2.0)):
        assert found.optimizer is not None
        assert found.optimizer.lr == pytest.approx(peak, rel=1e-12)
    assert free.optimizer is not None
    assert free.optimizer.lr > 2
    assert free.steps is not None
    assert edge.steps is not None
    assert free.steps < edge.steps


def test_long_runs_in_pieces_agree_with_shorter_ones_in_steps():
    # Halving the batch size of a noise-bound problem doubles the steps.
    problem = NoisyQuadratic(spectrum=Spectrum.inverse(3))
    long, longer = (
        search_shape(problem, "sgd", Shape(name="linear"), [size], 1e-4)[0].steps
        for size in (0.012, 0.006)
    )
    assert long is not None
    assert longer is not None
    assert long < 2**22 < longer
    assert longer / long == pytest.approx(2, rel=1e-4)
    assert (
        search_shape(problem, "ema", Shape(name="linear"), [0.006], 1e-4)[0].steps
        is None
    )


@pytest.mark.parametrize("log_top", [np.nan, np.log(0.5), np.inf])
@pytest.mark.parametrize("name", ["sgd", "nesterov", "momentum+ema"])
def test_points_stand_for_the_settings_they_are_made_of(name, log_top):
    space = Space(name, Shape(name="wsd"), 0.3, log_top)
    rest = np.log([0.2, 0.1, 0.05])[: space.num_dims - 1]
    point = space.point(0.01, rest)
    optimizer = space.optimizer(point)
    assert optimizer.lr == pytest.approx(0.01)
    assert space.shape_at(point).parameter == pytest.approx(0.2)
    assert point[2:] == pytest.approx(space.log_gaps(optimizer))


def test_what_cannot_be_reached_has_no_steps():
    found = search_shape(SMALL, "sgd", Shape(name="cosine"), [1], 1e-13)[0]
    assert found.steps is None
    assert found.lrs().size == 0
    assert found.to_dict() == {
        "schedule": "cosine:0",
        "batch_size": 1.0,
        "steps": None,
        "loss": None,
    }


def test_a_schedule_is_a_dictionary_for_programs():
    found = search_shape(SMALL, "momentum", Shape(name="linear"), [16], 0.05)[0]
    keys = {"schedule", "batch_size", "steps", "loss", "optimizer", "lr", "momentum"}
    assert set(found.to_dict()) == keys


def test_bad_input_is_refused():
    shape = Shape(name="linear")
    noisy = NoisyQuadratic(spectrum=Spectrum.inverse(3), label_noise=1.0)
    with pytest.raises(InputError, match="search_shape: .*label noise"):
        search_shape(noisy, "sgd", shape, [1], 0.1)
    with pytest.raises(InputError, match="`name` cannot be 'adam'"):
        search_shape(SMALL, "adam", shape, [1], 0.1)  # pyright: ignore
    with pytest.raises(InputError, match="`batch_sizes` must be positive, got 0"):
        search_shape(SMALL, "sgd", shape, [0], 0.1)
    with pytest.raises(InputError, match="`target` must be above the irreducible"):
        search_shape(SMALL, "sgd", shape, [4], 0)
    with pytest.raises(InputError, match="`max_lr` must be positive, got -1"):
        search_shape(SMALL, "sgd", shape, [4], 0.1, max_lr=-1)
