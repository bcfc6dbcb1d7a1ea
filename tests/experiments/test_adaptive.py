"""Runs bought by regret: which rates and seeds, when to stop, and going on again."""

from pathlib import Path

import pytest
from tiny_workload import make

from rightbatch.errors import InputError
from rightbatch.experiments.adaptive import Buying, buy, buy_runs
from rightbatch.experiments.adaptive_job import (
    Job,
    best_runs,
    jobs_of,
    lrs_in_play,
    run_job,
)
from rightbatch.experiments.crossing import Crossing
from rightbatch.experiments.identity import open_store
from rightbatch.experiments.record import Run, TargetCrossing
from rightbatch.experiments.sweep import SweepSettings
from rightbatch.step_time import StepTimeLaw
from rightbatch.training_time import BatchLimits
from rightbatch.training_time.next_run import Buyer, Purchase

TINY = f"{Path(__file__).parents[1] / 'tiny_workload.py'}:tiny"
SIZES = (4, 8, 16, 32, 64, 128, 256)
LRS = (0.1, 0.2, 0.4, 0.8, 1.6)
STEP_TIME = StepTimeLaw(
    seconds_per_example=1e-6, saturation_batch_size=1, overhead_seconds=1e-4
)


def run_of(batch_size, lr, steps, seed=0, seconds=1.0):
    status = "not_reached" if steps is None else "reached"
    crossed = TargetCrossing(target=0.4, status=status, steps=steps)
    return Run(
        batch_size=batch_size, lr=lr, seed=seed, status=status,
        last_step=steps or 999, budget=999, trace=(), crossings=(crossed,),
        nearest=None, crossing=Crossing(), seconds_training=seconds,
        seconds_checking=0.0, median_step_seconds=None,
    )  # fmt: skip


def buying_of(lrs=LRS, **changes):
    buyer = Buyer(
        step_time=STEP_TIME,
        candidates=SIZES,
        limits=BatchLimits(max_batch_size=256),
        goal=changes.pop("goal", 0.05),
    )
    settings = SweepSettings(batch_sizes=SIZES, lrs=lrs)
    return Buying(**({"settings": settings, "buyer": buyer} | changes))


def best_lr(batch_size):
    """The rate with the least steps in :func:`made_up`."""
    return 0.4 if batch_size < 64 else 0.8


def made_up(jobs, settings, steps_at=lambda size: 100 + 6400 / size):
    """Make the runs of jobs from a law, 30 % slower per rate beside the best."""

    def runs_of(job):
        def run(lrs, _):
            return tuple(
                run_of(
                    job.batch_size,
                    lr,
                    steps_at(job.batch_size)
                    and int(
                        steps_at(job.batch_size)
                        * 1.4 ** abs(LRS.index(lr) - LRS.index(best_lr(job.batch_size)))
                    ),
                    job.seed,
                )
                for lr in lrs
            )

        return run_job(job, settings, run)

    return [runs_of(job) for job in jobs]


def bought_with(buying, **others):
    return buy(buying, lambda jobs: made_up(jobs, buying.settings, **others))


# Which learning rates ---------------------------------------------------------------


def test_the_first_two_batch_sizes_try_every_rate_and_later_ones_its_neighbours():
    runs = [run_of(16, lr, 500) for lr in LRS]
    assert lrs_in_play(runs, 256, LRS) == LRS
    runs = [run_of(16, 0.2, 500), run_of(16, 0.4, 700)]
    runs += [run_of(256, 0.2, 500), run_of(256, 0.8, 100)]
    # Halfway in ln B between .2 and .8.
    assert lrs_in_play(runs, 64, LRS) == (0.2, 0.4, 0.8)
    assert lrs_in_play(runs, 4, LRS) == (0.1, 0.2, 0.4)
    assert lrs_in_play(runs, 256, LRS) == (0.8,)
    assert lrs_in_play(runs, 16, LRS) == (0.2,)


def test_a_rate_that_missed_once_is_out_of_play_where_another_never_did():
    runs = [run_of(16, 0.2, 500), run_of(16, 0.4, 400), run_of(16, 0.4, None, seed=1)]
    assert lrs_in_play(runs, 16, LRS) == (0.2,)
    assert [run.lr for run in best_runs(runs)] == [0.2]
    assert lrs_in_play(runs[2:], 16, LRS) == LRS


