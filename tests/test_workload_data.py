"""Which files a workload finds, among several that will do; and stand-ins' marks."""

from dataclasses import replace

import pytest

from rightbatch.errors import DataMissingError, InputError
from rightbatch.experiments.optimizers.named import with_optimizer
from rightbatch.experiments.workloads.digits import mlp
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
def mine(data_dir=None):
    return replace(mlp(), data_set="set", data_files=("a",), other_data_files=(("b",),))
"""


def test_a_workload_that_finds_a_stand_in_is_marked_and_one_that_finds_data_is_not(
    tmp_path,
):
    (tmp_path / "mine.py").write_text(WORKLOAD)
    spec = f"{tmp_path / 'mine.py'}:mine"
    assert data_status(load_workload(spec, tmp_path)) == "missing"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "b").touch()
    workload = load_workload(spec, tmp_path)
    assert workload.name == "digits-mlp"
    assert data_status(workload) == "found"
    (tmp_path / "set" / STAND_IN_FILE).touch()
    marked = load_workload(spec, tmp_path)
    assert marked.name == "digits-mlp (stand-in)"
    assert marked.source == f"{workload.source} (stand-in)"
    assert data_status(marked) == "stand-in"


SCRIPT = """
from dataclasses import replace
from pathlib import Path
from rightbatch.experiments.workloads.language_model import (
    shakespeare_transformer, transformer_on
)
from rightbatch.workload import load_workload
def of_the_environment():
    return replace(shakespeare_transformer(), name="mine")
def of_its_own_folder():
    return replace(shakespeare_transformer(Path({tiny!r})), name="mine")
def of_a_file():
    return transformer_on(Path({tiny!r}) / "lm_text" / "tinyshakespeare.txt.gz")
def loaded():
    return load_workload("shakespeare-transformer", Path({tiny!r}))
def asked(data_dir=None):
    return replace(shakespeare_transformer(data_dir), name="asked")
"""


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("of_the_environment", "mine (stand-in)"),
        ("of_its_own_folder", "mine (stand-in)"),
        ("of_a_file", "tinyshakespeare-transformer (stand-in)"),
        ("loaded", "shakespeare-transformer (stand-in)"),
        ("asked", "asked"),
    ],
)
def test_a_workload_is_judged_by_the_folder_it_reads_not_by_the_one_that_was_named(
    tmp_path, monkeypatch, function, name
):
    real, tiny = tmp_path / "real", tmp_path / "tiny"
    for folder in (real, tiny):
        (folder / "lm_text").mkdir(parents=True)
        (folder / "lm_text" / "tinyshakespeare.txt.gz").touch()
    (tiny / "lm_text" / STAND_IN_FILE).touch()
    monkeypatch.setenv("RIGHTBATCH_DATA", str(tiny))
    (tmp_path / "mine.py").write_text(SCRIPT.format(tiny=str(tiny)))
    assert load_workload(f"{tmp_path / 'mine.py'}:{function}", real).name == name


def test_the_mark_stands_last_whatever_is_added_to_the_name():
    marked = replace(mlp(), name="digits-mlp (stand-in)")
    added = with_optimizer(marked, "adam", ema_decay=0.9)
    assert added.name == "digits-mlp+adam+ema0.9 (stand-in)"


def test_a_data_folder_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(InputError, match=f"a folder that is there, got {path}"):
            load_workload("digits-mlp", path)
