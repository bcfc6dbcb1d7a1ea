"""The best mix to rent: against grids, for a bill and by a deadline."""

import numpy as np
import pytest
from example_designs import (
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
    Memory,
    best_mix,
)
from rightbatch.convergence import ConvergenceLaw
from rightbatch.step_time import LinearCommunication, StepTimeLaw

prices = st.floats(10, 5000)
budgets = st.floats(20_000, 1e6)


def test_the_bill_is_the_price_times_the_hours():
    what = design(replicas(2.0), bandwidth(1.0), renting=True)
    best = best_mix(what, budget=1.0).mix
    assert best.money == pytest.approx(best.price * best.seconds / 3600)
    assert best.money <= 1.0 * (1 + 1e-9)


@pytest.mark.parametrize("budget", [0.65, 1.0, 4.0])
def test_renting_for_a_budget_is_the_soonest_of_a_fine_grid(budget):
    what = design(replicas(2.0, high=300), bandwidth(1.0, high=64), renting=True)
    best = best_mix(what, budget=budget).mix
    counts, widths = np.meshgrid(np.arange(1, 301.0), np.geomspace(1, 64, 400))
    amounts = (counts.ravel(), widths.ravel())
    times = what.objective(amounts)
    bills = what.price(amounts) * times / 3600
    assert best.objective <= times[bills <= budget].min() * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(
    each=st.floats(0.1, 5),
    network=st.floats(0.1, 5),
    budget=st.floats(0.7, 5),
    between=st.sampled_from([0.0, 0.002]),
)
def test_the_soonest_for_a_bill_is_the_best_of_every_number_of_replicas(
    each, network, budget, between
):
    step_time = StepTimeLaw(
        seconds_per_example=0.001,
        saturation_batch_size=20,
        communication=LinearCommunication(seconds_per_replica=between),
    )
    what = design(
        replicas(each, high=60),
        bandwidth(network, high=32),
        jobs=[job(step_time=step_time)],
        renting=True,
    )
    counts, widths = np.meshgrid(np.arange(1, 61.0), np.geomspace(1, 32, 200))
    amounts = (counts.ravel(), widths.ravel())
    times = what.objective(amounts)
    bills = what.price(amounts) * times / 3600
    if bills.min() > budget:
        return
    best = best_mix(what, budget=budget).mix
    assert best.money <= budget * (1 + 1e-9)
    assert best.objective <= times[bills <= budget].min() * (1 + 1e-9)


@pytest.mark.parametrize("network", [0.5, 1.0, 3.0])
def test_renting_for_two_jobs_is_as_good_as_a_grid(network):
    two = [
        job(name="one"),
        job(name="two", convergence=ConvergenceLaw(min_steps=500, min_examples=2e5)),
    ]
    what = design(
        replicas(2.0, high=40), bandwidth(network, high=32), jobs=two, renting=True
    )
    mixes = [(p, w) for p in np.arange(2.0, 41, 2) for w in (1.0, 2.0, 4.0, 8.0, 16.0)]
    bills = np.array([what.money(mix) for mix in mixes])
    times = np.array([float(what.objective(mix)) for mix in mixes])
    budget = float(np.median(bills))
    best = best_mix(what, budget=budget).mix
    assert best.money <= budget * (1 + 1e-9)
    assert best.objective <= times[bills <= budget].min() * 1.01
    # A search for several jobs looks at fewer mixes.
    assert best_mix(what).mix.money <= bills.min() * 1.01


@pytest.mark.parametrize("budget", [None, 4.0])
def test_renting_four_components_with_no_end_beats_a_grid(budget):
    what = design(
        replicas(2.0),
        compute(1.0),
        bandwidth(1.0),
        Memory(price=linear(0.02), low=4),
        renting=True,
    )
    best = best_mix(what, budget=budget).mix
    ends = np.geomspace(1, 4096, 13)
    grids = [np.rint(np.geomspace(1, 4096, 40)), ends, ends, [4, 8, 16, 20, 32, 64]]
    amounts = [each.ravel() for each in np.meshgrid(*grids, indexing="ij")]
    times = what.objective(amounts)
    bills = what.price(amounts) * times / 3600
    if budget is None:
        assert best.money <= bills.min() * (1 + 1e-3)
    else:
        assert best.money <= budget * (1 + 1e-9)
        assert best.objective <= times[bills <= budget].min() * (1 + 1e-9)


@pytest.mark.parametrize("deadline", [30, 60, 400])
def test_renting_by_a_deadline_is_the_least_bill_of_a_fine_grid(deadline):
    what = design(replicas(2.0, high=300), bandwidth(1.0, high=64), renting=True)
    best = best_mix(what, deadline=deadline).mix
    counts, widths = np.meshgrid(np.arange(1, 301.0), np.geomspace(1, 64, 400))
    amounts = (counts.ravel(), widths.ravel())
    times = what.objective(amounts)
    bills = what.price(amounts) * times / 3600
    assert best.objective <= deadline * (1 + 1e-9)
    # The scan over prices stops at 1e-7 around what it found.
    assert best.money <= bills[times <= deadline].min() * (1 + 1e-4)
