"""Gradients from a cluster make the updates of one process."""

import random
import sys
import threading
import types

import numpy as np
import pytest
import torch
from integrations.dask.example_cluster import (
    GROWING,
    MICRO,
    TWO,
    alone,
    controlled,
    data,
    kill,
    losses_of,
    net,
    on_cluster,
    pids,
    trained,
    weights,
)
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import Dataset, TensorDataset

from rightbatch.controller import BatchSizeController, Sensing
from rightbatch.errors import InputError
from rightbatch.integrations.dask import DaskGradients, Work, Workers
from rightbatch.integrations.dask.gradients import CutForWorkers
from rightbatch.integrations.dask.packing import pack, unpack
from rightbatch.policies import Constant
from rightbatch.sampler import Loading, MicroBatchStream

LIMITS = {"max_steps": 200}


@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True], ids=["undisturbed", "killed"])
def test_two_worker_processes_make_200_updates_of_one(client, is_killed):
    dataset, model, other = data(), net(), net()
    moment = random.Random().randrange(20, 180)  # any will do
    victim = min(pids(client).values())

    def meanwhile(step):
        if is_killed and step == moment:
            threading.Timer(random.random() / 20, kill, [victim]).start()

    source = on_cluster(client, model, dataset)
    controller = controlled(model, source.stream(), lr_rule="auto")
    trained(source, controller, meanwhile=meanwhile, **LIMITS)
    source.close()
    assert (victim not in pids(client).values()) == is_killed
    expected = alone(other, dataset, lr_rule="auto", limits=LIMITS)
    sizes = [one.batch_size for one in controller.records]
    assert sizes == [one.batch_size for one in expected.records]
    assert (sizes[0], sizes[-1]) == (8, 88)
    np.testing.assert_allclose(
        [one.loss for one in controller.records],
        [one.loss for one in expected.records],
        atol=1e-9,
    )
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-9)
    # Noise is measured every tenth update, in eight parts whoever computes them.
    assert controller.records[-1].noise_scale == pytest.approx(
        expected.records[-1].noise_scale, rel=1e-6
    )
    assert [one.wanted for one in source.shares] == [
        min(2, -(-one.batch_size // 32)) for one in source.shares
    ]
    assert is_killed or source.shares[-1].used == 2
    assert 0 < source.shares[-1].computing_seconds < source.shares[-1].seconds


def test_single_precision_stays_near_too(client):
    dataset, limits = data(dtype=torch.float32), {"max_steps": 20}
    model, other = net(dtype=torch.float32), net(dtype=torch.float32)
    source = on_cluster(client, model, dataset)
    trained(source, controlled(model, source.stream()), **limits)
    source.close()
    alone(other, dataset, limits=limits)
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-6)


class Squares(Dataset):
    """Items that are made when they are asked for."""

    def __len__(self):
        return 100

    def __getitem__(self, item):
        x = torch.full((20,), item / 100, dtype=torch.float64)
        return {"x": x, "y": item % 3}


def losses_of_dict(model, batch):
    return functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def test_a_data_set_of_items_is_read_on_the_workers(client):
    model, other, limits = net(), net(), {"max_steps": 12}
    source = on_cluster(
        client,
        model,
        Squares(),
        loss=losses_of_dict,
        weigh=lambda batch: len(batch["y"]),
    )
    trained(source, controlled(model, source.stream()), **limits)
    source.close()
    alone(other, Squares(), loss=losses_of_dict, limits=limits)
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-10)


def test_what_is_of_main_goes_along_by_value(client):
    namespace = {"__name__": "__main__", "nn": nn}
    exec(
        "class Own(nn.Linear):\n    def forward(self, x):\n"
        "        return super().forward(x) * 2",
        namespace,
    )
    torch.manual_seed(0)
    model = namespace["Own"](20, 3).double()
    source = on_cluster(client, model, data(), loss=lambda m, b: m(b[0]).sum(1))
    before = weights(model)
    trained(source, controlled(model, source.stream()), max_steps=1)
    source.close()
    gradient = (before - weights(model)) / 0.1
    torch.testing.assert_close(gradient[-3:], torch.full((3,), 2.0).double())


