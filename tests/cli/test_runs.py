"""``rightbatch runs``: listing, summary, comparison, merger; disks that are full."""

import resource
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from experiments.example_stores import IDENTITY, made_by_schema_1, run_of, written
from experiments.example_trainings import run_of as training_of

from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.store import RunStore
from rightbatch.experiments.tables import read_runs

TINY = Path(__file__).parents[1] / "tiny_workload.py"
SWEEP = (
    "sweep", f"{TINY}:tiny", "--batch-sizes", "32", "--lr", ".1,.5", "--seeds", 4,
    "--max-steps", 60, "--processes", 1, "--store", "tiny.sqlite",
)  # fmt: skip


def runs_of_law(phi, lr=0.1, seeds=3):
    return [
        run_of(size, lr, seed, round(100 * (1 + phi / size) * (1 + 0.01 * seed)))
        for size in (8, 32, 128, 512)
        for seed in range(seeds)
    ]


@pytest.fixture
def stores(tmp_path):
    momentum = replace(IDENTITY, workload="momentum")
    one = written(tmp_path / "one.sqlite", runs_of_law(50))
    return one, written(tmp_path / "two.sqlite", runs_of_law(200, lr=0.02), momentum)


@contextmanager
def files_of_at_most(num_bytes):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def steps_in(document):
    return [(r["batch_size"], r["seed"], r["steps"]) for r in document["runs"]]


def test_a_store_is_listed_with_every_run(rightbatch, stores):
    ended = rightbatch("runs", stores[0], "--json")
    assert ended.code == 0
    rows = ended.document["runs"]
    assert len(rows) == 12
    assert rows[0] == {
        "batch_size": 8, "lr": 0.1, "seed": 0, "target": 0.5, "steps": 725,
        "examples": 5800, "status": "reached", "workload": "tiny",
        "store": str(stores[0]), "session": 1, "crossing": "smoothed",
    }  # fmt: skip
    assert ended.document["inputs"]["workload"] == "tiny"


def test_several_stores_are_listed_together_and_told_apart(rightbatch, stores):
    ended = rightbatch("runs", *stores)
    assert ended.code == 0
    assert "momentum" in ended.out
    document = rightbatch("runs", *stores, "--json").document
    assert {row["workload"] for row in document["runs"]} == {"tiny", "momentum"}


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        (["--batch-size", "8,32"], 6),
        (["--batch-sizes", "8:512:x4"], 12),
        (["--seed", "0,2", "--batch-size", "8"], 2),
        (["--lr", ".05:.1:x2"], 12),
        (["--lr", ".2"], 0),
        (["--status", "reached"], 12),
        (["--status", "diverged,out_of_memory"], 0),
        (["--target", ".5"], 12),
        (["--target", ".4"], 0),
        (["--session", "2"], 0),
    ],
)
def test_filters_are_lists_and_all_must_agree(rightbatch, stores, filters, count):
    ended = rightbatch("runs", stores[0], "--json", *filters)
    assert ended.code == 0
    assert len(ended.document["runs"]) == count


def test_a_status_is_that_of_a_run_at_each_of_its_targets(rightbatch, tmp_path):
    easy = run_of(steps=20, target=1.0).crossings
    hard = run_of(steps=None, target=0.5).crossings
    path = written(
        tmp_path / "runs.sqlite",
        [run_of(crossings=easy + hard, status="not_reached")],
    )
    for status, steps in (("reached", 20), ("not_reached", None)):
        (row,) = rightbatch("runs", path, "--status", status, "--json").document["runs"]
        assert row["steps"] == steps


def test_a_run_that_was_run_on_is_listed_once_if_wanted(rightbatch, tmp_path):
    runs = [run_of(steps=None, budget=50), run_of(steps=99)]
    path = written(tmp_path / "runs.sqlite", runs)
    assert len(rightbatch("runs", path, "--json").document["runs"]) == 2
    (row,) = rightbatch("runs", path, "--unique", "--json").document["runs"]
    assert row["steps"] == 99


