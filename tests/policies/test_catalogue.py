"""Policies by name, from a text."""

import re

import pytest
from policies.example_runs import CONTEXT, PARAMETERS, STEP_TIME, TEXTS, clock, sizes

from rightbatch.errors import InputError
from rightbatch.lr_scaling import named_schedule
from rightbatch.policies import (
    CABS,
    POLICIES,
    WRAPPER_PARAMETERS,
    AdaDamp,
    Clip,
    CntsDampLR,
    Constant,
    ConvexRamp,
    Dwell,
    EfficiencyFloor,
    FullBatch,
    GeoDamp,
    GeoDampLR,
    InnerProductTest,
    NoiseFollowing,
    OnlyIfSure,
    PadaDamp,
    Planned,
    PolicyContext,
    RadaDamp,
    Schedule,
    Seesaw,
    SpillToLr,
    Wait,
    check_policy,
    named_policy,
)
from rightbatch.step_time import StepTimeLaw

COSINE = named_schedule("cosine")


def make(text, context=CONTEXT, **others):
    given = {"initial_batch_size": 16, "max_batch_size": 512, "context": context}
    return named_policy(text, **{**given, **others})


def inner(policy):
    """Return the policy inside all wrappers."""
    while hasattr(policy, "policy"):
        policy = policy.policy
    return policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("constant", Constant(batch_size=16)),
        ("full-batch", FullBatch()),
        (
            "schedule:0:768 250B:1536",
            Schedule(points=((0, 768), (250e9, 1536)), unit="token"),
        ),
        (
            "schedule:0:16 5:32,unit=epoch",
            Schedule(points=((0, 16), (5, 32)), unit="epoch"),
        ),
        (
            "linear-ramp:100,unit=example",
            Schedule(points=((0, 16), (100, 512)), unit="example", between="line"),
        ),
        (
            "doubling:every=3,unit=step",
            Schedule(points=tuple((3 * j, 16 * 2**j) for j in range(6)), unit="step"),
        ),
        ("adadamp", AdaDamp(initial_batch_size=16)),
        ("AdaDamp:best-loss=.5", AdaDamp(initial_batch_size=16, best_loss=0.5)),
        ("padadamp:rate=.05", PadaDamp(initial_batch_size=16, rate=0.05)),
        ("padadamp:.05", PadaDamp(initial_batch_size=16, rate=0.05)),
        (
            "padadamp",
            PadaDamp(initial_batch_size=16, rate=(512**2 - 16**2) / 80_000),
        ),
        ("geodamp", GeoDamp(initial_batch_size=16, factor=2, delay=5)),
        (
            "geodamp:factor=3,delay=2",
            GeoDamp(initial_batch_size=16, factor=3, delay=2),
        ),
        ("geodamplr:3", GeoDampLR(initial_batch_size=16, factor=3)),
        ("cnts_damp_lr", CntsDampLR(initial_batch_size=16, rate=0.02)),
        (
            "radadamp:dwell=5,wait=10,reduction=median",
            RadaDamp(initial_batch_size=16, dwell=5, wait=10, reduction="median"),
        ),
        ("noise_following", NoiseFollowing(initial_batch_size=16)),
        ("noise-following:factor=2", NoiseFollowing(initial_batch_size=16, factor=2)),
        (
            "efficiency-floor:.8,from_initial=yes",
            EfficiencyFloor(initial_batch_size=16, efficiency=0.8, from_initial=True),
        ),
        ("inner-product-test:nu=2", InnerProductTest(initial_batch_size=16, nu=2)),
        ("cabs", CABS(initial_batch_size=16)),
        (
            "planned",
            Planned(initial_batch_size=16, step_time=STEP_TIME, max_batch_size=512),
        ),
        (
            "planned:seconds_per_example=1e-4,overhead_seconds=.01,saturation=32",
            Planned(
                initial_batch_size=16,
                step_time=StepTimeLaw(
                    seconds_per_example=1e-4,
                    overhead_seconds=0.01,
                    saturation_batch_size=32,
                ),
                max_batch_size=512,
            ),
        ),
    ],
)
def test_a_text_names_a_policy(text, policy):
    assert inner(make(text)) == policy