@pytest.mark.parametrize(
    ("best", "begun", "tried"),
    [
        (0.4, (0.2, 0.4, 0.8), [0.2, 0.4, 0.8]),
        (0.8, (0.2, 0.4, 0.8), [0.2, 0.4, 0.8, 1.6]),
        (1.6, (0.1, 0.2), [0.1, 0.2, 0.4, 0.8, 1.6]),
        (0.1, (0.4, 0.8), [0.4, 0.8, 0.2, 0.1]),
    ],
)
def test_rates_go_on_past_an_edge_that_is_best(best, begun, tried):
    budgets = []

    def run(lrs, max_steps):
        budgets.append(max_steps)
        away = [abs(LRS.index(lr) - LRS.index(best)) for lr in lrs]
        return tuple(
            run_of(16, lr, 100 + 50 * far) for lr, far in zip(lrs, away, strict=True)
        )

    job = Job(batch_size=16, seed=0, lrs=begun)
    runs = run_job(job, buying_of().settings, run)
    assert [run.lr for run in runs] == tried
    assert budgets[0] is None
    if len(tried) > len(begun):
        # Late ones are capped, as in a race.
        fastest = min(run.steps() for run in runs[: len(begun)])
        assert budgets[1] == int(2.5 * fastest)


def test_where_no_rate_arrives_all_others_are_tried_once():
    asked = []

    def run(lrs, _):
        asked.append(lrs)
        return tuple(run_of(16, lr, None) for lr in lrs)

    settings = buying_of().settings
    run_job(Job(batch_size=16, seed=0, lrs=(0.2, 0.4)), settings, run)
    assert asked == [(0.2, 0.4), (0.1, 0.8, 1.6)]
    asked.clear()
    run_job(Job(batch_size=16, seed=1, lrs=(0.2,), tried=LRS), settings, run)
    assert asked == [(0.2,)]


def test_seeds_are_the_next_unused_at_their_batch_size():
    runs = [run_of(16, 0.2, 500, seed) for seed in (0, 1)]
    runs.append(run_of(64, 0.2, 200))
    purchases = [Purchase(batch_size=size, reason="regret") for size in (16, 16, 32)]
    jobs = jobs_of(purchases, runs, LRS)
    assert [(job.batch_size, job.seed) for job in jobs] == [(16, 2), (16, 3), (32, 0)]
    assert jobs[0].tried == (0.2,)
    assert str(jobs[0]) == "batch size 16, seed 2"


# When to stop -----------------------------------------------------------------------


def test_buying_ends_when_the_regret_is_met_and_the_law_was_tested():
    found = bought_with(buying_of())
    assert found.stopped == "met"
    assert [bill.reason for bill in found.bills[:2]] == ["start", "start"]
    assert [bill.lrs for bill in found.bills[:2]] == [LRS, LRS]
    assert found.bills[0].regret is None
    assert found.bills[-1].regret <= 0.05
    assert found.seconds == len(found.runs)
    near = [size for size in found.bought.batch_sizes if 32 <= size <= 128]
    assert len(near) >= 2
    assert found.bills[0].to_dict().keys() == {
        "batch_size", "lrs", "seed", "reason", "seconds", "regret",
    }  # fmt: skip


def test_a_budget_ends_it_after_the_first_two():
    found = bought_with(buying_of(budget_seconds=0.5))
    assert found.stopped == "budget"
    assert len(found.bills) == 2
    assert bought_with(buying_of(most_purchases=3, goal=1e-4)).stopped == "most"


def test_a_goal_met_by_the_purchase_that_passes_the_budget_is_met():
    free = bought_with(buying_of())
    spent = free.seconds - free.bills[-1].seconds / 2
    found = bought_with(buying_of(budget_seconds=spent))
    assert (found.stopped, found.bills) == ("met", free.bills)
    assert bought_with(buying_of(most_purchases=len(free.bills))).stopped == "met"


def test_where_two_seeds_missed_no_more_are_run():
    asked = []
    lrs = (0.4,)
    buying = buying_of(lrs=lrs, goal=1e-3, most_purchases=12)

    def train(jobs):
        (job,) = jobs
        asked.append(job.batch_size)
        steps = 100 + 6400 // job.batch_size if job.seed == 0 else None
        return [(run_of(job.batch_size, 0.4, steps, job.seed),)]

    found = buy(buying, train)
    # The first seed reached the target, and the next two did not.
    assert max(asked.count(size) for size in asked) == 3
    assert found.bought.closed
    assert found.bought.missed == ()


