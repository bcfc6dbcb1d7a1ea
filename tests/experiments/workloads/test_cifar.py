"""The CIFAR workloads: published counts, the file taken, two updates on a stand-in."""

import gzip

import numpy as np
import pytest
import torch
from experiments.data.example_images import drawn, encoded, write_files, write_tar

from rightbatch.errors import InputError
from rightbatch.experiments.data.stand_in import write_stand_ins
from rightbatch.experiments.workloads import cifar, cifar_nets
from rightbatch.workload import data_status, load_workload, num_parameters

# Perrone et al., Table 1: the same counts for both data sets.
TABLE_1 = {
    "lenet": 487_458,
    "vgg9": 1_125_090,
    "vgg11": 1_862_754,
    "resnet20": 270_410,
}
NETS = {
    "lenet": cifar_nets.lenet,
    "vgg9": lambda classes: cifar_nets.vgg(cifar_nets.VGG_9, classes),
    "vgg11": lambda classes: cifar_nets.vgg(cifar_nets.VGG_11, classes),
    "resnet20": lambda classes: cifar_nets.resnet(20, classes),
}
TEN = {
    "cifar10-lenet": 487_458,
    "cifar10-vgg9": 1_125_090,
    "cifar10-vgg9-adam": 1_125_090,
    "cifar10-vgg11": 1_862_754,
    "cifar10-resnet20": 270_410,
}
HUNDRED = {"cifar100-lenet", "cifar100-vgg9", "cifar100-vgg11"}
ZHANG = {"cifar10-resnet8", "cifar10-resnet32"}


@pytest.fixture(autouse=True)
def _no_other_data(monkeypatch, tmp_path):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "platform"))


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand-in")
    write_stand_ins(folder)
    return folder