class Half(nn.Module):
    """Uses one of its two layers; the other is frozen, a third is never reached."""

    def __init__(self):
        super().__init__()
        self.used, self.frozen = nn.Linear(20, 3), nn.Linear(20, 3)
        self.unused = nn.Linear(2, 2)
        self.frozen.requires_grad_(requires_grad=False)

    def forward(self, x):
        return self.used(x) + self.frozen(x)


def test_parameters_that_are_not_reached_have_no_gradient(client):
    torch.manual_seed(0)
    model = Half().double()
    source = on_cluster(client, model, data())
    controller = controlled(model, source.stream())
    update = next(controller.updates(max_steps=1))
    source.accumulate(update)
    source.close()
    assert model.unused.weight.grad is None
    assert model.frozen.weight.grad is None
    x, y = data()[: len(data())]
    rows = update.batch.passes[0].batch[0]
    loss = functional.cross_entropy(model(x[rows]), y[rows])
    (expected,) = torch.autograd.grad(loss, [model.used.weight])
    torch.testing.assert_close(model.used.weight.grad, expected)


def test_weights_of_examples_count_in_parts_of_every_size(client):
    (x, y), model, other = data(64).tensors, net(), net()
    counts = (torch.arange(64) % 4).double()
    dataset = TensorDataset(x, y, counts)

    def mean(model, batch):
        each = losses_of(model, batch)
        return (each * batch[2]).sum() / batch[2].sum().clamp(min=1)

    def weigh(batch):
        return float(batch[-1].sum())

    policy, sensing = Constant(batch_size=64), Sensing(noise="units", tokens=weigh)
    source = on_cluster(client, model, dataset, loss=mean, weigh=weigh)
    controller = controlled(model, source.stream(), policy, sensing=sensing)
    trained(source, controller, max_steps=1)
    source.close()
    assert controller.records[0].accumulation_steps == 2
    optimizer = SGD(other.parameters(), lr=0.1)
    mean(other, (x, y, counts)).backward()
    optimizer.step()
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-12)
    assert controller.records[0].tokens == counts.sum()


def test_a_part_too_large_for_one_pass_is_computed_in_several(client):
    dataset, model, other = data(5000), net(), net()
    policy = Constant(batch_size=5000)
    one = Workers(grads_per_worker=5000, follow="none")
    source = on_cluster(client, model, dataset, workers=one)
    trained(source, controlled(model, source.stream(), policy), max_steps=1)
    source.close()
    assert source.shares[0].used == 1
    optimizer = SGD(other.parameters(), lr=0.1)
    losses_of(other, dataset[:]).mean().backward()
    optimizer.step()
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-12)


def test_running_averages_move_by_the_mean_over_the_workers(client):
    model = net(extra=[nn.BatchNorm1d(32)])
    source = on_cluster(client, model, data())
    controller = controlled(model, source.stream(), Constant(batch_size=64))
    linear = net()[0]
    update = next(controller.updates(max_steps=1))
    source.accumulate(update)
    source.close()
    rows = [part.batch[0] for part in update.batch.passes]
    assert len(rows) == 2
    x = data().tensors[0]
    means = [linear(x[one]).mean(0).detach() for one in rows]
    expected = 0.1 * (means[0] + means[1]) / 2
    torch.testing.assert_close(model[1].running_mean, expected)
    assert int(model[1].num_batches_tracked) == 1


def test_dropout_falls_alike_whoever_computes(client, threads):
    found = []
    for one in (client, threads):
        model = net(extra=[nn.Dropout(0.5)])
        source = on_cluster(one, model, data())
        state = torch.get_rng_state()
        trained(source, controlled(model, source.stream()), max_steps=12)
        source.close()
        assert torch.equal(torch.get_rng_state(), state)
        found.append(weights(model))
    assert torch.equal(found[0], found[1])