def test_where_every_batch_size_missed_twice_nothing_is_left_to_buy():
    buyer = Buyer(step_time=STEP_TIME, candidates=(16, 256), goal=1e-6,
                  limits=BatchLimits(max_batch_size=256))  # fmt: skip
    settings = SweepSettings(batch_sizes=(16, 256), lrs=(0.4,))

    def train(jobs):
        (job,) = jobs
        steps = 100 + 6400 // job.batch_size if job.seed == 0 else None
        return [(run_of(job.batch_size, 0.4, steps, job.seed),)]

    found = buy(Buying(settings=settings, buyer=buyer), train)
    assert found.stopped == "missed"
    assert found.bought.closed == (16, 256)


def test_a_target_that_small_batches_miss_is_bought_above_them():
    def steps_at(size):
        return 100 + 6400 / size if size >= 32 else None

    found = bought_with(buying_of(), steps_at=steps_at)
    assert found.stopped == "met"
    assert found.bought.missed == (16,)
    assert min(found.bought.batch_sizes) >= 32


def test_a_target_never_reached_is_given_up_after_four_batch_sizes():
    found = bought_with(buying_of(), steps_at=lambda _: None)
    assert found.stopped == "missed"
    assert len({run.batch_size for run in found.runs}) == 4


def test_several_at_once_are_bought_together():
    buying = buying_of(at_once=3)
    asked = []

    def train(jobs):
        asked.append(len(jobs))
        return made_up(jobs, buying.settings)

    found = buy(buying, train)
    assert found.stopped == "met"
    assert asked[0] == 2
    assert max(asked) <= 3


# For real ---------------------------------------------------------------------------


@pytest.fixture
def tiny_buying():
    return buying_of(lrs=(0.1, 0.5, 2.0), goal=0.1)


def decisions(bills):
    return [(bill.batch_size, bill.lrs, bill.seed, bill.reason) for bill in bills]


def test_from_its_store_the_same_purchases_come_without_training(tmp_path, tiny_buying):
    workload = make()
    with open_store(tmp_path / "runs.sqlite", workload) as store:
        first = buy_runs(workload, tiny_buying, store)
        stored = store.runs()
        again = buy_runs(workload, buying_of(
            lrs=(0.1, 0.5, 2.0), goal=0.1, resume=True,
        ), store)  # fmt: skip
        assert store.runs() == stored
    assert first.stopped == "met"
    assert len(stored) == len(first.runs)
    # The seconds are those of the first time, so nothing was trained.
    assert again.bills == first.bills


def test_after_a_ctrl_c_the_same_purchases_come(tmp_path, tiny_buying):
    workload = make()
    with open_store(tmp_path / "whole.sqlite", workload) as store:
        whole = buy_runs(workload, tiny_buying, store)
    seen = []

    def stop_at_three(bill):
        seen.append(bill)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with open_store(tmp_path / "cut.sqlite", workload) as store:
        with pytest.raises(KeyboardInterrupt):
            buy_runs(workload, tiny_buying, store, on_purchase=stop_at_three)
        kept = len(store.runs())
        resumed = buying_of(lrs=(0.1, 0.5, 2.0), goal=0.1, resume=True)
        found = buy_runs(workload, resumed, store)
        assert len(store.runs()) == len(found.runs)
    assert kept == sum(len(bill.lrs) for bill in seen)
    assert found.bills[:3] == tuple(seen)
    assert decisions(found.bills) == decisions(whole.bills)


@pytest.mark.slow
def test_two_processes_buy_two_at_once_into_one_store(tmp_path):
    buying = buying_of(lrs=(0.1, 0.5), goal=0.2, at_once=2, most_purchases=2)
    with open_store(tmp_path / "runs.sqlite", make()) as store:
        found = buy_runs(TINY, buying, store)
        assert len(store.runs()) == len(found.runs) == 4
        alone = buying_of(lrs=(0.1, 0.5), goal=0.2, most_purchases=2, resume=True)
        again = buy_runs(TINY, alone, store)
    assert again.bills == found.bills


def test_a_workload_without_a_name_is_bought_one_at_a_time(tmp_path):
    with (
        open_store(tmp_path / "runs.sqlite", make()) as store,
        pytest.raises(InputError, match="must be a name where several purchases"),
    ):
        buy_runs(make(), buying_of(lrs=(0.5,), at_once=2), store)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"budget_seconds": 0.0}, "`budget_seconds`"),
        ({"most_purchases": 0}, "`most_purchases`"),
        ({"at_once": 0}, "`at_once`"),
        (
            {"settings": SweepSettings(batch_sizes=(8, 64))},
            r"must be the `batch_sizes` of the settings, got .* and \(8, 64\)",
        ),
    ],
)
def test_bounds_that_are_none_are_refused(changes, match):
    with pytest.raises(InputError, match=match):
        buying_of(**changes)