@pytest.mark.parametrize("net", TABLE_1)
def test_a_net_with_the_ten_way_head_has_the_published_count(net):
    built = NETS[net](10)
    assert sum(p.numel() for p in built.parameters()) == TABLE_1[net]
    assert built(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", TEN)
def test_cifar10s_workloads_have_the_published_counts(name, tmp_path):
    workload = load_workload(name, tmp_path)
    assert num_parameters(workload) == TEN[name] == workload.published_parameters


@pytest.mark.parametrize("name", sorted(HUNDRED))
def test_cifar100s_workloads_learn_a_hundred_classes_and_say_both_counts(
    name, tmp_path
):
    workload = load_workload(name, tmp_path)
    published = TABLE_1[name.removeprefix("cifar100-")]
    assert workload.published_parameters == published
    assert num_parameters(workload) == published + 90 * 200 + 90
    assert f"{published:,} parameters with the ten-way head" in workload.source


def test_the_published_learning_rates_are_among_those_tuned_over():
    for make, published in (
        (cifar.lenet10, {0.05}),
        (cifar.vgg9_10, {0.01, 0.05}),
        (cifar.vgg11_10, {0.025}),
        (cifar.resnet20_10, {0.05}),
        (cifar.lenet100, {0.05}),
        (cifar.vgg9_100, {0.05}),
        (cifar.vgg11_100, {0.025, 0.05}),
    ):
        workload = make()
        assert published <= set(workload.lrs)
        assert workload.target.every == 100
        optimizer = workload.optimizer([torch.zeros(1, requires_grad=True)], 0.05)
        assert optimizer.defaults["weight_decay"] == 1e-4
        assert isinstance(optimizer, torch.optim.SGD)


def test_the_adam_row_is_the_vgg_9_by_adam():
    workload = cifar.vgg9_10_adam()
    optimizer = workload.optimizer(workload.model(0).parameters(), 0.001)
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["weight_decay"] == 1e-4


@pytest.mark.parametrize("name", sorted({*TEN, *HUNDRED, *ZHANG}))
def test_every_workload_takes_two_updates_on_a_stand_in_and_is_marked(name, stand_in):
    workload = load_workload(name, stand_in)
    assert workload.name == f"{name} (stand-in)"
    assert workload.source.endswith("generated (stand-in)")
    assert data_status(workload) == "stand-in"
    assert [len(workload.train), len(workload.evaluate_on)] == [160, 40]
    assert len(workload.held_out) == 40
    model = workload.model(0)
    optimizer = workload.optimizer(model.parameters(), workload.lrs[0])
    images, labels = workload.train.tensors
    batch = images[:2], labels[:2]
    # Not the biases: batch normalization takes away those before it.
    weights = [p for p in model.parameters() if p.ndim > 1]
    before = [weight.detach().clone() for weight in weights]
    for _ in range(2):
        optimizer.zero_grad()
        losses = workload.loss(model, batch)
        assert losses.shape == (2,)
        losses.mean().backward()
        optimizer.step()
    pairs = zip(before, weights, strict=True)
    assert not any(torch.equal(old, new) for old, new in pairs)
    assert all(p.isfinite().all() for p in model.parameters())


def test_pixels_are_centred(stand_in):
    read = load_workload("cifar10-lenet", stand_in).train.tensors[0]
    # Stand-ins are of greys 0, 16, 32, 48 and 240.
    values = [(grey / 255 - 0.5) / 0.25 for grey in (0, 16, 32, 48, 240)]
    assert read.unique().tolist() == pytest.approx(values)


def test_a_shortcut_takes_every_second_pixel_and_fills_new_channels_with_zeros():
    block = cifar_nets.Block(2, 4).eval()
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    images = torch.rand(3, 2, 8, 8)
    out = block(images)
    assert out.shape == (3, 4, 4, 4)
    torch.testing.assert_close(out[:, :2], images[:, :, ::2, ::2])
    assert not out[:, 2:].any()


@pytest.mark.parametrize(("depth", "layers"), [(8, 8), (20, 20), (32, 32)])
def test_a_resnets_depth_counts_convolutions_and_the_head(depth, layers):
    modules = cifar_nets.resnet(depth, 10).modules()
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    assert sum(isinstance(module, kinds) for module in modules) == layers


def test_a_vggs_first_logits_depend_on_the_image():
    torch.manual_seed(0)
    logits = cifar_nets.vgg(cifar_nets.VGG_11, 10)(torch.randn(8, 3, 32, 32))
    # As torch starts the weights it would be 1e-4: nothing to learn from.
    assert logits.std(0).mean() > 0.05


# Which files are taken ---------------------------------------------------------------


def jpegs() -> dict[str, bytes]:
    return {
        f"{split}/{name}/0.jpg": encoded(drawn(1)[0], "JPEG")
        for split in ("train", "test")
        for name in "abcdefghij"
    }


def test_the_source_says_which_file_was_found_in_the_order_of_exactness(tmp_path):
    folder = tmp_path / "cifar10"
    folder.mkdir()

    def found() -> tuple[str, int]:
        workload = cifar.lenet10(tmp_path)
        return workload.source.split("; ")[-1], len(workload.train)

    write_files(folder / "cifar10_images", jpegs())
    assert found() == ("cifar10_images: image files", 8)
    write_tar(folder / "cifar10_jpeg.tar.xz", jpegs())
    assert found() == ("cifar10_jpeg.tar.xz: all images, as lossy JPEGs", 8)
    exact = drawn(20).transpose(0, 2, 3, 1)
    name = "cifar10_lossless_first4000.npz"
    np.savez(folder / name, X=exact, y=np.arange(20) % 10)
    assert found() == (f"{name}: the first 4,000 images, exact", 16)
    records = np.hstack(
        [np.arange(5, dtype=np.uint8)[:, None], drawn(5).reshape(5, -1)]
    )
    batches = {f"data_batch_{n + 1}.bin": records.tobytes() for n in range(5)}
    write_files(folder / "cifar-10-batches-bin", batches)
    assert found() == ("cifar-10-batches-bin: all images", 20)
    # A folder that holds one form only has that taken.
    alone = tmp_path / "alone" / "cifar10"
    alone.mkdir(parents=True)
    (folder / "cifar10_jpeg.tar.xz").rename(alone / "cifar10_jpeg.tar.xz")
    assert "lossy JPEGs" in cifar.vgg9_10(alone.parent).source


def test_an_archive_that_was_unzipped_is_found(stand_in, tmp_path):
    packed = (stand_in / "cifar10" / "cifar-10-python.tar.gz").read_bytes()
    (tmp_path / "cifar-10-python.tar").write_bytes(gzip.decompress(packed))
    workload = cifar.lenet10(tmp_path)
    assert workload.source.endswith("cifar-10-python.tar: all images")
    assert len(workload.train) == 160


def test_an_archive_of_another_size_than_the_published_one_is_told(stand_in, tmp_path):
    packed = (stand_in / "cifar10" / "cifar-10-python.tar.gz").read_bytes()
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(packed)
    source = cifar.lenet10(tmp_path).source
    assert source.endswith("bytes, the published file 170,498,071")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(packed[:-1000])
    with pytest.raises(InputError, match=r"cifar-10-python.tar.gz: cut short"):
        len(cifar.lenet10(tmp_path).train)


def test_without_data_a_workload_has_its_count_and_names_every_file(tmp_path):
    workload = cifar.resnet20_10(tmp_path)
    assert data_status(workload) == "missing"
    assert workload.source == "Perrone et al., Table 1: ResNet-20 on CIFAR10"
    with pytest.raises(InputError, match=r"cifar-10-python.tar.gz; or .*jpeg.tar.xz"):
        len(workload.train)


@pytest.mark.slow
def test_the_exact_images_are_read_by_name(shared_data, monkeypatch):
    if not (shared_data / "cifar10").is_dir():
        pytest.skip("no CIFAR10 among the real data")
    workload = load_workload("cifar10-lenet", shared_data)
    assert "4,000 images, exact" in workload.source
    assert len(workload.train) == 3_200
    # Fifths of 4,000: training and cross-validation losses.
    assert len(workload.evaluate_on) == len(workload.held_out) == 800
