"""The command line, run in this process."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from rightbatch.cli import main


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.err.strip().splitlines()[-1]

    @property
    def document(self) -> dict[str, Any]:
        return json.loads(self.out)


@pytest.fixture
def rightbatch(capsys, tmp_path, monkeypatch):
    """Return a function that runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def tables(tmp_path):
    """Write tables of runs and times that follow known laws; return both paths."""
    runs, times = tmp_path / "RUNS.csv", tmp_path / "TIMES.csv"
    lines = ["batch_size,lr,seed,steps"]
    for batch in (4, 16, 64, 256, 1024):
        for seed, wobble in enumerate((0.97, 1.0, 1.03)):
            lines.append(f"{batch},.1,{seed},{(100 + 6400 / batch) * wobble}")
            lines.append(f"{batch},.4,{seed},{(150 + 9000 / batch) * wobble}")
    runs.write_text("\n".join(lines))
    lines = ["batch_size,num_replicas,seconds"]
    lines += [f"{b},1,{0.01 + 0.0001 * b}" for b in (1, 4, 16, 64, 256, 1024)]
    times.write_text("\n".join(lines))
    return runs, times
