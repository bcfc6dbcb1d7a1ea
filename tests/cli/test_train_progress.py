"""Progress of training: what is told of an update, and when it is shown."""

import io
import sys
from typing import NamedTuple

import pytest

from rightbatch.cli.output import Output
from rightbatch.cli.train_progress import run_progress, told


class Update(NamedTuple):
    """What progress looks at, of an update's record."""

    step: int
    examples: int
    batch_size: int
    lr: float
    noise_scale: float | None = None


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_loss_batch_rate_and_noise_are_told():
    assert told(Update(1, 64, 64, 0.1, 321.0), 0.5) == (
        "loss 0.5  batch 64  lr 0.1  noise 321"
    )
    assert told(Update(1, 64, 64, 0.1), float("nan")) == "loss –  batch 64  lr 0.1"


@pytest.mark.parametrize("in_examples", [True, False])
def test_a_terminal_shows_them_as_they_go(monkeypatch, in_examples):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    out = Output(command="train")
    with run_progress(out, "training", 640, in_examples=in_examples) as tell:
        tell(Update(10, 640, 64, 0.1, 321.0), 0.5)
        # Within a tenth of a second nothing is drawn anew.
        tell(Update(11, 704, 64, 0.2, 321.0), 0.4)
    assert "loss 0.5  batch 64  lr 0.1  noise 321" in screen.getvalue()
    assert "loss 0.4" not in screen.getvalue()


@pytest.mark.parametrize(
    "out", [Output(command="train", progress=False), Output(command="train")]
)
def test_without_a_terminal_a_line_says_what_runs(out, capsys):
    with run_progress(out, "training tiny", 640, in_examples=True) as tell:
        tell(Update(10, 640, 64, 0.1), 0.5)
    assert capsys.readouterr().err == "training tiny ...\n"


def test_a_quiet_command_says_nothing(capsys):
    quiet = Output(command="train", quiet=True)
    with run_progress(quiet, "training", 1, in_examples=True) as tell:
        tell(Update(1, 1, 1, 0.1), 0.5)
    assert capsys.readouterr().err == ""
