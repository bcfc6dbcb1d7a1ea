"""``plan`` with runs bought by regret, the default."""

import re
from pathlib import Path

import pytest

from rightbatch.cli.plan_buying import read_share
from rightbatch.errors import InputError

TINY = f"{Path(__file__).parents[1] / 'tiny_workload.py'}:tiny"
QUICK = ["--timing-seconds", ".2", "--lr", ".1,.5", "--replicas", "1"]


@pytest.mark.slow
def test_a_plan_buys_its_runs_and_says_what_they_cost(rightbatch, tmp_path):
    ended = rightbatch("plan", TINY, *QUICK, "--regret", "20%", "--json")
    assert ended.code == 0, ended.err
    found = ended.document
    assert found["inputs"]["regret_goal"] == 0.2
    purchases = found["purchase"]
    assert [bill["batch_size"] for bill in purchases[:2]] == [16, 256]
    assert purchases[0].keys() == {
        "batch_size", "lrs", "seed", "reason", "seconds", "regret",
    }  # fmt: skip
    bought = {(b["batch_size"], lr, b["seed"]) for b in purchases for lr in b["lrs"]}
    assert {(r["batch_size"], r["lr"], r["seed"]) for r in found["runs"]} == bought
    assert found["inputs"]["batch_sizes"] == sorted({size for size, _, _ in bought})
    regret = found["regret"]
    assert (regret["level"], regret["goal"]) == (0.9, 0.2)
    assert regret["met"] is (regret["value"] <= 0.2)
    assert regret["replicas"][0]["batch_size"] == found["optimal"][0]["batch_size"]
    assert f"by {len(purchases)} purchases of" in regret["sentence"]
    assert "buying runs of tiny until the regret is at most 20 %" in ended.err

    again = rightbatch("plan", TINY, *QUICK, "--regret", ".2", "--resume")
    assert again.code == 0
    shown = " ".join(again.out.split())
    assert regret["sentence"] in shown
    lines = [line for line in again.err.splitlines() if "  batch size" in line]
    assert lines == [line for line in ended.err.splitlines() if "  batch size" in line]


@pytest.mark.slow
def test_a_budget_that_ends_too_soon_is_said(rightbatch):
    words = ["--budget", "1e-6", "--regret", ".1%"]
    ended = rightbatch("plan", TINY, *QUICK, *words, "--json")
    assert ended.code == 0, ended.err
    found = ended.document
    assert len(found["purchase"]) == 2
    assert found["regret"]["stopped"] == "budget"
    assert found["regret"]["met"] is False
    assert any("above the 0.1 % asked for: raise --budget" in w
               for w in found["warnings"])  # fmt: skip


@pytest.mark.slow
def test_a_target_never_reached_ends_as_on_a_grid(rightbatch):
    words = ["--target", ".0001", "--max-steps", "40", "--json"]
    ended = rightbatch("plan", TINY, *QUICK, *words)
    assert ended.code == 3
    assert "no run reached loss 0.0001; nearest: 0." in ended.last_line
    assert len({run["batch_size"] for run in ended.document["runs"]}) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--regret", "5%", "--seeds", "2"], "--regret has no use with --seeds"),
        (
            ["--budget", "9", "--batch-sizes", "8,64"],
            "--budget has no use with --batch-sizes",
        ),
        (["--law", "knee", "--regret", ".1"], "--regret has no use with --law knee"),
        (["--budget", "0"], "`--budget`"),
        (["--regret", "5 percent"], "between 0 and 1, got '5 percent'.*5%"),
        (["--quick", "--regret", "5%"], "--regret has no use with --quick"),
        (["--max-batch-size", "1"], "needs two batch sizes or more"),
    ],
)
def test_what_cannot_be_bought_is_refused(rightbatch, words, message):
    ended = rightbatch("plan", TINY, *words)
    assert ended.code == 2
    assert re.search(message, ended.last_line)
    assert "timing" not in ended.err


@pytest.mark.parametrize("text", ["0", "100%", "-5%", "1.5", "%", "", "nan"])
def test_a_share_lies_between_0_and_1(text):
    with pytest.raises(InputError, match="must be a share between 0 and 1, got"):
        read_share(text)


def test_tables_buy_nothing(rightbatch, tables):
    files = ["--runs", tables[0], "--times", tables[1], "--max-batch-size", "1024"]
    ended = rightbatch("plan", *files, "--regret", "5%")
    assert ended.code == 2
    assert "--regret has no use with --runs and --times" in ended.last_line
    assert rightbatch("plan", *files, "--json").code == 0
