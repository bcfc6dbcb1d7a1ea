"""``plan --runs --times``: what it says, and what it refuses."""

import subprocess
import sys

import pytest

LARGE = [
    "batch_size,steps",
    *(f"{b},{1e5 / b - 60 + r}" for b in (8, 32, 128, 512) for r in (-0.5, 0.5)),
]


def plan(rightbatch, tables, *words):
    return rightbatch("plan", "--runs", tables[0], "--times", tables[1], *words)


def test_batch_sizes_are_compared_with_the_recommended_one(rightbatch, tables):
    words = ["--compare", "64,256", "--replicas", "1,100"]
    found = plan(rightbatch, tables, *words, "--json").document
    one, other, many = found["comparisons"]
    assert (one["batch_size"], other["batch_size"]) == (64, 256)
    # 64 gives 100 replicas no example each.
    assert (many["batch_size"], many["num_replicas"]) == (256, 100)
    assert one["than"] == found["optimal"][0]["batch_size"]
    assert one["regret"]["low"] <= one["regret"]["value"] <= one["regret"]["high"]
    assert other["probability_faster"]["value"] == 0
    assert other["regret"]["value"] > one["regret"]["value"]
    shown = plan(rightbatch, tables, *words).out
    assert "Compared with the recommended batch size" in shown
    assert "beats" in shown


def test_every_number_of_replicas_has_intervals_and_a_curve_of_regret(
    rightbatch, tables
):
    found = plan(rightbatch, tables, "--replicas", "1,4", "--json").document
    for entry, curve in zip(found["optimal"], found["seconds_to_target"], strict=True):
        assert entry["speedup_interval"]["value"] == entry["speedup"]
        assert entry["batch_size_is_lower_bound"] is False
        assert 0 <= entry["probability_within_5_percent"]["value"] <= 1
        regret = curve["regret_curve"]
        assert len(regret["batch_size"]) == len(regret["high"])
        assert min(regret["value"]) < 0.01


def test_the_scalings_come_with_their_numbers(rightbatch, tables):
    words = ["--replicas", "1,4", "--comm-seconds", ".02", "--json"]
    found = plan(rightbatch, tables, *words).document["scaling"]
    # gamma 1e-4, o + delta .03, phi 64, no knee below one example.
    assert found["optimal_becomes_weak_at"] == pytest.approx(64 * 0.03 / 1e-4, rel=0.1)
    assert found["limit_seconds"] == pytest.approx(100 * 0.0301, rel=0.05)
    assert found["largest_useful_replicas"]["tolerance"] == 0.05
    best = found["optimal"]
    pairs = zip(
        best["batch_sizes_low"],
        best["batch_sizes"],
        best["batch_sizes_high"],
        strict=True,
    )
    assert all(low <= size <= high for low, size, high in pairs)


def test_memory_and_candidates_limit_a_plan(rightbatch, tables):
    words = ["--max-micro-batch-size", "32", "--max-accumulation-steps", "1"]
    (entry,) = plan(
        rightbatch, tables, *words, "--replicas", "1", "--json"
    ).document["optimal"]  # fmt: skip
    assert (entry["batch_size"], entry["limited_by"]) == (32, "memory")
    for asked in ("powers-of-two", "32:2048:x2"):
        words = ["--candidates", asked, "--replicas", "1,4", "--json"]
        found = plan(rightbatch, tables, *words).document["optimal"]
        assert [entry["batch_size"] for entry in found][0] in {64, 128}


def test_checks_and_overlap_change_the_time_of_a_plan(rightbatch, tables):
    words = ["--replicas", "4", "--json", "--comm", "constant:20ms"]
    plain = plan(rightbatch, tables, *words).document["optimal"][0]
    hidden = plan(rightbatch, tables, *words, "--overlap", "inf").document["optimal"][0]
    checks = ["--evaluate-every", "10", "--evaluate-examples", "1000"]
    checked = plan(rightbatch, tables, *words, *checks).document["optimal"][0]
    assert hidden["seconds"] < plain["seconds"] < checked["seconds"]


def test_a_workload_is_chosen_of_several(rightbatch, tables, tmp_path):
    rows = [
        f"{name},{b},{s + 6400 / b}"
        for name, s in (("one", 100), ("two", 300))
        for b in (4, 16, 64, 256)
    ]
    runs = tmp_path / "several.csv"
    runs.write_text("\n".join(["workload,batch_size,steps", *rows]))
    pair = (runs, tables[1])
    mixed = plan(rightbatch, pair)
    assert mixed.code == 2
    assert "holds 2 workloads ('one', 'two')" in mixed.last_line
    assert "--workload one" in mixed.last_line
    chosen = plan(rightbatch, pair, "--workload", "two", "--json").document
    assert chosen["convergence"][0]["workload"] == "two"
    assert chosen["convergence"][0]["min_steps"]["value"] == pytest.approx(300)
    wrong = plan(rightbatch, pair, "--workload", "tow")
    assert wrong.code == 2
    assert "did you mean two" in wrong.last_line