def test_of_runs_in_several_stores_of_a_workload_one_is_unique(rightbatch, tmp_path):
    other = replace(IDENTITY, fingerprint={"parameters": 11})
    paths: list[Path] = []
    for name, identity in (("here", IDENTITY), ("there", IDENTITY), ("new", other)):
        (tmp_path / name).mkdir()
        runs = [run_of(seed=0, steps=None), run_of(8, 0.10000001, 1, steps=70)]
        runs = [run_of(seed=0, steps=99)] if name == "there" else runs
        paths.append(written(tmp_path / name / "runs.sqlite", runs, identity))
    ended = rightbatch("runs", *paths, "--unique", "--csv", "all.csv", "--json")
    rows = [(Path(r["store"]).parent.name, r["steps"]) for r in ended.document["runs"]]
    assert rows == [("here", 70), ("there", 99), ("new", None), ("new", 70)]
    assert [row.run for row in read_runs(tmp_path / "all.csv")] == [
        "runs#1-1-b8-lr0.10000001-1",
        "runs#2-1-b8-lr0.1-0",
        "runs#3-1-b8-lr0.1-0",
        "runs#3-1-b8-lr0.10000001-1",
    ]


def test_crossings_of_two_definitions_are_kept_apart(rightbatch, tmp_path):
    first = Crossing(definition="first")
    smoothed = [run_of(seed=s, steps=100 + s) for s in range(3)]
    early = [run_of(seed=s, steps=50 + s, crossing=first) for s in range(3)]
    mixed = written(tmp_path / "mixed.sqlite", [*smoothed, *early])
    plain = written(tmp_path / "plain.sqlite", smoothed)
    ended = rightbatch("runs", mixed, "--unique", "--csv", "runs.csv")
    assert "first and smoothed, which a fit would mix" in ended.err
    assert ended.out.count("smoothed") == 3
    assert len({row.run for row in read_runs(tmp_path / "runs.csv")}) == 6
    ended = rightbatch("runs", mixed, "--summary")
    assert "tiny: steps to 0.5, smoothed" in ended.out
    assert "tiny: steps to 0.5, first" in ended.out
    ended = rightbatch("runs", "--compare", plain, mixed, "--json")
    (row,) = ended.document["comparison"]["at_best_lr"]
    assert row["ratio"]["value"] == pytest.approx(1)
    assert any(
        "mixed.sqlite has crossings read off in several ways" in warning
        and warning.endswith("smoothed is compared")
        for warning in ended.document["warnings"]
    )
    alone = written(tmp_path / "early.sqlite", early)
    ended = rightbatch("runs", "--compare", plain, alone)
    assert "read off differently: smoothed and first" in ended.err


def test_steps_on_the_held_out_set_are_listed_where_they_were_recorded(
    rightbatch, tmp_path
):
    trace = ((0, 2.5), (1, 0.6), (2, 0.4))
    first = Crossing(definition="first")
    runs = [
        run_of(seed=0, steps=1, crossing=first, held_out_trace=trace),
        run_of(seed=1, steps=1, crossing=first, held_out_trace=trace[:2]),
        run_of(seed=2, steps=1, crossing=first),
    ]
    path = written(tmp_path / "runs.sqlite", runs)
    ended = rightbatch("runs", path, "--json", "--csv", "runs.csv")
    rows = ended.document["runs"]
    assert [row.get("held_out_steps", "none") for row in rows] == [2, None, "none"]
    head, *lines = (tmp_path / "runs.csv").read_text().splitlines()
    place = head.split(",").index("held_out_steps")
    assert [line.split(",")[place] for line in lines] == ["2", "", ""]
    shown = rightbatch("runs", path).out
    assert "held out" in shown
    assert "held out" not in rightbatch("runs", path, "--seed", 2).out


def test_training_runs_are_listed_where_no_filter_is_of_sweeps(rightbatch, tmp_path):
    path = tmp_path / "runs.sqlite"
    with RunStore(path, IDENTITY) as store:
        store.add_training(training_of([8, 16]))
    ended = rightbatch("runs", path)
    assert "constant" in ended.out
    assert len(rightbatch("runs", path, "--json").document["trained"]) == 1
    ended = rightbatch("runs", path, "--batch-size", 8, "--json")
    assert ended.document["trained"] == []


def test_the_csv_is_the_table_that_fit_reads(rightbatch, stores, tmp_path):
    tokens = replace(IDENTITY, example_unit="token")
    path = written(tmp_path / "tokens.sqlite", runs_of_law(50), tokens)
    assert rightbatch("runs", path, "--csv", "runs.csv").code == 0
    rows = read_runs(tmp_path / "runs.csv")
    assert {row.example_unit for row in rows} == {"token"}
    assert len({row.run for row in rows}) == 12
    (fit,) = rightbatch("fit", "runs.csv", "--json").document["workloads"]
    assert fit["workload"] == "tiny"
    assert fit["example_unit"] == "token"
    low, high = (fit["critical_batch_size"][end] for end in ("low", "high"))
    assert low < 50 < high