def test_a_run_goes_on_from_its_state(client):
    whole = net()
    source = on_cluster(client, whole, data())
    trained(source, controlled(whole, source.stream()), max_steps=20)
    first, second = net(), net()
    begun = on_cluster(client, first, data())
    controller = controlled(first, begun.stream())
    trained(begun, controller, max_steps=9)
    resumed = on_cluster(client, second, data())
    other = controlled(second, resumed.stream())
    other.load_training_state(controller.training_state())
    trained(resumed, other, max_steps=20)
    for one in (source, begun, resumed):
        one.close()
    assert torch.equal(weights(second), weights(whole))


def test_a_large_model_goes_to_a_worker_itself(client):
    torch.manual_seed(0)
    model = nn.Linear(20, 4096).double()
    other = nn.Linear(20, 4096).double()
    other.load_state_dict(model.state_dict())
    source = on_cluster(client, model, data())
    trained(source, controlled(model, source.stream()), max_steps=3)
    source.close()
    alone(other, data(), limits={"max_steps": 3})
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-12)


def test_where_only_the_scheduler_is_reached_it_passes_all_on(client):
    model, other = net(), net()
    workers = Workers(grads_per_worker=32, follow="none", direct=False)
    source = on_cluster(client, model, data(), workers=workers)
    trained(source, controlled(model, source.stream()), max_steps=3)
    source.close()
    alone(other, data(), limits={"max_steps": 3})
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-12)


def test_an_update_has_a_pass_for_each_worker(client):
    stream = on_cluster(client, net(), data()).stream()
    assert isinstance(stream, CutForWorkers)
    passes = [len(stream.next(size).passes) for size in (8, 32, 40, 64, 128)]
    assert passes == [1, 1, 2, 2, 2]
    assert len(stream.next(16, min_units=8).passes) == 8


def test_tensors_of_all_kinds_come_back_as_they_were():
    tensors = [
        torch.randn(3, 2),
        torch.randn(5, dtype=torch.float64)[::2],
        torch.randn(4).bfloat16(),
        torch.tensor(7),
        torch.tensor([True, False]),
        torch.empty(0, 3),
    ]
    for found, one in zip(unpack(pack(tensors), tensors), tensors, strict=True):
        assert found.dtype == one.dtype
        assert torch.equal(found, one)
    assert len(pack([])) == 0


class Augmented(TensorDataset):
    """Rows with noise from three generators."""

    def __getitem__(self, item):
        x, y = super().__getitem__(item)
        return x + torch.randn(20) + np.random.normal() + random.random(), y


def test_items_made_by_chance_are_those_of_one_process(client):
    model, other, limits = net(), net(), {"max_steps": 12}
    dataset = Augmented(*data(100).tensors)
    source = on_cluster(client, model, dataset)
    trained(source, controlled(model, source.stream()), **limits)
    source.close()
    alone(other, dataset, limits=limits, loading=Loading(by_position=True))
    torch.testing.assert_close(weights(model), weights(other), rtol=0, atol=1e-10)


