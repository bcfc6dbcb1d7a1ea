"""Sizes, names and places: the limits of the house, for every file in it."""

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "rightbatch"

MODULE_LINES = 500
FUNCTION_LINES = 60
USUAL_FUNCTION_LINES = 35  # nine functions in ten stay under it
ARGUMENTS = 7
BANNED_NAMES = re.compile(r"(utils?|common|helpers?|core|misc|base_.*)")

# The brackets keep these patterns from matching themselves.
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(wor[k]|roo[t]|hom[e]|User[s]|op[t])/\w")
REGISTRY_URL = re.compile(
    r"https?://(pypi[.]org/simple|files[.]pythonhosted[.]|download[.]pytorch[.]"
    r"|registry[.]npmjs[.])"
)


# The checkers, for any tree ---------------------------------------------------------


def python_files(*places: Path) -> list[Path]:
    """Return the Python files at or under some places."""
    return [
        path
        for place in places
        for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))
    ]


def long_modules(files: list[Path]) -> list[str]:
    """Return the modules past the limit, with their lines."""
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in files}
    return [f"{path.name}: {n} lines" for path, n in lines.items() if n > MODULE_LINES]


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_of(path: Path) -> list[Function]:
    """Return every function of a file, methods and inner ones too."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def is_command(path: Path, function: Function) -> bool:
    """Return True for a verb of the command line, whose arguments are its options."""
    return path.parent.name == "cli" and function.name == "run"


def is_estimator(path: Path, function: Function) -> bool:
    """Return True for an estimator's constructor: scikit-learn reads its signature."""
    return path.parent.name == "sklearn" and function.name == "__init__"


def length(path: Path, function: Function) -> int:
    """Return a function's lines from its ``def`` to its end, without its docstring.

    A command's options do not count: each carries its help.
    """
    assert function.end_lineno is not None
    first = function.body[0]
    start = first.lineno - 1 if is_command(path, function) else function.lineno
    lines = function.end_lineno - start + 1
    if ast.get_docstring(function) is not None:
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def long_functions(files: list[Path]) -> list[str]:
    """Return the functions past the limit, with their lines."""
    return [
        f"{path.name}:{function.name}: {length(path, function)} lines"
        for path in files
        for function in functions_of(path)
        if length(path, function) > FUNCTION_LINES
    ]


def share_of_short_functions(files: list[Path]) -> float:
    """Return the fraction of functions under the usual length."""
    lengths = [length(path, inner) for path in files for inner in functions_of(path)]
    return sum(n < USUAL_FUNCTION_LINES for n in lengths) / max(1, len(lengths))


def num_arguments(function: Function) -> int:
    """Return how many arguments a caller may give."""
    given = function.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def crowded_functions(files: list[Path]) -> list[str]:
    """Return the functions with too many arguments, with how many they have."""
    return [
        f"{path.name}:{function.name}: {num_arguments(function)}"
        for path in files
        for function in functions_of(path)
        if num_arguments(function) > ARGUMENTS
        and not is_command(path, function)
        and not is_estimator(path, function)
    ]


def badly_named(places: list[Path]) -> list[str]:
    """Return the files and folders whose names say nothing."""
    return [str(p) for p in places if any(map(BANNED_NAMES.fullmatch, stems(p)))]


def stems(path: Path) -> list[str]:
    return [part.split(".")[0].removeprefix("test_").strip("_") for part in path.parts]


def without_docstring(files: list[Path]) -> list[str]:
    """Return the modules that do not say what they are."""
    return [
        str(path)
        for path in files
        if ast.get_docstring(ast.parse(path.read_text("utf-8"))) is None
    ]


def tied_to_a_machine(files: list[Path]) -> list[str]:
    """Return the lines that name a path of one machine or a registry's address."""
    sentences = []
    for path in files:
        try:
            lines = path.read_text("utf-8").splitlines()
        except (UnicodeDecodeError, FileNotFoundError):
            continue  # a picture, or a file deleted and not yet committed as such
        sentences += [
            f"{path.name}:{number}: {line.strip()}"
            for number, line in enumerate(lines, start=1)
            if MACHINE_PATH.search(line) or REGISTRY_URL.search(line)
        ]
    return sentences


