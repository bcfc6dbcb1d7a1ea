"""Figures of learning rates: what they show is what was computed."""

import numpy as np
import pytest
from example_paper import paper

from rightbatch.quadratic.paper.results import ScheduleKey


def curves(name, panel=0):
    return {one.name: one for one in paper().figure(name).panels[panel].curves}


def test_figure_3b_has_schedules_beside_constant_rates():
    found = curves("3b")
    assert found["power 0"].y[2] <= 16516
    assert found["power 0, constant"].y[2] == 95633
    for power in ("0", "0.25", "0.5", "0.75"):
        solid, dashed = found[f"power {power}"], found[f"power {power}, constant"]
        assert (np.array(solid.y) <= np.array(dashed.y)).all()


def test_figure_3c_runs_from_start_to_end_and_its_rates_fall():
    found = curves("3c")
    assert len(found) == 5
    for one in found.values():
        assert (one.x[0], one.x[-1]) == (0, 1)
        assert len(one.y) == 51
        assert max(one.y) <= 2
        assert one.stepped
    first = found["B = 4"].y
    assert (np.diff(first) <= 1e-9).all()


def test_the_caption_says_which_line_is_a_bound():
    assert "1.1 % above it, the maximum-likelihood" in paper().figure("3b").caption


def test_rates_past_the_edge_shorten_large_batches_and_never_lengthen():
    found = curves("uncapped")
    free = np.array(found["power 0.5, any rate"].y)
    capped = np.array(found["power 0.5, up to the edge"].y)
    assert (free <= capped).all()
    assert free[-1] < capped[-1] / 4


def test_the_best_rate_of_sgd_ends_below_the_edge():
    assert 1.9 < curves("lr")["SGD"].y[-1] < 2


def test_the_growing_batch_reads_as_many_examples_in_fewer_updates():
    rates, sizes = curves("growth", 0), curves("growth", 1)
    results = paper().results
    key = ScheduleKey(0.0, 10, True)
    assert rates["decaying lr"].x[-1] == results.schedules[key][0].steps
    examples = {
        name: np.diff(one.x) @ np.array(one.y[:-1]) for name, one in sizes.items()
    }
    assert examples["growing batch"] == pytest.approx(examples["decaying lr"])
    assert rates["growing batch"].x[-1] < rates["decaying lr"].x[-1] / 5
