"""Commands that need no training: results, exit codes, last lines."""

import json

import pytest

from rightbatch.cli.output import to_plain

FIT_KEYS = {
    "workload",
    "law",
    "status",
    "min_steps",
    "min_examples",
    "critical_batch_size",
    "median_relative_error",
    "leave_one_out_error",
    "num_batch_sizes",
    "warnings",
}
PLAN_KEYS = {
    "num_replicas",
    "batch_size",
    "lr",
    "micro_batch_size",
    "accumulation_steps",
    "steps",
    "seconds",
    "speedup",
    "limited_by",
    "within_5_percent",
}


def test_help_lists_every_command(rightbatch):
    ended = rightbatch("--help")
    assert ended.code == 0
    names = "plan fit time sweep runs report workloads cluster transfer"
    for name in names.split():
        assert name in ended.out


def test_version_is_the_package_s(rightbatch):
    import rightbatch as package

    assert rightbatch("--version").out.strip() == package.__version__


def test_fit_prints_the_stable_keys(rightbatch, tables):
    ended = rightbatch("fit", tables[0], "--json")
    assert ended.code == 0
    assert ended.document["schema"] == 1
    assert ended.document["command"] == "fit"
    (entry,) = ended.document["workloads"]
    assert entry.keys() >= FIT_KEYS
    assert entry["status"] == "ok"
    assert entry["critical_batch_size"]["value"] == pytest.approx(64, rel=0.05)
    assert [tuned["lr"] for tuned in entry["lrs"]] == [0.1] * 5


def test_fit_for_a_person_says_what_to_run_next(rightbatch, tables):
    ended = rightbatch("fit", tables[0])
    assert "To narrow the interval, run batch size" in ended.out
    assert "warning: RUNS: The best learning rate" in ended.out


def test_fit_writes_a_report(rightbatch, tables, tmp_path):
    rightbatch("fit", tables[0], "--report", "fit.html")
    assert "<html" in (tmp_path / "fit.html").read_text(encoding="utf-8")


def test_two_workloads_in_one_table_are_fitted_apart(rightbatch, tmp_path):
    rows = [
        f"{name},{b},{s + 800 / b}"
        for name, s in (("a", 10), ("b", 50))
        for b in (2, 8, 32, 128)
    ]
    table = tmp_path / "two.csv"
    table.write_text("\n".join(["workload,batch_size,steps", *rows]))
    found = rightbatch("fit", table, "--json").document["workloads"]
    assert [entry["workload"] for entry in found] == ["a", "b"]
    assert found[1]["min_steps"]["value"] == pytest.approx(50, rel=1e-6)


def test_a_plan_from_tables_is_the_closed_form(rightbatch, tables):
    runs, times = tables
    ended = rightbatch(
        "plan", "--runs", runs, "--times", times, "--comm-seconds", 0.02,
        "--replicas", "1,4", "--json",
    )  # fmt: skip
    assert ended.code == 0
    one, four = ended.document["optimal"]
    assert one.keys() >= PLAN_KEYS
    # eq. 9 with the overhead in delta: sqrt(phi (o + delta) P / gamma), phi = 64.
    assert one["batch_size"] == pytest.approx((64 * 0.01 / 1e-4) ** 0.5, rel=0.03)
    assert four["batch_size"] == pytest.approx((64 * 0.03 * 4 / 1e-4) ** 0.5, rel=0.03)
    assert one["lr"] == 0.1
    assert one["speedup"] == pytest.approx(1)
    assert one["limited_by"] == "balance"
    low, high = one["within_5_percent"]
    assert low < one["batch_size"] < high
    assert ended.document["convergence"][0]["lrs"][0]["lr"] == 0.1
    assert "sentence" in ended.document


def test_a_plan_from_tables_writes_its_report_and_table(rightbatch, tables, tmp_path):
    runs, times = tables
    ended = rightbatch("plan", "--runs", runs, "--times", times, "--replicas", "1,2")
    assert ended.code == 0
    assert "Train at 80" in ended.out
    assert "communication assumed to take no time" in " ".join(ended.out.split())
    assert (tmp_path / "report.html").exists()


def test_times_of_several_replicas_tell_the_communication(rightbatch, tables, tmp_path):
    times = tmp_path / "both.csv"
    rows = [
        f"{b},{p},{0.01 + 1e-4 * b / p + (p > 1) * 0.02}"
        for p in (1, 2, 8)
        for b in (8, 32, 128, 512)
    ]
    times.write_text("\n".join(["batch_size,num_replicas,seconds", *rows]))
    ended = rightbatch("plan", "--runs", tables[0], "--times", times, "--json")
    communication = ended.document["step_time"]["communication"]
    assert communication["kind"] == "constant"
    assert communication["seconds"] == pytest.approx(0.02, rel=0.05)


def test_a_negative_floor_plans_for_the_largest_batch_run(rightbatch, tables, tmp_path):
    runs = tmp_path / "negative.csv"
    rows = [f"{b},{(2000 / b - 10) * w}" for b in (4, 16, 64) for w in (0.99, 1, 1.01)]
    runs.write_text("\n".join(["batch_size,steps", *rows]))
    ended = rightbatch(
        "plan", "--runs", runs, "--times", tables[1], "--replicas", "1", "--json"
    )
    assert ended.code == 0
    (entry,) = ended.document["optimal"]
    assert entry["batch_size"] == 64
    assert ended.document["convergence"][0]["status"] == "unidentifiable"
    assert any("lower bound" in text for text in ended.document["warnings"])


