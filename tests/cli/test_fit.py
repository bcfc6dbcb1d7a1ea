"""``fit``: units, losses, mixed tables, laws, and what stays as it was."""

import subprocess
import sys

import numpy as np
import pytest

from rightbatch.convergence.losses.law import LossLaw

LAW = LossLaw(
    irreducible_loss=1.8,
    batch_coefficient=6,
    batch_exponent=0.8,
    steps_coefficient=40,
    steps_exponent=0.5,
)
PARAMETERS = (
    "irreducible_loss",
    "batch_coefficient",
    "batch_exponent",
    "steps_coefficient",
    "steps_exponent",
)


@pytest.fixture
def table(tmp_path):
    def write(*lines):
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def losses(table):
    """Sixteen runs, some of which come to 2.4, with .3 % noise."""
    generator = np.random.default_rng(0)
    rows = [
        f"{b},{s},{LAW.loss(b, s) * np.exp(0.003 * generator.standard_normal()):.5f}"
        for b in (16, 64, 256, 1024)
        for s in (100, 400, 1600, 12800)
    ]
    return table("batch_size,steps,loss", *rows)


def steps_rows(*, least=100, batches=(4, 16, 64, 256, 1024)):
    return [f"{b},{least * (1 + 64 / b):.9g}" for b in batches]


# Units -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "scale", "words", "unit"),
    [
        ("batch_size,examples", 1, [], "examples"),
        ("batch_size,tokens", 1, [], "tokens"),
        ("batch_size,epochs", 1 / 500, ["--examples-per-epoch", 500], "examples"),
        ("batch_size,examples", 1, ["--unit", "samples"], "samples"),
    ],
)
def test_tables_of_any_count_give_one_law_in_their_unit(
    rightbatch, table, header, scale, words, unit
):
    rows = [f"{b},{(100 * b + 6400) * scale}" for b in (4, 16, 64, 256, 1024)]
    ended = rightbatch("fit", table(header, *rows), "--json", *words)
    (entry,) = ended.document["workloads"]
    assert entry["example_unit"] == unit[:-1]
    assert entry["min_steps"]["value"] == pytest.approx(100, rel=1e-6)
    for name, value in (("min_examples", 6400), ("critical_batch_size", 64)):
        assert entry[name]["value"] == pytest.approx(value, rel=1e-6)
        assert entry[name]["unit"] == unit


def test_sequences_are_turned_into_tokens(rightbatch, table):
    path = table("batch_size,steps", *steps_rows())
    words = ("fit", path, "--tokens-per-example", 1024)
    (entry,) = rightbatch(*words, "--json").document["workloads"]
    assert entry["example_unit"] == "token"
    assert entry["critical_batch_size"]["value"] == pytest.approx(64 * 1024, rel=1e-6)
    assert entry["min_steps"]["value"] == pytest.approx(100, rel=1e-6)
    said = " ".join(rightbatch(*words).out.split())
    assert "batch sizes and the fewest tokens count tokens" in said


# Losses ------------------------------------------------------------------------------


def test_the_loss_law_without_a_target_is_its_parameters(rightbatch, losses):
    ended = rightbatch("fit", losses, "--law", "loss", "--json")
    assert ended.code == 0
    (entry,) = ended.document["workloads"]
    assert (entry["law"], entry["status"]) == ("loss", "ok")
    law = entry["loss_law"]
    assert law["at_target"] is None
    for name in PARAMETERS:
        assert law[name]["value"] == pytest.approx(getattr(LAW, name), rel=0.15)
        assert law[name]["low"] < law[name]["value"] < law[name]["high"]


def test_a_target_adds_the_steps_by_both_laws(rightbatch, losses):
    ended = rightbatch("fit", losses, "--target", 2.4, "--json")
    (entry,) = ended.document["workloads"]
    assert entry["law"] == "inverse"
    assert entry["target"] == 2.4
    assert [point["batch_size"] for point in entry["points"]] == [64, 256, 1024]
    known = entry["loss_law"]["at_target"]
    truth = LAW.at_target(2.4)
    for name in ("min_batch_size", "data_optimal_batch_size", "min_steps"):
        assert known[name]["low"] < known[name]["value"] < known[name]["high"]
        assert known[name]["value"] == pytest.approx(getattr(truth, name), rel=0.1)
    assert entry["min_steps"]["value"] == pytest.approx(truth.min_steps, rel=0.5)