def test_layers_may_be_frozen_and_modes_changed_during_a_run(client):
    found = []
    for is_shared in (True, False):
        model = net(extra=[nn.BatchNorm1d(32)])
        one = Workers(grads_per_worker=1000, follow="none")
        source = on_cluster(client, model, data(), workers=one)
        stream = source.stream() if is_shared else MicroBatchStream(data(), MICRO)
        sensing = Sensing(noise="off")
        controller = controlled(model, stream, Constant(batch_size=8), sensing=sensing)
        for update in controller.updates(max_steps=6):
            model[0].requires_grad_(controller.step % 2 == 0)
            model.train(controller.step < 3)
            if is_shared:
                source.accumulate(update)
            else:
                for part in update:
                    update.backward(losses_of(model, part.batch))
            update.step()
        source.close()
        found.append(torch.cat([weights(model), model[1].running_mean]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-12)


def test_batch_normalization_never_has_one_example(threads):
    model = net(extra=[nn.BatchNorm1d(32)])
    workers = Workers(grads_per_worker=1, maximum=8, follow="none")
    source = on_cluster(threads, model, data(), workers=workers)
    controller = controlled(model, source.stream(), Constant(batch_size=8))
    trained(source, controller, max_steps=1)
    assert controller.records[0].accumulation_steps == 4


def test_running_averages_weigh_parts_by_their_examples(threads):
    model = net(extra=[nn.BatchNorm1d(32)])
    workers = Workers(grads_per_worker=12, maximum=2, follow="none")
    source = DaskGradients(
        threads,
        workers,
        Work(module=model, loss=losses_of, dataset=data(13)),
        micro_batch_size=13,
    )
    controller = controlled(model, source.stream(), Constant(batch_size=13))
    mean = net()[0](data(13).tensors[0]).mean(0).detach()
    trained(source, controller, max_steps=1)
    assert controller.records[0].accumulation_steps == 2  # of 7 and of 6 examples
    torch.testing.assert_close(model[1].running_mean, 0.1 * mean)


class Unpicklable(TensorDataset):
    def __getitem__(self, item):
        return super().__getitem__(item)

    def __reduce__(self):
        raise TypeError("cannot pickle an open file")


def test_what_cannot_be_pickled_is_refused(client):
    model = net()
    model.lock = (one for one in ())
    with pytest.raises(InputError, match="`module` must be such that it can be pickl"):
        on_cluster(client, model, data())
    with pytest.raises(InputError, match=r"`dataset` must be .* an open file \(open"):
        on_cluster(client, net(), Unpicklable(torch.ones(9, 20)))


def test_an_error_of_the_loss_is_the_user_s_own(client):
    def wrong(model, batch):
        raise ZeroDivisionError("no such loss")

    model = net()
    source = on_cluster(client, model, data(), loss=wrong)
    with pytest.raises(ZeroDivisionError, match="no such loss"):
        trained(source, controlled(model, source.stream()), max_steps=1)
    source.close()


class Missing(Squares):
    def __getitem__(self, item):
        return open(f"/nowhere/{item}.png")


def test_a_file_that_is_not_there_is_no_worker_s_death(client):
    source = on_cluster(client, net(), Missing())
    controller = controlled(net(), source.stream())
    with pytest.raises(FileNotFoundError, match="nowhere") as found:
        trained(source, controller, max_steps=1)
    source.close()
    assert "On the Dask worker tcp" in found.value.__notes__[0]


class Unsendable(Exception):
    def __reduce__(self):
        raise TypeError("no")


def test_an_error_that_cannot_travel_is_told(threads):
    def wrong(model, batch):
        raise Unsendable("said")

    model = net()
    source = on_cluster(threads, model, data(), loss=wrong)
    with pytest.raises(RuntimeError, match="Unsendable: said"):
        trained(source, controlled(model, source.stream()), max_steps=1)


def test_a_loss_of_another_shape_is_refused(threads):
    model = net()
    source = on_cluster(threads, model, data(), loss=lambda m, b: m(b[0]))
    with pytest.raises(InputError, match=r"shape \(8,\), got shape \(8, 3\)"):
        trained(source, controlled(model, source.stream()), max_steps=1)


def test_what_is_defined_where_workers_cannot_see_it_is_told(client, monkeypatch):
    module = types.ModuleType("only_here")
    exec("def loss(model, batch):\n    return model(batch[0]).sum(1)", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    model = net()
    source = on_cluster(client, model, data(), loss=module.loss)
    with pytest.raises(InputError, match=r"lacks what module.*only_here.*upload_file"):
        trained(source, controlled(model, source.stream()), max_steps=1)
    source.close()


def test_the_loop_of_the_docstring_runs(threads):
    model = net()
    work = Work(module=model, loss=losses_of, dataset=data())
    source = DaskGradients(threads, TWO, work)
    optimizer = SGD(model.parameters(), lr=0.1)
    controller = BatchSizeController(
        model, optimizer, GROWING, source.stream(), sensing=Sensing(noise="units")
    )
    for update in controller.updates(epochs=1):
        source.accumulate(update)
        update.step()
    assert controller.examples == 600
