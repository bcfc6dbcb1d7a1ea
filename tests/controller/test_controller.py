"""The meeting point: limits, places, and going on from a state."""

import copy
import json

import pytest
import torch
from controller.example_training import (
    Listed,
    controlled,
    data,
    losses_of,
    net,
    run,
    stream_of,
    weights,
)
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from rightbatch.controller import Acting, MeanLoss, Sensing
from rightbatch.errors import InputError
from rightbatch.policies import (
    AdaDamp,
    Clip,
    Constant,
    Dwell,
    GeoDamp,
    NoiseFollowing,
    PadaDamp,
)
from rightbatch.sampler import IterableStream


def policies():
    return {
        "adadamp": Clip(Dwell(AdaDamp(initial_batch_size=4), updates=3), high=64),
        "padadamp": PadaDamp(initial_batch_size=4, rate=0.7),
        "geodamp": GeoDamp(initial_batch_size=4, delay=1, factor=2),
        "noise": Clip(NoiseFollowing(initial_batch_size=8), low=4, high=64),
    }


def made(name, micro_batch_size=4):
    model = net()
    optimizer = Adam(model.parameters(), lr=0.01)
    return controlled(
        policies()[name],
        model,
        optimizer,
        stream_of(micro_batch_size=micro_batch_size),
        lr_rule="adascale" if name == "noise" else "square_root",
        sensing=Sensing(every=2, evaluate=MeanLoss(model, losses_of, data())),
        acting=Acting(scheduler=StepLR(optimizer, 9, gamma=0.7)),
    )


def rows(records):
    return [record._replace(seconds=0.0) for record in records]


@pytest.mark.parametrize("name", policies())
def test_a_run_that_is_resumed_twice_is_the_run_that_was_not(name):
    whole = run(made(name), max_steps=30)
    records = []
    state = None
    for end in (7, 19, 30):
        part = made(name)
        if state is not None:
            part.load_training_state(state)
        run(part, max_steps=end)
        records += part.records
        # As a file would have it; the controller's own part is plain values.
        json.dumps(part.state_dict())
        state = copy.deepcopy(part.training_state())
    assert rows(records) == rows(whole.records)
    assert torch.equal(weights(part.model), weights(whole.model))


def test_a_resume_with_another_micro_batch_size_sees_the_same_examples():
    whole = run(made("geodamp"), max_steps=40)
    first = run(made("geodamp"), max_steps=13)
    second = made("geodamp", micro_batch_size=2)
    second.load_training_state(first.training_state())
    run(second, max_steps=40)
    sizes = [r.batch_size for r in whole.records]
    assert [r.batch_size for r in first.records + second.records] == sizes
    torch.testing.assert_close(weights(second.model), weights(whole.model))


def test_a_state_of_another_policy_is_refused():
    state = run(made("geodamp"), max_steps=3).state_dict()
    with pytest.raises(InputError, match="of another policy.*GeoDamp.*PadaDamp"):
        made("padadamp").load_state_dict(state)
    other = controlled(GeoDamp(initial_batch_size=8, delay=1, factor=2))
    with pytest.raises(InputError, match="of another policy"):
        other.load_state_dict(state)


def test_a_state_that_is_none_is_refused():
    with pytest.raises(InputError, match="the state lacks 'policy'"):
        made("geodamp").load_state_dict({})


def test_a_state_of_another_model_is_refused():
    state = run(made("geodamp"), max_steps=1).training_state()
    other = controlled(policies()["geodamp"], torch.nn.Linear(5, 3).double())
    with pytest.raises(InputError, match="of another model or optimizer"):
        other.load_training_state(state)


def test_examples_of_another_order_are_refused():
    state = run(controlled(Constant(batch_size=4)), max_steps=1).state_dict()
    other = controlled(Constant(batch_size=4), stream=stream_of(seed=1))
    with pytest.raises(InputError, match="seed"):
        other.load_state_dict(state)


def test_limits_are_those_of_the_whole_run():
    controller = controlled(Constant(batch_size=8))
    run(controller, max_steps=3)
    run(controller, max_steps=5)
    assert controller.step == 5
    run(controller, epochs=1)
    assert controller.examples == 96
    run(controller, epochs=1)
    assert controller.examples == 96


def test_a_model_on_another_device_is_refused():
    model = net().to("meta")
    with pytest.raises(InputError, match="the model is on meta, the stream.*cpu"):
        controlled(Constant(batch_size=4), model, SGD(model.parameters(), lr=0.1))


def test_a_stream_cut_for_more_replicas_than_there_are_is_refused():
    stream = stream_of(rank=0, num_replicas=2)
    with pytest.raises(InputError, match="cut for 2 replicas.*shared by 1"):
        controlled(Constant(batch_size=8), stream=stream)


def test_a_policy_that_is_none_is_refused():
    with pytest.raises(InputError, match="`policy` must"):
        controlled("adadamp")


def test_a_policy_s_bad_answer_names_it_and_the_step():
    with pytest.raises(InputError, match="Listed: `batch_size` must be.*step 1"):
        run(controlled(Listed((4, -1))), max_steps=3)


class Unlimited:
    """Batches of four without end, nobody knows of how many."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(3)
        while True:
            x = torch.randn(4, 5, generator=generator).double()
            yield x, torch.randint(3, (4,), generator=generator)


def test_batches_of_an_iterable_are_accumulated_and_joined():
    controller = controlled(
        Listed((4, 12, 8)), stream=IterableStream(Unlimited(), 4), lr_rule="linear"
    )
    run(controller, max_steps=6)
    assert [r.batch_size for r in controller.records] == [4, 12, 8] * 2
    with pytest.raises(InputError, match="`epochs` needs the length"):
        controller.updates(epochs=1)
    with pytest.raises(InputError, match="GeoDamp needs `epoch`"):
        controlled(policies()["geodamp"], stream=IterableStream(Unlimited(), 4))


def test_a_closed_controller_has_no_hooks_left():
    controller = made("noise")
    run(controller, max_steps=2)
    controller.close()
    for module in controller.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
