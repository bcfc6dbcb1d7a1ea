import math
from itertools import combinations

import numpy as np
import pytest
from experiments.example_stores import run_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rightbatch.errors import InputError
from rightbatch.experiments.cells import Cell
from rightbatch.experiments.comparing import compare_runs, holm, welch_test

SIZES = (8, 32, 128, 512)


def cell_of(*steps):
    return Cell(batch_size=8, lr=0.1, steps=steps, statuses={}, rounding=0.0)


def runs_of_law(min_steps, phi, *, spread=0.03, lrs=(0.1,), seeds=5, salt=0):
    """Runs of S(B) = min_steps (1 + phi/B), noisy; rates but the first are slower."""
    generator = np.random.default_rng(salt)
    return [
        run_of(
            size,
            lr,
            seed,
            round(
                min_steps
                * (1 + phi / size)
                * (1 + 0.5 * place)
                * math.exp(generator.normal(0, spread))
            ),
        )
        for size in SIZES
        for place, lr in enumerate(lrs)
        for seed in range(seeds)
    ]


@settings(deadline=None, max_examples=40)
@given(
    first=st.lists(st.floats(10, 1000), min_size=2, max_size=6, unique=True),
    second=st.lists(st.floats(10, 1000), min_size=2, max_size=6, unique=True),
    level=st.sampled_from([0.8, 0.9, 0.99]),
)
def test_ratio_and_p_value_are_those_of_welchs_test_on_logarithms(first, second, level):
    ratio, p_value = welch_test(cell_of(*first), cell_of(*second), level)
    oracle = stats.ttest_ind(np.log(second), np.log(first), equal_var=False)
    low, high = oracle.confidence_interval(level)
    assert p_value == pytest.approx(oracle.pvalue, rel=1e-6, abs=1e-12)
    assert math.log(ratio.low) == pytest.approx(low, rel=1e-6, abs=1e-9)
    assert math.log(ratio.high) == pytest.approx(high, rel=1e-6, abs=1e-9)


def test_a_single_run_gives_a_ratio_without_ends_and_without_a_test():
    ratio, p_value = welch_test(cell_of(100.0), cell_of(50.0, 52.0), 0.9)
    assert ratio.value == pytest.approx(math.sqrt(50 * 52) / 100)
    assert (ratio.low, ratio.high, p_value) == (None, None, None)


def test_steps_without_any_spread_differ_surely_or_not_at_all():
    same, other = cell_of(100.0, 100.0), cell_of(50.0, 50.0)
    assert welch_test(same, same, 0.9)[1] == 1
    ratio, p_value = welch_test(same, other, 0.9)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert p_value == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holms_adjustment_is_the_closure_of_bonferronis_tests(p_values):
    places = range(len(p_values))
    groups = [g for n in places for g in combinations(places, n + 1)]
    slow = [
        max(min(1, len(g) * min(p_values[j] for j in g)) for g in groups if i in g)
        for i in places
    ]
    assert holm(p_values) == pytest.approx(slow)


def test_of_no_tests_nothing_is_adjusted():
    assert holm([]) == []


def test_two_laws_are_told_apart_in_steps_and_in_critical_batch_size():
    first = runs_of_law(100, 50, salt=1)
    second = runs_of_law(100, 200, salt=2)
    found = compare_runs(first, second, targets=(0.5, 0.5))
    ratios = [one.ratio for one in found.at_best_lr]
    for size, ratio in zip(SIZES, ratios, strict=True):
        assert (1 + 200 / size) / (1 + 50 / size) in ratio
    assert [one.differs for one in found.at_best_lr] == [True] * 4
    phi, other = found.critical_batch_sizes
    assert 50 in phi
    assert 200 in other
    assert 4 in found.critical_ratio
    assert found.critical_ratio.low > 1
    assert found.critical_ratio.value == pytest.approx(other.value / phi.value)


def test_two_samples_of_one_law_do_not_differ():
    found = compare_runs(
        runs_of_law(100, 50, salt=3), runs_of_law(100, 50, salt=4), targets=(0.5, 0.5)
    )
    assert [one.differs for one in found.at_best_lr] == [False] * 4
    assert 1 in found.critical_ratio


def test_no_difference_is_claimed_more_often_than_the_level_allows():
    generator = np.random.default_rng(5)
    trials, false_alarms = 300, 0
    for _ in range(trials):
        # Six batch sizes with three seeds each, of one law on both sides.
        steps = np.exp(generator.normal(7, 0.1, (6, 2, 3)))
        p_values = [
            welch_test(cell_of(*one), cell_of(*other), 0.9)[1] for one, other in steps
        ]
        false_alarms += min(holm(p_values)) < 0.1
    # 10 % and three standard deviations.
    assert false_alarms <= trials * 0.1 + 3 * math.sqrt(trials * 0.1 * 0.9)


def test_each_is_taken_at_its_own_best_rate_and_both_at_those_they_share():
    first = runs_of_law(100, 50, lrs=(0.1, 0.2))
    second = runs_of_law(100, 50, lrs=(0.4, 0.2))
    found = compare_runs(first, second, targets=(0.5, 0.5))
    assert {(c.first.lr, c.second.lr) for c in found.at_best_lr} == {(0.1, 0.4)}
    assert {(c.first.lr, c.second.lr) for c in found.at_same_lr} == {(0.2, 0.2)}
    assert any(
        "first store's best lr is the least or largest" in n for n in found.notes
    )


def test_a_batch_size_where_a_run_missed_is_not_tested():
    first = [*runs_of_law(100, 50), run_of(8, 0.1, 9, None)]
    found = compare_runs(first, runs_of_law(100, 50), targets=(0.5, 0.5))
    entry = found.to_dict()["at_best_lr"][0]
    assert (entry["ratio"], entry["p_value"], entry["differs"]) == (None, None, None)
    assert (entry["first"]["num_reached"], entry["first"]["num_runs"]) == (5, 6)
    # The tests that remain are three.
    assert found.at_best_lr[1].adjusted_p <= 3 * found.at_best_lr[1].p_value + 1e-12


def test_without_a_common_batch_size_there_is_nothing_to_compare():
    with pytest.raises(InputError, match="first has 8, the second 16"):
        compare_runs([run_of(8)], [run_of(16)], targets=(0.5, 0.5))


def test_a_store_that_cannot_be_fitted_says_so_and_its_steps_are_compared():
    first = [run_of(8, seed=seed, steps=90 + seed) for seed in range(3)]
    found = compare_runs(first, runs_of_law(100, 50), targets=(0.5, 0.5))
    assert found.critical_batch_sizes[0] is None
    assert found.critical_ratio is None
    assert any("first store gives no critical batch size" in n for n in found.notes)
    assert len(found.at_best_lr) == 1


def test_a_level_above_one_is_refused():
    with pytest.raises(InputError, match="write 0.9"):
        compare_runs([run_of()], [run_of()], targets=(0.5, 0.5), level=90)
