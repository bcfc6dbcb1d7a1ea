"""Workloads: what they refuse, and how they are found."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rightbatch import workload as workload_module
from rightbatch.errors import (
    DataMissingError,
    InputError,
    WorkloadError,
    WorkloadFailedError,
)
from rightbatch.experiments.workloads.digits import mlp
from rightbatch.workload import (
    Target,
    data_status,
    find_data,
    load_workload,
    num_parameters,
    registered_workloads,
)

SCRIPT = """\
from dataclasses import replace
from rightbatch.experiments.workloads.digits import mlp
import neighbour

CONSTANT = 3

def mine():
    return replace(mlp(), name=neighbour.NAME)

def with_data(data_dir=None):
    return replace(mlp(), name=str(data_dir))

def wrong():
    return 7

def raising():
    return inner()

def inner():
    raise KeyError("no such thing")

def leaving():
    raise SystemExit(3)
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "own.py"
    path.write_text(SCRIPT)
    (tmp_path / "neighbour.py").write_text("NAME = 'mine'\n")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "neighbour", raising=False)
    return path


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"value": math.nan}, "`value` must be a finite number"),
        ({"value": 1, "direction": "down"}, "`direction` cannot be 'down'"),
        ({"value": 1, "on": "heldout"}, "did you mean held_out"),
        ({"value": 1, "crossing": "last"}, "`crossing` cannot be 'last'"),
    ],
)
def test_a_target_refuses_what_it_does_not_know(fields, match):
    with pytest.raises(InputError, match=match):
        Target(**fields)


def test_a_target_is_met_at_its_value_and_never_by_nan():
    assert Target(value=0.5).is_met_by(0.5)
    assert not Target(value=0.5).is_met_by(0.51)
    assert Target(value=0.5, direction="max").is_met_by(0.51)
    assert not Target(value=0.5).is_met_by(math.nan)
    assert not Target(value=0.5, direction="max").is_met_by(math.nan)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"name": ""}, "`name` must not be empty"),
        ({"model": 3}, "`model` must be callable"),
        ({"loss": None}, "`loss` must be callable"),
        ({"lrs": ()}, "`lrs` must be a list of numbers"),
        ({"lrs": (0.1, 0.0)}, "`lrs` must be positive, got 0 at 1"),
        ({"metrics": {"loss": mlp().loss}}, "must not hold 'loss'"),
        ({"target": Target(value=1, metric="eror")}, "did you mean error"),
    ],
)
def test_a_workload_refuses_fields_of_the_wrong_kind(fields, match):
    with pytest.raises(InputError, match=match):
        replace(mlp(), **fields)


def test_a_metric_is_found_by_its_name_and_the_loss_is_one():
    assert mlp().metric("loss") is mlp().loss
    assert mlp().metric("error") is mlp().metrics["error"]
    with pytest.raises(InputError, match="did you mean error"):
        mlp().metric("errors")


def test_every_registered_workload_loads_without_its_data(monkeypatch, tmp_path):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    names = registered_workloads()
    assert {"digits-mlp", "digits-lenet", "mnist-even-odd"} <= set(names)
    for name in names:
        assert load_workload(name, tmp_path).name == name
        assert num_parameters(load_workload(name)) > 0


def test_an_unknown_name_is_answered_with_the_near_ones():
    with pytest.raises(WorkloadError, match="did you mean digits-mlp"):
        load_workload("digit-mlp")
    with pytest.raises(WorkloadError, match="or write module:function"):
        load_workload("xyzzy")


def test_a_file_without_its_function_is_told_how_to_name_it():
    with pytest.raises(WorkloadError, match=r"name its function too: own.py:function"):
        load_workload("own.py")


@pytest.mark.parametrize("spec", [":mine", "own.py:"])
def test_half_a_name_is_refused(spec):
    with pytest.raises(WorkloadError, match="a module or file and a function"):
        load_workload(spec)


def test_a_workload_is_loaded_from_a_file_that_imports_its_neighbour(script):
    assert load_workload(f"{script}:mine").name == "mine"


def test_a_workload_is_loaded_from_a_module_of_the_current_folder(script, monkeypatch):
    monkeypatch.chdir(script.parent)
    monkeypatch.delitem(sys.modules, "own", raising=False)
    assert load_workload("own:mine").name == "mine"
    monkeypatch.delitem(sys.modules, "own")


def test_the_data_folder_is_passed_to_a_function_that_takes_it(script, tmp_path):
    assert load_workload(f"{script}:with_data", tmp_path).name == str(tmp_path)
    assert load_workload(f"{script}:mine", tmp_path).name == "mine"


