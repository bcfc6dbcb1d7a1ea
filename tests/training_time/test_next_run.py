"""Which batch size to run next, and when to stop."""

import numpy as np
import pytest

from rightbatch.convergence import ConvergenceLaw
from rightbatch.errors import InputError
from rightbatch.step_time import ConstantCommunication, StepTimeLaw
from rightbatch.training_time import BatchLimits, TrainingTimeLaw, regret
from rightbatch.training_time.next_run import (
    Bought,
    Buyer,
    Purchase,
    expected_gain,
)
from rightbatch.training_time.posterior import LawShapes, law_posterior, regret_table

SIZES = [2**power for power in range(11)]
LIMITS = BatchLimits(max_batch_size=1024)
STEP_TIME = StepTimeLaw(
    seconds_per_example=1e-6, saturation_batch_size=1, overhead_seconds=3e-4
)
BUYER = Buyer(step_time=STEP_TIME, candidates=SIZES, limits=LIMITS)


def exact(sizes, phi=64.0, knee=1.0, **others):
    law = ConvergenceLaw(min_steps=100, min_examples=100 * phi, knee_exponent=knee)
    steps = tuple(float(law.steps(size)) for size in sizes)
    return Bought(batch_sizes=tuple(sizes), steps=steps, **others)


def first_two(buyer, missed=()):
    bought = Bought(missed=tuple(missed))
    one = buyer.next_purchase(bought)
    assert one is not None
    two = buyer.next_purchase(bought.and_run(one, 100))
    return one.batch_size, two and two.batch_size


def test_the_first_two_lie_far_apart():
    assert first_two(BUYER) == (16, 256)
    small = Buyer(step_time=STEP_TIME, candidates=[1, 2, 4, 8])
    assert first_two(small) == (8, 2)
    assert first_two(Buyer(step_time=STEP_TIME, candidates=[4, 5])) == (5, 4)
    guessed = Buyer(step_time=STEP_TIME, candidates=SIZES, guess=8)
    assert first_two(guessed) == (2, 32)


def test_where_the_target_was_missed_the_next_batch_size_is_tried():
    # 32, as smaller ones than 16 are no likelier to get there, then 256.
    assert first_two(BUYER, missed=[16]) == (32, 256)
    reached_large = Bought(batch_sizes=(256,), steps=(120,), missed=(16, 32))
    assert BUYER.next_purchase(reached_large) == Purchase(batch_size=64, reason="start")
    nothing_left = Bought(batch_sizes=(256,), steps=(120,), missed=(16, 32, 64, 1024))
    assert BUYER.next_purchase(nothing_left) is None
    assert BUYER.next_purchase(Bought(missed=(16, 32, 256, 512))) is None


def test_no_batch_size_is_bought_beyond_one_that_missed():
    bought = Bought(batch_sizes=(32, 256), steps=(300, 125), missed=(16,))
    for _ in range(6):
        purchase = BUYER.next_purchase(bought)
        if purchase is None:
            break
        assert purchase.batch_size >= 32
        bought = bought.and_run(purchase, float(100 + 6400 / purchase.batch_size))


def test_no_batch_size_is_best_at_or_past_one_that_missed():
    slow = StepTimeLaw(
        seconds_per_example=1e-6, saturation_batch_size=1, overhead_seconds=1e-2
    )
    buyer = Buyer(step_time=slow, candidates=SIZES, limits=LIMITS, replicas=(1, 16))
    bought = Bought(batch_sizes=(16, 64), steps=(500, 200), missed=(2, 128, 256))
    assert (bought.missed_below, bought.missed_above) == (2, 128)
    free = Bought(batch_sizes=(16, 64), steps=(500, 200))
    assert all(one.batch_size > 128 for one in buyer.assess(free).regrets)
    assert all(one.batch_size < 128 for one in buyer.assess(bought).regrets)
    cheap = Buyer(
        step_time=StepTimeLaw(seconds_per_example=1e-6, saturation_batch_size=1),
        candidates=SIZES,
        limits=LIMITS,
    )
    assert cheap.assess(free).regrets[0].batch_size < 3
    assert cheap.assess(bought).regrets[0].batch_size == 3
    # Sixteen replicas need 16 examples, whatever missed.
    small = Bought(batch_sizes=(2, 8), steps=(900, 300), missed=(16,))
    assert buyer.assess(small).regrets[1].batch_size == 16


def test_a_batch_size_where_seeds_often_miss_is_not_bought_again():
    bought = exact([16, 256])
    first = BUYER.next_purchase(bought)
    assert first is not None
    closed = exact([16, 256], closed=(first.batch_size,))
    other = BUYER.next_purchase(closed)
    assert other is not None
    assert other.batch_size != first.batch_size
    assert BUYER.next_purchase(exact([16, 256], closed=tuple(SIZES))) is None


def test_the_gain_is_what_many_made_up_runs_gain_on_average():
    shapes = LawShapes.inverse(1024)
    table = regret_table(shapes, STEP_TIME, 1, LIMITS)
    known = law_posterior(shapes, [16, 256], [520.0, 118.0])
    sizes = np.array([16.0, 1024.0])
    generator = np.random.default_rng(0)
    before = (known.weights @ table.regrets).min()
    for size, gain in zip(sizes, expected_gain(known, [table], sizes), strict=True):
        after = []
        for shape in generator.choice(len(known.weights), 400, p=known.weights):
            sigma = np.sqrt(known.noise_variance[shape] * 1.5)
            expected = known.expected_log_steps([size])[shape, 0]
            steps = float(np.exp(expected + sigma * generator.standard_normal()))
            more = law_posterior(shapes, [16, 256, size], [520.0, 118.0, steps])
            after.append((more.weights @ table.regrets).min())
        error = np.std(after) / 20
        # Three standard errors, and what a normal law makes of a skew one.
        wanted = before - np.mean(after)
        assert gain == pytest.approx(wanted, abs=3 * error + 0.25 * wanted)


