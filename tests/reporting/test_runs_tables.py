from rightbatch.reporting.runs_tables import (
    compared_sheets,
    merged_sheet,
    stored_runs_sheet,
    summary_sheets,
)
from rightbatch.reporting.sheet import as_text

RUN = {
    "batch_size": 8, "lr": 0.1, "seed": 0, "target": 0.5, "steps": 725,
    "examples": 5800, "status": "out_of_memory", "store": "a", "session": 1,
    "workload": "tiny",
}  # fmt: skip
CELL = {"lr": 0.1, "num_runs": 3, "num_reached": 3, "steps": {"value": 90.0}}


def headings(sheet):
    return [column.heading for column in sheet.columns]


def test_sessions_and_workloads_have_columns_where_there_are_several():
    alone = stored_runs_sheet([RUN, RUN])
    assert headings(alone)[0] == "batch size"
    assert alone.rows[0][-1] == "out of memory"
    sessions = stored_runs_sheet([RUN, RUN | {"session": 2}])
    assert headings(sessions)[:2] == ["session", "batch size"]
    both = stored_runs_sheet([RUN, RUN | {"store": "b", "workload": "big"}])
    assert headings(both)[:2] == ["workload", "session"]
    assert both.rows[1][:2] == ("big", "1")


def test_a_summary_has_a_sheet_for_each_target_and_marks_rates_at_the_edge():
    entry = {
        "workload": "tiny", "store": "a", "target": 0.5, "batch_size": 8, "lr": 0.1,
        "at_edge": True, "num_runs": 1, "steps": {"value": 90.0}, "spread": None,
        "statuses": {"reached": 1, "not_reached": 2},
    }  # fmt: skip
    missed = entry | {"target": 0.25, "steps": None, "at_edge": False}
    first, second = summary_sheets([entry, missed])
    assert first.rows[0][1] == "0.1*"
    assert first.rows[0][-1] == "1 reached, 2 not reached"
    assert any("tried" in note for note in first.notes)
    assert second.rows[0][3] == "–"
    assert any("No mean" in note for note in second.notes)


def test_a_comparison_fits_a_terminal_and_says_how_many_reached():
    half = CELL | {"num_reached": 2, "steps": None}
    ratio = {"value": 0.5, "low": 0.4, "high": 0.6, "level": 0.9}
    tested = {
        "batch_size": 8, "first": CELL, "second": CELL, "ratio": ratio,
        "p_value": 0.01, "adjusted_p": 0.02, "differs": True,
    }  # fmt: skip
    untested = {"batch_size": 512, "first": half, "second": CELL}
    comparison = {
        "level": 0.9,
        "first": {"workload": "digits-mlp", "target": 0.15, "example_unit": "token"},
        "second": {"workload": "digits-mlp-momentum", "target": 0.15},
        "critical_batch_size": {"first": ratio, "second": None, "ratio": None},
        "at_best_lr": [tested, untested],
        "at_same_lr": [untested],
    }
    critical, best, same = compared_sheets(comparison)
    assert "tokens" in critical.notes[0]
    assert best.rows[1][3] == "2 of 3"
    assert same.notes[0].startswith("None tested")
    for sheet in (critical, best, same):
        lines = as_text(sheet, width=80).splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) < 12


def test_a_merger_says_what_each_store_gave():
    part = {
        "store": "a.sqlite", "num_runs": 5, "num_equal": 2, "num_timings": 1,
        "num_trainings": 0, "sessions": {"1": 3},
    }  # fmt: skip
    sheet = merged_sheet({"store": "all.sqlite", "num_runs": 9, "stores": [part]})
    assert sheet.rows == (("a.sqlite", "5", "2", "1", "0", "1 → 3"),)