def test_a_person_reads_both_laws(rightbatch, losses):
    said = rightbatch("fit", losses, "--target", 2.4).out
    assert "Steps to the target, fitted" in said
    assert "irreducible loss, L0" in said
    assert "to 2.4: least batch size" in said
    alone = rightbatch("fit", losses, "--law", "loss").out
    assert "Steps to the target, fitted" not in alone
    assert "irreducible loss, L0" in alone


def test_a_target_out_of_reach_is_said(rightbatch, losses, tmp_path):
    words = ("fit", losses, "--target", 1.2)
    (entry,) = rightbatch(*words, "--json").document["workloads"]
    assert entry["loss_law"]["at_target"]["is_reachable"] is False
    assert entry["law"] == "loss"
    ended = rightbatch(*words, "--report", "loss.html")
    said = " ".join(ended.out.split())
    assert "to 1.2: out of reach" in said
    assert "no batch size and no number of steps reaches it" in said
    assert "<html" in (tmp_path / "loss.html").read_text(encoding="utf-8")


def test_the_best_learning_rate_of_each_length_counts(rightbatch, table):
    rows = [
        f"{b},{s},{lr},{LAW.loss(b, s) * (1 + 0.2 * (lr != 0.2))}"
        for b in (16, 64, 256, 1024)
        for s in (100, 400, 1600, 12800)
        for lr in (0.1, 0.2, 0.4)
    ]
    path = table("batch_size,steps,lr,loss", *rows)
    (entry,) = rightbatch("fit", path, "--law", "loss", "--json").document["workloads"]
    law = entry["loss_law"]
    assert law["num_rows"] == 16
    assert law["irreducible_loss"]["value"] == pytest.approx(1.8, rel=1e-4)


def test_a_target_of_a_target_column_chooses_its_rows(rightbatch, table):
    rows = [f"{row},.3" for row in steps_rows()]
    rows += [f"{row},.1" for row in steps_rows(least=900)]
    path = table("batch_size,steps,target", *rows)
    (entry,) = rightbatch("fit", path, "--target", 0.1, "--json").document["workloads"]
    assert entry["min_steps"]["value"] == pytest.approx(900, rel=1e-6)
    ended = rightbatch("fit", path, "--target", 0.2)
    assert ended.code == 2
    assert "no rows of target 0.2. (use 0.1, 0.3)" in ended.last_line


# The laws ----------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["inverse", "knee", "floor"])
def test_a_law_can_be_asked_for(rightbatch, table, law):
    path = table("batch_size,steps", *steps_rows())
    (entry,) = rightbatch("fit", path, "--law", law, "--json").document["workloads"]
    # A floor of zero is the inverse law.
    assert entry["law"] in (law, "inverse")
    assert entry["critical_batch_size"]["value"] == pytest.approx(64, rel=0.02)


def test_the_learning_rates_of_a_sweep_have_their_law(rightbatch, table):
    rows = [
        f"{b},{lr},{100 * (1 + 64 / b) * (lr / b**0.5 + b**0.5 / lr) / 2}"
        for b in (4, 16, 64, 256, 1024)
        for lr in (0.5, 1, 2, 4, 8, 16, 32, 64, 128)
    ]
    path = table("batch_size,lr,steps", *rows)
    (entry,) = rightbatch("fit", path, "--json").document["workloads"]
    assert entry["lr_law"]["form"] == "power"
    assert entry["lr_law"]["exponent"]["value"] == pytest.approx(0.5, abs=1e-6)


# Repeats -----------------------------------------------------------------------------


