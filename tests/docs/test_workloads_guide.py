"""The guide's counts are the workloads', its files those looked for, its code runs."""

import re
from pathlib import Path

import numpy as np
from experiments.data.example_images import drawn, encoded, write_files

from rightbatch.experiments.workloads.cifar import SOURCES
from rightbatch.experiments.workloads.idx_files import FILES
from rightbatch.workload import load_workload, num_parameters

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "workloads.md").read_text(
    "utf-8"
)
IMAGES = ("digits-", "mnist-", "fashion-", "cifar10-", "cifar100-")


def test_the_table_has_the_counts_of_the_nets():
    rows = re.findall(r"^\| (`[^|]*) \| ([\d, ]+) \|", GUIDE, re.MULTILINE)
    checked = []
    for names, counts in rows:
        name_list = re.findall(r"`([\w-]+)`", names)
        count_list = [int(c.replace(",", "")) for c in counts.split(", ")]
        count_list *= len(name_list) // len(count_list)
        for name, count in zip(name_list, count_list, strict=True):
            if name.startswith(IMAGES):
                assert num_parameters(load_workload(name)) == count
                checked.append(name)
    assert len(checked) == 18


def test_every_file_that_is_looked_for_is_named():
    for name in (*FILES, *SOURCES["cifar10"], *SOURCES["cifar100"]):
        assert f"`{name}`" in GUIDE


def test_the_workload_of_ones_own_learns_from_folders_of_images(tmp_path):
    code, *_ = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    (tmp_path / "flowers.py").write_text(code, "utf-8")
    files = {
        f"flowers/train/{name}/{number}.jpg": encoded(image, "JPEG")
        for name in "abcde"
        for number, image in enumerate(drawn(2, side=64))
    }
    write_files(tmp_path, files)
    workload = load_workload(f"{tmp_path}/flowers.py:flowers", tmp_path)
    assert len(workload.train) == 8
    images, labels = workload.train.tensors
    assert workload.loss(workload.model(0), (images, labels)).shape == (8,)
    assert np.isin(labels.numpy(), range(5)).all()
