import pytest

from rightbatch.reporting import tables
from rightbatch.reporting.sheet import as_text


def test_every_table_of_a_plan_fits_80_columns(targets_document):
    sheets = [
        tables.plan_sheet(targets_document["optimal"]),
        tables.fit_sheet(targets_document["convergence"]),
        tables.step_time_sheet(targets_document["step_time"]),
        tables.verification_sheet(targets_document["verification"]),
        tables.runs_sheet(targets_document["runs"]),
        tables.points_sheet(targets_document["convergence"]),
        tables.times_sheet(targets_document["step_time"]["points"]),
    ]
    for sheet in sheets:
        text = as_text(sheet, width=80)
        assert max(len(line) for line in text.splitlines()) <= 80
        assert len(text.splitlines()) < len(sheet.rows) + 10, "printed as blocks"


def test_a_plan_of_large_numbers_still_fits_80_columns():
    entry = {
        "num_replicas": 64,
        "batch_size": 32768,
        "batch_size_interval": {"value": 1, "low": 28123, "high": 41234, "level": 0.9},
        "lr": 0.0125,
        "micro_batch_size": 256,
        "accumulation_steps": 2,
        "steps": 19384.2,
        "seconds": 7421.0,
        "speedup": 31.72,
        "limited_by": "saturation",
    }
    lines = as_text(tables.plan_sheet([entry])).splitlines()
    assert max(map(len, lines)) <= 80
    for part in ("32,768", "28,100–41,200", "256×2×64", "2.06 h", "saturation"):
        assert part in lines[-1]


def test_a_plan_says_what_it_extrapolates(bare_document):
    text = as_text(tables.plan_sheet(bare_document["optimal"]))
    assert "121*" in text
    assert "* beyond the batch sizes that were run" in text


def test_the_level_of_the_interval_is_the_documents(plan_document):
    for entry in plan_document["optimal"]:
        entry["batch_size_interval"]["level"] = 0.95
    assert "95 %" in as_text(tables.plan_sheet(plan_document["optimal"]))


def test_what_is_unbounded_is_printed_as_a_bound(unidentifiable_document):
    row = tables.fit_sheet(unidentifiable_document["convergence"]).rows[0]
    assert row[:5] == ("target 0.15", "unidentifiable", "≥ 96", "-3.5", "≤ 40")
    plan = tables.plan_sheet(unidentifiable_document["optimal"])
    assert plan.rows[0][2] == "≥ 96"


def test_the_advice_of_a_fit_stands_below_it(unidentifiable_document):
    text = as_text(tables.fit_sheet(unidentifiable_document["convergence"]))
    assert "target 0.15: Run batch sizes above 1,024." in text


def test_a_knee_law_names_its_exponent():
    fit = {"workload": "bert", "law": "knee", "knee_exponent": 1.8}
    assert "knee, exponent 1.8" in tables.fit_sheet([fit]).rows[0]


def test_the_nearest_rivals_of_a_law_are_named_below():
    rivals = [
        {"law": law, "aicc_difference": worse, "chosen": law == "inverse"}
        for law, worse in (
            ("convex_bound", 60),
            ("inverse", 0),
            ("knee", 3),
            ("floor", -1),
        )
    ]
    text = as_text(
        tables.fit_sheet([{"workload": "a", "law": "inverse", "runners_up": rivals}])
    )
    assert "\ninverse law; next floor (AICc −1.0), knee (AICc +3.0)" in text
    unknown = [{"law": "knee", "aicc_difference": None, "chosen": False}]
    assert tables.laws_tried({"law": "inverse", "runners_up": unknown}) == ""


def test_the_next_runs_stand_below_the_advice():
    run = {"batch_size": 1024, "num_runs": 1, "narrows": "noise"}
    fit = {"workload": "a", "next_runs": [run, {**run, "sentence": "Buy a run."}]}
    notes = tables.fit_sheet([fit]).notes
    assert notes == (
        "next, 1 run at batch size 1,024, for noise",
        "next, Buy a run.",
    )


def test_several_fits_have_their_advice_alone_below():
    fits = [
        {"workload": name, "advice": "Run more.", "next_runs": [{"batch_size": 8}]}
        for name in "ab"
    ]
    assert tables.fit_sheet(fits).notes == ("a: Run more.", "b: Run more.")


def test_units_other_than_examples_are_named():
    fit = {"workload": "a", "example_unit": "token"}
    sheet = tables.fit_sheet([fit])
    assert "fewest tokens" in [column.heading for column in sheet.columns]
    assert sheet.notes == ("a: batch sizes and the fewest tokens count tokens",)
    mixed = tables.fit_sheet([fit, {"workload": "b"}])
    assert "fewest examples" in [column.heading for column in mixed.columns]
    assert mixed.notes == ("a: batch sizes count tokens",)


