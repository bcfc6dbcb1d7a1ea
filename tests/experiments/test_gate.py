import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.experiments.crossing import Crossing, grid_step
from rightbatch.experiments.gate import SPARSE_CHECKS, Gate, answers_for

TARGETS = (0.4, 0.2, 0.1)


def falling(power, scale=1.0, points=250):
    """A loss on every point of the grid, from `scale` on."""
    steps = [grid_step(index) for index in range(points)]
    return [(step, scale / (1 + step / 50) ** power) for step in steps]


def checked(trace, crossing, targets):
    """What a run with this loss would have checked, and its gate in the end."""
    gate = Gate(crossing, targets)
    kept = [trace[0]]
    gate.cross(kept)
    for index in range(1, len(trace)):
        if not gate.skips(index, index - 1):
            kept.append(trace[index])
            gate.cross(kept)
        if gate.is_done:
            break
    return kept, gate


@given(
    power=st.floats(0.3, 1.0),
    scale=st.floats(0.5, 2.0),
    factor=st.floats(1.3, 3.0),
)
def test_what_a_gate_leaves_out_moves_no_crossing_of_a_loss_that_falls_slowly(
    power, scale, factor
):
    # Checks one point in ten apart see such a loss fall by less than the factor.
    full = falling(power, scale)
    crossing = Crossing(gate=factor)
    kept, _ = checked(full, crossing, TARGETS)
    for target in TARGETS:
        assert crossing.steps(kept, target) == crossing.steps(full, target)


def test_it_closes_between_targets_and_opens_again():
    full = falling(0.8)
    crossing = Crossing(gate=1.3)
    kept, gate = checked(full, crossing, TARGETS)
    assert gate.is_done
    gaps = [
        one for one, (step, _) in enumerate(full) if (step, full[one][1]) not in kept
    ]
    crossed = [crossing.steps(full, target) for target in TARGETS]
    for before, after in zip(crossed, crossed[1:], strict=False):
        assert any(before < full[gap][0] < after for gap in gaps)


def test_a_target_close_behind_the_one_crossed_leaves_it_open():
    gate = Gate(Crossing(definition="first", gate=1.3), (0.4, 0.39, 0.1))
    gate.cross([(7, 0.395)])
    assert (gate.is_open, gate.easiest_left) == (True, 0.39)


def test_one_check_may_cross_several_targets():
    gate = Gate(Crossing(definition="first", gate=1.3), TARGETS)
    gate.cross([(7, 0.15)])
    assert (gate.is_open, gate.easiest_left) == (False, 0.1)
    gate.cross([(9, 0.05)])
    assert gate.is_done


def test_the_loss_of_mini_batches_opens_it():
    gate = Gate(Crossing(gate=2.0), (0.4,))
    gate.see(0.81)
    assert not gate.is_open
    gate.see(0.8)
    assert gate.is_open


def test_without_a_factor_it_is_open_throughout():
    kept, gate = checked(falling(0.8), Crossing(), TARGETS)
    assert gate.is_open
    assert [step for step, _ in kept] == [grid_step(i) for i in range(len(kept))]


def test_closed_it_skips_all_points_but_one_in_ten():
    gate = Gate(Crossing(gate=1.1), (0.001,))
    checked_at = [index for index in range(1, 41) if not gate.skips(index, index - 1)]
    assert checked_at == list(range(SPARSE_CHECKS, 41, SPARSE_CHECKS))


@given(
    power=st.floats(0.3, 1.0),
    factor=st.floats(1.3, 3.0),
    target=st.floats(0.08, 0.95),
)
def test_a_trace_that_answers_for_another_target_has_its_crossing(
    power, factor, target
):
    full = tuple(falling(power))
    crossing = Crossing(gate=factor)
    kept, _ = checked(full, crossing, (0.2,))
    if answers_for(crossing, kept, target, (0.2,)):
        last = kept[-1][0]
        within = [point for point in full if point[0] <= last]
        assert crossing.steps(kept, target) == crossing.steps(within, target)


@pytest.mark.parametrize(
    ("crossing", "target", "answers"),
    [
        (Crossing(), 0.7, True),
        (Crossing(gate=1.3), 0.7, False),
        (Crossing(gate=1.3), 0.19, True),
        (Crossing(gate=1.3), 0.001, True),
        # Checks above the run's own target were given up, harder ones are below it.
        (Crossing(definition="first", gate=1.3), 0.19, True),
        (Crossing(definition="first", gate=1.3), 0.7, False),
        (Crossing(definition="first"), 0.7, False),
        (Crossing(definition="first", direction="max"), 0.1, True),
        (Crossing(definition="first", direction="max"), 0.7, True),
    ],
)
def test_which_targets_a_trace_answers_for(crossing, target, answers):
    kept, _ = checked(falling(0.8), Crossing(gate=1.3), (0.2,))
    assert answers_for(crossing, kept, target, (0.2,)) == answers


def test_before_a_target_that_is_not_positive_it_stays_open():
    gate = Gate(Crossing(definition="first", gate=2.0), (0.5, -0.5))
    gate.cross([(7, 0.4)])
    assert (gate.is_open, gate.easiest_left) == (True, -0.5)