def test_a_summary_has_one_row_per_batch_size_with_its_best_rate(rightbatch, tmp_path):
    runs = [*runs_of_law(50), *(run_of(8, 0.2, s, 50) for s in range(2))]
    path = written(tmp_path / "runs.sqlite", [*runs, run_of(8, 0.4, 0, None)])
    document = rightbatch("runs", path, "--summary", "--json").document
    assert [row["lr"] for row in document["summary"]] == [0.2, 0.1, 0.1, 0.1]
    assert document["summary"][0]["statuses"] == {"reached": 5, "not_reached": 1}
    ended = rightbatch("runs", path, "--summary")
    assert "tiny: steps to 0.5" in ended.out
    assert "5 reached, 1 not reached" in ended.out


def test_two_stores_are_compared_in_steps_and_critical_batch_sizes(rightbatch, stores):
    ended = rightbatch("runs", "--compare", *stores, "--json")
    assert ended.code == 0
    found = ended.document["comparison"]
    assert found["second"]["workload"] == "momentum"
    ratios = {row["batch_size"]: row["ratio"]["value"] for row in found["at_best_lr"]}
    assert ratios[8] == pytest.approx((1 + 200 / 8) / (1 + 50 / 8), rel=0.01)
    assert all(row["differs"] for row in found["at_best_lr"])
    assert found["at_same_lr"] == []
    ratio = found["critical_batch_size"]["ratio"]
    assert ratio["low"] < 4 < ratio["high"]
    shown = rightbatch("runs", "--compare", *stores)
    assert "Each at its best learning rate" in shown.out
    assert "second / first" in shown.out


def test_targets_that_differ_are_compared_with_a_warning(rightbatch, stores, tmp_path):
    other = replace(IDENTITY, fingerprint={"metric": "error", "direction": "min"})
    runs = [run_of(8, seed=s, steps=90 + s, target=0.25) for s in range(3)]
    path = written(tmp_path / "other.sqlite", runs, other)
    ended = rightbatch("runs", "--compare", stores[0], path)
    assert "the targets differ: 0.5 and 0.25" in ended.err
    assert "the metric of the targets differs: loss and error" in ended.err
    ended = rightbatch("runs", "--compare", *stores[:1], path, "--target", ".5,.25")
    assert ended.code == 0
    ended = rightbatch("runs", "--compare", stores[0], path, "--target", ".5")
    assert ended.code == 2
    assert "0.5 was not asked for; the targets are 0.25" in ended.last_line


def test_stores_are_merged_into_a_new_one(rightbatch, tmp_path):
    paths = [
        written(tmp_path / f"{seed}.sqlite", [run_of(seed=seed), run_of(seed=9)])
        for seed in range(2)
    ]
    ended = rightbatch("runs", "--merge", "all.sqlite", *paths, "--json")
    assert ended.code == 0
    assert ended.document["merged"]["num_runs"] == 3
    assert ended.document["merged"]["stores"][1]["num_equal"] == 1
    assert len(rightbatch("runs", "all.sqlite", "--json").document["runs"]) == 3
    ended = rightbatch("runs", "--merge", "more.sqlite", *paths)
    assert "more.sqlite: 3 runs" in ended.out


def test_runs_that_ended_differently_elsewhere_are_told(rightbatch, tmp_path):
    paths = [
        written(tmp_path / f"{steps}.sqlite", [run_of(steps=steps)])
        for steps in (90, 91)
    ]
    ended = rightbatch("runs", "--merge", "all.sqlite", *paths)
    assert "1 settings and seeds ended differently" in ended.err