def test_a_learning_rate_schedule_is_the_text_s_or_the_run_s():
    run = PolicyContext(dataset_size=1600, epochs=10, lr_schedule=COSINE)
    found = inner(make("seesaw", run))
    assert isinstance(found, Seesaw)
    assert (found.schedule, found.total_steps, found.max_batch_size) == (
        COSINE,
        1000,
        512,
    )
    own = inner(make("seesaw:wsd:tail=.2,normalised=no,noise_scale=300", run))
    assert (own.schedule.name, own.normalised) == ("wsd:tail=.2", False)
    convex = inner(
        make("convex-ramp", PolicyContext(total_steps=70, lr_schedule=COSINE))
    )
    assert isinstance(convex, ConvexRamp)
    assert convex.total_steps == 70


def test_what_is_around_a_policy_goes_from_the_inside_out():
    found = make("noise-following:sure=true,wait=100,dwell=20,spill=true")
    start = NoiseFollowing(initial_batch_size=16)
    clipped = Clip(OnlyIfSure(start), low=16, high=None)
    spilled = SpillToLr(clipped, cap=512)
    assert found == Dwell(Wait(spilled, updates=100), updates=20)
    assert make("geodamp") == Clip(GeoDamp(initial_batch_size=16), low=1, high=512)
    assert make("constant") == Constant(batch_size=16)


def test_no_batch_is_smaller_than_the_replicas_that_share_it():
    run = PolicyContext(num_replicas=4)
    assert make("geodamp", run).low == 4
    assert make("noise-following", run).low == 16


def test_large_numbers_may_be_written_with_a_letter():
    policy = inner(make("linear-ramp:over=4B,to=2k,unit=token"))
    assert policy.points == ((0, 16), (4e9, 2000))


def test_adadamp_evaluates_the_loss_every_twenty_updates_unless_told():
    assert make("adadamp").updates == 20
    assert make("adadamp:dwell=5").updates == 5
    assert isinstance(make("adadamp:dwell=1"), Clip)


def test_the_largest_batch_is_at_most_the_data_set():
    run = PolicyContext(dataset_size=100)
    assert make("geodamp", run, max_batch_size=None).high == 100
    assert make("geodamp", run).high == 100
    assert make("geodamp", PolicyContext(), max_batch_size=None).high is None


@pytest.mark.parametrize("text", TEXTS)
def test_an_entry_says_what_its_policy_needs(text):
    entry = POLICIES[text.partition(":")[0]]
    policy = make(text.removesuffix(",unit=step"))
    assert check_policy("test", policy) == entry.needs
    assert not entry.is_fixed or set(sizes(policy, clock(30))) == {16}