def curves_of(batches=(16, 64, 256, 1024), seeds=("a", "b", "c")):
    """Rows of (batch size, steps, run, loss), each run a factor of its own off."""
    factors = np.random.default_rng(0).uniform(0.97, 1.03, (len(batches), len(seeds)))
    return [
        (b, s, run, f"{LAW.loss(b, s) * off:.6g}")
        for b, of_batch in zip(batches, factors, strict=True)
        for run, off in zip(seeds, of_batch, strict=True)
        for s in (100, 400, 1600, 12800)
    ]


def test_runs_of_a_loss_table_stay_repeats(rightbatch, table):
    rows = [f"{b},{s},{run},{loss}" for b, s, run, loss in curves_of()]
    path = table("batch_size,steps,run,loss", *rows)
    words = ("fit", path, "--target", 2.5, "--json")
    (entry,) = rightbatch(*words).document["workloads"]
    assert [point["num_runs"] for point in entry["points"]] == [3, 3, 3]
    assert not any("rows share" in warning for warning in entry["warnings"])


def test_repeats_that_nothing_tells_apart_are_one_mean_curve_and_it_is_said(
    rightbatch, table
):
    rows = [f"{b},{s},{loss}" for b, s, _, loss in curves_of()]
    path = table("batch_size,steps,loss", *rows)
    words = ("fit", path, "--target", 2.5, "--json")
    (entry,) = rightbatch(*words).document["workloads"]
    assert [point["num_runs"] for point in entry["points"]] == [1, 1, 1]
    (said,) = [one for one in entry["warnings"] if "rows share" in one]
    assert "a column run" in said


def test_a_run_that_stands_twice_is_said(rightbatch, table):
    rows = [f"{b},seed {i},{100 + 6400 / b + i}" for b in (16, 64, 256) for i in (1, 2)]
    path = table("batch_size,run,steps", *rows)
    (entry,) = rightbatch("fit", path, "--json").document["workloads"]
    assert [point["num_runs"] for point in entry["points"]] == [2, 2, 2]
    assert not any("stands twice" in warning for warning in entry["warnings"])
    path = table("batch_size,run,steps", *rows, rows[0], rows[1])
    (entry,) = rightbatch("fit", path, "--json").document["workloads"]
    (said,) = [one for one in entry["warnings"] if "stands twice" in one]
    assert "run 'seed 1' stands twice at batch size 16, as do 1 others" in said


def test_one_run_may_reach_two_targets(rightbatch, table):
    rows = [f"{b},1,{t},{(100 + 6400 / b) / t}" for b in (16, 64, 256) for t in (1, 2)]
    path = table("batch_size,run,target,steps", *rows)
    for entry in rightbatch("fit", path, "--json").document["workloads"]:
        assert not any("stands twice" in warning for warning in entry["warnings"])


def test_the_examples_at_the_best_batch_are_not_called_those_of_tiny_ones(
    rightbatch, losses
):
    words = ("fit", losses, "--target", 1.9, "--json")
    (entry,) = rightbatch(*words).document["workloads"]
    assert entry["law"] == "loss"
    assert entry["min_examples"]["value"] is None
    known = entry["least_examples"]
    assert known == entry["loss_law"]["at_target"]["least_examples"]
    assert known["low"] <= known["value"]
    assert "min_examples" not in entry["loss_law"]["at_target"]


# Two workloads in one table ----------------------------------------------------------


def test_two_workloads_without_names_are_refused(rightbatch, table):
    rows = steps_rows() + steps_rows(least=400)
    ended = rightbatch("fit", table("batch_size,steps", *rows))
    assert ended.code == 2
    assert "the repeats fall into two groups, about 4 times apart" in ended.last_line
    assert "a column workload, target or lr" in ended.last_line
    named = table("workload,batch_size,steps", *[f"same,{row}" for row in rows])
    assert rightbatch("fit", named).code == 0


def test_two_workloads_that_may_be_one_are_asked_about(rightbatch, table):
    rows = [f"{b},{k * (1 + 64 / b)}" for b in (4, 16, 64) for k in (99, 100, 160, 161)]
    ended = rightbatch("fit", table("batch_size,steps", *rows), "--json")
    (entry,) = ended.document["workloads"]
    assert any("fall into two groups" in warning for warning in entry["warnings"])


