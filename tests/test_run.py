"""``./run`` makes its environment, sees when it is broken, and mends it."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "run"


@pytest.fixture
def run(tmp_path: Path) -> ModuleType:
    """Return the script as a module, for a checkout of its own with a space in it."""
    root = tmp_path / "a checkout"
    root.mkdir()
    for name in ("run", "pyproject.toml", "constraints.txt"):
        shutil.copy(SCRIPT.with_name(name), root / name)
    module = ModuleType("run_script")
    module.__file__ = str(root / "run")
    exec(compile((root / "run").read_text("utf-8"), root / "run", "exec"), vars(module))
    return module


@pytest.fixture
def ready(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the script with an environment that it set up, its installer made up."""
    monkeypatch.setattr(run, "install", made_up_install(run))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    run.set_up("")
    assert run.is_ready("")
    return run


def made_up_install(run: ModuleType) -> Callable[[set[str], int], None]:
    """Return an installer that puts one package and the command there."""

    def install(extras: set[str], lock: int) -> None:
        del extras, lock
        site = Path(run.site_packages())
        for name, files in {"law": ["__init__.py", "fit.py"]}.items():
            (site / name).mkdir(exist_ok=True)
            info = site / f"{name}-1.0.dist-info"
            info.mkdir(exist_ok=True)
            rows = [f"{name}/{file},," for file in files]
            (info / "RECORD").write_text("\n".join(rows), "utf-8")
            for file in files if not (site / name / files[0]).exists() else []:
                (site / name / file).touch()
        Path(run.COMMAND).touch()

    return install


def test_the_script_is_readable_to_a_python_it_then_refuses():
    text = SCRIPT.read_text("utf-8")
    ast.parse(text, feature_version=(3, 7))
    with pytest.raises(SyntaxError):
        ast.parse("if (n := 1): pass", feature_version=(3, 7))


def test_an_old_python_with_no_newer_one_about_is_refused(tmp_path: Path):
    pretend = (
        "import os, sys; sys.version_info = (3, 8, 1); sys.argv = ['run', 'plan'];"
        f"os.environ['PATH'] = {str(tmp_path)!r};"
        f"exec(open({str(SCRIPT)!r}).read(), {{'__name__': '__main__'}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", pretend], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("./run: needs Python 3.11 or newer; this is 3.8")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "is not a folder": lambda venv: (shutil.rmtree(venv), venv.write_text("")),
    "has no Python that runs": lambda venv: (venv / "bin" / "python").unlink(),
    "has a stamp that cannot be read": lambda venv: stamp_of(venv).write_text("{"),
    "was left half made": lambda venv: restamp(venv, state="unfinished"),
    "was made for another folder": lambda venv: restamp(venv, root="elsewhere"),
    "belongs to another Python": lambda venv: restamp(venv, python="python3.99"),
    "lacks bin/rightbatch": lambda venv: (venv / "bin" / "rightbatch").unlink(),
}


def stamp_of(venv: Path) -> Path:
    return venv / "rightbatch-stamp.json"


def restamp(venv: Path, **changes: str) -> None:
    stamp = json.loads(stamp_of(venv).read_text("utf-8"))
    stamp_of(venv).write_text(json.dumps({**stamp, **changes}), "utf-8")


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_broken_environment_is_made_anew_with_a_line_that_says_so(
    ready: ModuleType, capsys: pytest.CaptureFixture[str], fault: str
):
    DAMAGE[fault](Path(ready.VENV))
    assert not ready.is_ready("")
    ready.set_up("")
    assert capsys.readouterr().err == f"./run: .venv {fault}; making it anew.\n"
    assert ready.is_ready("")


def test_a_missing_package_is_seen_at_once(ready: ModuleType):
    shutil.rmtree(Path(ready.site_packages(), "law"))
    assert not ready.is_ready("")
    assert ready.find_fault(ready.read_stamp()).endswith("law/__init__.py")


