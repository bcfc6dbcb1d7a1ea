"""The meter in plain loops, beside gradients taken one by one."""

import copy
import gc
import pickle
import warnings

import pytest
import torch
from gradients.example_loops import data, expected, measured, net, run_update
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rightbatch.gradients import NoiseMeter, optimizer_parts


@pytest.mark.parametrize("sizes", [[8, 8, 8, 8], [16, 16, 16, 13, 3], [1, 31], [4] * 8])
def test_units_of_any_sizes_give_the_moments_of_their_gradients(sizes):
    model, (x, y) = net(), data(sum(sizes))
    with NoiseMeter(model) as meter:
        run_update(meter, model, x, y, sizes)
        assert measured(meter) == pytest.approx(expected(model, x, y, sizes), rel=1e-9)


def test_units_weighed_alike_whatever_their_size_are_told_so():
    model, (x, y) = net(), data(20)
    sizes, count = [8, 8, 4], 3
    with NoiseMeter(model) as meter:
        for a, b in zip(x.split(sizes), y.split(sizes), strict=True):
            with meter.unit(examples=len(a), weight=1):
                (functional.cross_entropy(model(a), b) / count).backward()
        meter.update()
    truth = expected(model, x, y, sizes, weights=[1, 1, 1])
    assert measured(meter) == pytest.approx(truth, rel=1e-9)


def test_the_norms_of_single_examples_are_units_of_one():
    model, (x, y) = net(), data(16)
    for source in ("auto", "examples"):
        with NoiseMeter(model, source) as meter:
            for _ in range(3):
                run_update(meter, model, x, y, [16])
            truth = expected(model, x, y, [1] * 16)
            assert measured(meter) == pytest.approx(truth, rel=1e-9)
            assert meter.noise_scale.source == "examples"


def test_examples_are_the_same_units_however_they_are_accumulated():
    model, (x, y) = net(), data(16)
    for sizes in ([16], [8, 8], [10, 5, 1]):
        with NoiseMeter(model, "examples") as meter:
            for _ in range(2):
                run_update(meter, model, x, y, sizes)
            truth = expected(model, x, y, [1] * 16)
            assert measured(meter) == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("source", ["units", "examples"])
def test_a_constant_factor_on_the_loss_changes_nothing(source):
    model, (x, y) = net(), data(32)
    scales = []
    for scale in (1.0, 1000.0):
        with NoiseMeter(model, source) as meter:
            run_update(meter, model, x, y, [8] * 4, scale=scale)
            truth = expected(model, x, y, [8] * 4 if source == "units" else [1] * 32)
            assert measured(meter) == pytest.approx(truth, rel=1e-8)
            scales.append(meter.noise_scale.value)
    assert scales[0] == pytest.approx(scales[1], rel=1e-8)


def test_a_sum_in_place_of_the_mean_gives_the_same_noise_scale():
    model, (x, y) = net(), data(32)
    values = []
    for reduction in ("mean", "sum"):
        with NoiseMeter(model) as meter:
            model.zero_grad()
            for a, b in zip(x.split(8), y.split(8), strict=True):
                with meter.unit(examples=8):
                    functional.cross_entropy(
                        model(a), b, reduction=reduction
                    ).backward()
            meter.update()
            values.append(meter.last_moments.simple_noise_scale)
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_the_order_of_the_units_says_nothing():
    model, (x, y) = net(), data(32)
    with NoiseMeter(model) as meter:
        run_update(meter, model, x, y, [8] * 4)
        first = measured(meter)
        order = torch.arange(32).view(4, 8).flip(0).flatten()
        run_update(meter, model, x[order], y[order], [8] * 4)
        assert measured(meter) == pytest.approx(first, rel=1e-9)


def test_every_so_many_updates_are_measured_and_hooks_are_off_in_between():
    model, (x, y) = net(), data(16)
    meter = NoiseMeter(model, every=3)
    for step in range(7):
        assert meter.is_measuring == (step % 3 == 0)
        hooks = [p._backward_hooks for p in model.parameters()]
        assert all(bool(h) == meter.is_measuring for h in hooks)
        run_update(meter, model, x, y, [8, 8])
    assert meter.noise_scale.estimate.num_steps == 3
    # What was trained on in between counts for the memory.
    average = meter.state_dict()["averages"][""]
    assert (average["examples"], average["elapsed"]) == (48, 16 * 7)
    assert average["horizon"] == 200 * 16 * 3