@pytest.mark.slow
def test_a_file_is_loaded_by_the_same_words_in_another_process(script):
    code = f"import rightbatch.workload as w; print(w.load_workload({str(script)!r}"
    out = subprocess.run(
        [sys.executable, "-c", code + " + ':mine').name)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout == "mine\n"


@pytest.mark.parametrize(
    ("attribute", "match"),
    [
        ("mne", r"has no mne. \(did you mean mine"),
        ("CONSTANT", "int is not callable"),
        ("wrong", "must return a Workload, got int"),
    ],
)
def test_what_is_no_workload_function_is_refused(script, attribute, match):
    with pytest.raises(WorkloadError, match=match):
        load_workload(f"{script}:{attribute}")


def test_a_missing_file_or_module_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(WorkloadError, match=r"absent\.py was not found"):
        load_workload(f"{tmp_path}/absent.py:mine")
    with pytest.raises(WorkloadError, match="module 'no_such_module' was not found"):
        load_workload("no_such_module:mine")
    with pytest.raises(WorkloadError, match="not the name of a module"):
        load_workload("..up:mine")


def test_a_directory_is_no_workload_file(tmp_path):
    with pytest.raises(WorkloadError, match="was not found"):
        load_workload(f"{tmp_path}/:mine")


def test_a_file_that_is_not_python_is_refused(tmp_path):
    (tmp_path / "own.txt").write_text("")
    with pytest.raises(WorkloadError, match="is not a Python file"):
        load_workload(f"{tmp_path}/own.txt:mine")


def test_an_error_of_the_function_shows_its_type_message_and_deepest_own_line(script):
    line = SCRIPT.splitlines().index('    raise KeyError("no such thing")') + 1
    with pytest.raises(
        WorkloadFailedError,
        match=rf"raised KeyError: 'no such thing' \[.*own.py:{line}",
    ):
        load_workload(f"{script}:raising")


def test_a_script_that_leaves_is_a_failure_and_not_an_exit(script):
    with pytest.raises(WorkloadFailedError, match="raised SystemExit: 3"):
        load_workload(f"{script}:leaving")


def test_an_error_while_importing_names_the_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    bad = tmp_path / "bad_syntax.py"
    bad.write_text("x = 1\ndef (:\n")
    with pytest.raises(WorkloadFailedError, match=r"SyntaxError.*bad_syntax.py:2\]"):
        load_workload(f"{bad}:mine")
    needy = tmp_path / "needy.py"
    needy.write_text("\nimport not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WorkloadFailedError, match=r"ModuleNotFoundError.*needy.py:2\]"):
        load_workload("needy:mine")


def test_an_error_of_rightbatch_passes_a_workload_function_as_it_is(tmp_path):
    path = tmp_path / "asking.py"
    path.write_text(
        "from rightbatch.workload import find_data\n"
        "def mine(): find_data('nothing', ['a.gz'])\n"
    )
    with pytest.raises(DataMissingError, match="need a.gz"):
        load_workload(f"{path}:mine")


def test_a_model_that_fails_is_shown_with_its_place():
    def broken(seed: int) -> nn.Module:
        raise RuntimeError(f"seed {seed}")

    with pytest.raises(WorkloadFailedError, match=r"`model` raised RuntimeError: seed"):
        num_parameters(replace(mlp(), model=broken))


@pytest.fixture
def empty_platform_folder(monkeypatch, tmp_path):
    class Folders:
        @staticmethod
        def user_data_path(name: str) -> Path:
            return tmp_path / "platform" / name

    monkeypatch.setattr(workload_module, "platformdirs", Folders)
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    return tmp_path / "platform" / "rightbatch"


def test_data_is_looked_for_in_order_with_and_without_gz(
    empty_platform_folder, tmp_path, monkeypatch
):
    named, asked = tmp_path / "named", tmp_path / "asked"
    for folder in (empty_platform_folder, named / "set", asked):
        folder.mkdir(parents=True)
        (folder / "images").touch()
        (folder / "labels.gz").touch()
    wanted = ("images.gz", "labels")
    monkeypatch.setenv("RIGHTBATCH_DATA", str(named))
    assert find_data("set", wanted, asked)[0] == asked / "images"
    assert find_data("set", wanted)[1] == named / "set" / "labels.gz"
    monkeypatch.delenv("RIGHTBATCH_DATA")
    assert find_data("set", wanted)[0] == empty_platform_folder / "images"


def test_missing_data_names_the_files_and_every_place_looked(
    empty_platform_folder, tmp_path
):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.gz").touch()
    with pytest.raises(DataMissingError) as caught:
        find_data("set", ("a.gz", "b.gz"), tmp_path)
    for part in ("a.gz, b.gz", str(tmp_path / "set"), str(empty_platform_folder)):
        assert part in str(caught.value)


def test_the_status_of_data_is_bundled_found_or_missing(
    empty_platform_folder, tmp_path
):
    bare = TensorDataset(torch.ones(2))
    files = {"data_set": "set", "data_files": ("a.gz",), "data_dir": tmp_path}
    needing = replace(mlp(), train=bare, **files)
    assert data_status(mlp()) == "bundled"
    assert data_status(needing) == "missing"
    (tmp_path / "a").touch()
    assert data_status(needing) == "found"
