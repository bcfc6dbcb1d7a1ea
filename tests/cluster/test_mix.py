"""The best mix against brute force, and what must hold of any best mix."""

import math

import numpy as np
import oracles
import pytest
from example_designs import (
    STEPS,
    bandwidth,
    compute,
    design,
    job,
    linear,
    replicas,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.cluster import (
    Bandwidth,
    Compute,
    Memory,
    Replicas,
    SteppedPrice,
    TablePrice,
    best_mix,
    pareto_front,
)
from rightbatch.cluster.marginal import worths
from rightbatch.cluster.search import cheapest_price, soonest
from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError, NotReachedError
from rightbatch.step_time import LinearCommunication, StepTimeLaw

prices = st.floats(10, 5000)
budgets = st.floats(20_000, 1e6)


@settings(max_examples=25, deadline=None)
@given(each=prices, network=prices, budget=budgets)
def test_replicas_and_bandwidth_are_the_best_of_every_number_of_replicas(
    each, network, budget
):
    what = design(replicas(each, high=200), bandwidth(network))
    found = best_mix(what, budget=budget).mix
    counts = np.arange(1, 201.0)
    left = np.minimum((budget - each * counts) / network, 4096)
    fits = left >= 1
    times = what.objective((counts[fits], left[fits]))
    assert found.objective == pytest.approx(times.min(), rel=1e-9)
    assert found.price <= budget * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(
    speed=prices,
    network=prices,
    per_replica=st.booleans(),
    count=st.integers(2, 40),
    budget=st.floats(300_000, 3e6),
)
def test_two_components_of_any_amount_beat_a_fine_grid(
    speed, network, per_replica, count, budget
):
    what = design(
        compute(speed, per_replica=per_replica),
        bandwidth(network),
        num_replicas=count,
    )
    found = best_mix(what, budget=budget).mix
    most = min(budget / speed / (count if per_replica else 1), 4096)
    speeds = np.geomspace(1, most, 20_001)
    paid = speed * speeds * (count if per_replica else 1)
    left = np.minimum((budget - paid) / network, 4096)
    fits = left >= 1
    times = what.objective((speeds[fits], left[fits]))
    assert found.objective <= times.min() * (1 + 1e-9)
    # The grid is 1e-3 wide: a least that is flat is missed by that squared, one at a
    # limit of either component by that itself.
    assert found.objective == pytest.approx(times.min(), rel=1e-3)


STEPPED = (
    Replicas(price=SteppedPrice(step=4, price_per_step=5000.0), high=24),
    Compute(
        price=TablePrice(amounts=[1, 2, 5], prices=[0, 700, 3000], listed_only=True)
    ),
    Bandwidth(price=SteppedPrice(step=2, price_per_step=2500.0), high=12),
)


@pytest.mark.parametrize("budget", [8_000, 20_000, 45_000, 90_000, 1e6])
@pytest.mark.parametrize("between", [0.0, 0.002])
def test_components_sold_in_steps_are_the_best_of_all_mixes(budget, between):
    step_time = StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=20,
        communication=LinearCommunication(seconds_per_replica=between),
    )
    what = design(*STEPPED, jobs=[job(step_time=step_time)])
    grids = [range(1, 25), [1, 2, 5], [1, 2, 4, 6, 8, 10, 12]]
    least = oracles.best_mix_on_a_grid(what, grids, budget)
    # Both ways of searching: all mixes listed, and grids that close in.
    assert best_mix(what, budget=budget).mix.objective == pytest.approx(least)
    found = soonest(what, budget)
    assert found is not None
    assert found.objective == pytest.approx(least)


def test_four_components_with_memory_beat_a_grid():
    step_time = StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=4,
        overhead_seconds=0.01,
        communication=LinearCommunication(seconds_per_replica=0.002),
    )
    what = design(
        Replicas(price=SteppedPrice(step=4, price_per_step=8000.0), high=32),
        compute(900.0, high=4),
        bandwidth(3000.0, high=16),
        Memory(price=linear(40.0), low=8, high=64, choices=[8, 16, 32, 64]),
        jobs=[job(step_time=step_time)],
    )
    found = best_mix(what, budget=120_000).mix
    grids = [
        range(4, 33, 4),
        np.linspace(1, 4, 16),
        np.linspace(1, 16, 16),
        [8, 16, 32, 64],
    ]
    amounts = [each.ravel() for each in np.meshgrid(*grids, indexing="ij")]
    fits = what.price(amounts) <= 120_000
    least = what.objective([each[fits] for each in amounts]).min()
    assert found.price <= 120_000 * (1 + 1e-9)
    assert found.objective <= least * (1 + 2e-3)


