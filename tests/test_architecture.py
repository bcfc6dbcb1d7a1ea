"""The floors of the package, listed once, and what may stand on what."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "rightbatch"
DOCS = SOURCE.parents[1] / "docs" / "examples"

# A module or package imports only from strictly lower floors; equal floors are
# strangers, except inside one package. A new module enters this list first.
FLOORS = {
    "errors": 0,
    "_checks": 1,
    "fitting": 2,
    # laws: numbers in, numbers out
    "convergence": 3,
    "step_time": 3,
    "noise_scale": 4,
    "lr_scaling": 4,
    # plans: laws composed
    "training_time": 4,
    "quadratic": 4,
    "policies": 5,
    "scaling": 5,
    "simulation": 6,
    "cluster": 6,
    "reporting": 7,
    # the torch line: nothing above imports torch
    "workload": 8,
    "batch_norm": 8,
    "collectives": 8,
    "sampler": 8,
    "engine": 8,
    "gradients": 9,
    "curvature": 9,
    "timing": 9,
    "controller": 10,
    "training": 11,
    "integrations": 12,
    "experiments": 13,
    "cli": 14,
    "__main__": 15,
    "__init__": 15,
}
TORCH_LINE = 7
NEEDS_TORCH = {"torch", "torchmetrics", "lightning", "transformers", "accelerate"}
# A report's tables serve the terminal too, where nobody should wait for plotly.
PLAIN_REPORTING = {"", ".tables", ".formats"}


# The checkers, for any source tree --------------------------------------------------


def find_modules(source: Path) -> dict[str, Path]:
    """Return every module of a package by its dotted name."""
    modules = {}
    for path in sorted(source.rglob("*.py")):
        parts = [source.name, *path.relative_to(source).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        modules[".".join(parts[:-1] if is_package else parts)] = path
    return modules


def unit_of(module: str) -> str:
    """Return what stands on a floor: a top-level module or package, or the façade."""
    return module.split(".")[1] if "." in module else "__init__"


def find_imports(name: str, path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, module, name or "") of every import, at any depth of the code."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name, "") for alias in node.names)
            case ast.ImportFrom():
                module = absolute(node.module or "", node.level, name, path)
                yield from ((node.lineno, module, alias.name) for alias in node.names)
            case ast.Call(args=[ast.Constant(value=str(given)), *_]) if ast.unparse(
                node.func
            ).rpartition(".")[2] in ("import_module", "__import__"):
                bare = given.lstrip(".")
                level = len(given) - len(bare)
                yield node.lineno, absolute(bare, level, name, path), ""
            case _:
                pass


def absolute(module: str, level: int, importer: str, path: Path) -> str:
    """Return the full name of what an import with `level` dots means in `importer`."""
    if level == 0:
        return module
    package = importer.split(".")
    if path.name == "__init__.py":
        level -= 1
    base = package[: len(package) - level]
    return ".".join([*base, module] if module else base)


def own_imports(source: Path) -> Iterator[tuple[str, int, str]]:
    """Yield (importer, line, imported module) for imports inside the package."""
    modules = find_modules(source)
    for name, path in modules.items():
        for line, module, attribute in find_imports(name, path):
            if module.split(".")[0] != source.name:
                continue
            # The version is set before anything else happens: no import goes up for it.
            if module == source.name and attribute == "__version__":
                continue
            inner = f"{module}.{attribute}"
            yield name, line, inner if inner in modules else module


def floor_violations(source: Path) -> list[str]:
    """Return a sentence for every module without a floor and every import upwards."""
    homeless = {unit_of(name) for name in find_modules(source)} - FLOORS.keys()
    sentences = [f"{unit} stands on no floor" for unit in sorted(homeless)]
    for importer, line, imported in own_imports(source):
        unit, other = unit_of(importer), unit_of(imported)
        if unit == other or homeless & {unit, other}:
            continue
        if FLOORS.get(other, len(FLOORS)) >= FLOORS[unit]:
            sentences.append(f"{importer}:{line} imports {imported}")
    return sentences


def torch_violations(source: Path) -> list[str]:
    """Return a sentence for every import of torch at or below the torch line."""
    return [
        f"{name}:{line} imports {module}"
        for name, path in find_modules(source).items()
        if FLOORS.get(unit_of(name), 0) <= TORCH_LINE
        for line, module, _ in find_imports(name, path)
        if module.split(".")[0] in NEEDS_TORCH
    ]


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules loaded once `code` has run in a fresh Python."""
    report = "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = run_python(["-c", code + report])
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def loaded_by_command(
    arguments: list[str], cwd: Path
) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run ``python -m rightbatch`` and return it with the modules it imported."""
    done = run_python(["-X", "importtime", "-m", "rightbatch", *arguments], cwd)
    loaded = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    return done, {name.split(".")[0] for name in loaded}


def run_python(
    words: list[str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


# The package ------------------------------------------------------------------------


def test_every_module_has_a_floor_and_imports_only_from_below_it():
    assert floor_violations(SOURCE) == []


def test_nothing_at_or_below_the_torch_line_names_torch():
    assert torch_violations(SOURCE) == []


def low_modules() -> list[str]:
    names = find_modules(SOURCE)
    return [name for name in names if FLOORS.get(unit_of(name), 99) <= TORCH_LINE]


def test_importing_everything_below_the_torch_line_does_not_load_torch():
    names = low_modules()
    assert {"rightbatch.errors", "rightbatch.fitting"} <= set(names)
    loaded = loaded_after(f"import {', '.join(names)}")
    assert "numpy" in loaded
    assert not loaded & NEEDS_TORCH


def test_only_a_report_that_is_drawn_loads_plotly():
    plain = {f"rightbatch.reporting{rest}" for rest in PLAIN_REPORTING}
    names = {n for n in low_modules() if unit_of(n) != "reporting"} | plain
    assert "plotly" not in loaded_after(f"import {', '.join(sorted(names))}")


def test_plotly_is_named_in_the_reports_alone():
    assert {
        unit_of(name)
        for name, path in find_modules(SOURCE).items()
        for _, module, _ in find_imports(name, path)
        if module.split(".")[0] == "plotly"
    } == {"reporting"}


needs_command = pytest.mark.skipif(
    not (SOURCE / "__main__.py").exists(), reason="there is no command yet"
)


@needs_command
def test_asking_for_help_loads_nothing_heavy(tmp_path: Path):
    done, loaded = loaded_by_command(["--help"], tmp_path)
    assert done.returncode == 0
    assert "plan" in done.stdout
    assert "rightbatch" in loaded
    assert not loaded & {"torch", "scipy", "sklearn", "plotly"}


@needs_command
def test_fitting_a_table_never_loads_torch(tmp_path: Path):
    (tmp_path / "runs.csv").write_text(made_up_runs(), encoding="utf-8")
    done, loaded = loaded_by_command(["fit", "runs.csv", "--json"], tmp_path)
    assert json.loads(done.stdout)["command"] == "fit"
    assert "numpy" in loaded
    assert "torch" not in loaded


@needs_command
def test_reporting_a_result_never_loads_torch(tmp_path: Path):
    (tmp_path / "runs.csv").write_text(made_up_runs(), encoding="utf-8")
    (tmp_path / "times.csv").write_text(made_up_times(), encoding="utf-8")
    tables = ["--runs", "runs.csv", "--times", "times.csv"]
    plan, _ = loaded_by_command(["plan", *tables, "--json"], tmp_path)
    (tmp_path / "result.json").write_text(plan.stdout, encoding="utf-8")
    done, loaded = loaded_by_command(["report", "result.json"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "plotly" in loaded
    assert "torch" not in loaded


@needs_command
@pytest.mark.parametrize(
    "words",
    [
        ["transfer", "--from-batch=8", "--to-batch=64", "--optimizer=sgd", "--lr=1"],
        ["cluster", str(DOCS / "clusters" / "from-tables.toml")],
        ["simulate", "--optimizer=sgd,momentum", "--batch-sizes=4:4096:x4"],
    ],
    ids=["transfer", "cluster", "simulate"],
)
def test_changing_settings_buying_machines_and_simulating_never_load_torch(
    tmp_path: Path, words: list[str]
):
    done, loaded = loaded_by_command([*words, "--json"], tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["command"] == words[0]
    assert "torch" not in loaded


def made_up_runs() -> str:
    """Return runs that lie on 100 + 6400 / batch_size, a percent up and down."""
    steps = {b: 100 + 6400 / b for b in (8, 16, 32, 64, 128, 256, 512)}
    rows = [f"{b},{s * k:.0f}" for b, s in steps.items() for k in (0.99, 1, 1.01)]
    return "\n".join(["batch_size,steps", *rows, ""])


def made_up_times() -> str:
    """Return step times flat up to 32 examples and proportional past them."""
    rows = [f"{b},1,{1e-4 + 1e-5 * max(b, 32):.6f}" for b in (8, 16, 32, 64, 128, 512)]
    return "\n".join(["batch_size,num_replicas,seconds", *rows, ""])


# The checkers themselves, on made-up trees ------------------------------------------


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    """Write a small package called rightbatch and return its folder."""
    source = folder / "rightbatch"
    for name, text in {"__init__.py": "", **files}.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return source


def test_a_tree_that_only_imports_downwards_has_no_violations(tmp_path: Path):
    files = {
        "__init__.py": "__version__ = '1'\nfrom rightbatch import cli, errors",
        "errors.py": "import math",
        "fitting.py": "from rightbatch import errors\nfrom .errors import InputError",
        "policies/__init__.py": "from rightbatch.policies import clip",
        "policies/clip.py": "from ..fitting import Interval\nfrom . import other",
        "policies/other.py": "from .clip import Clip",
        "engine.py": "import torch\nfrom rightbatch import __version__",
        "cli/__init__.py": "def main():\n    from rightbatch.engine import run",
    }
    source = write_tree(tmp_path, files)
    assert floor_violations(source) == []
    assert torch_violations(source) == []


UPWARDS = {
    "a plain import": "import rightbatch.cli",
    "an import with a new name": "import rightbatch.cli as c",
    "an import of a name": "from rightbatch.cli import main",
    "an import of a module": "from rightbatch import cli",
    "a relative import": "from . import cli",
    "a relative import of a name": "from .cli import main",
    "an import in a function": "def f():\n    from rightbatch import cli",
    "an import for types": "if TYPE_CHECKING:\n    from rightbatch import cli",
    "an import by a call": "importlib.import_module('rightbatch.cli')",
    "a relative import by a call": "import_module('.cli', __package__)",
    "an import by the builtin": "__import__('rightbatch.cli')",
}


@pytest.mark.parametrize("text", UPWARDS.values(), ids=UPWARDS.keys())
def test_an_import_upwards_is_found_however_it_is_written(tmp_path: Path, text: str):
    source = write_tree(tmp_path, {"fitting.py": text, "cli.py": ""})
    line = text.count("\n") + 1
    assert floor_violations(source) == [
        f"rightbatch.fitting:{line} imports rightbatch.cli"
    ]


def test_an_import_upwards_is_found_from_deep_inside_a_package(tmp_path: Path):
    files = {"policies/deep/clip.py": "from ...cluster import Price", "cluster.py": ""}
    assert floor_violations(write_tree(tmp_path, files)) == [
        "rightbatch.policies.deep.clip:1 imports rightbatch.cluster"
    ]


def test_equal_floors_are_strangers(tmp_path: Path):
    files = {"convergence.py": "import rightbatch.step_time", "step_time.py": ""}
    assert floor_violations(write_tree(tmp_path, files)) == [
        "rightbatch.convergence:1 imports rightbatch.step_time"
    ]


def test_a_package_may_not_lean_on_the_facade(tmp_path: Path):
    files = {"cli.py": "from rightbatch import ConvergenceLaw"}
    assert floor_violations(write_tree(tmp_path, files)) == [
        "rightbatch.cli:1 imports rightbatch"
    ]


def test_a_module_that_is_not_listed_is_found(tmp_path: Path):
    files = {"wizardry.py": "", "policies/__init__.py": "import rightbatch.wizardry"}
    assert floor_violations(write_tree(tmp_path, files)) == [
        "wizardry stands on no floor"
    ]


@pytest.mark.parametrize(
    "text",
    ["import torch", "from torch import nn", "def f():\n    import torch.nn as nn"],
)
def test_torch_below_its_line_is_found(tmp_path: Path, text: str):
    source = write_tree(tmp_path, {"reporting/html.py": text, "engine.py": text})
    (sentence,) = torch_violations(source)
    assert sentence.startswith("rightbatch.reporting.html:")


def test_a_module_loaded_by_a_fresh_python_is_seen():
    assert "sqlite3" in loaded_after("import sqlite3")
    assert "sqlite3" not in loaded_after("pass")