def test_the_next_run_gains_most_per_second_and_per_learning_rate():
    bought = exact([16, 256])
    chosen = BUYER.next_purchase(bought)
    assert chosen is not None
    assert chosen.reason == "regret"
    known = law_posterior(LawShapes.inverse(1024), bought.batch_sizes, bought.steps)
    table = regret_table(known.shapes, STEP_TIME, 1, LIMITS)
    gains = expected_gain(known, [table], np.array(SIZES, dtype=float))
    assert (gains >= 0).all()
    seconds = known.expected_steps(SIZES) * [3e-4 + 1e-6 * size for size in SIZES]
    assert chosen.batch_size == SIZES[int((gains / seconds).argmax())]
    dear = [50 if size == chosen.batch_size else 1 for size in SIZES]
    other = BUYER.next_purchase(bought, dear)
    assert other is not None
    assert other.batch_size != chosen.batch_size


def test_two_runs_near_phi_test_the_law_and_then_nothing_is_left():
    bought = exact([16, 256] * 4)
    assert BUYER.assess(bought).is_met
    assert BUYER.assess(bought).bent_p is None
    for _ in range(2):
        purchase = BUYER.next_purchase(bought)
        assert purchase == Purchase(batch_size=64, reason="law")
        bought = bought.and_run(purchase, 200.0)
    assert BUYER.next_purchase(bought) is None
    known = BUYER.assess(bought)
    assert (known.law, known.bent_p) == ("inverse", pytest.approx(1, abs=0.2))
    assert known.critical_batch_size == pytest.approx(64, rel=0.1)


def test_a_law_whose_corner_cannot_be_run_is_not_tested():
    bought = exact([16, 256, 1024, 512] * 12, phi=5000)
    assert BUYER.assess(bought).is_met
    assert BUYER.next_purchase(bought) is None


@pytest.mark.parametrize(("knee", "law"), [(1.0, "inverse"), (3.0, "knee")])
def test_runs_bent_away_from_the_inverse_law_are_told(knee, law):
    bought = exact([8, 64, 512] * 4, knee=knee)
    assert BUYER.assess(bought).law == law


def test_the_regret_is_of_the_batch_that_is_recommended():
    bought = exact([16, 256])
    best = BUYER.assess(bought).regrets[0]
    other = BUYER.assess(bought, [400]).regrets[0]
    assert other.batch_size == 400
    assert other.expected > best.expected


def test_every_number_of_replicas_must_lose_little():
    step_time = StepTimeLaw(
        seconds_per_example=1e-3,
        saturation_batch_size=1,
        communication=ConstantCommunication(seconds=0.3),
    )
    # On one replica a batch of one example is best, whatever phi.
    one = Buyer(step_time=step_time, candidates=SIZES, limits=LIMITS)
    both = Buyer(step_time=step_time, candidates=SIZES, limits=LIMITS, replicas=(1, 4))
    bought = exact([16, 256])
    assert one.assess(bought).is_met
    known = both.assess(bought)
    assert [regret.num_replicas for regret in known.regrets] == [1, 4]
    assert known.value == max(regret.value for regret in known.regrets)
    assert not known.is_met
    assert "on 4 replicas, the worst case" in known.replicas_in_words()
    assert known.to_dict()["met"] is False


def test_several_runs_are_chosen_as_if_those_before_had_come_out_as_expected():
    both = BUYER.next_purchases(Bought(), 4)
    assert [purchase.batch_size for purchase in both] == [16, 256]
    bought = exact([16, 256])
    three = BUYER.next_purchases(bought, 3)
    assert three[0] == BUYER.next_purchase(bought)
    tests = BUYER.next_purchases(exact([16, 256] * 6), 8)
    assert [purchase.reason for purchase in tests] == ["law", "law"]


@pytest.mark.slow
@pytest.mark.parametrize("phi", [64, 1024])
def test_plans_bought_by_regret_lose_little_nine_times_in_ten(phi):
    law = ConvergenceLaw(min_steps=500, min_examples=500 * phi)
    time = TrainingTimeLaw(steps=law, step_time=STEP_TIME)
    kept, spent, num = 0, 0.0, 60
    for seed in range(num):
        generator = np.random.default_rng([seed, phi])
        bought = Bought()
        while purchase := BUYER.next_purchase(bought):
            scatter = np.exp(0.2 * generator.standard_normal())
            steps = float(law.steps(purchase.batch_size)) * scatter
            bought = bought.and_run(purchase, steps)
        best = BUYER.assess(bought).regrets[0].batch_size
        kept += regret(time, best, 1, LIMITS) <= BUYER.goal
        spent += float(np.dot(bought.batch_sizes, bought.steps)) / num
    # 54 kept are 90 %; 1.64 standard errors below.
    assert kept >= 50
    assert spent <= 0.1 * 10 * sum(float(law.examples(size)) for size in SIZES)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"candidates": [8]}, "must be two batch sizes or more, got 1"),
        ({"candidates": [8, 0]}, "`candidates`"),
        ({"goal": 0.0}, "`goal`"),
        ({"guess": -1.0}, "`guess`"),
    ],
)
def test_what_nothing_can_be_bought_for_is_refused(changes, match):
    with pytest.raises(InputError, match=match):
        Buyer(**({"step_time": STEP_TIME, "candidates": SIZES} | changes))


def test_runs_that_do_not_pair_up_are_refused():
    with pytest.raises(InputError, match="must pair up, got 2 and 1"):
        Bought(batch_sizes=(8, 16), steps=(100,))
