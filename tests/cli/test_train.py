"""``train``: its document, its files, breaking off, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rightbatch.experiments.store import RunStore

TINY = "tiny_workload:tiny"
QUICK = (
    "--lr", 0.1, "--initial-batch-size", 8, "--max-batch-size", 64, "--epochs", 2,
    "--timing-seconds", 0.1, "--comm-seconds", 0.0001,
)  # fmt: skip
ALONE = ("--no-baseline", "--replicas", "1")
SUMMARY_KEYS = {"steps", "examples", "seconds", "loss"}
ROW_KEYS = {"step", "examples", "batch_size", "lr", "loss", "reason"}


@pytest.fixture
def workload_file(tmp_path):
    """Return a function that writes a workload with a loss of its own."""

    def write(body, name="own"):
        path = tmp_path / "own.py"
        path.write_text(
            "import torch\nfrom tiny_workload import cross_entropy, make\n"
            f"def loss(model, batch):\n    {body}\n"
            f"def own():\n    return make(name={name!r}, loss=loss)\n"
        )
        return f"{path}:own"

    return write


def without_clock(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


# What it prints -----------------------------------------------------------------------


def test_the_document_has_the_stable_keys(rightbatch):
    ended = rightbatch("train", TINY, "--policy", "adadamp:dwell=8", *QUICK, "--json")
    assert ended.code == 0, ended.err
    document = ended.document
    assert (document["schema"], document["command"]) == (1, "train")
    assert document["summary"].keys() >= SUMMARY_KEYS
    assert document["trace"]
    for row in document["trace"]:
        assert row.keys() >= ROW_KEYS
    assert (
        sum(row["batch_size"] for row in document["trace"])
        == (document["summary"]["examples"])
    )
    assert [one["policy"] for one in document["trained"]] == [
        "adadamp:dwell=8",
        "constant",
    ]
    assert document["trained"][1]["baseline"]
    (one,) = document["comparison"]
    assert [priced["num_replicas"] for priced in one["seconds"]] == [1, 8]
    assert {priced["pays"] for priced in one["seconds"]} <= {
        "yes",
        "no",
        "unclear",
        "not_reached",
    }
    assert document["step_time"]["points"]
    assert document["inputs"]["dataset_size"] == 256
    assert document["inputs"]["policy_data"] == "train"


def test_a_person_reads_whether_it_pays_the_runs_and_the_course(rightbatch):
    ended = rightbatch("train", TINY, "--policy", "geodamp:delay=1", *QUICK)
    assert ended.code == 0
    for text in ("beside the baseline", "Runs", "The course of geodamp:delay=1"):
        assert text in ended.out
    assert "nan" not in ended.out
    assert "training tiny, constant, seed 0" in ended.err


def test_the_default_policy_follows_the_noise(rightbatch):
    document = rightbatch("train", TINY, *QUICK, *ALONE, "--json").document
    assert document["summary"]["policy"] == "noise-following"
    assert document["comparison"] == []
    assert any(row["noise_scale"] for row in document["trace"])


def test_the_same_seed_trains_the_same_and_another_does_not(rightbatch):
    words = ("train", TINY, "--policy", "geodamp:delay=1", *QUICK, *ALONE, "--json")
    one, again, other = (
        rightbatch(*words, "--seed", seed).document for seed in (0, 0, 1)
    )
    assert without_clock(one["trace"]) == without_clock(again["trace"])
    assert one["summary"]["loss"] != other["summary"]["loss"]


def test_seeds_are_compared_pair_by_pair(rightbatch):
    document = rightbatch(
        "train", TINY, "--policy", "geodamp:delay=1", *QUICK, "--seeds", 3, "--json"
    ).document
    assert [(one["policy"], one["seed"]) for one in document["trained"]] == [
        (policy, seed)
        for policy in ("geodamp:delay=1", "constant")
        for seed in range(3)
    ]
    (one,) = document["comparison"]
    assert one["num_seeds"] == 3
    assert one["steps"]["low"] <= one["steps"]["value"] <= one["steps"]["high"]
    assert "Medians of 3 seeds" in document["sentence"]


def test_policies_are_compared_on_the_same_examples(rightbatch):
    document = rightbatch(
        "train", TINY, "--compare", "constant geodamp:delay=1,factor=2 cabs",
        *QUICK, "--json",
    ).document  # fmt: skip
    names = [one["policy"] for one in document["trained"]]
    assert names == ["constant", "geodamp:delay=1,factor=2", "cabs"]
    assert document["summary"]["policy"] == names[1]
    assert len(document["comparison"]) == 2
    starts = {one["evaluations"][0]["loss"] for one in document["trained"]}
    assert len(starts) == 1
    assert "Of 2 policies beside constant" in document["sentence"]


def test_options_reach_the_run(rightbatch):
    document = rightbatch(
        "train", TINY, "--policy", "geodamp:delay=1,factor=4", "--lr", 0.2,
        "--initial-batch-size", 8, "--max-batch-size", 16, "--micro-batch-size", 4,
        "--max-steps", 40, "--lr-rule", "square-root", "--dwell", 5,
        "--timing-seconds", 0.1, *ALONE, "--json",
    ).document  # fmt: skip
    rows = document["trace"]
    assert len(rows) == 40
    assert document["summary"]["policy"] == "geodamp:delay=1,factor=4,dwell=5"
    # An epoch is 32 updates; asked every five, it grows at the 35th.
    assert [row["batch_size"] for row in rows] == [8] * 35 + [16] * 5
    assert rows[-1]["lr"] == pytest.approx(0.2 * 2**0.5)


def test_planned_plans_with_the_step_times_measured_here(rightbatch):
    ended = rightbatch("train", TINY, "--policy", "planned", *QUICK, *ALONE, "--json")
    assert ended.code == 0, ended.err
    assert ended.document["trace"][-1]["reason"]


def test_money_is_priced_by_the_replica_hour(rightbatch):
    document = rightbatch(
        "train", TINY, "--policy", "geodamp", *QUICK, "--price-per-hour", 36, "--json"
    ).document
    for priced in document["trained"][0]["prices"]:
        assert priced["cost"] == pytest.approx(0.01 * priced["replica_seconds"])


def test_files_are_written_on_request(rightbatch, tmp_path):
    ended = rightbatch(
        "train", TINY, "--policy", "geodamp:delay=1", *QUICK, "--csv", "t.csv",
        "--report", "r.html", "--json",
    )  # fmt: skip
    with (tmp_path / "t.csv").open() as lines:
        start, *rows = csv.DictReader(lines)
    assert (start["step"], start["batch_size"]) == ("0", "")
    assert float(start["loss"]) == ended.document["summary"]["initial_loss"]
    trace = ended.document["trace"]
    assert [int(row["batch_size"]) for row in rows] == [r["batch_size"] for r in trace]
    assert float(rows[3]["batch_loss"]) == trace[3]["batch_loss"]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "geodamp:delay=1" in page
    (tmp_path / "t.json").write_text(ended.out)
    assert rightbatch("report", "t.json", "--output", "again.html").code == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


# The store, breaking off and going on -------------------------------------------------


def test_runs_are_stored_as_they_end_and_taken_from_the_store(rightbatch, tmp_path):
    words = ("train", TINY, "--policy", "geodamp:delay=1", *QUICK, "--json")
    first = rightbatch(*words).document
    again = rightbatch(*words, "--resume")
    assert again.document["trace"] == first["trace"]
    assert again.document["trained"] == first["trained"]
    assert "training tiny" not in again.err
    with RunStore(tmp_path / "runs" / "tiny.sqlite") as store:
        assert [run.policy for run in store.trainings()] == [
            "geodamp:delay=1",
            "constant",
        ]
    assert not (tmp_path / "runs" / "tiny.under-way").exists()
    more = rightbatch(
        "train", TINY, "--compare", "geodamp:delay=1 cabs", *QUICK, "--resume", "--json"
    )
    assert "training tiny, cabs" in more.err
    assert "training tiny, geodamp" not in more.err
    anew = rightbatch(*words)
    assert "training tiny, geodamp" in anew.err


def test_other_settings_are_other_runs(rightbatch):
    words = ("train", TINY, "--policy", "geodamp:delay=1", *QUICK, *ALONE, "--resume")
    rightbatch(*words)
    other = rightbatch(*words, "--measure-every", 5)
    assert "training tiny, geodamp" in other.err


def test_runs_lists_trainings_beside_sweeps(rightbatch):
    rightbatch("train", TINY, "--policy", "geodamp:delay=1", *QUICK)
    document = rightbatch("runs", "runs/tiny.sqlite", "--json").document
    assert document["runs"] == []
    assert [one["policy"] for one in document["trained"]] == [
        "geodamp:delay=1",
        "constant",
    ]
    assert "geodamp:delay=1" in rightbatch("runs", "runs/tiny.sqlite").out


SLOW = """
import time, torch
from tiny_workload import cross_entropy, make, with_dropout
def loss(model, batch):
    time.sleep(0.002)
    return cross_entropy(model, batch)