@settings(max_examples=25, deadline=None)
@given(
    speed=prices,
    network=prices,
    count=st.integers(2, 40),
    budget=st.floats(500_000, 3e6),
    knee=st.sampled_from([1.0, 2.0]),
)
def test_at_an_interior_optimum_all_gains_per_unit_of_money_are_equal(
    speed, network, count, budget, knee
):
    law = ConvergenceLaw(min_steps=1000, min_examples=7e5, knee_exponent=knee)
    what = design(
        compute(speed),
        bandwidth(network),
        num_replicas=count,
        jobs=[job(convergence=law)],
    )
    best = best_mix(what, budget=budget)
    inside = [each.gain for each in best.marginal if each.at == "interior"]
    spent = best.mix.price >= budget * (1 - 1e-6)
    if len(inside) == 2 and spent and is_smooth(what, best):
        # Times are known to 1e-10 or so where a share is about to change.
        assert inside[0] == pytest.approx(inside[1], rel=1e-3)
    for each in best.marginal:
        if each.at == "low" and inside:
            assert each.gain <= best.rate * (1 + 1e-3)
        if each.at == "high" and inside:
            assert each.gain >= best.rate * (1 - 1e-3)


def is_smooth(what, best):
    """False where a share of whole examples is about to change, or the knee binds."""
    amounts = tuple(best.mix.used[each.name] for each in what.components)
    for i in range(len(amounts)):
        times = []
        for factor in (1 - 1e-3, 1 - 5e-4, 1.0, 1 + 5e-4, 1 + 1e-3):
            tried = [a * factor if j == i else a for j, a in enumerate(amounts)]
            times.append(float(what.objective(tuple(tried))))
        slopes = np.diff(times)
        if np.ptp(slopes) > 0.01 * abs(slopes).max():
            return False
    return True


def test_equation_12_holds_where_perrone_s_closed_form_has_its_optimum():
    # Square-root branch: T = (sqrt(delta S) + sqrt(E gamma/P))^2 with delta = .2/b,
    # gamma = .001/c; money c x 8 x 500 + b x 2000 = 60,000.
    step_time = StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=1e-3,
        communication=LinearCommunication(seconds_per_replica=0.025),
    )
    what = design(
        compute(500.0),
        bandwidth(2000.0),
        num_replicas=8,
        jobs=[job(step_time=step_time)],
    )
    best = best_mix(what, budget=60_000)
    speeds = np.linspace(1, 14, 200_001)
    widths = (60_000 - 4000 * speeds) / 2000
    times = (
        np.sqrt(0.2 / widths * STEPS.min_steps)
        + np.sqrt(STEPS.min_examples * 0.001 / speeds / 8)
    ) ** 2
    # Shares are whole examples; on the closed form's own they are real numbers.
    assert best.mix.seconds == pytest.approx(times.min(), rel=1e-4)
    gains = [each.gain for each in best.marginal]
    assert [each.at for each in best.marginal] == ["interior", "interior"]
    assert gains[0] == pytest.approx(gains[1], rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    each=prices,
    network=prices,
    first=budgets,
    more=st.floats(1, 3),
    stepped=st.booleans(),
)
def test_more_budget_is_never_slower(each, network, first, more, stepped):
    price = SteppedPrice(step=8, price_per_step=each) if stepped else linear(each)
    what = design(Replicas(price=price, high=500), bandwidth(network))
    less, much = (best_mix(what, budget=first * by).mix for by in (1, more))
    assert much.objective <= less.objective * (1 + 1e-9)
    assert less.price <= first * (1 + 1e-9)


@settings(max_examples=15, deadline=None)
@given(each=prices, network=prices, budget=budgets)
def test_dearer_components_never_buy_a_faster_cluster(each, network, budget):
    cheap = design(replicas(each), bandwidth(network))
    dear = design(replicas(1.5 * each), bandwidth(1.2 * network))
    assert best_mix(dear, budget=budget).mix.objective >= best_mix(
        cheap, budget=budget
    ).mix.objective * (1 - 1e-9)


@settings(max_examples=10, deadline=None)
@given(each=prices, network=prices, budget=budgets)
def test_the_time_that_a_budget_buys_is_bought_for_that_budget(each, network, budget):
    what = design(replicas(each), bandwidth(network))
    soon = best_mix(what, budget=budget).mix
    cheap = best_mix(what, deadline=soon.objective).mix
    assert cheap.price <= soon.price * (1 + 1e-6)
    assert cheap.objective <= soon.objective * (1 + 1e-9)