@pytest.mark.parametrize("source", ["units", "examples", "auto"])
def test_a_closed_meter_leaves_no_trace(source):
    model, (x, y) = net(), data(16)
    plain = copy.deepcopy(model)
    with NoiseMeter(model, source) as meter:
        for _ in range(3):
            run_update(meter, model, x, y, [16] if source != "units" else [8, 8])
    model.zero_grad()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for parameter in model.parameters():
        assert not parameter._backward_hooks
        assert parameter.requires_grad
    assert meter.noise_scale.estimate.num_steps


def test_a_meter_that_is_forgotten_takes_its_hooks_along():
    model = net()
    meter = NoiseMeter(model)
    assert model[0].weight._backward_hooks
    del meter
    gc.collect()
    assert not model[0].weight._backward_hooks


def test_measuring_leaves_the_training_as_it_was():
    x, y = data(64)
    trained = []
    for source in (None, "units", "examples"):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        meter = None if source is None else NoiseMeter(model, source)
        for _ in range(5):
            optimizer.zero_grad()
            for a, b in zip(x.split(16), y.split(16), strict=True):
                loss = functional.cross_entropy(model(a), b) / 4
                if meter is None:
                    loss.backward()
                else:
                    with meter.unit(examples=16):
                        loss.backward()
            if meter is not None:
                meter.update()
            optimizer.step()
        trained.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(trained[0], trained[1])
    assert torch.allclose(trained[0], trained[2], rtol=1e-12)


def test_frozen_parameters_are_left_out_and_tied_ones_read_once():
    model = net()
    model[0].weight.requires_grad_(False)
    x, y = data(24)
    with NoiseMeter(model) as meter:
        run_update(meter, model, x, y, [8] * 3)
        assert measured(meter) == pytest.approx(
            expected(model, x, y, [8] * 3), rel=1e-9
        )
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Tanh(), nn.Linear(5, 5))
    tied[2].weight = tied[0].weight
    tied.double()
    with NoiseMeter(tied) as meter:
        run_update(meter, tied, x, y, [8] * 3)
        assert measured(meter) == pytest.approx(expected(tied, x, y, [8] * 3), rel=1e-9)


def test_a_parameter_that_took_no_part_adds_nothing():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()

        def forward(self, x):
            return self.used(x)

    model, (x, y) = Two(), data(16)
    for source in ("units", "examples"):
        with NoiseMeter(model, source) as meter:
            run_update(meter, model, x, y, [8, 8])
            sizes = [8, 8] if source == "units" else [1] * 16
            truth = expected(model.used, x, y, sizes)
            assert measured(meter) == pytest.approx(truth, rel=1e-9)


def test_parts_add_up_to_the_whole():
    model, (x, y) = net(), data(32)
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters()}], lr=0.1
    )
    for source in ("units", "examples"):
        for parts in ("layers", "parameters", optimizer_parts(optimizer)):
            with NoiseMeter(model, source, parts=parts) as meter:
                run_update(meter, model, x, y, [8] * 4)
                reading = meter.noise_scale
                total = sum(p.moments.grad_variance for p in reading.parts.values())
                assert total == pytest.approx(reading.moments.grad_variance)
                total = sum(p.moments.grad_sq_norm for p in reading.parts.values())
                assert total == pytest.approx(reading.moments.grad_sq_norm)
                assert len(reading.parts) == (4 if parts == "parameters" else 2)


def test_layers_are_named_as_the_model_names_them():
    with NoiseMeter(net(), parts="layers") as meter:
        assert list(meter.noise_scale.parts) == ["0", "2"]


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("source", ["units", "examples"])
def test_activation_checkpointing_changes_nothing(source, use_reentrant):
    model, (x, y) = net(), data(16)
    sizes = [8, 8] if source == "units" else [1] * 16
    truth = expected(model, x, y, sizes)
    with NoiseMeter(model, source) as meter:
        for _ in range(3):
            model.zero_grad()
            for a, b in zip(x.split(8), y.split(8), strict=True):
                inputs = a.clone().requires_grad_()
                with meter.unit(examples=8):
                    out = checkpoint(model, inputs, use_reentrant=use_reentrant)
                    (functional.cross_entropy(out, b) / 2).backward()
            meter.update()
            assert measured(meter) == pytest.approx(truth, rel=1e-9)


