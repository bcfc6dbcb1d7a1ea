"""Figures of steps to the target: what they show is what was computed."""

import numpy as np
import pytest
from example_paper import paper

IN_PAPER = ("1", "2", "3a", "3b", "3c", "4")


def curves(name, panel=0):
    return {one.name: one for one in paper().figure(name).panels[panel].curves}


def test_the_figures_of_the_paper_come_first_and_in_its_order():
    figures = paper().figures
    assert tuple(f.name for f in figures if f.in_paper) == IN_PAPER
    assert tuple(f.name for f in figures[: len(IN_PAPER)]) == IN_PAPER


@pytest.mark.parametrize("name", ["3a", "4"])
def test_two_optimizers_at_four_powers_stand_over_two_lines(name):
    found = curves(name)
    assert len(found) == 10
    assert found["SGD, power 0"].y[2] == 95633
    assert found["SGD, power 0"].dashed
    assert found["Bayes bound"].y[0] == pytest.approx(494785 / 4, rel=1e-5)
    assert found["maximum likelihood, no bound"].y[0] == 125_000


def test_momentum_and_the_average_have_the_known_steps():
    assert curves("3a")["momentum, power 0"].y[2] == pytest.approx(80323, abs=1)
    assert curves("4")["EMA, power 0"].y[2] == pytest.approx(14387, abs=1)
    assert curves("4")["EMA, power 0.5"].y[4] == 777


def test_nothing_is_below_the_bayes_bound():
    for name in ("3a", "3b", "4", "momentum-and-ema"):
        found = curves(name)
        bound = np.array(found.pop("Bayes bound").y)
        found.pop("maximum likelihood, no bound")
        for one in found.values():
            assert not (np.array(one.y) < bound).any()


def test_the_gains_are_ratios_of_the_steps():
    found = curves("gains")["EMA, power 0"]
    steps = curves("4")
    ratio = np.divide(steps["SGD, power 0"].y, steps["EMA, power 0"].y)
    assert found.y == pytest.approx(ratio)


def test_momentum_with_an_average_needs_868_steps_at_batch_1024():
    assert curves("momentum-and-ema")["momentum+EMA"].y[4] <= 868


def test_the_mean_of_all_iterates_beats_maximum_likelihood_but_not_bayes():
    found = curves("averaging")
    half = found["uniform average, power 0.5"].y[2]
    assert half == pytest.approx(100 * (7771 / (494785 / 64) - 1), abs=0.02)
    assert 0 < half < found["maximum likelihood, no bound"].y[2]


def test_the_table_of_phi_is_that_of_the_claims():
    found = curves("phi")["SGD"]
    assert found.y[0] == pytest.approx(821, rel=0.01)
    assert found.x == paper().results.setting.powers


def test_targets_rise_along_the_axis_and_phi_falls():
    for one in curves("targets").values():
        assert one.x == (0.001, 0.01, 0.1)
        assert (np.diff(one.y) < 0).all()


def test_titles_say_the_numbers():
    titles = {figure.name: figure.title for figure in paper().figures}
    assert titles["3a"].startswith("Perfect scaling ends at B = 821 for SGD")
    assert titles["4"].startswith("Averaging the iterates saves 6.95 times")
    assert titles["isotropic"].startswith("At B = 4, power 0.5 saves SGD 4.35 times")
    assert "70 times larger" in titles["targets"]


def test_commands_ask_for_what_is_shown():
    commands = {figure.name: figure.command for figure in paper().figures}
    assert commands["3a"] == (
        "simulate --optimizer sgd,momentum --power 0,0.25,0.5,0.75 --bins notebook:100"
    )
    assert commands["isotropic"].endswith("--noise isotropic:0.0009405")
    assert commands["1"] == "simulate --paper"
