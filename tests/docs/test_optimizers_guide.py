"""The guide's settings are those there are, and its search ends as it says."""

import doctest
import re
from pathlib import Path

import pytest

from rightbatch.experiments.optimizers.named import OPTIMIZERS, named_optimizer

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "optimizers.md"


def test_the_table_has_the_settings_and_their_defaults():
    rows = re.findall(r"^\| (`\w.*?) \| (.*?) \| (.*?) \|$", GUIDE.read_text(), re.M)
    seen: dict[str, dict[str, float]] = {}
    for names, settings, _ in rows:
        if names == "`--optimizer`":
            continue
        given = dict(re.findall(r"`(\w+)=([\d.e-]+)`", settings))
        numbers = {key: float(value) for key, value in given.items()}
        for name in re.findall(r"`(\w+)`", names):
            seen[name] = numbers
    seen["adamw"] = {**seen["adam"], **seen["adamw"]}
    assert seen == {name: dict(entry.settings) for name, entry in OPTIMIZERS.items()}


def test_the_commands_name_optimizers_there_are():
    texts = re.findall(r"--optimizer (\S+)", GUIDE.read_text())
    assert len(texts) == 3
    for text in texts:
        named_optimizer(text)


@pytest.mark.slow
def test_the_search_ends_as_it_says():
    failed, tried = doctest.testfile(str(GUIDE), module_relative=False)
    assert tried > 5
    assert not failed