def test_without_least_steps_the_plan_is_a_lower_bound_everywhere(
    rightbatch, tables, tmp_path
):
    runs = tmp_path / "large.csv"
    runs.write_text("\n".join(LARGE))
    found = plan(rightbatch, (runs, tables[1]), "--replicas", "1,4", "--json").document
    for entry in found["optimal"]:
        assert entry["batch_size"] == 512
        assert entry["batch_size_is_lower_bound"] is True
        assert entry["batch_size_interval"]["high"] is None
        assert entry["regret"]["high"] is None
    assert found["scaling"]["optimal_becomes_weak_at"] is None
    assert found["scaling"]["limit_seconds"] is None
    shown = plan(rightbatch, (runs, tables[1]), "--replicas", "1").out
    assert "≥ 512" in shown
    assert "or more" in shown


def test_losses_are_read_where_they_cross_the_target(rightbatch, tables, tmp_path):
    lines = ["batch_size,steps,loss"]
    for batch in (16, 64, 256, 1024):
        for steps in (50, 100, 200, 400, 800, 1600):
            lines.append(f"{batch},{steps},{1 + (100 + 6400 / batch) / steps}")
    runs = tmp_path / "losses.csv"
    runs.write_text("\n".join(lines))
    words = ["--target", "1.5", "--replicas", "1", "--json"]
    found = plan(rightbatch, (runs, tables[1]), *words).document
    assert found["inputs"]["targets"] == [1.5]
    assert found["convergence"][0]["critical_batch_size"]["value"] == pytest.approx(
        64, rel=0.2
    )


@pytest.mark.parametrize(
    ("runs_unit", "times_unit", "words"),
    [
        ("token", "example", "counts batch sizes in examples"),
        ("token", "token", None),
        ("token", "", "taken as tokens"),
    ],
)
def test_units_that_differ_are_refused(
    rightbatch, tables, tmp_path, runs_unit, times_unit, words
):
    runs, times = tmp_path / "u.csv", tmp_path / "t.csv"
    head, *rows = tables[0].read_text().splitlines()
    runs.write_text("\n".join([head + ",unit", *(f"{r},{runs_unit}" for r in rows)]))
    head, *rows = tables[1].read_text().splitlines()
    times.write_text("\n".join([head + ",unit", *(f"{r},{times_unit}" for r in rows)]))
    ended = plan(rightbatch, (runs, times), "--replicas", "1", "--json")
    if words is None:
        assert ended.code == 0
        assert not any("taken as" in w for w in ended.document["warnings"])
    elif times_unit:
        assert ended.code == 2
        assert words in ended.last_line
    else:
        assert any(words in warning for warning in ended.document["warnings"])


def test_batches_that_were_never_timed_raise_a_question(rightbatch, tables, tmp_path):
    runs = tmp_path / "tokens.csv"
    rows = [f"{b * 5000},{100 + 6400 / b}" for b in (4, 16, 64, 256)]
    runs.write_text("\n".join(["batch_size,steps", *rows]))
    found = plan(rightbatch, (runs, tables[1]), "--replicas", "1", "--json").document
    assert any("do both tables count" in warning for warning in found["warnings"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--compare", "0"], "--compare: must be whole and >= 1"),
        (["--compare", "2", "--replicas", "4"], "--compare: 2 does not give each of 4"),
        (
            ["--compare", "512", "--max-batch-size", "256"],
            "--compare: 512 is above --max-batch-size 256",
        ),
        (["--max-accumulation-steps", "2"], "give --max-micro-batch-size"),
        (["--candidates", "many"], "--candidates: 'many' is not a number"),
        (["--candidates", "2", "--replicas", "4"], "no batch size within the limits"),
        (["--workload", "other"], "has no workload 'other'"),
        (["--target", ".1"], "--target needs a column loss or target"),
        (["--target", ".1,.2"], "--target: one at a time with --runs"),
        (["--law", "line"], "`law` cannot be 'line'"),
    ],
)
def test_options_that_cannot_be_are_refused(rightbatch, tables, options, words):
    ended = plan(rightbatch, tables, *options)
    assert ended.code == 2
    assert words in ended.last_line