def test_every_entry_tells_what_it_is():
    for name, entry in POLICIES.items():
        assert name == entry.name == entry.name.lower()
        assert entry.summary
        assert entry.formula
        assert bool(entry.source) != (name in {"constant", "full-batch"})
        for parameter in entry.parameters.values():
            assert parameter.meaning
            assert not (parameter.required and parameter.default is not None)
    assert set(PARAMETERS) == {
        name
        for name, entry in POLICIES.items()
        if any(one.required for one in entry.parameters.values())
    }
    assert list(WRAPPER_PARAMETERS) == ["dwell", "wait", "sure", "spill"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("adadmp", r"there is no policy 'adadmp'. \(did you mean adadamp"),
        ("noise_folowing", "there is no policy.*did you mean noise-following"),
        ("zzz", r"there is no policy 'zzz'. \(one of constant, full-batch"),
        ("", "there is no policy ''"),
        ("padadamp:growth_rate=1", "padadamp has no parameter 'growth_rate'"),
        ("padadamp:rat=1", r"padadamp has no parameter 'rat'. \(did you mean rate"),
        ("geodamp:factor=2,5", "geodamp has no parameter '5'"),
        ("constant:8", r"constant has no parameter '8'. \(it has dwell, wait, sure"),
        ("geodamp:factor=2,factor=3", "`factor` of geodamp is given twice"),
        ("geodamp:factor=two", "`factor` of geodamp must be a number, got 'two'"),
        ("geodamp:factor=", "`factor` of geodamp must be a number, got ''"),
        (
            "geodamp:spill=maybe",
            "`spill` of geodamp must be true or false, got 'maybe'",
        ),
        ("radadamp:reduction=", "`reduction` of radadamp must be a word, got ''"),
        ("schedule", r"schedule needs `points`: .*\(write schedule:points="),
        ("exchange-rate", "exchange-rate needs `examples_per_update`: r, examples as"),
        ("geometric", "geometric needs `factor`"),
        ("linear-ramp", "linear-ramp needs `over`"),
        ("geodamp:dwell=2.5", "Dwell: `updates` must be a whole number"),
        ("geodamp:wait=-1", "Wait: `updates` must not be negative"),
        ("geodamp:sure=true", "OnlyIfSure: `policy` must follow the noise scale"),
        ("geodamp:factor=.5", "GeoDamp: `factor` must be at least 1"),
        ("schedule:0:8 5:9 4:7", "`points` must be in order"),
    ],
)
def test_a_text_that_names_no_policy_is_refused(text, rule):
    with pytest.raises(InputError, match=rule):
        make(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("padadamp", "padadamp needs `rate`, examples more per update. .*write padad"),
        ("planned", "planned needs seconds per step.*seconds_per_example=1e-4"),
        ("seesaw", "seesaw needs a learning-rate schedule.*write schedule=cosine"),
        ("convex-ramp:cosine", "convex-ramp needs the length of the run"),
        ("linear-ramp:over=5", "linear-ramp needs `to`"),
        ("doubling:every=5", "doubling needs a largest batch size"),
        ("adadamp:spill=true", "adadamp needs a largest batch size to spill"),
    ],
)
def test_what_the_run_does_not_tell_is_asked_for(text, rule):
    with pytest.raises(InputError, match=rule):
        make(text, PolicyContext(), max_batch_size=None)


@pytest.mark.parametrize(
    ("sizes_", "rule"),
    [
        (
            {"max_batch_size": 8},
            "`max_batch_size` must be >= `initial_batch_size`, got",
        ),
        ({"max_batch_size": 0}, "`max_batch_size` must be positive"),
        ({"initial_batch_size": 0}, "`initial_batch_size` must be positive"),
        (
            {"context": PolicyContext(num_replicas=32)},
            "at least one example for each of 32 replicas, got 16",
        ),
        (
            {"initial_batch_size": 20_000, "max_batch_size": None},
            "`initial_batch_size` must be at most the data set's 10000 examples",
        ),
    ],
)
def test_batch_sizes_out_of_order_are_refused(sizes_, rule):
    with pytest.raises(InputError, match=rule):
        make("geodamp", **sizes_)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"dataset_size": 0}, "PolicyContext: `dataset_size` must be a whole number"),
        ({"num_replicas": 0}, "PolicyContext: `num_replicas` must be a whole number"),
        ({"total_steps": 0}, "PolicyContext: `total_steps` must be positive"),
        ({"epochs": -1}, "PolicyContext: `epochs` must be positive"),
    ],
)
def test_a_run_that_cannot_be_is_refused(settings, rule):
    with pytest.raises(InputError, match=rule):
        PolicyContext(**settings)


def test_a_name_may_be_written_as_adadamp_writes_it():
    names = ["AdaDamp", "AdaDampNN", "PadaDamp", "GeoDamp", "GeoDampLR", "CntsDampLR"]
    for name in [*names, "RadaDamp"]:
        kind = type(inner(make(name))).__name__
        assert re.fullmatch(name, kind)