def test_a_report_is_made_again_from_a_json_result(rightbatch, tables, tmp_path):
    runs, times = tables
    ended = rightbatch("plan", "--runs", runs, "--times", times, "--json")
    (tmp_path / "result.json").write_text(ended.out)
    again = rightbatch("report", "result.json", "--output", "again.html")
    assert again.code == 0
    assert "Train at" in (tmp_path / "again.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "missing.csv"], "missing.csv: cannot be read: No such file"),
        (["fit", "empty.csv"], "empty.csv: is empty"),
        (["fit", "one.csv"], "one.csv: fit: needs two batch sizes or more"),
        (["fit", "text.csv"], "row 3, column steps must be a positive number"),
        (["fit", "good.csv", "--law", "kne"], "did you mean knee?"),
        (["fit"], "Missing argument"),
        (["fitt", "good.csv"], "No such command 'fitt'"),
        (["fit", "good.csv", "--nope"], "No such option: --nope"),
        (["plan", "--runs", "good.csv"], "--runs and --times go together"),
        (["plan", "--runs", "good.csv", "--times", "missing.csv"], "missing.csv:"),
        (["plan", "digits-mpl"], "did you mean digits-mlp or"),
        (["plan", "--replicas", "0"], "--replicas: must be whole and >= 1, got 0"),
        (["plan", "--batch-sizes", "-8"], "--batch-sizes: must be whole and >= 1"),
        (["plan", "--batch-sizes", "8,100000"], "is above the 1438 examples"),
        (["plan", "--lr", "0"], "--lr: must be positive, got 0"),
        (["plan", "--target", "low"], "--target: 'low' is not a number"),
        (["plan", "--seeds", "0"], "'--seeds'"),
        (["plan", "--crossing", "last"], "cannot be 'last'"),
        (["plan", "--device", "tpu"], "`device` cannot be 'tpu'"),
        (["plan", "--bandwidth", "-1"], "`--bandwidth` must be positive, got -1"),
        (["plan", "--latency", "1"], "--latency: needs --bandwidth"),
        (["plan", "--bandwidth", "1", "--comm-seconds", "1"], "give one of"),
        (["plan", "mnist-lenet-small"], "train-images-idx3-ubyte"),
        (["time", "--batch-sizes", "4096"], "4096 is above the 1438 examples"),
        (["sweep", "nowhere.py:make"], "nowhere.py was not found"),
        (["runs", "missing.sqlite"], "missing.sqlite"),
        (["report", "missing.json"], "missing.json: cannot be read"),
        (["report", "good.csv"], "neither JSON nor a store"),
    ],
)
def test_bad_input_ends_with_a_clear_last_line_and_code_2(
    rightbatch, tmp_path, monkeypatch, words, message
):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "one.csv").write_text("batch_size,steps\n8,100\n8,110\n")
    (tmp_path / "text.csv").write_text("batch_size,steps\n8,100\n16,many\n")
    (tmp_path / "good.csv").write_text("batch_size,steps\n8,100\n64,30\n512,20\n")
    ended = rightbatch(*words)
    assert ended.code == 2
    assert message in ended.last_line
    assert "Traceback" not in ended.err


def test_a_folder_that_cannot_be_written_is_found_before_measuring(rightbatch):
    ended = rightbatch("plan", "--report", "/proc/nowhere/report.html")
    assert ended.code == 2
    assert "--report: there is no folder /proc/nowhere" in ended.last_line


def test_under_json_a_failure_is_one_document_too(rightbatch):
    ended = rightbatch("fit", "missing.csv", "--json")
    assert ended.code == 2
    assert ended.document["command"] == "fit"
    assert ended.document["error"]["exit_code"] == 2
    assert "missing.csv" in ended.document["error"]["message"]


def test_a_bug_of_ours_ends_without_a_traceback(rightbatch, monkeypatch, tmp_path):
    def broken(*_, **__):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("rightbatch.experiments.tables.read_runs", broken)
    ended = rightbatch("fit", "x.csv")
    assert ended.code == 1
    assert "ZeroDivisionError: oops" in ended.last_line
    assert "report this bug" in ended.last_line


def test_workloads_lists_parameters_and_data(rightbatch, monkeypatch, tmp_path):
    monkeypatch.delenv("RIGHTBATCH_DATA", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    ended = rightbatch("workloads", "--json")
    found = {entry["name"]: entry for entry in ended.document["workloads"]}
    assert found["digits-mlp"]["parameters"] == 4810
    assert found["digits-mlp"]["data"] == "bundled"
    assert found["mnist-lenet-small"]["parameters"] == 43_158
    assert found["mnist-lenet-small"]["data"] == "missing"


def test_numpy_and_infinities_become_plain_json():
    import numpy as np

    plain = to_plain({"a": np.float64(1), "b": np.arange(2), "c": (np.inf, None)})
    assert json.loads(json.dumps(plain, allow_nan=False)) == {
        "a": 1.0,
        "b": [0, 1],
        "c": [None, None],
    }
