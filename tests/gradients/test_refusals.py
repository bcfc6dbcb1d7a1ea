"""What the meter refuses, and the way out it names."""

import pytest
import torch
from gradients.example_loops import data, expected, measured, net, run_update
from torch import nn
from torch.nn import functional

from rightbatch.gradients import NoiseMeter


def test_no_backward_since_the_last_update_is_refused():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        with pytest.raises(ValueError, match="no backward has run in a unit since"):
            meter.update()
        run_update(meter, model, x, y, [8, 8])
        with pytest.raises(ValueError, match="wrap each backward pass"):
            meter.update()


@pytest.mark.parametrize("source", ["units", "examples"])
def test_a_unit_without_a_backward_is_refused(source):
    with NoiseMeter(net(), source) as meter:
        with meter.unit(examples=8):
            pass
        with pytest.raises(ValueError, match="no gradient reached the parameters"):
            meter.update()


def test_one_unit_alone_says_which_source_would_work():
    model, (x, y) = net(), data(16)
    with (
        NoiseMeter(model, "units") as meter,
        pytest.raises(
            ValueError, match="one unit.*two micro-batches.*source='examples'"
        ),
    ):
        run_update(meter, model, x, y, [16])
    with (
        NoiseMeter(model, "examples") as meter,
        pytest.raises(ValueError, match="one unit, which tells no noise"),
    ):
        run_update(meter, model, x[:1], y[:1], [1])


def test_auto_says_so_where_neither_source_works():
    torch.manual_seed(0)
    model = nn.LSTM(5, 3, batch_first=True).double()
    x = torch.randn(4, 6, 5).double()
    with NoiseMeter(model) as meter:
        with meter.unit(examples=4):
            model(x)[0].sum().backward()
        with pytest.raises(ValueError, match=r"one unit.*in LSTM, which is not read"):
            meter.update()


@pytest.mark.parametrize("examples", [0, -1, float("nan"), "eight"])
def test_units_with_no_examples_are_refused(examples):
    with NoiseMeter(net()) as meter:
        with pytest.raises(ValueError, match="unit: `examples` must be positive"):
            meter.unit(examples=examples)
        with pytest.raises(ValueError, match="unit: `weight` must be positive"):
            meter.unit(examples=8, weight=0)


def test_a_model_with_nothing_to_train_is_refused():
    model = net().requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters"):
        NoiseMeter(model)


@pytest.mark.parametrize("foreach", [True, False])
def test_an_update_after_clipping_is_refused(foreach):
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        for a, b in zip(x.split(8), y.split(8), strict=True):
            with meter.unit(examples=8):
                functional.cross_entropy(model(a), b).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01, foreach=foreach)
        with pytest.raises(
            ValueError, match=r"changed between the units or after.*clipping"
        ):
            meter.update()
        run_update(meter, model, x, y, [8, 8])
        assert meter.noise_scale.estimate.num_steps == 1


def test_an_update_after_unscaling_is_refused():
    model, (x, y) = net().float(), data(16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with NoiseMeter(model) as meter:
        for a, b in zip(x.float().split(8), y.split(8), strict=True):
            with meter.unit(examples=8):
                scaler.scale(functional.cross_entropy(model(a), b)).backward()
        scaler.unscale_(optimizer)
        with pytest.raises(ValueError, match="clipping or unscaling"):
            meter.update()


def test_gradients_left_over_from_before_are_refused():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        functional.cross_entropy(model(x), y).backward()  # outside a unit
        with pytest.raises(ValueError, match="no backward has run"):
            meter.update()
        with meter.unit(examples=8):
            functional.cross_entropy(model(x), y).backward()
        with pytest.raises(ValueError, match="not zero before the first unit"):
            meter.update()


def test_zeroes_in_place_of_none_are_no_leftovers():
    model, (x, y) = net(), data(16)
    functional.cross_entropy(model(x), y).backward()
    model.zero_grad(set_to_none=False)
    with NoiseMeter(model) as meter:
        for a, b in zip(x.split(8), y.split(8), strict=True):
            with meter.unit(examples=8):
                (functional.cross_entropy(model(a), b) / 2).backward()
        meter.update()
    assert measured(meter) == pytest.approx(expected(model, x, y, [8, 8]))


def test_a_backward_outside_a_unit_is_refused():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        with meter.unit(examples=8):
            functional.cross_entropy(model(x[:8]), y[:8]).backward()
        functional.cross_entropy(model(x[8:]), y[8:]).backward()
        with pytest.raises(ValueError, match="by a backward pass outside `meter.unit"):
            meter.update()


def test_two_backward_passes_in_one_unit_are_refused():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        for _ in range(2):
            with meter.unit(examples=8):
                functional.cross_entropy(model(x), y).backward()
                functional.cross_entropy(model(x), y).backward()
        with pytest.raises(ValueError, match=r"gradient of .* several parts.*add the"):
            meter.update()


def test_a_unit_inside_a_unit_is_refused():
    with (
        NoiseMeter(net()) as meter,
        meter.unit(examples=8),
        pytest.raises(ValueError, match="a unit inside a unit"),
        meter.unit(examples=8),
    ):
        pass


def test_a_backward_that_fails_is_forgotten():
    model, (x, y) = net(), data(16)
    for source in ("units", "examples"):
        with NoiseMeter(model, source) as meter:
            model.zero_grad()
            with pytest.raises(RuntimeError, match="no memory"), meter.unit(examples=8):
                raise RuntimeError("no memory")
            run_update(meter, model, x, y, [8, 8])
            sizes = [8, 8] if source == "units" else [1] * 16
            truth = expected(model, x, y, sizes)
            assert measured(meter) == pytest.approx(truth)


def test_a_closed_meter_measures_no_more():
    meter = NoiseMeter(net())
    meter.close()
    meter.close()
    with pytest.raises(ValueError, match="update: the meter is closed"):
        meter.update()
    with pytest.raises(ValueError, match="unit: the meter is closed"):
        meter.unit(examples=8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "accumulation"}, "`source` cannot be 'accumulation'.*units"),
        ({"every": 0}, "`every` must be a whole number"),
        ({"num_examples": 0}, "`num_examples` must be a whole number"),
        ({"dataset_size": 0}, "`dataset_size` must be a whole number"),
        ({"horizon": -1}, "`horizon` must be positive"),
        ({"horizon": "long"}, "`horizon` cannot be 'long'"),
        ({"parts": "layer"}, "`parts` cannot be 'layer'.*layers"),
        ({"parts": {"none": []}}, "`parts` 'none' holds no trainable parameter"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        NoiseMeter(net(), **settings)


def test_a_state_of_another_meter_is_refused():
    one, other = NoiseMeter(net()), NoiseMeter(net(), parts="layers")
    with pytest.raises(ValueError, match="a meter with other `parts`"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(ValueError, match="the state lacks 'waiting'"):
        one.load_state_dict({"source": "units", "num_updates": 0})
    with pytest.raises(ValueError, match="update: `grad_scale` must be positive"):
        one.update(grad_scale=0)
