"""``workloads``: counts, stand-ins, fetching; and the mark in all that follows."""

import hashlib

import pytest

from rightbatch.cli import output
from rightbatch.experiments.data import fetch as fetch_module
from rightbatch.experiments.data.published import PublishedFile
from rightbatch.experiments.data.stand_in import write_stand_ins
from rightbatch.workload import STAND_IN_MARK

# Perrone et al., Table 1.
TABLE_1 = {
    "mnist-lenet-small": 43_158,
    "mnist-lenet-medium": 169_506,
    "mnist-even-odd": 169_506,
    "mnist-lenet-large": 671_802,
    "cifar10-lenet": 487_458,
    "cifar10-vgg9": 1_125_090,
    "cifar10-vgg9-adam": 1_125_090,
    "cifar10-vgg11": 1_862_754,
    "cifar10-resnet20": 270_410,
    "cifar100-lenet": 487_458,
    "cifar100-vgg9": 1_125_090,
    "cifar100-vgg11": 1_862_754,
}
SAID = "Measured on a stand-in: generated files, not the data."
IMAGES = ("mnist-", "fashion-", "cifar10-", "cifar100-")


@pytest.fixture(autouse=True)
def _no_other_data(monkeypatch, tmp_path):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "platform"))


@pytest.mark.slow
def test_counts_equal_table_1_and_stand_ins_are_marked(rightbatch):
    ended = rightbatch("workloads", "--stand-in", "tiny", "--json")
    assert ended.code == 0
    entries = {entry["name"]: entry for entry in ended.document["workloads"]}
    found = {name: entries[name]["published_parameters"] for name in TABLE_1}
    assert found == TABLE_1
    for name, count in TABLE_1.items():
        if not name.startswith("cifar100"):
            assert entries[name]["parameters"] == count
    for name, entry in entries.items():
        if name.startswith(IMAGES):
            assert entry["data"] == "stand-in"
            assert entry["source"].endswith("(stand-in)")
    assert entries["digits-mlp"]["data"] == "bundled"
    assert ended.document["inputs"]["stand_in"] == "tiny"
    assert "wrote stand-ins for" in ended.err


@pytest.mark.slow
def test_a_sweep_on_a_stand_in_says_so_in_all_it_prints_and_in_its_store(
    rightbatch, tmp_path
):
    write_stand_ins(tmp_path / "tiny")
    words = "sweep mnist-lenet-small --data-dir tiny --batch-sizes 16 --lr .1 --seeds 1"
    words += " --processes 1 --max-steps 40 --target 2.2 --store runs.sqlite"
    ended = rightbatch(*words.split())
    assert ended.code == 0, ended.err
    assert ended.out.strip().endswith(SAID)
    assert "1 run is kept in runs.sqlite" in ended.err
    kept = rightbatch("runs", "runs.sqlite", "--json").document
    assert kept["inputs"]["workload"] == "mnist-lenet-small (stand-in)"
    assert output.STAND_IN_MARK == STAND_IN_MARK


def test_a_data_set_is_fetched_only_when_asked_and_then_found(
    rightbatch, monkeypatch, tmp_path
):
    content = b"an archive"
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(content)
    file = PublishedFile(
        name="cifar-10-python.tar.gz",
        size=len(content),
        md5=hashlib.md5(content).hexdigest(),
        urls=((tmp_path / "cifar-10-python.tar.gz").as_uri(),),
    )
    monkeypatch.setattr(fetch_module, "PUBLISHED", {"cifar10": (file,)})
    monkeypatch.setattr("rightbatch.cli.workloads._entries", lambda folder: [])
    ended = rightbatch(
        "workloads", "--fetch", "cifar10", "--data-dir", "data", "--json"
    )
    assert ended.code == 0, ended.err
    assert "cifar-10-python.tar.gz: as published" in ended.err
    assert (tmp_path / "data" / "cifar10" / file.name).read_bytes() == content


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--fetch", "mnits"], "did you mean mnist"),
        (["--stand-in", "a", "--data-dir", "b"], "goes with neither --data-dir"),
        (["--stand-in", "a", "--fetch", "mnist"], "nor --fetch"),
        (["--data-dir", "a"], "`data_dir` must be a folder that is there, got a."),
    ],
)
def test_options_that_cannot_be_followed_are_refused(rightbatch, words, match):
    ended = rightbatch("workloads", *words)
    assert ended.code == 2
    assert match in ended.last_line
