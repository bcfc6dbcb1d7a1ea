"""The tables and the report of ``simulate``."""

import pytest

from rightbatch.errors import InputError
from rightbatch.reporting.sheet import as_text
from rightbatch.reporting.simulate_report import (
    headline,
    render_simulation,
    steps_figure,
    write_simulate_report,
)
from rightbatch.reporting.simulate_tables import (
    bins_line,
    fits_sheet,
    settings_sheets,
    steps_sheets,
)

ALL = (
    "sgd", "momentum", "nesterov", "ema", "momentum+ema", "nesterov+ema", "average",
    "tail-average",
)  # fmt: skip


def cell(name="momentum+ema", size=1024, power=0.0, **others):
    return {
        "optimizer": name,
        "power": power,
        "batch_size": size,
        "steps": 1_287_317,
        "lr": 3.643e-7,
        "momentum": 0.9999927,
        "ema_decay": 0.9999778,
        "max_likelihood_bound": 125_000.0,
        "bayes_bound": 123_754.9,
        "settling_steps": None,
        "why": None,
        **others,
    }


def document(*cells, **others):
    return {
        "command": "simulate",
        "inputs": {"target": 0.01, "schedule": "constant"},
        "cells": list(cells),
        "fits": [],
        **others,
    }


def width(sheet):
    return max(len(line) for line in as_text(sheet).splitlines())


def test_steps_of_all_optimizers_fit_80_columns_in_two_sheets():
    cells = [cell(name, 4**k) for name in ALL for k in (1, 10)]
    sheets = steps_sheets(document(*cells))
    assert len(sheets) == 2
    assert all(width(sheet) <= 80 for sheet in sheets)
    assert sheets[0].rows[1][0] == "1,048,576"
    assert sheets[0].rows[0][-1] == "123,755"


def test_one_optimizer_has_settings_and_bounds_in_one_sheet():
    cells = [cell(power=power, settling_steps=1_300_000) for power in (0, 0.5)]
    assert steps_sheets(document(*cells)) == []
    (sheet,) = settings_sheets(document(*cells))
    assert width(sheet) <= 80
    assert [column.heading for column in sheet.columns] == [
        "power", "batch size", "steps", "lr", "momentum", "EMA decay",
        "below for good from", "maximum likelihood", "Bayes bound",
    ]  # fmt: skip
    assert sheet.rows[1][:6] == (
        "0.5", "1,024", "1,287,317", "3.64e-7", "0.9999927", "0.9999778",
    )  # fmt: skip


def test_what_no_cell_has_is_no_column():
    (sheet,) = settings_sheets(document(cell("sgd", momentum=None, ema_decay=None)))
    assert [column.heading for column in sheet.columns][:3] == [
        "batch size",
        "steps",
        "lr",
    ]


def test_unreachable_stands_in_words_with_the_reason_once():
    why = "lr 3 is not below the stability edge, 2"
    cells = [cell(size=size, steps=None, lr=3.0, why=why) for size in (4, 16)]
    text = as_text(settings_sheets(document(*cells, cell()))[0])
    assert text.count("unreachable") == 2
    assert f"batch size 4, 16: {why}" in text
    sheet = steps_sheets(document(*cells, cell("sgd")))[0]
    assert sheet.rows[0][1:3] == ("unreachable", "–")


def test_many_reasons_are_cut_short():
    cells = [cell(size=n, steps=None, why=f"needs {n} steps") for n in range(1, 10)]
    (sheet,) = settings_sheets(document(*cells))
    assert len(sheet.notes) == 7
    assert sheet.notes[-1] == "and 3 more like these"


def test_reasons_name_the_power_where_there_are_several():
    cells = [cell(power=p, steps=None, why="too long") for p in (0.0, 0.5)]
    assert settings_sheets(document(*cells))[0].notes == (
        "power 0, batch size 1,024: too long",
        "power 0.5, batch size 1,024: too long",
    )


def test_a_schedule_is_in_the_caption_and_its_rate_a_peak():
    cells = [
        cell(schedule=f"wsd:{tail}", growth={"updates": 900, "saving": 4.5})
        for tail in (0.1, 0.2)
    ]
    inputs = {"target": 0.01, "schedule": "wsd"}
    (sheet,) = settings_sheets({**document(*cells), "inputs": inputs})
    headings = [column.heading for column in sheet.columns]
    assert "under wsd" in sheet.caption
    assert {"peak lr", "schedule", "times fewer updates"} <= set(headings)


def test_the_fitted_laws_fit_80_columns():
    fit = {
        "optimizer": "momentum+ema", "power": 0.75, "critical_batch_size": 852_000.1,
        "min_steps": 6567.0, "min_examples": 5_590_000.0, "misfit": 0.16,
        "knee_exponent": 1.4, "knee_misfit": 0.047,
    }  # fmt: skip
    sheet = fits_sheet({"fits": [fit]})
    assert sheet is not None
    assert width(sheet) <= 80
    assert fits_sheet({"fits": []}) is None


def test_an_exact_spectrum_is_said_to_be_exact():
    bins = {"num_dims": 100, "num_nodes": 100, "error": 0.0}
    assert bins_line(bins) == "100 directions, exact"


def test_the_report_holds_figure_tables_and_result(tmp_path):
    fit = {"optimizer": "sgd", "power": 0.0, "critical_batch_size": 852.3}
    found = document(
        *(cell(name, 4**k) for name in ALL for k in range(1, 4)),
        fits=[fit],
        bins={"num_dims": 10_000, "num_nodes": 84, "error": 0.003},
        initial_loss=4.9,
        seconds=0.2,
    )
    page = render_simulation(found)
    assert "Critical batch size 852 for sgd" in page
    assert 'id="figure-power-0"' in page
    assert "84 nodes stand for 10,000 directions" in page
    path = write_simulate_report(tmp_path / "table.html", found)
    assert path.read_text(encoding="utf-8") == page
    with pytest.raises(InputError, match="no folder"):
        write_simulate_report(tmp_path / "none" / "table.html", found)


def test_a_figure_leaves_out_what_is_unreachable():
    cells = [cell("sgd", 4, steps=None), cell("sgd", 16, steps=100)]
    curve = steps_figure(document(*cells), 0.0).panels[0].curves[0]
    assert curve.to_dict()["y"] == [None, 100.0]


def test_without_a_law_the_headline_counts_cells():
    cells = [cell("sgd", 4, steps=None), cell("sgd", 16, steps=100)]
    assert headline(document(*cells)) == "1 of 2 cells reach the target"
    fits = [
        {"optimizer": "sgd", "power": power, "critical_batch_size": 10.0}
        for power in (0.0, 0.5)
    ]
    assert headline({"fits": fits}).endswith("10 for sgd at power 0.5")
