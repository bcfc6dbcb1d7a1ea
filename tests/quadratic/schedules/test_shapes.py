"""Shapes of the learning rate: by name, their values, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.errors import InputError
from rightbatch.lr_scaling import named_schedule
from rightbatch.quadratic.schedules.shapes import (
    SHAPES,
    EqualPieces,
    Shape,
    schedule_named,
)

PROGRESS = np.linspace(0, 1, 23)


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("constant", "constant"),
        ("linear", "linear"),
        ("linear:final=.1", "linear:final=.1"),
        ("cosine", "cosine"),
        ("quarter-cosine", "quarter_cosine"),
        ("wsd:.2", "wsd:tail=.2"),
        ("step:10", "step:factor=10,num=2"),
        ("step:factor=3,num=5", "step:factor=3,num=5"),
        ("inverse_time:.05", "inverse_time:final=.05"),
    ],
)
def test_a_shape_is_the_schedule_of_the_same_name_elsewhere(text, there):
    ours, theirs = schedule_named(text), named_schedule(there)
    assert isinstance(ours, Shape)
    assert ours.factors(PROGRESS) == pytest.approx(theirs.values(PROGRESS), abs=1e-12)


@pytest.mark.parametrize("name", ["linear", "cosine", "quarter_cosine", "wsd"])
def test_what_decays_to_zero_starts_at_the_peak_and_makes_its_last_step_at_zero(name):
    parameter = 0.3 if name == "wsd" else None
    lrs = Shape(name=name, parameter=parameter).lrs(0.5, 12)
    assert lrs[0] == 0.5
    assert lrs[-1] == pytest.approx(0, abs=1e-15)
    assert lrs[-2] > 0


@given(
    name=st.sampled_from(SHAPES),
    parameter=st.floats(0.01, 1),
    num_steps=st.integers(1, 50),
)
def test_no_shape_rises_or_leaves_its_peak_behind(name, parameter, num_steps):
    shape = Shape(name=name)
    if shape.is_tuned:
        high = shape.parameter_bounds[1]
        shape = shape.with_parameter(parameter if high == 1 else 1 / parameter)
    lrs = shape.lrs(2.0, num_steps)
    assert lrs.shape == (num_steps,)
    assert lrs[0] == 2.0
    assert np.all(np.diff(lrs) <= 1e-15)
    assert np.all(lrs >= 0)


def test_wsd_decays_over_the_share_that_its_tail_says():
    lrs = Shape(name="wsd", parameter=0.2).lrs(1.0, 101)
    assert np.all(lrs[:81] == pytest.approx(1.0))
    assert lrs[81:] == pytest.approx(np.linspace(0.95, 0, 20))


def test_a_step_schedule_divides_at_equal_distances():
    lrs = Shape(name="step", parameter=10, num_cuts=3).lrs(1.0, 9)
    assert lrs == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-3])


def test_shapes_without_a_usual_parameter_leave_it_to_the_search():
    tuned = {name for name in SHAPES if Shape(name=name).is_tuned}
    assert tuned == {"wsd", "step", "inverse_time"}
    assert not schedule_named("wsd:.2").is_tuned


def test_pieces_are_a_schedule_by_name_too():
    assert schedule_named("pieces:10") == EqualPieces(num_pieces=10)
    assert schedule_named("pieces") == EqualPieces()
    assert str(schedule_named("pieces:num=7")) == "pieces:7"


def test_a_schedule_prints_as_it_is_written():
    for text in ("constant", "wsd:0.2", "step:10", "wsd"):
        assert str(schedule_named(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cosin", "schedule: `schedule` cannot be 'cosin'. .did you mean cosine"),
        ("constant:.2", "schedule constant: no parameter '.2'. .write the name alone"),
        ("wsd:share=.2", "schedule wsd: no parameter 'share=.2'. .it has tail"),
        ("wsd:tail=.2,tail=.3", "schedule wsd: `tail` is given twice"),
        ("wsd:a", "schedule wsd: 'a' is not a number. .write wsd:tail=.2"),
        ("wsd:inf", "schedule wsd: `tail` must be a finite number, got inf"),
        ("wsd:0", "schedule wsd: `tail` must be at least 1e-06 and at most 1, got 0"),
        ("linear:1.5", "schedule linear: `final` must be at least 0 and at most 1"),
        ("step:.5", "schedule step: `factor` must be at least 1, got 0.5"),
        ("step:num=1.5", "schedule step: `num` must be a whole number >= 1, got 1.5"),
        ("pieces:0", "schedule pieces: `num` must be a whole number >= 1, got 0"),
        ("pieces:size=3", "schedule pieces: no parameter 'size=3'. .it has num"),
    ],
)
def test_a_name_that_cannot_be_read_is_explained(text, says):
    with pytest.raises(InputError, match=says):
        schedule_named(text)


def test_values_out_of_range_are_refused():
    with pytest.raises(InputError, match="schedule constant: has no parameter, got 1"):
        Shape(name="constant", parameter=1)
    with pytest.raises(InputError, match="`name` cannot be 'ramp'"):
        Shape(name="ramp")  # pyright: ignore
    with pytest.raises(InputError, match="`num_cuts` must be a whole number"):
        Shape(name="step", num_cuts=0)
    with pytest.raises(InputError, match="schedule wsd: `tail` is not known yet"):
        Shape(name="wsd").lrs(1.0, 5)
    with pytest.raises(InputError, match="schedule linear: `peak` must be positive"):
        Shape(name="linear").lrs(0.0, 5)
    with pytest.raises(InputError, match="`num_steps` must be a whole number"):
        Shape(name="linear").lrs(1.0, 0)
    with pytest.raises(InputError, match="`num_pieces` must be a whole number"):
        EqualPieces(num_pieces=0)
    with pytest.raises(InputError, match="`tail` must be a finite number"):
        Shape(name="wsd", parameter=math.nan)