def test_a_compiled_model_is_read_by_units():
    model, (x, y) = net(), data(16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, backend="aot_eager")
        with NoiseMeter(compiled, every=2, parts="layers") as meter:
            for _ in range(3):
                run_update(meter, compiled, x, y, [8, 8])
            truth = expected(model, x, y, [8, 8])
            assert measured(meter) == pytest.approx(truth, rel=1e-9)
            assert list(meter.noise_scale.parts) == ["0", "2"]  # not "_orig_mod.0"


def test_examples_of_a_compiled_model_are_refused():
    compiled = torch.compile(net(), backend="aot_eager")
    with pytest.raises(ValueError, match="inside a compiled model.*source='units'"):
        NoiseMeter(compiled, "examples")


@pytest.mark.parametrize("source", ["units", "examples"])
def test_autocast_gives_the_moments_to_half_precision(source):
    model, (x, y) = net().float(), data(64)
    x = x.float()
    sizes = [16] * 4 if source == "units" else [1] * 64
    truth = expected(model, x, y, sizes)
    with NoiseMeter(model, source) as meter:
        for _ in range(2):
            model.zero_grad()
            for a, b in zip(x.split(16), y.split(16), strict=True):
                with torch.autocast("cpu", torch.bfloat16):
                    loss = functional.cross_entropy(model(a), b) / 4
                with meter.unit(examples=16):
                    loss.backward()
            meter.update()
            # bfloat16 has three digits, and |G|^2 is a small difference here.
            close = pytest.approx(truth, rel=0.02, abs=0.02 * truth[1] / 16)
            assert measured(meter) == close


def test_a_grad_scaler_needs_no_word_while_its_scale_is_constant():
    model, (x, y) = net().float(), data(32)
    x = x.float()
    truth = expected(model, x, y, [8] * 4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with NoiseMeter(model) as meter:
        for known in (False, True):
            optimizer.zero_grad()
            for a, b in zip(x.split(8), y.split(8), strict=True):
                with meter.unit(examples=8):
                    scaler.scale(functional.cross_entropy(model(a), b) / 4).backward()
            if known:
                meter.update(grad_scale=scaler.get_scale())
                assert measured(meter) == pytest.approx(truth, rel=1e-4)
            else:
                meter.update()
                phi = truth[1] / truth[0]
                ratio = meter.last_moments.simple_noise_scale
                assert ratio == pytest.approx(phi, rel=1e-4)
            scaler.step(optimizer)
            scaler.update()


def test_several_optimizers_are_no_matter():
    model, (x, y) = net(), data(32)
    optimizers = [torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2)]
    with NoiseMeter(model) as meter:
        for _ in range(3):
            for optimizer in optimizers:
                optimizer.zero_grad()
            truth = expected(model, x, y, [8] * 4)
            for a, b in zip(x.split(8), y.split(8), strict=True):
                with meter.unit(examples=8):
                    (functional.cross_entropy(model(a), b) / 4).backward()
            meter.update()
            for optimizer in optimizers:
                optimizer.step()
            assert measured(meter) == pytest.approx(truth, rel=1e-9)


def test_sparse_gradients_are_read():
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"table": nn.Embedding(9, 3, sparse=True), "head": nn.Linear(3, 2)}
    )
    ids = torch.randint(9, (4, 8))
    y = torch.randint(2, (4, 8))

    def gradient(rows):
        model.zero_grad()
        loss = functional.cross_entropy(
            model["head"](model["table"](ids[rows])), y[rows]
        )
        loss.backward()
        return [
            p.grad.to_dense() if p.grad.is_sparse else p.grad
            for p in model.parameters()
        ]

    units = [torch.cat([g.flatten() for g in gradient(row)]) for row in range(4)]
    mean = sum(units) / 4
    a = sum(u.square().sum() for u in units) / 4
    variance = float((a - mean.square().sum()) / (1 / 8 - 1 / 32))
    model.zero_grad()
    with NoiseMeter(model) as meter:
        for row in range(4):
            out = model["head"](model["table"](ids[row]))
            with meter.unit(examples=8):
                (functional.cross_entropy(out, y[row]) / 4).backward()
        meter.update()
        assert meter.last_moments.grad_variance == pytest.approx(variance, rel=1e-4)


