"""The tables of a transfer."""

from rightbatch.reporting.sheet import as_text
from rightbatch.reporting.transfer_tables import changes_sheet, growth_sheet

CHANGE = {
    "setting": "weight_decay",
    "old": 0.1,
    "new": 0.282843,
    "rule": "weight_decay",
    "source": "Power Lines",
    "holds_when": "decay apart from the gradient",
}


def test_changes_fit_80_columns_and_name_their_sources_once():
    document = {
        "from_batch": 256,
        "to_batch": 2048,
        "changes": [CHANGE, {**CHANGE, "setting": "lr"}],
        "kept": [{"setting": "beta1"}],
        "check": [0.1, 0.2, 0.4],
    }
    text = as_text(changes_sheet(document))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.count("Power Lines") == 1
    assert "kept as it is: beta1" in text
    assert "learning rates 0.1, 0.2, 0.4" in " ".join(text.split())


def test_decays_keep_the_digits_that_tell_them_from_one():
    change = {**CHANGE, "old": 0.9999, "new": 0.99968}
    assert changes_sheet({"changes": [change]}).rows[0][1:3] == ("0.9999", "0.99968")


def test_a_transfer_without_changes_says_so():
    sheet = changes_sheet({"from_batch": 8, "to_batch": 8, "changes": []})
    assert sheet.caption == "From batch size 8 to 8: nothing changes"


def test_a_growth_prints_its_stages_and_what_the_cap_costs():
    stage = {
        "start_example": 2067500.0,
        "batch_size": 1024.0,
        "lr": 0.026,
        "steps": 144.04,
        "examples": 147500.0,
    }
    schedule = {
        "schedule": "cosine",
        "grow": "smith",
        "saved": 0.445,
        "saved_uncapped": 0.5,
        "total_steps": 10_000,
        "max_batch_size": 1024,
        "stages": [stage],
    }
    sheet = growth_sheet(schedule)
    assert sheet.caption == "cosine as smith: 44 % of 10,000 steps saved"
    assert sheet.rows == (("2,067,500", "1,024", "0.026", "144", "147,500"),)
    assert sheet.notes[-1] == "without the cap 50 % of the steps would be saved"
    assert max(len(line) for line in as_text(sheet).splitlines()) <= 80
