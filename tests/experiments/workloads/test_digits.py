"""The digits workloads: split, nets, seeds, and that they can be learned."""

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from rightbatch.engine import make_update
from rightbatch.experiments.workloads.digits import Digits, lenet, mlp
from rightbatch.sampler import ExampleStream, whole
from rightbatch.workload import num_parameters


def test_the_split_is_scikit_learns_with_359_rows_held_out_and_seed_0():
    digits = load_digits()
    train, held_out, train_labels, held_out_labels = train_test_split(
        digits.images, digits.target, test_size=359, random_state=0
    )
    for half, images, labels in (
        (Digits(held_out=False), train, train_labels),
        (Digits(held_out=True), held_out, held_out_labels),
    ):
        pixels, ours = half.tensors
        assert ours.tolist() == labels.tolist()
        expected = torch.tensor(images / 16, dtype=torch.float32)
        assert torch.equal(pixels.squeeze(1), expected)
        assert pixels.min() == 0
        assert pixels.max() == 1


def test_an_item_is_an_image_with_its_label():
    image, label = Digits(held_out=True)[3]
    assert image.shape == (1, 8, 8)
    assert label == Digits(held_out=True).tensors[1][3]


@pytest.mark.parametrize(("make", "count"), [(mlp, 4_810), (lenet, 3_658)])
def test_the_nets_have_the_parameters_they_are_said_to(make, count):
    # 64*64+64 + 64*10+10; 1*8*9+8 + 8*16*9+16 + 64*32+32 + 32*10+10.
    assert num_parameters(make()) == count


@pytest.mark.parametrize("make", [mlp, lenet])
def test_a_seed_gives_one_model_and_leaves_the_global_generator_alone(make):
    workload = make()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = (workload.model(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(2), expected)
    for one, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_the_initialisation_is_torchs_default():
    torch.manual_seed(7)
    layer = torch.nn.Linear(64, 64)
    assert torch.equal(mlp().model(7)[1].weight, layer.weight)


@pytest.mark.parametrize("make", [mlp, lenet])
def test_loss_and_error_are_values_per_example(make):
    workload, batch = make(), whole(make().evaluate_on)
    model = workload.model(0)
    losses, errors = (
        workload.loss(model, batch),
        workload.metrics["error"](model, batch),
    )
    assert losses.shape == errors.shape == (359,)
    assert set(errors.tolist()) <= {0.0, 1.0}
    # Ten classes untrained: about ln 10 = 2.30.
    assert 2.2 < losses.mean() < 2.5


@pytest.mark.parametrize(("make", "lr", "steps"), [(mlp, 0.5, 250), (lenet, 0.5, 400)])
def test_the_target_is_within_reach(make, lr, steps):
    workload = make()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = workload.model(0)
        update = make_update(model, workload.optimizer, workload.loss, lr)
        stream = ExampleStream(workload.train, seed=0)
        for _ in range(steps):
            update(stream.next(64))
        with torch.no_grad():
            loss = workload.loss(model, whole(workload.evaluate_on)).mean()
    finally:
        torch.set_num_threads(before)
    assert workload.target.is_met_by(float(loss))