def test_channels_last_gradients_are_read_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    x, y = torch.randn(16, 3, 6, 6), torch.randint(3, (16,))
    truth = expected(model, x, y, [4] * 4)
    model.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    with NoiseMeter(model) as meter:
        for _ in range(2):
            run_update(meter, model, x, y, [4] * 4)
            assert measured(meter) == pytest.approx(truth, rel=1e-4)


def test_half_precision_parameters_do_not_overflow():
    model, (x, y) = net().to(torch.bfloat16), data(32)
    with NoiseMeter(model) as meter:
        run_update(meter, model, x.bfloat16(), y, [8] * 4, scale=2.0**60)
        truth = expected(model.double(), x, y, [8] * 4)
        assert meter.last_moments.grad_variance == pytest.approx(truth[1], rel=0.2)


def test_the_state_goes_into_a_checkpoint_and_back():
    model, (x, y) = net(), data(64)
    one = NoiseMeter(model, every=2, parts="layers")
    for _ in range(3):
        run_update(one, model, x, y, [16] * 4)
    state = pickle.loads(pickle.dumps(one.state_dict()))
    one.close()
    other = NoiseMeter(model, every=2, parts="layers")
    other.load_state_dict(state)
    assert not other.is_measuring
    assert other.noise_scale.to_dict() == one.noise_scale.to_dict() | {"num_units": 0}
    for _ in range(2):
        run_update(other, model, x, y, [16] * 4)
    assert other.noise_scale.estimate.num_steps == 3


def test_a_window_begins_anew():
    model, (x, y) = net(), data(32)
    with NoiseMeter(model) as meter:
        run_update(meter, model, x, y, [8] * 4)
        meter.reset()
        assert meter.moments is None
        assert meter.noise_scale.status == "too few steps"
        run_update(meter, model, x, y, [8] * 4)
        assert meter.noise_scale.estimate.num_steps == 1


def test_numbers_go_to_any_logger_under_noise_keys():
    model, (x, y) = net(), data(32)
    seen = []
    with NoiseMeter(model, parts="layers") as meter:
        meter.log(lambda values, step: seen.append((values, step)), 0)
        for _ in range(3):
            run_update(meter, model, x, y, [8] * 4)
        meter.log(lambda values, step: seen.append((values, step)), 3)
    assert [step for _, step in seen] == [0, 3]
    assert all(key.startswith("noise/") for values, _ in seen for key in values)
    assert seen[1][0]["noise/scale"] == pytest.approx(meter.noise_scale.value)
    assert {"noise/scale/0", "noise/scale/2"} <= seen[1][0].keys()


def test_updates_with_infinite_or_nan_gradients_are_skipped_and_counted():
    model, (x, y) = net(), data(32)
    bad = x.clone()
    bad[3] = float("inf")
    for source in ("units", "examples"):
        with NoiseMeter(model, source) as meter:
            run_update(meter, model, x, y, [8] * 4)
            first = measured(meter)
            run_update(meter, model, bad, y, [8] * 4)
            run_update(meter, model, x, y, [8] * 4)
            assert meter.noise_scale.num_skipped == 1
            assert meter.noise_scale.estimate.num_steps == 2
            assert measured(meter) == pytest.approx(first)
            assert "1 update skipped" in str(meter.noise_scale)


def test_gradients_of_zero_give_no_noise_scale_and_no_error():
    model, (x, _) = net(), data(16)
    with NoiseMeter(model) as meter:
        for _ in range(3):
            model.zero_grad()
            for a in x.split(8):
                with meter.unit(examples=8):
                    (0 * model(a).sum()).backward()
            meter.update()
        reading = meter.noise_scale
        assert reading.value is None
        assert reading.status == "unresolved"
