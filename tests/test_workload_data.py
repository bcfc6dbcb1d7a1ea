"""Which files a workload finds, among several that will do; and stand-ins' marks."""

import pytest

from rightbatch.errors import DataMissingError
from rightbatch.workload import (
    STAND_IN_FILE,
    data_status,
    find_any,
    find_data,
    load_workload,
)

CHOICES = [("exact.gz",), ("folder",), ("one", "two")]


@pytest.fixture(autouse=True)
def _no_other_data(monkeypatch, tmp_path):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "platform"))


def test_the_first_choice_that_is_there_is_taken_folders_too(tmp_path):
    (tmp_path / "one").touch()
    with pytest.raises(
        DataMissingError, match="need exact.gz; or folder; or one, two in"
    ):
        find_any("set", CHOICES, tmp_path)
    (tmp_path / "two").touch()
    assert find_any("set", CHOICES, tmp_path) == (tmp_path / "one", tmp_path / "two")
    (tmp_path / "folder").mkdir()
    assert find_any("set", CHOICES, tmp_path) == (tmp_path / "folder",)
    (tmp_path / "exact").touch()
    assert find_any("set", CHOICES, tmp_path) == (tmp_path / "exact",)
    assert find_data("set", ["folder"], tmp_path) == (tmp_path / "folder",)


def test_a_nearer_place_comes_before_an_earlier_choice(tmp_path, monkeypatch):
    named, asked = tmp_path / "named" / "set", tmp_path / "asked"
    named.mkdir(parents=True)
    asked.mkdir()
    (named / "exact.gz").touch()
    (asked / "folder").mkdir()
    monkeypatch.setenv("RIGHTBATCH_DATA", str(named.parent))
    assert find_any("set", CHOICES, asked) == (asked / "folder",)
    assert find_any("set", CHOICES) == (named / "exact.gz",)


WORKLOAD = """
from dataclasses import replace
from rightbatch.experiments.workloads.digits import mlp
def mine():
    return replace(mlp(), data_set="set", data_files=("a",), other_data_files=(("b",),))
"""


def test_a_workload_that_finds_a_stand_in_is_marked_and_one_that_finds_data_is_not(
    tmp_path,
):
    (tmp_path / "mine.py").write_text(WORKLOAD)
    spec = f"{tmp_path / 'mine.py'}:mine"
    assert data_status(load_workload(spec, tmp_path), tmp_path) == "missing"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b").touch()
    workload = load_workload(spec, tmp_path)
    assert workload.name == "digits-mlp"
    assert data_status(workload, tmp_path) == "found"
    (tmp_path / "set" / STAND_IN_FILE).touch()
    marked = load_workload(spec, tmp_path)
    assert marked.name == "digits-mlp (stand-in)"
    assert marked.source == f"{workload.source} (stand-in)"
    assert data_status(marked, tmp_path) == "stand-in"
