import sqlite3

SWEEP = ("sweep", "digits-mlp", "--batch-sizes", "256", "--seeds", "2", "--json")
QUICK = ("--processes", "1", "--target", "0.5", "--lr", "0.5", "--store", "own.sqlite")


def test_the_tier_asked_for_is_that_of_the_runs_and_is_told(rightbatch, tmp_path):
    ended = rightbatch(*SWEEP, *QUICK, "--tier", "stacked")
    assert ended.code == 0
    assert ended.document["inputs"]["tier"] == "stacked"
    with sqlite3.connect(tmp_path / "own.sqlite") as connection:
        tiers = connection.execute("SELECT tier FROM runs").fetchall()
    connection.close()
    assert tiers == [("stacked",)] * 2


def test_an_unknown_tier_is_refused_before_a_store_is_made(rightbatch, tmp_path):
    ended = rightbatch(*SWEEP, *QUICK, "--tier", "fast")
    assert ended.code == 2
    assert "`tier` cannot be 'fast'" in ended.err
    assert not (tmp_path / "own.sqlite").exists()


def test_a_tier_that_cannot_be_had_says_why_and_is_bad_input(rightbatch):
    momentum = ("--optimizer", "momentum", "--tier", "compiled")
    ended = rightbatch(*SWEEP, *QUICK, *momentum)
    assert ended.code == 2
    assert "`tier` compiled cannot be had for digits-mlp" in ended.err
