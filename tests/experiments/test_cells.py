import math

import numpy as np
import pytest
from experiments.example_stores import run_of
from scipy import stats

from rightbatch.errors import InputError
from rightbatch.experiments.cells import (
    Cell,
    best_cells,
    crossing_name,
    gather,
    summarize,
    targets_of,
    unique_crossings,
)
from rightbatch.experiments.crossing import Crossing


def cell_of(*steps, rounding=0.0):
    return Cell(batch_size=8, lr=0.1, steps=steps, statuses={}, rounding=rounding)


def test_the_interval_of_a_mean_is_students_on_the_logarithms():
    steps = (90.0, 120.0, 101.0, 84.0)
    found = cell_of(*steps).mean(0.9)
    logs = np.log(steps)
    low, high = stats.t.interval(0.9, 3, loc=logs.mean(), scale=stats.sem(logs))
    assert found.value == pytest.approx(math.exp(logs.mean()))
    assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))


def test_a_single_run_gives_a_mean_without_ends():
    found = cell_of(100.0).mean(0.9)
    assert (found.value, found.low, found.high) == (pytest.approx(100), None, None)


def test_where_a_run_missed_there_is_no_mean():
    cell = cell_of(100.0, math.nan)
    assert not cell.all_reached
    assert cell.mean(0.9) is None
    assert cell.log_variance is None


def test_equal_steps_are_known_no_better_than_the_checks_are_apart():
    runs = [run_of(seed=seed, steps=1000, grid_spacing=20) for seed in range(3)]
    (cell,) = gather(runs, 0.5)
    # A uniform distribution over 2 %.
    assert cell.log_variance == pytest.approx(0.02**2 / 12)


def test_a_run_that_was_capped_and_run_on_counts_once_as_what_it_came_to():
    capped = run_of(steps=None, budget=50)
    longer = run_of(steps=None, budget=90)
    reached = run_of(steps=99, budget=99)
    ((found, _),) = unique_crossings([capped, reached, longer])
    assert found is reached
    ((found, _),) = unique_crossings([capped, longer])
    assert found is longer


def test_of_equal_runs_the_first_given_counts():
    latest, earlier = run_of(steps=80), run_of(steps=90)
    ((found, _),) = unique_crossings([latest, earlier])
    assert found is latest


def test_a_run_of_more_targets_does_not_hide_another_ones_success():
    def crossings(**steps):
        return tuple(
            crossed
            for target, n in steps.items()
            for crossed in run_of(steps=n, target=float(target[1:]) / 10).crossings
        )

    many = run_of(crossings=crossings(t5=10, t4=20, t3=None))
    one = run_of(crossings=crossings(t3=30))
    (cell,) = gather([many, one], 0.3)
    assert cell.steps == (30.0,)


def test_runs_are_gathered_by_batch_size_and_rate():
    runs = [
        run_of(16, 0.1, 0, 60),
        run_of(8, 0.2, 0, None, status="diverged"),
        run_of(8, 0.1, 1, 110),
        run_of(8, 0.1, 0, 100),
        run_of(8, 0.1, 0, 5, target=2.0),
    ]
    cells = gather(runs, 0.5)
    assert [(c.batch_size, c.lr) for c in cells] == [(8, 0.1), (8, 0.2), (16, 0.1)]
    assert cells[0].steps == (110.0, 100.0)
    assert cells[1].statuses == {"diverged": 1}


def test_a_target_nobody_asked_for_is_refused_with_those_there_are():
    runs = [run_of(), run_of(target=0.25)]
    with pytest.raises(InputError, match=r"0\.3 was not asked for; the targets are 0"):
        gather(runs, 0.3)
    with pytest.raises(InputError, match=r"the targets are none"):
        gather([], 0.3)


def test_the_hardest_target_comes_first_whichever_way_is_up():
    losses = [run_of(target=0.5), run_of(target=0.25)]
    assert targets_of(losses) == (0.25, 0.5)
    up = Crossing(direction="max")
    scores = [run_of(target=0.5, crossing=up), run_of(target=0.75, crossing=up)]
    assert targets_of(scores) == (0.75, 0.5)


def test_a_rate_that_misses_is_not_the_best_one():
    runs = [run_of(lr=0.1, seed=s, steps=100) for s in range(2)]
    runs += [run_of(lr=0.2, seed=0, steps=10), run_of(lr=0.2, seed=1, steps=None)]
    assert best_cells(gather(runs, 0.5))[8].lr == 0.1


def test_a_summary_has_the_best_rate_its_spread_and_how_all_runs_ended():
    steps = {0.05: (200, 210), 0.1: (100, 121), 0.2: (150, None)}
    runs = [
        run_of(lr=lr, seed=seed, steps=count)
        for lr, counts in steps.items()
        for seed, count in enumerate(counts)
    ]
    (found,) = summarize(runs, 0.5)
    entry = found.to_dict()
    assert entry["lr"] == 0.1
    assert not entry["at_edge"]
    assert entry["num_lrs"] == 3
    assert entry["statuses"] == {"reached": 5, "not_reached": 1}
    assert entry["steps"]["value"] == pytest.approx(110)
    assert entry["spread"] == pytest.approx(np.log([100, 121]).std(ddof=1))


def test_a_batch_size_nobody_reached_the_target_at_stays_in_the_summary():
    (found,) = summarize([run_of(steps=None)], 0.5)
    entry = found.to_dict()
    assert (entry["lr"], entry["steps"], entry["spread"]) == (None, None, None)
    assert entry["statuses"] == {"not_reached": 1}


def test_a_best_rate_at_the_end_of_those_tried_is_marked():
    runs = [run_of(lr=lr, steps=steps) for lr, steps in ((0.1, 100), (0.2, 80))]
    (found,) = summarize(runs, 0.5)
    assert found.at_edge


def test_crossings_read_off_differently_are_two_quantities():
    first, coarse = (Crossing(definition="first", every=every) for every in (1, 50))
    runs = [
        run_of(steps=100),
        run_of(steps=60, crossing=first),
        run_of(steps=50, crossing=coarse),
        run_of(steps=90, crossing=Crossing(gate=2.0)),
    ]
    assert [run.steps() for run, _ in unique_crossings(runs)] == [100, 60, 50]
    found = summarize(runs, 0.5)
    assert [(one.crossing, one.best.steps) for one in found] == [
        ("smoothed", (100.0,)),
        ("first", (60.0,)),
        ("first of every 50", (50.0,)),
    ]
    assert found[2].to_dict()["crossing"] == crossing_name(coarse)
    with pytest.raises(InputError, match="several ways, smoothed and first"):
        gather(runs[:2], 0.5)