def test_a_floor_law_names_its_floor():
    fit = {"workload": "a", "law": "floor", "min_batch_size": {"value": 12.5}}
    assert "floor, above 12.5" in tables.fit_sheet([fit]).rows[0]


def test_a_loss_law_lists_its_parameters_and_what_they_say_of_a_target():
    known = {"value": 2.0, "low": 1.5, "high": None, "level": 0.95}
    at_target = {"target": 2.5, "is_reachable": True, "min_steps": known}
    law = {
        "irreducible_loss": known,
        "status": "ok",
        "advice": "Run.",
        "at_target": None,
    }
    fit = {"workload": "a", "loss_law": law}
    assert len(tables.loss_law_sheet([fit, {"workload": "b"}]).rows) == 5
    fit["loss_law"] = {**law, "at_target": at_target}
    sheet = tables.loss_law_sheet([fit])
    assert sheet.columns[-1].heading == "95 % interval"
    assert sheet.rows[0] == ("a", "irreducible loss, L0", "2", "≥ 1.5")
    assert sheet.rows[-1] == ("", "fewest steps", "2", "≥ 1.5")
    assert sheet.notes == ("a: ok. Run.",)
    fit["loss_law"] = {**law, "at_target": {**at_target, "is_reachable": False}}
    assert tables.loss_law_sheet([fit]).rows[-1][1] == "to 2.5: out of reach"


@pytest.mark.parametrize(
    ("communication", "text"),
    [
        ({"kind": "none"}, "none"),
        ({"kind": "linear", "seconds_per_replica": 2e-5}, "linear, 20 µs per replica"),
        (
            {
                "kind": "ring",
                "latency_seconds": 5e-6,
                "bytes_per_second": 1e9,
                "num_bytes": 19240,
            },
            "ring, 5 µs latency, 1 GB per second, 19.2 kB",
        ),
    ],
)
def test_communication_is_said_with_its_units(communication, text):
    assert tables.communication_text(communication) == text


def test_a_knee_that_was_not_seen_is_said_and_so_is_communication(plan_document):
    sheet = tables.step_time_sheet(plan_document["step_time"])
    assert sheet.rows[0] == ("fixed cost of a step", "212 µs", "206–218 µs")
    said = ("communication: constant, 12 µs",)
    assert sheet.notes == (*said, "no knee was seen: a straight line does as well")
    plan_document["step_time"]["knee_seen"] = True
    assert tables.step_time_sheet(plan_document["step_time"]).notes == said


def test_a_verification_says_by_how_much_it_was_off(plan_document):
    off = [
        row[6] for row in tables.verification_sheet(plan_document["verification"]).rows
    ]
    assert off == ["+7 %", "−6 %", "+13 %"]


def test_a_run_that_did_not_arrive_has_no_steps():
    run = {
        "batch_size": 2,
        "lr": 0.5,
        "seed": 0,
        "status": "not_reached",
        "steps": None,
    }
    row = tables.runs_sheet([run]).rows[0]
    assert row == ("2", "0.5", "0", "–", "–", "–", "not reached")


def test_timings_give_the_rate():
    row = tables.times_sheet([{"batch_size": 64, "seconds": 0.002}]).rows[0]
    assert row == ("64", "1", "2 ms", "", "32,000")


def test_workloads_are_listed_with_their_data():
    listed = [{"name": "digits-mlp", "parameters": 4810, "data": "bundled"}]
    row = tables.workloads_sheet(listed).rows[0]
    assert row == ("digits-mlp", "4,810", "bundled", "")


def test_records_with_nothing_in_them_print_dashes():
    for make in (tables.plan_sheet, tables.fit_sheet, tables.verification_sheet):
        assert "–" in make([{}]).rows[0]
    bare = {"workload": "a", "loss_law": {"law": "loss"}}
    assert tables.loss_law_sheet([bare]).rows[0] == (
        "a",
        "irreducible loss, L0",
        "–",
        "–",
    )


def test_by_a_law_of_the_loss_the_fewest_examples_are_those_at_a_batch_size():
    nothing = {"value": None, "low": None, "high": None}
    least = {"value": 2e4, "low": 1e4, "high": 3e4}
    fit = {"law": "loss", "min_examples": nothing, "least_examples": least}
    assert "20,000" in tables.fit_sheet([fit]).rows[0]
