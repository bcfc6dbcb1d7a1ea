"""The same recorded run into adadamp's formulas and ours: the same batch and lr."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.example_adadamp import OldDamper, OldRadaDamp
from policies.example_runs import clock, follow

from rightbatch.errors import InputError
from rightbatch.noise_scale import GradientMoments
from rightbatch.policies import (
    AdaDamp,
    AdaDampNN,
    Clip,
    CntsDampLR,
    Constant,
    Dwell,
    GeoDamp,
    GeoDampLR,
    PadaDamp,
    RadaDamp,
    RoundTo,
    SpillToLr,
    Wait,
    named_policy,
    needs_now,
)

UPDATES = 30
# Numbers that floats have exactly and whose quotients do not nearly touch a whole one.
exact = st.integers(1, 20_000).map(lambda n: n / 64)
columns = st.lists(exact, min_size=UPDATES, max_size=UPDATES)
initials = st.integers(1, 64)
manners = st.fixed_dictionaries(
    {"dwell": st.integers(1, 7), "wait": st.integers(0, 12), "cap": st.integers(1, 500)}
)


def with_its_manners(policy, dwell, wait, cap=None):
    """Return the policy as adadamp has it: rounded up, capped, waiting, dwelling."""
    policy = RoundTo(policy, how="up")
    policy = policy if cap is None else SpillToLr(policy, cap=cap)
    return Dwell(Wait(policy, updates=wait), updates=dwell)


def assert_same(decisions, rows, cap):
    for decision, (wanted, taken, _) in zip(decisions, rows, strict=True):
        assert decision.batch_size == taken
        # Its rate stays cut once it was; ours is that of the batch wanted now.
        assert decision.lr_factor == pytest.approx(min(1, cap / wanted), rel=1e-15)


def moments_of(norms):
    return [GradientMoments(grad_sq_norm=one, grad_variance=1.0) for one in norms]


@pytest.mark.parametrize(
    ("kind", "formula", "named"),
    [
        (AdaDamp, OldDamper.adadamp, lambda one: {"eval_loss": one}),
        (AdaDampNN, OldDamper.adadampnn, lambda one: {"moments": moments_of(one)}),
    ],
)
@settings(max_examples=100)
@given(column=columns, initial=initials, manner=manners)
def test_what_is_left_of_loss_or_norm_gives_the_batch_and_rate_of_adadamp_s_formulas(
    kind, formula, named, column, initial, manner
):
    old = OldDamper(initial=initial, losses=column, norms=column, **manner)
    rows = old.run(lambda k: formula(old, k), UPDATES)
    policy = with_its_manners(kind(initial_batch_size=initial), **manner)
    decisions = follow(policy, clock(UPDATES, **named(column)))
    assert_same(decisions, rows, manner["cap"])


@settings(max_examples=100)
@given(rate=exact, initial=initials, manner=manners)
def test_padadamp_has_the_batch_and_rate_of_its_formula(rate, initial, manner):
    old = OldDamper(initial=initial, **manner)
    rows = old.run(old.padadamp(rate), UPDATES)
    policy = PadaDamp(initial_batch_size=initial, rate=rate)
    decisions = follow(with_its_manners(policy, **manner), clock(UPDATES))
    assert_same(decisions, rows, manner["cap"])


epochs = st.lists(exact, min_size=UPDATES, max_size=UPDATES).map(sorted)


@settings(max_examples=100)
@given(
    epochs=epochs,
    initial=initials,
    factor=st.integers(1, 4),
    delay=st.integers(20, 90),
    manner=manners,
)
def test_geodamp_has_the_batch_and_rate_of_its_formula(
    epochs, initial, factor, delay, manner
):
    old = OldDamper(initial=initial, epochs=epochs, **manner)
    rows = old.run(old.geodamp(factor, delay), UPDATES)
    policy = GeoDamp(initial_batch_size=initial, factor=factor, delay=delay)
    decisions = follow(with_its_manners(policy, **manner), clock(UPDATES, epoch=epochs))
    assert_same(decisions, rows, manner["cap"])


@settings(max_examples=100)
@given(
    epochs=epochs, initial=initials, factor=st.integers(1, 4), delay=st.integers(20, 90)
)
def test_geodamplr_is_geodamp_with_the_cap_at_its_start(epochs, initial, factor, delay):
    # Which is how adadamp makes it: B0 f^n wanted, B0 taken, the rate over f^n.
    old = OldDamper(initial=initial, epochs=epochs, cap=initial)
    rows = old.run(old.geodamp(factor, delay), UPDATES)
    policy = GeoDampLR(initial_batch_size=initial, factor=factor, delay=delay)
    decisions = follow(policy, clock(UPDATES, epoch=epochs))
    for decision, (_, taken, lr) in zip(decisions, rows, strict=True):
        assert (decision.batch_size, decision.lr_factor) == (taken, pytest.approx(lr))


@settings(max_examples=100)
@given(initial=initials, rate=st.floats(0, 10))
def test_cntsdamplr_starts_at_the_rate_and_adadamp_s_form_is_one_update_ahead(
    initial, rate
):
    old = OldDamper(initial=initial, cap=initial)
    rows = old.run(old.cntsdamplr(rate), UPDATES)
    policy = CntsDampLR(initial_batch_size=initial, rate=rate)
    ahead = CntsDampLR(initial_batch_size=initial + 1, rate=rate)
    ours, next_ours = follow(policy, clock(UPDATES)), follow(ahead, clock(UPDATES + 1))
    assert (ours[0].batch_size, ours[0].lr_factor) == (initial, 1.0)
    for k, (_, taken, lr) in enumerate(rows):
        # lr0 B0/round(B0 + 1 + f (k + 1)): ours from B0 + 1, an update later, up to
        # the half that rounding to a whole number adds or takes.
        bracket = (initial + 1) / next_ours[k + 1].lr_factor
        assert taken == initial
        assert initial / lr == pytest.approx(bracket, abs=0.5 + 1e-9)


@settings(max_examples=100)
@given(
    losses=columns,
    norms=columns,
    initial=initials,
    rho=st.sampled_from([0.0, 0.2, 0.5, 0.875]),
    reduction=st.sampled_from(["min", "mean", "median", "max"]),
    dwell=st.integers(1, 7),
    wait=st.integers(0, 12),
)
def test_radadamp_has_the_batch_of_its_formula(
    losses, norms, initial, rho, reduction, dwell, wait
):
    damping = OldRadaDamp(initial, losses, norms, rho, reduction)
    rows = OldDamper(initial=initial, dwell=dwell, wait=wait).run(damping, UPDATES)
    policy = RadaDamp(
        initial_batch_size=initial, rho=rho, reduction=reduction, dwell=dwell, wait=wait
    )
    seen = clock(
        UPDATES,
        batch_loss=[None, *losses[:-1]],
        batch_grad_sq_norm=[None, *norms[:-1]],
    )
    wishes = [one.batch_size for one in follow(policy, seen)]
    for wish, (wanted, _, _) in zip(wishes, rows, strict=True):
        # Exact but for a float's last digits about a whole number.
        assert wanted in {math.ceil(wish * (1 - 1e-12)), math.ceil(wish * (1 + 1e-12))}


# What fails in adadamp 0.2 and concerns a policy -------------------------------------


def test_an_unknown_keyword_is_not_swallowed():
    with pytest.raises(TypeError, match="growth_rate"):
        PadaDamp(initial_batch_size=8, rate=1.0, growth_rate=2.0)


def test_an_unknown_parameter_in_a_text_is_refused_with_the_near_name():
    with pytest.raises(
        InputError, match="adadamp has no parameter 'best_los'.*best_lo"
    ):
        named_policy("adadamp:best_los=1", initial_batch_size=8)


def test_the_best_loss_is_not_ignored():
    seen = clock(2, eval_loss=[3.0, 2.0])
    batches = [one.batch_size for one in follow(AdaDamp(initial_batch_size=8), seen)]
    above = AdaDamp(initial_batch_size=8, best_loss=1.0)
    assert batches[1] == 12
    assert [one.batch_size for one in follow(above, seen)] == [8, 16]


def test_a_loss_of_zero_means_the_cap_and_divides_by_nothing():
    policy = Clip(AdaDamp(initial_batch_size=8), high=512)
    batches = [
        one.batch_size for one in follow(policy, clock(3, eval_loss=[2.0, 0.0, 1.0]))
    ]
    assert batches == [8, 512, 16]


@pytest.mark.parametrize(("dwell", "wait"), [(7, 20), (3, 100), (20, 30)])
def test_radadamp_runs_where_dwell_is_less_than_wait_and_does_not_divide_it(
    dwell, wait
):
    policy = RadaDamp(initial_batch_size=8, dwell=dwell, wait=wait)
    steps = 2 * wait + 2 * dwell
    falling = [1 / (1 + k) for k in range(steps)]
    batches = [
        one.batch_size
        for one in follow(
            policy, clock(steps, batch_loss=falling, batch_grad_sq_norm=falling)
        )
    ]
    first = -(-wait // dwell) * dwell
    assert set(batches[: first + dwell]) == {8}
    assert batches[first + dwell] > 8


def test_the_cap_is_undone_as_soon_as_it_releases():
    policy = SpillToLr(AdaDamp(initial_batch_size=8), cap=16)
    decisions = follow(policy, clock(4, eval_loss=[2.0, 0.5, 2.0, 4.0]))
    assert [one[:2] for one in decisions] == [(8, 1), (16, 0.5), (8, 1), (4, 1)]
    old = OldDamper(initial=8, losses=[2.0, 0.5, 2.0, 4.0], cap=16)
    assert [lr for _, _, lr in old.run(old.adadamp, 4)] == [1, 0.5, 0.5, 0.5]


def test_the_loss_is_evaluated_at_update_0_and_then_only_when_the_batch_may_change():
    policy = Dwell(Wait(AdaDamp(initial_batch_size=8), updates=10), updates=4)
    state, evaluations = policy.init(), []
    for seen in clock(30, eval_loss=[2.0] * 30):
        if "eval_loss" in needs_now(policy, state, seen):
            evaluations.append(seen.step)
        _, state = policy.update(state, seen)
    assert evaluations == [0, 12, 16, 20, 24, 28]


def test_a_constant_batch_takes_as_many_examples_as_updates_times_its_size():
    policy = Constant(batch_size=16)
    assert sum(one.batch_size for one in follow(policy, clock(100))) == 1600