@pytest.mark.parametrize("renting", [False, True])
def test_the_front_falls_in_time_as_money_rises(renting):
    what = design(replicas(), bandwidth(), renting=renting)
    best = best_mix(what, budget=1500 if renting else 50_000)
    front = pareto_front(what, best.mix)
    money, seconds = (
        [getattr(mix, key) for mix in front] for key in ("money", "seconds")
    )
    assert np.all(np.diff(money) > 0)
    assert np.all(np.diff(seconds) < 0)
    assert any(mix.amounts == best.mix.amounts for mix in front)


def test_what_does_not_help_is_not_bought():
    # One replica has nobody to talk to: the network stays as it is.
    what = design(bandwidth(), compute(), num_replicas=1)
    best = best_mix(what, budget=20_000)
    assert best.mix.amounts["bandwidth"] == 1
    assert best.marginal[0].gain == 0
    assert best.marginal[0].at == "low"


def test_replicas_of_a_step_that_would_slow_things_down_are_left_idle():
    step_time = StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=20,
        communication=LinearCommunication(seconds_per_replica=0.02),
    )
    what = design(
        Replicas(price=SteppedPrice(step=16, price_per_step=100.0), high=16),
        jobs=[job(step_time=step_time)],
    )
    best = best_mix(what, budget=100).mix
    times = what.objective((np.arange(1, 17.0),))
    assert best.num_replicas == 16
    assert best.idle_replicas == 16 - 1 - int(times.argmin()) > 0
    assert best.seconds == pytest.approx(times.min())


def test_a_budget_too_small_for_one_replica_names_the_smallest_that_works():
    what = design(replicas(), bandwidth())
    with pytest.raises(NotReachedError, match="smallest budget that works is 3,000"):
        best_mix(what, budget=2_999)
    assert best_mix(what, budget=3_000).mix.num_replicas == 1


def test_the_smallest_bill_that_works_does_work():
    what = design(replicas(2.0), bandwidth(1.0), renting=True)
    with pytest.raises(NotReachedError, match="smallest bill that works is") as said:
        best_mix(what, budget=1e-3)
    least = float(str(said.value).rpartition(" ")[2].rstrip(")").replace(",", ""))
    assert best_mix(what, budget=least * (1 + 1e-6)).mix.money <= least * (1 + 1e-6)


def test_a_deadline_out_of_reach_names_the_least_time_and_its_price():
    what = design(replicas(high=64), bandwidth(high=8))
    with pytest.raises(NotReachedError, match=r"least time .* 34.8\d+ s, at a price"):
        best_mix(what, deadline=1)


def test_a_budget_too_small_for_the_deadline_names_the_cheapest_in_time():
    what = design(replicas(), bandwidth())
    with pytest.raises(NotReachedError, match="cheapest in time costs 4"):
        best_mix(what, deadline=50, budget=10_000)


def test_listed_mixes_say_the_same_of_what_does_not_fit():
    what = design(*STEPPED)
    with pytest.raises(NotReachedError, match="smallest budget that works is 7,500"):
        best_mix(what, budget=1_000)
    with pytest.raises(NotReachedError, match="the least time that can be reached"):
        best_mix(what, deadline=1)
    with pytest.raises(NotReachedError, match="cheapest in time costs"):
        best_mix(what, deadline=60, budget=8_000)


def test_one_more_replica_saves_what_it_saves():
    what = design(replicas(), bandwidth())
    best = best_mix(what, budget=50_000)
    more, wider = best.worth
    amounts = best.mix.used["replicas"], best.mix.used["bandwidth"]
    after = float(what.objective((amounts[0] + 1, amounts[1])))
    assert more.seconds_saved == pytest.approx(best.mix.objective - after)
    assert more.price == pytest.approx(1000)
    after = float(what.objective((amounts[0], 2 * amounts[1])))
    assert wider.seconds_saved == pytest.approx(best.mix.objective - after)
    assert wider.price == pytest.approx(2000 * amounts[1])
    assert wider.worth == pytest.approx(wider.seconds_saved / best.rate)


def test_where_rented_a_change_is_worth_what_leaves_the_bill_as_it_is():
    what = design(replicas(2.0), bandwidth(1.0), renting=True)
    best = best_mix(what, budget=1.0)
    more = best.worth[0]
    after = best.mix.objective - more.seconds_saved
    assert (best.mix.price + more.worth) * after == pytest.approx(
        best.mix.price * best.mix.objective
    )


