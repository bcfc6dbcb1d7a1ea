from dataclasses import replace

import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.crossing import Crossing, grid_step
from rightbatch.experiments.record import Run, read_crossings, reread


def run_of(trace, targets, *, status="reached", crossing=None):
    crossing = crossing or Crossing()
    last = trace[-1][0]
    return Run(
        batch_size=8,
        lr=0.1,
        seed=0,
        status=status,
        last_step=last,
        budget=last,
        trace=tuple(trace),
        crossings=read_crossings(crossing, trace, targets, status),
        nearest=crossing.nearest(trace),
        crossing=crossing,
        seconds_training=1.0,
        seconds_checking=1.0,
        median_step_seconds=0.01,
    )


FALLING = [(grid_step(index), 10 / (grid_step(index) + 1)) for index in range(120)]


def test_several_targets_are_read_off_one_trace():
    easy, hard, never = read_crossings(
        Crossing(), FALLING, (1.0, 0.1, 0.01), "not_reached"
    )
    assert (easy.status, easy.steps, easy.grid_spacing) == ("reached", 9, 1)
    assert (hard.status, hard.steps, hard.grid_spacing) == ("reached", 100, 2)
    assert (never.status, never.steps, never.grid_spacing) == (
        "not_reached",
        None,
        None,
    )


def test_a_table_row_counts_examples_as_steps_times_the_batch_size():
    run = run_of(FALLING, (1.0, 0.01), status="not_reached")
    assert run.rows() == [
        {
            "batch_size": 8,
            "lr": 0.1,
            "seed": 0,
            "target": 1.0,
            "steps": 9,
            "examples": 72,
            "status": "reached",
        },
        {
            "batch_size": 8,
            "lr": 0.1,
            "seed": 0,
            "target": 0.01,
            "steps": None,
            "examples": None,
            "status": "not_reached",
        },
    ]


def test_the_steps_of_a_run_are_those_of_its_hardest_target():
    assert run_of(FALLING, (1.0, 0.1)).steps() == 100
    assert run_of(FALLING, (1.0, 0.1)).steps(1.0) == 9


def test_a_target_that_was_not_asked_for_is_refused():
    with pytest.raises(InputError, match=r"target 0\.5 is not among"):
        run_of(FALLING, (1.0, 0.1)).steps(0.5)


def test_no_target_at_all_is_refused():
    with pytest.raises(InputError, match="`targets` must not be empty"):
        read_crossings(Crossing(), FALLING, (), "not_reached")


def test_a_target_that_is_not_a_number_is_refused():
    with pytest.raises(InputError, match="`target` must be a finite number"):
        read_crossings(Crossing(), FALLING, (float("nan"),), "not_reached")


def test_an_easier_target_ends_the_trace_where_its_window_is_complete():
    easier = reread(run_of(FALLING, (0.1,)), (0.2,), 10_000)
    assert easier.status == "reached"
    # One later than 10 / (t + 1) says: the mean over a convex curve lies above it.
    assert easier.steps() == 50
    assert easier.trace[-1][0] == easier.last_step == 52


def test_a_harder_target_than_the_run_went_to_is_not_answered():
    assert reread(run_of(FALLING, (0.1,)), (0.01,), 10_000) is None


def test_a_smaller_budget_makes_it_not_reached():
    cut = reread(run_of(FALLING, (0.1,)), (0.1,), 75)
    assert (cut.status, cut.budget, cut.last_step) == ("not_reached", 75, 74)
    assert cut.trace[-1][0] == 74


def test_a_larger_budget_is_not_answered_by_a_run_that_was_stopped():
    run = run_of(FALLING, (0.01,), status="not_reached")
    assert reread(run, (0.01,), run.budget) == run
    assert reread(run, (0.01,), run.budget + 1) is None


def test_a_run_that_diverged_answers_any_larger_budget():
    run = run_of(FALLING, (0.01,), status="diverged")
    assert reread(run, (0.01,), 10_000).status == "diverged"
    assert reread(run, (0.01,), 60).status == "not_reached"


SPARSE = [*FALLING[:30:10], *FALLING[32:]]


def test_a_gate_set_for_a_harder_target_does_not_answer_for_an_easier_one():
    gated = run_of(SPARSE, (0.1,), crossing=Crossing(gate=3.0))
    assert reread(gated, (0.4,), 10_000) is None
    assert reread(gated, (0.1,), 10_000).steps() == 100


def test_a_gated_run_answers_for_a_target_near_which_every_point_was_checked():
    gated = run_of(SPARSE, (0.1,), crossing=Crossing(gate=1.2))
    free = run_of(FALLING, (0.1,))
    steps = reread(free, (0.2,), 10_000).steps()
    assert reread(gated, (0.2,), 10_000).steps() == steps


def test_a_run_gated_to_its_targets_does_not_answer_for_one_between_them():
    between = [*FALLING[:20], *FALLING[20:50:10], *FALLING[60:]]
    gated = run_of(between, (0.5, 0.1), crossing=Crossing(gate=1.3))
    assert reread(gated, (0.3,), 10_000) is None
    assert reread(gated, (0.5, 0.1), 10_000).steps() == 100


def test_a_run_whose_held_out_curve_was_not_checked_densely_does_not_answer():
    dense = run_of(FALLING, (0.1,), crossing=Crossing(gate=1.2))
    held_out = tuple((step, 1.7 * value) for step, value in SPARSE)
    recorded = replace(dense, trace=tuple(SPARSE), held_out_trace=held_out)
    # The loss was near .3 where all was checked, the held-out loss before that.
    alone = replace(recorded, held_out_trace=())
    assert reread(alone, (0.25,), 10_000) is not None
    assert reread(recorded, (0.25,), 10_000) is not None
    assert reread(recorded, (0.45,), 10_000) is None
    late = tuple((step, 1.7 * v) for step, v in FALLING if not 40 < step < 60)
    gapped = replace(dense, held_out_trace=late)
    assert reread(replace(gapped, held_out_trace=()), (0.3,), 10_000) is not None
    assert reread(gapped, (0.3,), 10_000) is None


def test_a_first_passage_that_was_not_reached_answers_for_a_harder_target():
    crossing = Crossing(definition="first", gate=2.0)
    missed = run_of(FALLING, (0.01,), status="not_reached", crossing=crossing)
    harder = reread(missed, (0.005,), missed.budget)
    assert (harder.status, harder.steps()) == ("not_reached", None)
    assert reread(missed, (0.05,), missed.budget) is None


def test_first_passages_past_a_gate_answer_for_their_own_targets_alone():
    # Between two targets a check is given up where it cannot be at the harder one.
    crossing = Crossing(definition="first", gate=2.0)
    gated = run_of(FALLING, (0.5, 0.1), crossing=crossing)
    assert reread(gated, (0.3,), 10_000) is None
    assert reread(gated, (0.1,), 10_000).steps() == 100