def house_files() -> list[Path]:
    """Return the files of the repository: what git tracks, or would."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        places = [ROOT / "src", ROOT / "tests", ROOT / "docs"]
        return [p for place in places for p in place.rglob("*") if p.is_file()]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


# The house --------------------------------------------------------------------------

LIBRARY = python_files(SOURCE)


def test_no_module_passes_five_hundred_lines():
    files = [p for p in house_files() if p.suffix == ".py" or p == ROOT / "run"]
    assert len(files) >= len(LIBRARY)
    assert long_modules([path for path in files if path.exists()]) == []


def test_no_function_passes_sixty_lines():
    assert long_functions(LIBRARY) == []


def test_nine_functions_in_ten_stay_under_thirty_five_lines():
    assert share_of_short_functions(LIBRARY) >= 0.9


def test_no_function_but_a_command_takes_more_than_seven_arguments():
    assert crowded_functions(LIBRARY) == []


def test_no_file_has_a_name_that_says_nothing():
    assert badly_named([path.relative_to(ROOT) for path in house_files()]) == []


def test_every_module_says_what_it_is():
    assert without_docstring(LIBRARY) == []


def test_no_file_names_a_path_of_one_machine_or_a_registry():
    assert tied_to_a_machine(house_files()) == []


# The checkers themselves, on made-up files ------------------------------------------


def write(folder: Path, text: str) -> list[Path]:
    path = folder / "made_up.py"
    path.write_text(text, encoding="utf-8")
    return [path]


def function(lines: int) -> str:
    """Return a function of so many lines, the docstring of three not counted."""
    return 'def f():\n    """Say.\n\n    """\n' + "    x = 1\n" * (lines - 1)


def test_a_module_is_too_long_from_the_first_line_past_the_limit(tmp_path: Path):
    assert long_modules(write(tmp_path, "x = 1\n" * 500)) == []
    assert long_modules(write(tmp_path, "x = 1\n" * 501)) == ["made_up.py: 501 lines"]


def test_a_function_is_too_long_from_the_first_line_past_the_limit(tmp_path: Path):
    assert long_functions(write(tmp_path, function(60))) == []
    found = long_functions(write(tmp_path, function(61)))
    assert found == ["made_up.py:f: 61 lines"]


def test_the_share_of_short_functions_is_counted(tmp_path: Path):
    files = write(tmp_path, function(34) * 3 + function(35))
    assert share_of_short_functions(files) == 0.75


@pytest.mark.parametrize(
    ("arguments", "is_crowded"),
    [
        ("a, b, c, d, e, f, g", False),
        ("self, a, b, c, d, e, f, g", False),
        ("a, b, c, d, e, f, g, h", True),
        ("a, /, b, c, d, *, e, f, g, h", True),
    ],
)
def test_arguments_are_counted_without_self(
    tmp_path: Path, arguments: str, is_crowded: bool
):
    files = write(tmp_path, f"class C:\n    def f({arguments}): pass\n")
    assert bool(crowded_functions(files)) == is_crowded


def test_a_command_is_measured_by_what_it_does_not_by_its_options(tmp_path: Path):
    options = ", ".join(f"\n    option_{i}: int" for i in range(70))
    text = f"def run({options}\n):\n" + "    x = 1\n" * 59
    (tmp_path / "cli").mkdir()
    inside, outside = write(tmp_path / "cli", text), write(tmp_path, text)
    assert (long_functions(inside), crowded_functions(inside)) == ([], [])
    assert crowded_functions(outside) == ["made_up.py:run: 70"]
    assert len(long_functions(outside)) == 1
    assert len(long_functions(write(tmp_path / "cli", text + "    x = 1\n" * 2))) == 1


@pytest.mark.parametrize(
    "name", ["utils.py", "tests/test_helpers.py", "src/core/law.py", "base_policy.py"]
)
def test_a_name_that_says_nothing_is_found(name: str):
    assert badly_named([Path(name)]) == [name]


def test_a_name_that_only_contains_a_banned_word_is_let_be():
    assert badly_named([Path("src/scorecard.py"), Path("database_store.py")]) == []


def test_a_module_without_a_docstring_is_found(tmp_path: Path):
    files = write(tmp_path, "x = 1\n")
    assert without_docstring(files) == [str(files[0])]
    assert without_docstring(write(tmp_path, '"""A law."""\n')) == []


@pytest.mark.parametrize(
    "line",
    [
        "see /" + "home/ann/data",
        "open('/" + "root/x')",
        "DIR=/" + "opt/wheels",
        "https://" + "files.pythonhosted.org/packages/x.whl",
    ],
)
def test_a_line_tied_to_a_machine_is_found(tmp_path: Path, line: str):
    assert len(tied_to_a_machine(write(tmp_path, f"x = 1\n# {line}\n"))) == 1


@pytest.mark.parametrize(
    "line",
    ["#!/usr/bin/env python3", "docs/home/x", "https://x.org/home/y", "~/opt/data"],
)
def test_a_line_that_holds_on_any_machine_is_let_be(tmp_path: Path, line: str):
    assert tied_to_a_machine(write(tmp_path, f"# {line}\n")) == []