def test_a_torn_package_is_seen_when_something_is_added(
    ready: ModuleType, capsys: pytest.CaptureFixture[str]
):
    Path(ready.site_packages(), "law", "fit.py").unlink()
    ready.set_up("dev")
    assert capsys.readouterr().err.endswith("law/fit.py; making it anew.\n")
    assert ready.missing_file() == ""
    assert ready.is_ready("dev")


def test_what_was_made_for_the_tests_serves_the_commands_too(ready: ModuleType):
    assert not ready.is_ready("dev")
    ready.set_up("dev")
    assert ready.is_ready("dev")
    assert ready.is_ready("")


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_seen(ready: ModuleType, name: str):
    path = Path(ready.ROOT, name)
    path.write_text(path.read_text("utf-8") + "# changed\n", "utf-8")
    assert not ready.is_ready("")
    assert ready.find_fault(ready.read_stamp()) == ""


def failing(error: BaseException) -> Callable[..., None]:
    def install(*_: object) -> None:
        raise error

    return install


def test_a_failed_addition_leaves_what_was_there_usable(
    ready: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ready, "install", failing(ready.SetupError("no network")))
    with pytest.raises(ready.SetupError, match="no network"):
        ready.set_up("dev")
    assert ready.is_ready("")


def test_an_interrupted_addition_is_taken_up_again(
    ready: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(ready, "install", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ready.set_up("dev")
    assert "interrupted; the next ./run" in capsys.readouterr().err
    assert not ready.is_ready("")
    monkeypatch.setattr(ready, "install", made_up_install(ready))
    ready.set_up("")
    assert ready.is_ready("")


def test_an_environment_made_by_hand_is_kept(
    run: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(run, "install", made_up_install(run))
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", run.VENV], check=True
    )
    Path(run.VENV, "mine").touch()
    run.set_up("")
    assert "made by hand" in capsys.readouterr().err
    assert Path(run.VENV, "mine").exists()
    assert run.is_ready("")


def test_a_failing_installer_shows_what_it_said(
    run: ModuleType, capfd: pytest.CaptureFixture[str]
):
    lock = run.take_lock()
    assert run.call([sys.executable, "-c", "print('fine')"], lock)
    assert not run.call([sys.executable, "-c", "exit('no such index')"], lock)
    assert not run.call(["no-such-program"], lock)
    os.close(lock)
    assert capfd.readouterr() == (
        "",
        "no such index\n./run: no-such-program: No such file or directory\n",
    )


def test_two_at_once_take_turns(run: ModuleType, capsys: pytest.CaptureFixture[str]):
    lock = run.take_lock()
    # An installer inherits the lock, and may outlive the ./run that started it.
    installer = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(0.3)"], pass_fds=[lock]
    )
    os.close(lock)
    os.close(run.take_lock())
    assert installer.wait() == 0
    os.close(run.take_lock())
    said = capsys.readouterr().err
    assert said == "./run: another ./run is setting up .venv; waiting for it.\n"


def test_settings_of_pip_are_handed_to_uv(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    assert run.pip_settings_for_uv() == []
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels more")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    assert run.pip_settings_for_uv() == [
        *("--find-links", "wheels", "--find-links", "more"),
        *("--index-url", "https://mirror.example/simple"),
    ]


@pytest.mark.parametrize(
    ("words", "marks", "processes"),
    [
        ([], "not gpu", str(min(2, os.cpu_count() or 1))),
        (["--fast"], "not gpu and not slow", str(min(2, os.cpu_count() or 1))),
        (["--pdb"], "not gpu", "0"),
    ],
)
def test_the_tests_leave_out_what_they_should(
    run: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    marks: str,
    processes: str,
):
    monkeypatch.chdir(run.ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = run.pytest_command(words)
    assert command[1:7] == ["-m", "pytest", "-m", marks, "-n", processes]
    assert "--fast" not in command


def test_a_path_from_another_folder_stays_right(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    (tmp_path / "test_law.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = run.pytest_command(["test_law.py::test_a", "-k", "law"])
    assert command[-3:] == [f"{tmp_path / 'test_law.py'}::test_a", "-k", "law"]
    assert os.path.samefile(Path.cwd(), run.ROOT)