def own():
    return make(name="own", loss=loss, model=with_dropout)
"""


def start(folder, *words):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "rightbatch", *map(str, words)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_checkpoint(folder, process, num_evaluations):
    give_up = time.monotonic() + 120
    while time.monotonic() < give_up and process.poll() is None:
        for path in Path(folder).glob("runs/own.under-way/*.json"):
            try:
                rows = json.loads(path.read_text())
            except (ValueError, FileNotFoundError):
                continue
            if len(rows) >= num_evaluations and path.with_suffix(".pt").exists():
                return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint: {process.communicate()}")


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been_killed(rightbatch, tmp_path):
    (tmp_path / "own.py").write_text(SLOW)
    words = (
        "train", "own.py:own", "--policy", "noise-following", "--lr-rule", "adascale",
        "--measure-every", 3, "--schedule", "cosine", *QUICK, *ALONE,
        "--checkpoint-seconds", 0.02, "--json",
    )  # fmt: skip
    killed = start(tmp_path, *words)
    wait_for_checkpoint(tmp_path, killed, 8)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    found = rightbatch(*words, "--resume").document
    expected = rightbatch(*words, "--store", "other.sqlite").document
    assert without_clock(found["trace"]) == without_clock(expected["trace"])
    assert len({row["batch_size"] for row in found["trace"]}) > 1
    losses = [
        [(one["step"], one["loss"]) for one in d["trained"][0]["evaluations"]]
        for d in (found, expected)
    ]
    assert losses[0] == losses[1]


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is_and_says_how_to_go_on(rightbatch, tmp_path):
    (tmp_path / "own.py").write_text(SLOW)
    words = ("train", "own.py:own", "--policy", "geodamp:delay=1", *QUICK)
    process = start(tmp_path, *words, "--json", "--checkpoint-seconds", 0.02)
    wait_for_checkpoint(tmp_path, process, 4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    document = json.loads(out)
    assert document["error"]["exit_code"] == 130
    assert document["trained"][0]["status"] == "interrupted"
    assert document["trace"]
    last = err.strip().splitlines()[-1]
    assert "interrupted in geodamp:delay=1, seed 0, after" in last
    assert "--resume" in last
    resumed = rightbatch(*words, "--json", "--resume")
    assert resumed.code == 0
    found = resumed.document
    assert len(found["trace"]) > len(document["trace"])
    assert found["trace"][: len(document["trace"]) - 1] == document["trace"][:-1]


def test_a_run_that_diverges_ends_with_3_and_what_was_kept(rightbatch, workload_file):
    wild = workload_file("return 1e3 * (model(batch[0]) ** 4).sum(1)")
    ended = rightbatch("train", wild, "--policy", "geodamp", *QUICK, "--json")
    assert ended.code == 3
    assert "the loss is lost under geodamp at lr 0.1" in ended.last_line
    assert "smaller --lr" in ended.last_line
    assert ended.document["error"]["exit_code"] == 3
    assert ended.document["trained"][0]["status"] == "diverged"
    assert ended.document["trained"][0]["notes"]
    shown = rightbatch("train", wild, "--policy", "geodamp", *QUICK, "--resume")
    assert shown.code == 3
    assert "diverged" in shown.out


def test_a_loss_that_is_nan_from_the_start_ends_with_3(rightbatch, workload_file):
    nan = workload_file("return cross_entropy(model, batch) * float('nan')")
    ended = rightbatch("train", nan, "--policy", "adadamp", *QUICK, "--json")
    assert ended.code == 3
    assert ended.document["trace"] == []
    assert ended.document["summary"]["loss"] is None


def test_one_policy_that_diverges_beside_others_is_a_warning(rightbatch, workload_file):
    own = workload_file(
        "large = 16 < len(batch[0]) < 100\n"
        "    return cross_entropy(model, batch) * (float('inf') if large else 1)"
    )
    names = "geodamp:delay=.5,factor=4 padadamp:rate=.001"
    words = ("train", own, "--compare", names, *QUICK, "--evaluate-fraction", 1)
    ended = rightbatch(*words, "--json")
    assert ended.code == 0, ended.err
    first, second, _ = ended.document["trained"]
    assert (first["status"], second["status"]) == ("diverged", "finished")
    assert any("training is lost" in text for text in ended.document["warnings"])


# Bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--initial-batch-size", 64, "--max-batch-size", 32),
            "`max_batch_size` must be >= `initial_batch_size`, got 32 and 64",
        ),
        (("--max-batch-size", 512), "--max-batch-size: 512 is above the 256 examples"),
        (
            ("--initial-batch-size", 512),
            "--initial-batch-size: 512 is above the 256 examples of tiny",
        ),
        (
            ("--initial-batch-size", 8, "--micro-batch-size", 16),
            "`micro_batch_size` must be <= `initial_batch_size`, got 16 and 8",
        ),
        (("--policy", "adadam"), "did you mean adadamp"),
        (("--policy", "padadamp:rat=1"), "did you mean rate?"),
        (("--policy", "geodamp:delay=soon"), "`delay` of geodamp must be a number"),
        (("--policy", "geodamp cabs"), "one policy, got 2. (--compare takes several)"),
        (("--policy", "cabs", "--compare", "cabs"), "give --policy or --compare"),
        (("--compare", "cabs cabs"), "cabs stands twice"),
        (("--policy", "inner-product-test"), "which train does not measure"),
        (("--policy", "schedule:0:16 4000:64"), "needs `tokens`, which train does"),
        (
            ("--policy", "schedule:4000:16 0:64,unit=example"),
            "--policy schedule:4000:16 0:64,unit=example",
        ),
        (("--policy", "geometric"), "needs `factor`"),
        (("--lr-rule", "adascal"), "did you mean adascale"),
        (("--lr", 0), "`lr` must be positive, got 0"),
        (("--epochs", 0), "`--epochs` must be positive, got 0"),
        (("--schedule", "cosin"), "did you mean cosine?"),
        (
            ("--schedule", "cosine", "--max-steps", 10),
            "a schedule counts examples, and needs their end",
        ),
        (("--evaluate-fraction", 0), "`evaluate_fraction` must be above 0"),
        (("--target", "1,2"), "--target: one at a time, got 2"),
        (("--replicas", "0"), "--replicas: must be whole and >= 1, got 0"),
        (("--price-per-hour", -1), "`--price-per-hour` must not be negative"),
        (("--device", "tpu"), "`device` cannot be 'tpu'"),
        (("--comm-seconds", 1, "--bandwidth", 1), "give one of"),
        (("--csv", "no/such/t.csv"), "there is no folder no/such"),
        (("--report", "."), ". is a folder"),
        (("--store", "no/such/t.sqlite"), "there is no folder no/such"),
    ],
)
def test_bad_input_ends_with_2_before_anything_is_measured(rightbatch, words, message):
    ended = rightbatch("train", TINY, *words)
    assert ended.code == 2
    assert message in ended.last_line
    assert not any(line.endswith("...") for line in ended.err.splitlines())


def test_a_device_that_is_not_there_is_refused(rightbatch, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    ended = rightbatch("train", TINY, "--device", "cuda")
    assert ended.code == 2
    assert "cuda is not here" in ended.last_line


def test_a_store_of_another_workload_is_refused(rightbatch, workload_file):
    rightbatch("train", TINY, *QUICK, *ALONE, "--store", "a.sqlite")
    own = workload_file("return cross_entropy(model, batch)", name="other")
    ended = rightbatch("train", own, *QUICK, *ALONE, "--store", "a.sqlite")
    assert ended.code == 2
    assert "belongs to workload 'tiny', not to 'other'" in ended.last_line


def test_a_checkpoint_of_another_policy_is_refused(rightbatch, tmp_path, monkeypatch):
    from rightbatch.cli.train_request import TrainRequest

    # As though a file had been copied to where another run looks for its own.
    place = tmp_path / "under-way" / "one.pt"
    monkeypatch.setattr(TrainRequest, "checkpoint", lambda *_: place)
    from rightbatch.experiments.train_run import RunFiles

    monkeypatch.setattr(RunFiles, "remove", lambda _: None)
    words = ("train", TINY, *QUICK, *ALONE, "--store", "a.sqlite")
    assert rightbatch(*words, "--policy", "cabs").code == 0
    ended = rightbatch(*words, "--policy", "geodamp", "--resume")
    assert ended.code == 2
    assert "the state is of another policy" in ended.last_line


def test_a_workload_counted_in_words_is_refused(rightbatch, tmp_path):
    (tmp_path / "own.py").write_text(
        "from tiny_workload import make\n"
        "def own():\n    return make(example_count=lambda item: 2)\n"
    )
    ended = rightbatch("train", "own.py:own", *QUICK)
    assert ended.code == 2
    assert "of which an item holds several" in ended.last_line
