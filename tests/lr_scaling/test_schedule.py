"""Schedules by name, from samples and from any function."""

import math

import numpy as np
import pytest

from rightbatch.errors import InputError
from rightbatch.lr_scaling import Schedule, named_schedule, sampled_schedule

HALF = np.linspace(0, 1, 5)


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("constant", 1),
        ("linear", 0.5),
        ("cosine", 0.5),
        ("quarter_cosine", 2 / math.pi),
        ("quarter-cosine", 2 / math.pi),
        ("wsd", 0.95),
        ("wsd:tail=0.2", 0.9),
        ("wsd:.2", 0.9),
        ("cosine:final=0.1", 0.55),
        ("linear:0.5", 0.75),
        ("step:factor=10,num=2", 0.37),
        ("step", 0.37),
        ("inverse_time:final=0.1", math.log(10) / 9),
    ],
)
def test_the_mean_of_a_schedule_is_its_integral(text, mean):
    assert named_schedule(text).mean() == pytest.approx(mean, abs=1e-9)


def test_named_schedules_start_at_one_and_end_where_they_say():
    for text, last in {
        "linear": 0,
        "cosine:final=.2": 0.2,
        "quarter_cosine": 0,
        "wsd:final=.3": 0.3,
        "inverse_time:final=.1": 0.1,
        "step:factor=2,num=3": 0.125,
    }.items():
        values = named_schedule(text).values(HALF)
        assert values[0] == 1
        assert values[-1] == pytest.approx(last, abs=1e-12)


def test_samples_are_joined_by_lines():
    assert sampled_schedule([2, 2, 0, 0]).mean() == pytest.approx(0.5, abs=1e-12)
    assert sampled_schedule([3e-4, 0]).mean() == pytest.approx(0.5)


def test_the_unit_of_a_function_does_not_matter():
    small = Schedule(name="a", factor=lambda t: 1e-5 * (1 - t))
    assert small.mean() == pytest.approx(0.5, abs=1e-12)


def test_a_jump_is_found_wherever_it_is():
    place = 1 / math.e
    cut = Schedule(name="cut", factor=lambda t: np.where(t < place, 1.0, 0.01))
    assert cut.mean() == pytest.approx(place + 0.01 * (1 - place), abs=1e-8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: named_schedule("cosin"), "did you mean cosine"),
        (lambda: named_schedule("wsd:tail=0"), r"`tail` must be in \(0, 1\], got 0"),
        (lambda: named_schedule("linear:final=2"), r"`final` must be in \[0, 1\]"),
        (lambda: named_schedule("linear:end=0"), "has no parameter 'end=0'. .it has f"),
        (lambda: named_schedule("constant:1"), "it has no parameter"),
        (lambda: named_schedule("wsd:tail=long"), "'tail=long' is not a number"),
        (lambda: named_schedule("step:factor=1"), "`factor` must be above 1, got 1"),
        (lambda: named_schedule("step:num=0"), "`num` must be a whole number"),
        (lambda: named_schedule("inverse_time:0"), "`final` must be positive"),
        (lambda: sampled_schedule([1]), "`values` must be two numbers or more"),
        (lambda: sampled_schedule([0, 0]).mean(), "sampled: is 0 everywhere"),
        (lambda: sampled_schedule([1, -1]).mean(), "must be finite and not negative"),
        (
            lambda: Schedule(name="odd", factor=lambda t: t / 0).mean(),
            "schedule odd: must be finite",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide")
def test_impossible_schedules_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
