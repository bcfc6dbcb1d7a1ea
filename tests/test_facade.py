"""The façade: a short sorted list of names, each of them there, and cheap to import."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rightbatch

FACADE = Path(rightbatch.__file__)
MACHINERY = {"TYPE_CHECKING", "Any", "import_module"}  # what makes names lazy


def leaked_names(module: ModuleType) -> set[str]:
    """Return public names a module holds and does not list.

    Submodules become attributes of their package when something imports them.
    """
    inner = f"{module.__name__}."
    held = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not (isinstance(value, ModuleType) and value.__name__.startswith(inner))
    }
    return held - set(module.__all__) - MACHINERY


def names_for_type_checkers(path: Path) -> set[str]:
    """Return the public names that a type checker finds in a module."""
    names = set[str]()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.If) else [node]
        for statement in inside:
            match statement:
                case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                    names |= {alias.asname or alias.name for alias in aliases}
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                    names.add(name)
                case ast.Assign(targets=[ast.Name(id=name)]):
                    names.add(name)
                case ast.AnnAssign(target=ast.Name(id=name)):
                    names.add(name)
                case _:
                    pass
    return names


def test_the_list_of_names_is_sorted_and_without_repetition():
    assert list(rightbatch.__all__) == sorted(set(rightbatch.__all__))


def test_about_two_dozen_names_stand_at_the_top():
    assert len(rightbatch.__all__) <= 36  # half as many again, then it is no façade


@pytest.mark.parametrize("name", getattr(rightbatch, "__all__", []))
def test_every_listed_name_is_there(name: str):
    assert getattr(rightbatch, name) is getattr(rightbatch, name)


def test_nothing_public_is_left_out_of_the_list():
    assert leaked_names(rightbatch) == set()


def test_dir_shows_the_listed_names():
    public = {name for name in dir(rightbatch) if not name.startswith("_")}
    listed = {name for name in rightbatch.__all__ if not name.startswith("_")}
    submodules = {n for n in public if f"rightbatch.{n}" in sys.modules}
    assert listed <= public
    assert public - submodules - MACHINERY <= listed


def test_type_checkers_see_every_listed_name():
    assert set(rightbatch.__all__) <= names_for_type_checkers(FACADE)


def test_a_name_that_is_not_there_is_refused_by_its_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(rightbatch, "no_such_name")  # noqa: B009  # a type checker objects else


def test_importing_the_facade_alone_does_not_load_torch():
    code = "import rightbatch, sys; dir(rightbatch); print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# The checkers themselves, on a made-up façade ---------------------------------------

MADE_UP = """
from typing import TYPE_CHECKING
from importlib import import_module as _import_module
if TYPE_CHECKING:
    from collections import OrderedDict as OrderedDict
__version__ = "1"
__all__ = ["OrderedDict", "__version__", "half"]
def half(x): return x / 2
def __getattr__(name):
    if name == "OrderedDict":
        return _import_module("collections").OrderedDict
    raise AttributeError(name)
def __dir__(): return __all__
"""


def load(path: Path, text: str) -> ModuleType:
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("made_up", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_facade_with_lazy_names_passes(tmp_path: Path):
    path = tmp_path / "made_up.py"
    module = load(path, MADE_UP)
    assert leaked_names(module) == set()
    assert set(module.__all__) <= names_for_type_checkers(path)


def test_a_name_that_leaks_out_of_a_facade_is_found(tmp_path: Path):
    text = MADE_UP + "import json\nsecret = 1\n"
    assert leaked_names(load(tmp_path / "made_up.py", text)) == {"json", "secret"}


def test_a_lazy_name_hidden_from_type_checkers_is_found(tmp_path: Path):
    path = tmp_path / "made_up.py"
    path.write_text(MADE_UP.replace("OrderedDict as OrderedDict", "deque"), "utf-8")
    assert "OrderedDict" not in names_for_type_checkers(path)
