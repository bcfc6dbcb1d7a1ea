"""``replay``: what policies would have asked for, off every kind of record."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from experiments.example_trainings import run_of

from rightbatch.experiments.store import RunStore, StoreIdentity

TINY = "tiny_workload:tiny"
TRAIN = (
    "train", TINY, "--lr", 0.1, "--initial-batch-size", 8, "--max-batch-size", 64,
    "--epochs", 2, "--timing-seconds", 0.1, "--no-baseline", "--replicas", 1,
)  # fmt: skip
HEAD = "step,examples,batch_size,lr,loss"


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a CSV of 100 updates of 8 examples."""

    def write(name="run.csv", head=HEAD, **columns):
        names = [*head.split(","), *columns]
        lines = [",".join(names)]
        for k in range(1, 101):
            row = {"step": k, "examples": 8 * k, "batch_size": 8, "lr": 0.1}
            row |= {"loss": 2.0 / k, **{key: f(k) for key, f in columns.items()}}
            lines.append(",".join(str(row[one]) for one in names))
        path = tmp_path / name
        path.write_text("\n".join(lines))
        return path

    return write


def test_the_document_has_the_stable_keys(rightbatch, written):
    ended = rightbatch(
        "replay", written(), "--policy", "padadamp:rate=1",
        "--policy", "geometric:1.01", "--json",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    document = ended.document
    assert (document["schema"], document["command"]) == (1, "replay")
    assert document["open_loop"] is True
    # By the formula: B0 + rate k, asked before update k + 1.
    assert [row["batch_size"] for row in document["trace"]] == [
        8 + k for k in range(100)
    ]
    assert {row["recorded_batch_size"] for row in document["trace"]} == {8}
    assert document["summary"].keys() >= {"steps", "examples", "seconds", "loss"}
    assert document["summary"]["steps"] == pytest.approx(
        sum(8 / (8 + k) for k in range(100))
    )
    first, second = document["replays"]
    assert first["policy"] == "padadamp:rate=1"
    assert second["batch_sizes"] == pytest.approx([8 * 1.01**k for k in range(100)])
    assert document["recorded"]["steps"] == 100
    assert len(first["points"]) == 10


def test_a_person_reads_a_column_per_policy_and_that_the_loop_is_open(
    rightbatch, written
):
    ended = rightbatch("replay", written(), "--policy", "constant padadamp:rate=1")
    assert ended.code == 0
    for text in (
        "recorded",
        "padadamp",
        "Open loop",
        "constant would have asked for 8",
    ):
        assert text in ended.out


def test_a_report_is_written_and_written_again_from_the_result(
    rightbatch, written, tmp_path
):
    words = ("replay", written(), "--policy", "padadamp:rate=1")
    ended = rightbatch(*words, "--report", "r.html", "--json")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "replay-batch" in page
    (tmp_path / "r.json").write_text(ended.out)
    assert rightbatch("report", "r.json", "-o", "again.html").code == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    "policy",
    [
        "geodamp:delay=1",
        "adadamp:dwell=4",
        "noise-following",
        "radadamp:wait=9,dwell=3",
    ],
)
def test_a_policy_asked_about_its_own_run_answers_as_it_did(
    rightbatch, tmp_path, policy
):
    words = (*TRAIN, "--policy", policy, "--measure-every", 3)
    trained = rightbatch(*words, "--csv", "run.csv", "--json")
    (tmp_path / "run.json").write_text(trained.out)
    wishes = [row["wish"] for row in trained.document["trace"]]
    for source in ("run.json", "run.csv", "runs/tiny.sqlite"):
        words = ("--policy", policy, "--max-batch-size", 64, "--json")
        found = rightbatch("replay", source, *words).document
        asked = [row["batch_size"] for row in found["trace"]]
        np.testing.assert_allclose(asked, wishes, rtol=1e-9, err_msg=source)
        assert found["inputs"]["dataset_size"] == 256


def test_a_store_of_several_runs_asks_which(rightbatch, tmp_path):
    identity = StoreIdentity(workload="tiny", fingerprint={"parameters": 1})
    with RunStore(tmp_path / "a.sqlite", identity) as store:
        for seed in (0, 1):
            store.add_training(run_of([8] * 20, seed=seed))
            store.add_training(run_of([8, 16] * 9, policy="geodamp", seed=seed))
    words = ("replay", "a.sqlite", "--policy", "padadamp:rate=1")
    ended = rightbatch(*words)
    assert ended.code == 2
    assert "holds 4 training runs; choose one with --of and --seed" in ended.last_line
    assert "geodamp seed 1" in ended.last_line
    found = rightbatch(*words, "--of", "geodamp", "--seed", 1, "--json").document
    assert found["inputs"]["recorded_policy"] == "geodamp"
    assert len(found["trace"]) == 18
    ended = rightbatch(*words, "--of", "cabs")
    assert "holds no such training run" in ended.last_line


def test_a_store_without_training_says_what_makes_one(rightbatch, tmp_path):
    identity = StoreIdentity(workload="tiny", fingerprint={"parameters": 1})
    with RunStore(tmp_path / "a.sqlite", identity):
        pass
    ended = rightbatch("replay", "a.sqlite", "--policy", "constant")
    assert ended.code == 2
    assert "train makes them" in ended.last_line


