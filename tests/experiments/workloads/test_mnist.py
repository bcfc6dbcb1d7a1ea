"""The MNIST workloads: the published counts, lazy files, the recorded fifth."""

import gzip
import struct

import numpy as np
import pytest
import torch

from rightbatch.errors import DataMissingError, InputError
from rightbatch.experiments.workloads import mnist
from rightbatch.sampler import whole
from rightbatch.timing import measure_step_times
from rightbatch.workload import data_status, num_parameters

ALL = (mnist.lenet_small, mnist.lenet_medium, mnist.lenet_large, mnist.even_odd)


@pytest.fixture
def tiny(tmp_path):
    """Fifty random images in the standard files, one of them not gzipped."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(50, 28, 28), dtype=np.uint8)
    labels = np.arange(50, dtype=np.uint8) % 10
    header = struct.pack(">IIII", 0x803, 50, 28, 28)
    (folder / mnist.FILES[0]).write_bytes(gzip.compress(header + images.tobytes()))
    (folder / mnist.FILES[1].removesuffix(".gz")).write_bytes(
        struct.pack(">II", 0x801, 50) + labels.tobytes()
    )
    return tmp_path


@pytest.mark.parametrize(
    ("make", "count"), list(zip(ALL, (43_158, 169_506, 671_802, 169_506), strict=True))
)
def test_the_nets_have_the_published_parameter_counts_without_any_data(
    make, count, tmp_path, monkeypatch
):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    workload = make(tmp_path)
    assert num_parameters(workload) == count
    assert workload.model(0)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_missing_files_are_named_when_the_data_is_first_used(tmp_path, monkeypatch):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    workload = mnist.lenet_small(tmp_path)
    if data_status(workload) == "found":
        pytest.skip("the platform's data folder holds MNIST")
    with pytest.raises(DataMissingError, match="train-images-idx3-ubyte.gz"):
        len(workload.train)


def test_a_users_own_files_of_the_same_shape_work(tiny):
    workload = mnist.lenet_small(tiny)
    assert data_status(workload) == "found"
    assert len(workload.train) == 40
    times = measure_step_times(workload, [1, 40], budget_seconds=0.1)
    assert times.batch_sizes == (1, 40)


def test_images_of_another_size_are_refused(tiny):
    images = np.zeros((50, 32, 32), dtype=np.uint8)
    (tiny / "mnist" / mnist.FILES[0]).write_bytes(
        struct.pack(">IIII", 0x803, 50, 32, 32) + images.tobytes()
    )
    with pytest.raises(InputError, match="images must be 28 x 28 bytes"):
        len(mnist.lenet_small(tiny).train)


def test_the_loss_is_recorded_on_a_fixed_fifth_of_what_is_trained_on(tiny):
    workload = mnist.lenet_small(tiny)
    assert workload.target.on == "train_subset"
    images, labels = workload.train.tensors
    some, their_labels = workload.evaluate_on.tensors
    assert len(some) == 10
    rows = [int((images == one).flatten(1).all(1).nonzero()) for one in some]
    assert len(set(rows)) == 10
    assert labels[rows].tolist() == their_labels.tolist()
    again = mnist.even_odd(tiny).evaluate_on.tensors[0]
    assert torch.equal(some, again)


def test_another_fifth_is_held_out_and_not_trained_on(tiny):
    workload = mnist.lenet_small(tiny)
    trained = {image.numpy().tobytes() for image in workload.train.tensors[0]}
    held_out = {image.numpy().tobytes() for image in workload.held_out.tensors[0]}
    assert (len(trained), len(held_out)) == (40, 10)
    assert not trained & held_out


def test_even_odd_learns_parity_on_the_ten_way_head(tiny):
    workload = mnist.even_odd(tiny)
    digits = mnist.lenet_medium(tiny).train.tensors[1]
    assert workload.train.tensors[1].tolist() == (digits % 2).tolist()
    batch = whole(workload.evaluate_on)
    assert workload.loss(workload.model(0), batch).shape == (10,)
    assert workload.metrics["error"](workload.model(0), batch).shape == (10,)


def test_the_optimizer_decays_weights_as_the_paper_does():
    workload = mnist.lenet_small()
    optimizer = workload.optimizer(workload.model(0).parameters(), 0.05)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["weight_decay"] == 1e-4


def test_a_seed_gives_one_model_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again = (mnist.lenet_small().model(3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[0].weight, again[0].weight)


@pytest.mark.slow
def test_real_mnist_is_read(shared_data):
    if not (shared_data / "mnist").is_dir():
        pytest.skip("no MNIST among the real data")
    workload = mnist.lenet_small(shared_data)
    parts = (workload.train.tensors, workload.held_out.tensors)
    images, labels = (torch.cat(both) for both in zip(*parts, strict=True))
    assert len(workload.train) == 48_000
    assert images.shape == (60_000, 1, 28, 28)
    assert labels.bincount().tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    # The mean pixel everybody normalises by.
    assert float(images.mean()) == pytest.approx(0.1307, abs=1e-4)
    assert len(workload.evaluate_on) == 12_000