@pytest.mark.parametrize("aim", ["latest", "weighted"])
@pytest.mark.parametrize("count", [6, 9, 14])
def test_where_several_jobs_are_rented_for_the_bill_is_until_the_last_is_done(
    aim, count
):
    two = [
        job(name="one", weight=5.0),
        job(name="two", convergence=ConvergenceLaw(min_steps=500, min_examples=2e5)),
    ]
    what = design(replicas(2.0), bandwidth(1.0), jobs=two, renting=True, aim=aim)
    now = (float(count), 2.0)
    for change, after in zip(
        worths(what, now, 1.0), ((count + 1.0, 2.0), (float(count), 4.0)), strict=True
    ):
        hours = what.money(after) / what.price(after)
        paid = (what.price(now) + change.worth) * hours
        # Nobody pays for a change that lets the last job finish later.
        assert paid == pytest.approx(max(what.money(now), what.price(now) * hours))


def test_the_last_step_bought_gained_more_than_the_next_would():
    what = design(replicas(), bandwidth())
    steps = best_mix(what, budget=50_000).marginal[0]
    assert (steps.at, steps.next_amount) == ("step", steps.amount + 1)
    assert steps.last_gain > steps.gain


def test_several_jobs_are_bought_for_together():
    two = [
        job(name="one"),
        job(name="two", convergence=ConvergenceLaw(min_steps=500, min_examples=2e5)),
    ]
    what = design(replicas(), bandwidth(), jobs=two)
    best = best_mix(what, budget=50_000).mix
    assert sum(share.num_replicas for share in best.jobs) + best.idle_replicas == (
        best.num_replicas
    )
    assert best.seconds == pytest.approx(max(share.seconds for share in best.jobs))
    counts = np.arange(2, 49.0)
    least = what.objective((counts, (50_000 - 1000 * counts) / 2000)).min()
    # A search for several jobs looks at fewer mixes.
    assert best.objective <= least * 1.01
    alone = best_mix(design(replicas(), bandwidth()), budget=50_000).mix
    assert best.seconds > alone.seconds


def test_what_is_asked_must_make_sense():
    what = design(replicas())
    with pytest.raises(InputError, match="`budget` or a `deadline`"):
        best_mix(what)
    with pytest.raises(InputError, match="`budget` must be positive"):
        best_mix(what, budget=0)
    with pytest.raises(InputError, match="`deadline` must be positive"):
        best_mix(what, deadline=-1)
    both = design(replicas(), jobs=[job(), job(name="b")], aim="weighted")
    with pytest.raises(InputError, match="a sum of times has no deadline"):
        best_mix(both, deadline=100)


def test_a_design_that_is_none_is_refused():
    with pytest.raises(InputError, match="`jobs` must hold at least one"):
        design(replicas(), jobs=[])
    with pytest.raises(InputError, match="`components` must hold at least one"):
        design()
    with pytest.raises(InputError, match="two of `jobs` are named 'job'"):
        design(replicas(), jobs=[job(), job()])
    with pytest.raises(InputError, match="only one component may be replicas"):
        design(replicas(), replicas(name="more"))
    with pytest.raises(InputError, match="did you mean latest"):
        design(replicas(), aim="last")


def test_jobs_need_a_replica_each():
    two = [job(), job(name="b")]
    with pytest.raises(NotReachedError, match="2 jobs need a replica each"):
        design(bandwidth(), jobs=two)
    with pytest.raises(NotReachedError, match="and there are 1"):
        design(replicas(high=1), jobs=two)


@pytest.mark.parametrize("renting", [False, True])
def test_what_is_there_already_may_cost_nothing(renting):
    free = Replicas(price=linear(5.0, included=1))
    wide = Bandwidth(price=linear(2.0, included=1))
    for components in ([free], [free, wide]):
        what = design(*components, renting=renting)
        best = best_mix(what, deadline=1000).mix
        assert (best.price, best.num_replicas) == (0, 1)
        assert len(pareto_front(what, best)) >= 1


def test_the_cheapest_mix_is_the_least_of_everything():
    assert cheapest_price(design(replicas(), bandwidth(), compute())) == 3500
    assert math.isclose(
        soonest(design(replicas(), bandwidth()), 3000).objective,
        float(job().seconds(design(replicas()).machine((1,)))),
    )