def test_epochs_come_from_the_option_or_from_the_trace(rightbatch, written):
    words = ("--policy", "geodamp:delay=1,factor=2", "--json")
    told = rightbatch("replay", written(), "--dataset-size", 400, *words).document
    own = written("own.csv", epoch=lambda k: 8 * k / 400)
    found = rightbatch("replay", own, *words).document
    sizes = [row["batch_size"] for row in told["trace"]]
    assert sizes == [8] * 50 + [16] * 50
    assert [row["batch_size"] for row in found["trace"]] == sizes
    assert found["inputs"]["dataset_size"] == 400


def test_gaps_of_a_trace_are_said_and_count_all_their_examples(rightbatch, tmp_path):
    rows = ["step,examples,batch_size,loss"]
    rows += [f"{10 * k},{80 * k},8,{1 / k}" for k in range(1, 11)]
    (tmp_path / "gaps.csv").write_text("\n".join(rows))
    found = rightbatch("replay", "gaps.csv", "--policy", "constant", "--json").document
    assert found["summary"]["steps"] == 100
    assert found["recorded"]["steps"] == 100
    assert "the trace has gaps: 10 rows of 100 updates" in found["warnings"][0]


# Bad input ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "adadam"), "did you mean adadamp"),
        (("--policy", "noise-following"), "needs `noise_scale`, but the trace has no"),
        (("--policy", "noise-following"), "train --policy noise-following records it"),
        (("--policy", "adadamp-nn"), "has no grad_sq_norm and no grad_variance"),
        (("--policy", "radadamp"), "train --policy radadamp records it"),
        (("--policy", "geodamp"), "needs `epoch`, but the trace has no epoch. (give"),
        (("--policy", "inner-product-test"), "rightbatch.controller.Sensing"),
        (("--policy", "schedule:0:8 9:16"), "a column `tokens`, or count in unit="),
        (("--policy", "planned"), "planned needs seconds per step"),
        (("--policy", ","), "no policy in"),
        (
            ("--policy", "constant", "--max-batch-size", 4),
            "`max_batch_size` must be >= `initial_batch_size`, got 4 and 8",
        ),
        (("--policy", "constant", "--of", "cabs"), "is no store"),
        (("--policy", "constant", "--report", "no/such.html"), "there is no folder no"),
    ],
)
def test_bad_input_ends_with_2_and_a_clear_last_line(
    rightbatch, written, words, message
):
    ended = rightbatch("replay", written(), *words)
    assert ended.code == 2
    assert message in ended.last_line


def test_a_policy_that_needs_the_rate_of_a_trace_without_one_is_refused(
    rightbatch, written
):
    path = written(
        head="step,examples,batch_size,loss",
        grad_sq_norm=lambda _: 1.0,
        grad_variance=lambda _: 9.0,
    )
    ended = rightbatch("replay", path, "--policy", "cabs")
    assert ended.code == 2
    assert "needs `lr`, but the trace has no lr. (a column `lr`)" in ended.last_line


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.csv", None, "no.csv: cannot be read"),
        ("bad.json", "{", "bad.json is not JSON"),
        (
            "bad.json",
            '{"command": "fit"}',
            "must hold rows, or a document with `trace`",
        ),
        ("bad.json", "[]", "there are no rows"),
        ("bad.txt", "step", "must end in .csv or .json"),
        ("bad.csv", "step,examples,loss\n1,8,2.0", "row 1 has no batch_size"),
        (
            "bad.csv",
            "step,examples,batch_size,loss\n1,8,many,2.0",
            "`batch_size` must be a number, got 'many' in row 1",
        ),
        (
            "bad.csv",
            "step,examples,batch_size,loss\n2,16,8,2.0\n1,8,8,2.0",
            "`steps` must grow",
        ),
        ("bad.csv", "step,examples,batch_size,loss\n0,0,,2.0", "has no updates"),
    ],
)
def test_what_is_no_trace_is_refused(rightbatch, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    ended = rightbatch("replay", name, "--policy", "constant")
    assert ended.code == 2
    assert message in ended.last_line


def test_a_result_of_replay_is_no_recorded_run(rightbatch, written, tmp_path):
    ended = rightbatch("replay", written(), "--policy", "padadamp:rate=1", "--json")
    (tmp_path / "again.json").write_text(json.dumps(ended.document))
    again = rightbatch("replay", "again.json", "--policy", "constant")
    assert again.code == 2
    assert "again.json: is a replay, whose batches nobody took" in again.last_line


@pytest.mark.parametrize("kind", ["csv", "store"])
def test_replaying_never_loads_torch(written, tmp_path, kind):
    source = written().name
    if kind == "store":
        source = "a.sqlite"
        identity = StoreIdentity(workload="tiny", fingerprint={"parameters": 1})
        with RunStore(tmp_path / source, identity) as store:
            store.add_training(run_of([8] * 20))
    code = (
        "import sys\nfrom rightbatch.cli import main\n"
        f"words = ['replay', {source!r}, '--policy', 'constant', '--quiet']\n"
        "try:\n    main(words)\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True
    )
