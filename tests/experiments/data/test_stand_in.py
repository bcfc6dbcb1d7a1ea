"""Stand-ins: in the real formats, learnable, marked, and never mixed with real data."""

import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.data.cifar import read_cifar
from rightbatch.experiments.data.idx import read_idx_images
from rightbatch.experiments.data.stand_in import STAND_INS, write_stand_ins
from rightbatch.experiments.workloads.idx_files import FILES
from rightbatch.workload import STAND_IN_FILE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("stand-in")
    write_stand_ins(path)
    return path


def test_every_stand_in_says_what_it_is(folder):
    assert {"mnist", "fashion-mnist", "cifar10", "cifar100"} <= STAND_INS.keys()
    for name in STAND_INS:
        assert (folder / name / STAND_IN_FILE).read_text("utf-8")


def test_a_line_through_the_pixels_tells_the_classes_apart(folder):
    files = tuple(folder / "mnist" / name for name in FILES)
    for read in (
        lambda: read_idx_images(files, side=28, num_classes=10),
        lambda: read_cifar(
            folder / "cifar10" / "cifar-10-python.tar.gz", num_classes=10
        ),
    ):
        images, labels = read()
        assert labels.bincount().tolist() == [20] * 10
        pixels = images.flatten(1).double()
        means = [pixels[labels == label].mean(0) for label in range(10)]
        # Nearest mean; a wrong square is far brighter than any speckle.
        distances = [(pixels - mean).square().sum(1) for mean in means]
        assert all(
            min(range(10), key=lambda c: distances[c][i]) == labels[i]
            for i in range(200)
        )


def test_a_hundred_classes_are_all_there(folder):
    path = folder / "cifar100" / "cifar-100-python.tar.gz"
    assert read_cifar(path, num_classes=100)[1].bincount().tolist() == [2] * 100


def test_writing_again_gives_the_same_bytes(folder, tmp_path):
    write_stand_ins(tmp_path)
    write_stand_ins(tmp_path)
    ours = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.*")}
    theirs = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.*")}
    assert ours == theirs


def test_real_data_is_not_mixed_with_a_stand_in(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / FILES[0]).write_bytes(b"real")
    with pytest.raises(InputError, match="mnist holds files that are no stand-in"):
        write_stand_ins(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]
    assert (tmp_path / "mnist" / FILES[0]).read_bytes() == b"real"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        write_stand_ins(tmp_path / "file")