def test_a_store_of_the_first_schema_is_listed_and_not_changed(rightbatch, tmp_path):
    path = tmp_path / "old.sqlite"
    made_by_schema_1(path)
    before = path.read_bytes()
    assert len(rightbatch("runs", path, "--json").document["runs"]) == 3
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.sqlite"], "nowhere.sqlite does not exist"),
        (["text.csv"], "text.csv is not a database"),
        (["one.sqlite", "--batch-size", "8.5"], "--batch-size: must be whole and >= 1"),
        (["one.sqlite", "--seed", "-1"], "--seed: must be whole and >= 0"),
        (["one.sqlite", "--lr", "0"], "--lr: must be positive"),
        (["one.sqlite", "--status", "lost"], "`status` cannot be 'lost'"),
        (["one.sqlite", "--csv", "no/x.csv"], "--csv: there is no folder no"),
        (["one.sqlite", "--compare"], "--compare takes two stores, got 1"),
        (["one.sqlite", "--merge", "x.sqlite"], "needs two stores or more"),
        (
            ["one.sqlite", "two.sqlite", "--merge", "x.sqlite"],
            "two.sqlite belongs to workload 'momentum', and one.sqlite to 'tiny'",
        ),
        (
            ["one.sqlite", "two.sqlite", "--merge", "one.sqlite"],
            "one.sqlite is there already; nothing is overwritten",
        ),
        (
            ["one.sqlite", "two.sqlite", "--merge", "x.sqlite", "--seed", "1"],
            "--merge takes whole stores",
        ),
        (
            ["one.sqlite", "two.sqlite", "--compare", "--summary"],
            "--summary, --compare and --merge go one at a time",
        ),
        (["one.sqlite", "--summary", "--status", "reached"], "would be too low"),
        (["one.sqlite", "--summary", "--target", ".3"], "0.3 was not asked for"),
        (["one.sqlite", "--summary", "--level", "90"], "write 0.9"),
        (
            ["one.sqlite", "two.sqlite", "--compare", "--target", "1,2,3"],
            "one --target, or one for each store, got 3",
        ),
        (
            ["one.sqlite", "two.sqlite", "--compare", "--lr", ".1"],
            "--compare finds no run in two.sqlite",
        ),
        (
            ["one.sqlite", "tokens.sqlite", "--compare"],
            "one.sqlite counts examples, tokens.sqlite tokens",
        ),
    ],
)
def test_bad_input_ends_with_code_2_and_says_what_is_wrong(
    rightbatch, stores, tmp_path, words, message
):
    (tmp_path / "text.csv").write_text("batch_size,steps\n" * 100)
    tokens = replace(IDENTITY, example_unit="token")
    written(tmp_path / "tokens.sqlite", runs_of_law(50), tokens)
    ended = rightbatch("runs", *words)
    assert ended.code == 2
    assert message in ended.last_line


# Disks that are full -----------------------------------------------------------------


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_says_the_way_out_and_goes_on_losing_nothing(
    rightbatch, tmp_path
):
    with files_of_at_most(90_000):
        ended = rightbatch(*SWEEP)
    assert ended.code == 1
    assert "what was stored is kept" in ended.last_line
    assert ended.last_line.endswith("then run the same command with --resume)")
    kept = rightbatch("runs", "tiny.sqlite", "--json").document
    assert 0 < len(kept["runs"]) < 8
    with RunStore(tmp_path / "tiny.sqlite") as store:
        before = store.contents()["runs"]

    resumed = rightbatch(*SWEEP, "--resume", "--json")
    assert resumed.code == 0
    with RunStore(tmp_path / "tiny.sqlite") as store:
        assert store.contents()["runs"][: len(before)] == before
        assert len(store.runs()) == 8
    whole = rightbatch(*SWEEP[:-1], "whole.sqlite", "--json")
    assert steps_in(resumed.document) == steps_in(whole.document)


def test_a_csv_on_a_full_disk_is_code_1_and_the_older_one_is_kept(rightbatch, stores):
    Path("runs.csv").write_text("mine")
    with files_of_at_most(500):
        # To read a store takes no room.
        listed = rightbatch("runs", stores[0], "--json")
        ended = rightbatch("runs", stores[0], "--csv", "runs.csv")
    assert len(listed.document["runs"]) == 12
    assert ended.code == 1
    assert "runs.csv: could not be written: File too large" in ended.last_line
    assert Path("runs.csv").read_text() == "mine"


def test_a_merger_on_a_full_disk_is_code_1_and_leaves_nothing(rightbatch, tmp_path):
    long = tuple((step, 0.1) for step in range(5000))
    paths = [
        written(tmp_path / f"{seed}.sqlite", [run_of(seed=seed, trace=long)])
        for seed in range(2)
    ]
    with files_of_at_most(70_000):
        ended = rightbatch("runs", "--merge", "all.sqlite", *paths)
    assert ended.code == 1
    assert "all.sqlite could not be written, and there is none" in ended.last_line
    assert not list(tmp_path.glob("*all.sqlite*"))
