import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rightbatch.reporting import style


def luminance(shade: str) -> float:
    parts = [int(shade[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("side", [0, 1])
def test_marks_and_names_can_be_read_on_their_paper(side):
    paper = style.PALETTE["paper"][side]
    words = ("ink", "muted", "first", "second", "third", "alert")
    assert all(contrast(style.PALETTE[name][side], paper) >= 4.5 for name in words)
    # Names at the ends of the curves have the colour of their curve.
    assert all(contrast(shade[side], paper) >= 4.0 for shade in style.RAMP)


def test_the_order_of_series_shows_in_lightness_alone_on_light_paper():
    lightness = [luminance(shade.light) for shade in style.RAMP]
    assert lightness == sorted(lightness, reverse=True)


def test_each_light_colour_has_one_dark_one():
    shades = [*style.PALETTE.values(), *style.RAMP]
    assert len({shade.light for shade in shades}) == len(shades)


@given(
    st.floats(1e-7, 1e6),
    st.floats(1.0, 1e6),
    st.sampled_from(["number", "seconds", "batch"]),
)
def test_an_axis_holds_its_data_and_a_readable_number_of_ticks(low, ratio, kind):
    axis = style.log_axis([low, None, 0.0, -1.0, low * ratio], kind)
    assert axis.low < low
    assert axis.high > low * ratio
    assert 1 <= len(axis.ticks) <= 9
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert axis.ticks == sorted(axis.ticks)


@given(st.floats(1e-6, 1e6))
def test_a_linear_axis_of_seconds_has_even_ticks_from_zero(top):
    layout = style.linear_seconds(top)
    ticks = layout["tickvals"]
    assert ticks[0] == 0
    assert 2 <= len(ticks) <= 6
    steps = [b - a for a, b in zip(ticks, ticks[1:], strict=False)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-9) for step in steps)


def test_an_axis_without_data_is_still_an_axis():
    assert style.log_axis([]).ticks


def test_long_durations_have_ticks_in_minutes_and_hours():
    assert style.log_axis([40, 9000], "seconds").text[-2:] == ["1 h", "2 h"]
    assert style.log_axis([4000, 4500], "seconds").text
