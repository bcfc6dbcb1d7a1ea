"""The simple CNN on MNIST and Fashion-MNIST."""

import pytest
import torch

from rightbatch.experiments.data.image_stand_in import write_idx
from rightbatch.experiments.workloads import simple_cnn
from rightbatch.workload import data_status, num_parameters

# conv5 1->32, conv5 32->64, 7*7*64 -> 1024 -> 10, each with biases.
COUNT = (25 + 1) * 32 + (25 * 32 + 1) * 64 + (3136 + 1) * 1024 + (1024 + 1) * 10


@pytest.mark.parametrize("make", [simple_cnn.mnist, simple_cnn.fashion])
def test_the_net_is_the_one_described(make):
    workload = make()
    assert num_parameters(workload) == COUNT
    assert workload.published_parameters is None
    assert workload.model(0)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    optimizer = workload.optimizer(workload.model(0).parameters(), 0.1)
    assert optimizer.defaults["weight_decay"] == 0


def test_fashion_mnist_lies_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "platform"))
    for name in ("mnist", "fashion-mnist"):
        (tmp_path / name).mkdir()
    write_idx(tmp_path / "mnist")
    assert data_status(simple_cnn.mnist(tmp_path)) == "found"
    assert data_status(simple_cnn.fashion(tmp_path)) == "missing"
    write_idx(tmp_path / "fashion-mnist")
    workload = simple_cnn.fashion(tmp_path)
    assert len(workload.train) == 160
    assert "the published file 26,421,880" in workload.source


def test_it_takes_an_update_on_a_stand_in(tmp_path):
    (tmp_path / "mnist").mkdir()
    write_idx(tmp_path / "mnist")
    workload = simple_cnn.mnist(tmp_path)
    model = workload.model(0)
    images, labels = workload.train.tensors
    optimizer = workload.optimizer(model.parameters(), 0.05)
    losses = [workload.loss(model, (images[:8], labels[:8])).mean() for _ in range(1)]
    losses[0].backward()
    optimizer.step()
    after = workload.loss(model, (images[:8], labels[:8])).mean()
    assert after < losses[0]