def test_the_option_workload_is_for_tables(rightbatch):
    ended = rightbatch("plan", "--workload", "digits-mlp")
    assert ended.code == 2
    assert "--workload chooses among those of --runs" in ended.last_line


def test_a_plan_from_tables_never_loads_torch(tables, tmp_path):
    script = (
        "import sys\n"
        "from rightbatch.cli import main\n"
        "try:\n"
        f"    main(['plan', '--runs', {str(tables[0])!r}, '--times', "
        f"{str(tables[1])!r}, '--json', '--compare', '64'])\n"
        "except SystemExit as ended:\n"
        "    assert not ended.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def losses_of(tmp_path):
    """Write losses of a three-term law: L = 1 + 8/B + 100/S."""
    lines = ["batch_size,steps,loss"]
    for batch in (16, 64, 256, 1024):
        for place, steps in enumerate((50, 100, 200, 400, 800, 1600)):
            wobble = 1 + 0.002 * (-1) ** (place + batch // 16)
            lines.append(f"{batch},{steps},{(1 + 8 / batch + 100 / steps) * wobble}")
    path = tmp_path / "curves.csv"
    path.write_text("\n".join(lines))
    return path


def test_the_law_of_the_loss_plans_above_its_feasibility_floor(
    rightbatch, tables, tmp_path
):
    pair = (losses_of(tmp_path), tables[1])
    words = ["--law", "loss", "--target", "1.4", "--replicas", "1", "--json"]
    found = plan(rightbatch, pair, *words).document
    (fit,) = found["convergence"]
    assert fit["law"] == "loss"
    assert fit["min_batch_size"]["value"] == pytest.approx(8 / 0.4, rel=0.2)
    # B_opt = 2 B_min = 40, at which 500 steps are taken.
    assert fit["least_examples"]["value"] == pytest.approx(20_000, rel=0.1)
    assert fit["min_examples"]["value"] is None
    (entry,) = found["optimal"]
    assert entry["batch_size"] > fit["min_batch_size"]["value"]
    # S(B) = 100/(.4 - 8/B), T = .01 + 1e-4 B: least at 20 + sqrt(20 * 120) = 69.
    assert entry["batch_size"] == pytest.approx(69, rel=0.15)
    assert entry["steps"] == pytest.approx(
        100 / (0.4 - 8 / entry["batch_size"]), rel=0.1
    )
    assert None not in found["seconds_to_target"][0]["curve"]["seconds"]


def test_the_law_of_the_loss_needs_a_target_and_losses(rightbatch, tables, tmp_path):
    no_target = plan(rightbatch, (losses_of(tmp_path), tables[1]), "--law", "loss")
    assert no_target.code == 2
    assert "--law loss needs the loss to reach" in no_target.last_line
    no_losses = plan(rightbatch, tables, "--law", "loss", "--target", "1")
    assert no_losses.code == 2
    assert "has no column 'loss'" in no_losses.last_line


def test_a_floor_is_planned_above(rightbatch, tables, tmp_path):
    runs = tmp_path / "floor.csv"
    rows = [f"{b},{400 + 2000 / (b - 1.5)}" for b in (2, 4, 8, 16, 64, 256)]
    runs.write_text("\n".join(["batch_size,steps", *rows]))
    words = ["--law", "floor", "--replicas", "1,2", "--json"]
    found = plan(rightbatch, (runs, tables[1]), *words).document
    assert found["convergence"][0]["law"] == "floor"
    assert found["optimal"][0]["batch_size"] > 2


def test_runs_of_a_loss_table_are_repeats_of_the_plan(rightbatch, tables, tmp_path):
    path = tmp_path / "named.csv"
    rows = [
        f"{b},{s},{run},{1 + (100 + 6400 / b) * off / s}"
        for b in (8, 32, 128, 512)
        for run, off in (("warm", 0.98), ("cold", 1.03))
        for s in (50, 200, 800, 3200, 12800)
    ]
    path.write_text("\n".join(["batch_size,steps,run,loss", *rows]))
    words = ("--target", "1.5", "--replicas", "1", "--json")
    found = plan(rightbatch, (path, tables[1]), *words).document
    assert [run["run"] for run in found["runs"]] == ["warm", "cold"] * 4
    (fit,) = found["convergence"]
    assert {point["num_runs"] for point in fit["points"]} == {2}


def times_of(path, replicas, rows):
    """Write seconds of gamma .001, M_T 16, o .004 and delta .02 past one replica."""
    path.write_text(
        "\n".join(
            ["batch_size,num_replicas,seconds"]
            + [
                f"{b},{p},{0.004 + 0.001 * max(b / p, 16) + 0.02 * (p > 1)}"
                for b in rows
                for p in replicas
            ]
        )
    )
    return path


def few_batches(tmp_path, law=lambda b: 100 + 3200 / b):
    path = tmp_path / "few.csv"
    rows = [f"{b},{law(b) * (1 + w)}" for b in (8, 32, 128, 512) for w in (-0.01, 0.01)]
    path.write_text("\n".join(["batch_size,steps", *rows]))
    return path


def test_times_of_all_replicas_tell_where_a_step_stops_falling(rightbatch, tmp_path):
    times = times_of(tmp_path / "t.csv", (1, 2, 4, 8, 16), (64, 256, 1024))
    words = ["--replicas", "1,2,8", "--json"]
    found = plan(rightbatch, (few_batches(tmp_path), times), *words).document
    pairs = zip(found["optimal"], found["optimal_measured"], strict=True)
    for fitted, measured in pairs:
        assert measured["batch_size"] == pytest.approx(fitted["batch_size"], rel=0.3)
        assert measured["seconds"] == pytest.approx(fitted["seconds"], rel=0.05)
    assert found["optimal_measured"][0]["batch_size"] <= 20
    assert not any("disagree" in warning for warning in found["warnings"])


def test_where_the_times_begin_is_not_taken_for_the_best_batch(rightbatch, tmp_path):
    times = times_of(tmp_path / "t.csv", (1,), (64, 128, 256, 1024))
    words = ["--replicas", "1,4", "--comm", "none"]
    pair = (few_batches(tmp_path), times)
    found = plan(rightbatch, pair, *words, "--json").document
    one, four = found["optimal_measured"]
    assert (one["batch_size"], four["batch_size"]) == (64, 256)
    assert one["batch_size_interval"]["low"] is None
    assert any("time a local batch size of 32" in said for said in one["warnings"])
    (begin,) = [w for w in found["warnings"] if "step times begin" in w]
    assert "local batch sizes of 32 too" in begin
    assert not any("trust the measured" in warning for warning in found["warnings"])
    assert plan(rightbatch, pair, *words).code == 0


def stopped_early(tmp_path):
    """Write losses of 1.8 + 6/B + 40/S^.5 until runs that all stop at 6400 steps."""
    path = tmp_path / "stopped.csv"
    rows = [
        f"{b},{s},{1.8 + 6 / b + 40 / s**0.5}"
        for b in (8, 32, 128, 512)
        for s in (100, 400, 1600, 6400)
    ]
    path.write_text("\n".join(["batch_size,steps,loss", *rows]))
    return path


def test_runs_that_never_got_there_choose_the_law_of_the_loss(
    rightbatch, tables, tmp_path
):
    pair = (stopped_early(tmp_path), tables[1])
    words = ["--target", "2.4", "--replicas", "1", "--json"]
    # After 6400 steps the losses are 3.05, 2.4875, 2.347 and 2.312.
    found = plan(rightbatch, pair, *words).document
    assert found["convergence"][0]["law"] == "loss"
    assert found["optimal"][0]["batch_size"] > 32
    assert any("law of the loss" in warning for warning in found["warnings"])
    assert found["limits"]["min_batch_size"] == 33
    # The steps counted at two batch sizes alone, but never below those that missed.
    told = plan(rightbatch, pair, *words, "--law", "inverse").document
    assert told["convergence"][0]["law"] == "inverse"
    assert told["optimal"][0]["batch_size"] > 32


def test_a_batch_that_never_got_there_is_not_recommended(rightbatch, tables, tmp_path):
    path = tmp_path / "missed.csv"
    rows = [f"{b},{100 + 6400 / b},reached" for b in (128, 256, 512, 1024)]
    path.write_text(
        "\n".join(["batch_size,steps,status", "96,,not_reached", "8,,diverged", *rows])
    )
    pair = (path, tables[1])
    found = plan(rightbatch, pair, "--replicas", "1,4", "--json").document
    assert found["limits"]["min_batch_size"] == 97
    assert [entry["batch_size"] for entry in found["optimal"]][0] == 97
    (warning,) = [w for w in found["warnings"] if "the plan stops at" in w]
    assert "on 1" in warning
    assert "batch size 96 or below" in warning
    ended = plan(rightbatch, pair, "--max-batch-size", "64", "--replicas", "1")
    assert ended.code == 3
    assert "no run reached the target at batch size 96" in ended.last_line


def test_a_target_below_the_least_loss_says_why(rightbatch, tables, tmp_path):
    pair = (stopped_early(tmp_path), tables[1])
    ended = plan(rightbatch, pair, "--law", "loss", "--target", "1.5")
    assert ended.code == 3
    assert "lies below the irreducible loss 1.8" in ended.last_line
    assert "plan for a --target above 1.8" in ended.last_line


def test_runs_in_millions_raise_a_question_too(rightbatch, tables, tmp_path):
    runs = tmp_path / "millions.csv"
    rows = [f"{b / 1e6},{100 + 6400 / b}" for b in (4, 16, 64, 256)]
    runs.write_text("\n".join(["batch_size,steps", *rows]))
    for words in ([], ["--unit", "token"]):
        more = [*words, "--replicas", "1", "--json"]
        found = plan(rightbatch, (runs, tables[1]), *more).document
        assert "is below the smallest timed" in " ".join(found["warnings"])


def test_sequences_made_tokens_need_times_that_name_their_unit(rightbatch, tables):
    ended = plan(rightbatch, tables, "--tokens-per-example", "512")
    assert ended.code == 2
    assert "does not say what its batch sizes count" in ended.last_line
    assert "column unit that says token" in ended.last_line


def test_a_program_can_tell_replicas_left_idle(rightbatch, tables):
    words = ["--replicas", "1,2", "--comm", "constant:10", "--json"]
    found = plan(rightbatch, tables, *words).document
    one, two = found["optimal"]
    assert one["batch_size_with_idle"] is one["seconds_with_idle"] is None
    assert two["idle_replicas"] == 1
    assert two["batch_size_with_idle"] == one["batch_size"]
    assert two["seconds_with_idle"] == one["seconds"] < two["seconds"]
    (said,) = [w for w in found["warnings"] if "slower than 1" in w]
    assert f"train 2 at {one['batch_size']}" in said


@pytest.mark.parametrize(
    "words",
    [
        ["--batch-sizes", "8,16"],
        ["--seeds", "3"],
        ["--lr", ".1"],
        ["--max-steps", "100"],
        ["--store", "runs.sqlite"],
        ["--resume"],
        ["--processes", "1"],
        ["--crossing", "first"],
        ["--data-dir", "."],
        ["--device", "cpu"],
        ["--timing-seconds", "1"],
    ],
)
def test_what_steers_runs_made_here_is_refused_beside_tables(rightbatch, tables, words):
    ended = plan(rightbatch, tables, *words)
    assert ended.code == 2
    assert f"plan: {words[0]} has no use with --runs and --times" in ended.last_line
    assert "leave it out" in ended.last_line


def test_a_batch_that_fills_the_memory_is_no_open_question(rightbatch, tables):
    words = ["--max-micro-batch-size", "4", "--max-accumulation-steps", "1", "--json"]
    found = plan(rightbatch, tables, *words, "--replicas", "1").document
    assert found["optimal"][0]["limited_by"] == "memory"
    assert any("that fit in memory, 4, are best" in w for w in found["warnings"])
    assert not any("do not tell how much larger" in w for w in found["warnings"])


def test_ends_of_batch_sizes_are_whole(rightbatch, tables):
    found = plan(rightbatch, tables, "--replicas", "1,3", "--json").document
    for entry in (*found["optimal"], *found["optimal_measured"]):
        size = entry["batch_size_interval"]
        assert size["low"] == int(size["low"])
        assert size["high"] == int(size["high"])


def test_batches_of_fewer_tokens_than_a_sequence_raise_a_question(
    rightbatch, tables, tmp_path
):
    runs = tmp_path / "sequences.csv"
    rows = [f"{b},{512 * (100 * b + 6400)}" for b in (4, 16, 64, 256)]
    runs.write_text("\n".join(["batch_size,tokens", *rows]))
    found = plan(rightbatch, (runs, tables[1]), "--replicas", "1", "--json").document
    assert any("--tokens-per-example N" in said for said in found["warnings"])
    more = ["--replicas", "1", "--unit", "token", "--json"]
    told = plan(rightbatch, (runs, tables[1]), *more).document
    assert not any("--tokens-per-example N" in said for said in told["warnings"])


def test_more_replicas_than_examples_are_named_by_file_and_row(
    rightbatch, tables, tmp_path
):
    times = tmp_path / "small.csv"
    times.write_text("batch_size,num_replicas,seconds\n2,4,.1\n64,1,.2\n256,1,.6\n")
    ended = rightbatch("plan", "--runs", tables[0], "--times", times)
    assert ended.code == 2
    assert "small.csv: row 2, column num_replicas" in ended.last_line
