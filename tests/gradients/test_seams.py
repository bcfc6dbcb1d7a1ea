"""What loops do to gradients at the seams of an update: seen, and never counted."""

import contextlib

import pytest
import torch
from gradients.example_loops import data, expected, measured, net, run_update
from torch import nn
from torch.nn import functional

from rightbatch.gradients import NoiseMeter

SOURCES = ["units", "examples"]


def halves(count=16):
    x, y = data(count)
    return list(zip(x.split(count // 2), y.split(count // 2), strict=True))


def backward(meter, model, a, b):
    with meter.unit(examples=len(a)):
        (functional.cross_entropy(model(a), b) / 2).backward()


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("warm", [0, 3], ids=["at first", "later"])
@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.zero_grad(),
        lambda model: model.zero_grad(set_to_none=False),
        lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-3),
        lambda model: functional.cross_entropy(
            model(data(4)[0]), data(4)[1]
        ).backward(),
    ],
    ids=["zero_grad", "zeroes in place", "clipping", "a stray backward"],
)
def test_gradients_changed_between_units_are_seen(source, warm, change):
    model, (first, second) = net(), halves()
    with NoiseMeter(model, source) as meter:
        for _ in range(warm):
            run_update(meter, model, *data(16), [8, 8])
        model.zero_grad()
        backward(meter, model, *first)
        change(model)
        backward(meter, model, *second)
        with pytest.raises(ValueError, match="changed between the units or after"):
            meter.update()
        before = meter.noise_scale.estimate.num_steps
        run_update(meter, model, *data(16), [8, 8])
        assert meter.noise_scale.estimate.num_steps == before + 1


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("warm", [0, 3], ids=["at first", "later"])
def test_gradients_left_from_before_the_first_unit_are_seen(source, warm):
    model, (x, y) = net(), data(16)
    with NoiseMeter(model, source) as meter:
        for _ in range(warm):
            run_update(meter, model, x, y, [8, 8])
        model.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        for a, b in halves():
            backward(meter, model, a, b)
        with pytest.raises(ValueError, match="not zero before the first unit"):
            meter.update()


@pytest.mark.parametrize("source", SOURCES)
def test_zeroing_between_forward_and_backward_is_no_change(source):
    model, (x, y) = net(), data(16)
    truth = expected(model, x, y, [8, 8] if source == "units" else [1] * 16)
    for to_none in (True, False):
        model.zero_grad()
        with NoiseMeter(model, source) as meter:
            for _ in range(4):
                for place, (a, b) in enumerate(halves()):
                    with meter.unit(examples=8):
                        loss = functional.cross_entropy(model(a), b) / 2
                        if not place:
                            model.zero_grad(set_to_none=to_none)
                        loss.backward()
                meter.update()
                assert measured(meter) == pytest.approx(truth)


def test_a_backward_through_the_model_that_is_zeroed_later_does_no_harm():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        for _ in range(4):
            functional.cross_entropy(model(x), y).backward()  # as a GAN's other half
            run_update(meter, model, x, y, [8, 8])  # zeroes first
        assert meter.noise_scale.estimate.num_steps == 4


@pytest.mark.parametrize("source", SOURCES)
def test_an_optimizer_that_steps_inside_the_backward_pass_is_seen(source):
    model, (first, second) = net(), halves()

    def take(parameter):
        parameter.grad = None

    handles = [p.register_post_accumulate_grad_hook(take) for p in model.parameters()]
    with NoiseMeter(model, source) as meter:
        backward(meter, model, *first)
        backward(meter, model, *second)
        with pytest.raises(
            ValueError, match=r"another gradient than it made|were change"
        ):
            meter.update()
    assert len(handles) == 4


def test_a_hook_that_changes_gradients_after_the_meter_is_seen():
    model, (first, second) = net(), halves()
    with NoiseMeter(model) as meter:
        model[0].weight.register_hook(lambda g: 0.1 * g)
        backward(meter, model, *first)
        backward(meter, model, *second)
        with pytest.raises(ValueError, match="another gradient than it made"):
            meter.update()


def test_unscaling_is_seen_whatever_the_smallest_gradient_is():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.idle = net().float(), nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return self.inner(x) + 0 * self.idle

    model = Idle()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    with NoiseMeter(model) as meter:
        for a, b in halves():
            with meter.unit(examples=8):
                scaler.scale(functional.cross_entropy(model(a.float()), b)).backward()
        scaler.unscale_(optimizer)
        with pytest.raises(ValueError, match="clipping or unscaling"):
            meter.update()


