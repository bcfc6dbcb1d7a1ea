import math

import pytest

from rightbatch.errors import InputError
from rightbatch.experiments.quasi_random import (
    Axis,
    quasi_random_points,
    quasi_random_search,
)

LR = Axis(low=0.01, high=1.0)


def test_each_eighth_of_an_axis_has_one_of_eight_points() -> None:
    points = quasi_random_points({"lr": LR}, 8, seed=3)
    places = [math.log(p["lr"] / 0.01) / math.log(100) for p in points]
    assert sorted(int(8 * place) for place in places) == list(range(8))


def test_each_third_of_the_second_axis_has_three_of_nine_points() -> None:
    space = {"lr": LR, "momentum": Axis(low=0, high=0.9, scale="linear")}
    points = quasi_random_points(space, 9, seed=3)
    thirds = [int(p["momentum"] / 0.3) for p in points]
    assert [thirds.count(third) for third in range(3)] == [3, 3, 3]


def test_the_first_points_do_not_depend_on_how_many_follow() -> None:
    space = {"lr": LR}
    assert quasi_random_points(space, 8)[:3] == quasi_random_points(space, 3)


@pytest.mark.parametrize(("optimum", "edge"), [(0.001, "below"), (50.0, "above")])
def test_an_optimum_outside_is_said_and_followed_when_asked(
    optimum: float, edge: str
) -> None:
    def bowl(point: dict[str, float]) -> float:
        return abs(math.log(point["lr"] / optimum))

    stayed = quasi_random_search(bowl, {"lr": LR})
    assert stayed.edges == {"lr": edge}
    assert not stayed.is_interior
    assert len(stayed.trials) == 8
    assert f"at an edge: try lr {edge}" in str(stayed)
    moved = quasi_random_search(bowl, {"lr": LR}, max_moves=5)
    assert moved.is_interior
    assert 1 <= moved.num_moves <= 5
    assert moved.best.value < 0.7
    assert moved.trials[:8] == stayed.trials
    assert len(moved.trials) == 8 + 4 * moved.num_moves
    assert str(moved).endswith("interior")


def test_an_interior_optimum_has_trials_on_both_sides() -> None:
    found = quasi_random_search(lambda p: abs(math.log(p["lr"] / 0.1)), {"lr": LR})
    lrs = sorted(trial.point["lr"] for trial in found.trials)
    assert found.is_interior
    assert lrs[0] < found.best.point["lr"] < lrs[-1]
    assert found.best.value == min(abs(math.log(lr / 0.1)) for lr in lrs)


def test_the_end_of_what_there_is_to_try_is_no_edge() -> None:
    axis = Axis(low=0.1, high=1.0, most=1.0)
    assert quasi_random_search(lambda p: -p["left"], {"left": axis}).is_interior
    assert quasi_random_search(lambda p: p["left"], {"left": axis}).edges == {
        "left": "below"
    }


def test_a_range_moves_half_its_length_as_far_as_there_is_room() -> None:
    assert LR.moved("above").low == pytest.approx(0.1)
    assert LR.moved("above").high == pytest.approx(10.0)
    assert LR.moved("below").low == pytest.approx(0.001)
    linear = Axis(low=0.0, high=1.0, scale="linear", least=-0.2, most=1.2)
    moved = linear.moved("below")
    assert (moved.low, moved.high) == (-0.2, 0.5)
    assert linear.moved("above").high == 1.2


def test_failures_are_infinite_and_a_search_of_nothing_else_has_no_edge() -> None:
    found = quasi_random_search(lambda _: math.nan, {"lr": LR}, max_moves=3)
    assert found.best.value == math.inf
    assert not found.is_interior
    assert found.num_moves == 0
    assert str(found) == "none of 8 trials got there"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"low": 1.0, "high": 0.5}, "`low` must be below `high`"),
        ({"low": 0.5, "high": 2.0, "most": 1.0}, "within `least` and `most`"),
        ({"low": 0.0, "high": 1.0}, "`low` must be positive"),
        ({"low": 0.0, "high": math.inf, "scale": "linear"}, "`high` must be a finite"),
        ({"low": 0.1, "high": 1.0, "scale": "lg"}, "`scale` cannot be 'lg'"),
    ],
)
def test_an_axis_that_is_none_is_refused(values: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Axis(**values)


def test_a_space_without_axes_and_a_search_without_trials_are_refused() -> None:
    with pytest.raises(InputError, match="`space` must have an axis"):
        quasi_random_points({}, 4)
    with pytest.raises(InputError, match="`num_points` must be a whole number"):
        quasi_random_search(lambda _: 0.0, {"lr": LR}, num_trials=0)