# Bad input ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "words", "message"),
    [
        (["batch_size,steps", "8,9"], ["--law", "loss"], "has no column 'loss'"),
        (["batch_size,steps", "8,9"], ["--law", "los"], "did you mean loss?"),
        (["batch_size,steps", "8,9"], ["--target", "2"], "needs a column loss or tar"),
        (["batch_size,steps,loss", "8,9,-2"], ["--law", "loss"], "losses above 0"),
        (["batch_size,steps,loss", "8,9,2"], ["--law", "loss"], "needs six rows"),
        (
            [
                "batch_size,steps,loss",
                *[f"{2**i},{9 + i},{3 - i / 9}" for i in range(9)],
            ],
            ["--target", "-2"],
            "`target` must be positive, got -2",
        ),
        (
            ["batch_size,steps,unit", "8,9,token", "16,5,image"],
            [],
            "row 2 counts tokens, and row 3 counts images",
        ),
        (["batch_size,epochs", "8,9"], [], "--examples-per-epoch N"),
    ],
)
def test_bad_tables_end_with_a_clear_line(rightbatch, table, lines, words, message):
    ended = rightbatch("fit", table(*lines), *words)
    assert ended.code == 2
    assert message in ended.last_line
    assert "Traceback" not in ended.err


def test_fit_of_losses_never_loads_torch(losses):
    code = (
        "import sys; from rightbatch.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as ended: assert ended.code == 0, ended.code\n"
        "assert 'torch' not in sys.modules"
    )
    words = ["fit", str(losses), "--target", "2.4", "--json"]
    subprocess.run(
        [sys.executable, "-c", code, *words], check=True, capture_output=True
    )


def test_published_tables_keep_working(rightbatch, shared_data):
    path = shared_data / "steps_vs_batch.csv"
    found = rightbatch("fit", path, "--json").document["workloads"]
    assert len(found) == 7
    assert {entry["example_unit"] for entry in found} == {"example"}


def test_a_loss_column_that_is_not_read_is_said(rightbatch, losses):
    ended = rightbatch("fit", losses, "--law", "inverse")
    assert "the column loss was left aside" in ended.out


def test_two_workloads_with_one_target_are_told_apart(rightbatch, tmp_path):
    rows = [
        f"{name},1.9,{b},{s + 800 / b}"
        for name, s in (("a", 10), ("b", 50))
        for b in (2, 8, 32, 128)
    ]
    path = tmp_path / "two.csv"
    path.write_text("\n".join(["workload,target,batch_size,steps", *rows]))
    ended = rightbatch("fit", path)
    assert "a, target 1.9" in ended.out
    assert "b, target 1.9" in ended.out


def test_a_law_of_two_batches_gives_way_to_that_of_all_losses(rightbatch, table):
    rows = [
        f"{b},{s},{LAW.loss(b, s):.6g}"
        for b in (8, 32, 128, 512)
        for s in (100, 400, 1600, 6400)
    ]
    path = table("batch_size,steps,loss", *rows)
    target = (LAW.loss(32, 6400) + LAW.loss(128, 6400)) / 2
    words = ("fit", path, "--target", target, "--json")
    (entry,) = rightbatch(*words).document["workloads"]
    assert entry["law"] == "loss"
    assert any("batch sizes 128, 512 alone" in said for said in entry["warnings"])
    (told,) = rightbatch(*words, "--law", "inverse").document["workloads"]
    assert told["law"] == "inverse"


def test_tokens_with_batches_shorter_than_a_sequence_are_asked_about(
    rightbatch, tmp_path
):
    rows = [f"{b},{512 * b * (114 + 3110 / b):.0f}" for b in (8, 32, 128, 512)]
    path = tmp_path / "tokens.csv"
    path.write_text("\n".join(["batch_size,tokens", *rows]))
    said = rightbatch("fit", path, "--json").document["workloads"][0]["warnings"]
    assert any("--tokens-per-example" in text for text in said)