@pytest.mark.parametrize("source", SOURCES)
def test_an_update_that_broke_off_is_begun_anew_once_it_is_discarded(source):
    model, (x, y) = net(), data(16)
    truth = expected(model, x, y, [8, 8] if source == "units" else [1] * 16)
    with NoiseMeter(model, source) as meter:
        run_update(meter, model, x, y, [8, 8])
        first, _ = halves()
        model.zero_grad()
        backward(meter, model, *first)
        with contextlib.suppress(RuntimeError), meter.unit(examples=8):
            functional.cross_entropy(model(first[0]), first[1]).backward()
            raise RuntimeError("no memory")
        meter.discard()
        run_update(meter, model, x, y, [8, 8])
        assert measured(meter) == pytest.approx(truth)


@pytest.mark.parametrize("source", SOURCES)
def test_a_part_that_a_failed_backward_left_is_seen(source):
    model, (first, second) = net(), halves()
    with NoiseMeter(model, source) as meter:
        with contextlib.suppress(RuntimeError), meter.unit(examples=8):
            functional.cross_entropy(model(first[0]), first[1]).backward()
            raise RuntimeError("after the backward pass")
        backward(meter, model, *first)
        backward(meter, model, *second)
        with pytest.raises(ValueError, match=r"failed half-way.*discard\(\)"):
            meter.update()


def test_a_lone_unit_after_others_is_left_out_and_does_not_change_the_source():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        for sizes in ([8, 8], [16], [8, 8]):
            run_update(meter, model, x, y, sizes)
        reading = meter.noise_scale
        assert (reading.source, reading.num_skipped) == ("units", 1)
        assert reading.estimate.num_steps == 2


def test_a_weight_of_no_account_is_refused_at_once_and_costs_no_other_update():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as meter:
        for _ in range(3):
            run_update(meter, model, x, y, [8, 8])
        model.zero_grad()
        for (a, b), weight in zip(halves(), (1.0, 1e-14), strict=True):
            with meter.unit(examples=8, weight=weight):
                functional.cross_entropy(model(a), b).backward()
        with pytest.raises(ValueError, match="one of 2 units has all the weight"):
            meter.update()
        assert meter.noise_scale.estimate.num_steps == 3


# The model changes -------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("every", [1, 2])
def test_a_layer_frozen_on_the_way_is_left_out_and_stays_frozen(source, every):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(1, 3, 2), nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 3)
    ).double()
    x, y = data(16)
    x = x.unsqueeze(1)
    with NoiseMeter(model, source, every=every) as meter:
        for frozen in (None, None, None, 0, 0, 2, 2, 2):
            if frozen is not None:
                model[frozen].requires_grad_(False)
            run_update(meter, model, x, y, [8, 8])
        assert not any(p.requires_grad for p in (*model[0].parameters(),))
        assert all(p.grad is None for p in model[2].parameters())
        if every == 1:
            sizes = [8, 8] if source == "units" else [1] * 16
            meter.noise_scale  # noqa: B018
            assert measured(meter) == pytest.approx(expected(model, x, y, sizes))
        assert meter.noise_scale.coverage == 1.0


def test_what_was_not_trained_when_the_meter_was_made_is_not_said_to_be_read():
    model, (x, y) = net(), data(16)
    model[0].requires_grad_(False)
    with NoiseMeter(model) as meter:
        model[0].requires_grad_(True)
        run_update(meter, model, x, y, [8, 8])
        reading = meter.noise_scale
    assert reading.coverage == pytest.approx(24 / (24 + 42))
    assert reading.uncovered["0.weight"] == "not trained when the meter was made"


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_cast_after_the_meter_was_made_is_read_all_the_same(source):
    model, (x, y) = net().float(), data(16)
    with NoiseMeter(model, source) as meter:
        run_update(meter, model, x.float(), y, [8, 8])
        run_update(meter, model, x.float(), y, [8, 8])
        model.double()
        model.zero_grad()
        run_update(meter, model, x, y, [8, 8])
        sizes = [8, 8] if source == "units" else [1] * 16
        assert measured(meter) == pytest.approx(expected(model, x, y, sizes), rel=1e-4)


def test_complex_parameters_are_refused():
    model = nn.ParameterList([nn.Parameter(torch.zeros(2, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="complex parameter, 0.*view_as_real"):
        NoiseMeter(model)


def test_a_state_leaves_what_this_meter_was_told():
    model, (x, y) = net(), data(16)
    with NoiseMeter(model) as one:
        run_update(one, model, x, y, [8, 8])
        state = one.state_dict()
    with NoiseMeter(model, "examples", horizon=99) as other:
        other.load_state_dict(state)
        assert other.noise_scale.source == "examples"
        assert other.state_dict()["averages"][""]["horizon"] == 99
