"""The panel's words and curves: numbers read as in the rest of the report."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from javascript import call

from rightbatch.reporting import formats

positive = st.floats(1e-12, 1e14)


def is_a_tie(value: float) -> bool:
    """Return True half way between two numbers of three digits: engines differ."""
    digits = f"{value:.17e}".partition("e")[0].replace(".", "")
    return re.fullmatch(r"\d{3}50*", digits) is not None


@given(positive, st.sampled_from(["number", "count", "seconds", "times"]))
def test_numbers_read_as_in_the_rest_of_the_report(value, kind):
    assume(not is_a_tie(value))
    assert call(f"drawing.{kind}", value) == getattr(formats, kind)(value)


@pytest.mark.parametrize("value", [0, 1, 45, 999, 1000, 131072, 95.5, 1e-4, 1e10])
def test_round_numbers_read_the_same_too(value):
    for kind in ("number", "count", "seconds"):
        assert call(f"drawing.{kind}", value) == getattr(formats, kind)(value)


@given(st.floats(1e-9, 1e9), st.floats(1.3, 1e6), st.integers(3, 9))
def test_ticks_lie_on_their_axis_and_are_few(low, ratio, most):
    for kind in ("decimalTicks", "timeTicks", "twoTicks"):
        ticks = call(f"drawing.{kind}", low, low * ratio, most)
        assert ticks == sorted(ticks)
        assert len(ticks) <= most
        assert all(0.999 * low <= tick <= 1.001 * low * ratio for tick in ticks)


def plan(batch: int, seconds: float, replicas: int) -> dict:
    within = [batch // 2, batch * 2]
    entry = {"batch_size": batch, "seconds": seconds, "within_5_percent": within}
    return {**entry, "num_replicas": replicas, "cost": seconds * replicas / 3600}


def numbers_of(svg: str) -> list[float]:
    """Return the coordinates of a drawing's marks, and check that it is XML."""
    found: list[float] = []
    for node in ElementTree.fromstring(f"<svg>{svg}</svg>").iter():
        for name in ("x", "y", "cx", "cy"):
            found += [float(node.attrib[name])] if name in node.attrib else []
        found += [float(part) for part in re.findall(r"[\d.]+", node.get("d", ""))]
    return found


def test_a_curve_is_drawn_inside_its_frame():
    points = [[2**k, 100 * (1 + abs(k - 7))] for k in range(3, 12)]
    now = {"points": points, "plan": plan(128, 100.0, 8)}
    before = {"points": points, "plan": plan(64, 90.0, 8)}
    for width in (300, 560):
        drawn = {"now": now, "before": before, "hourly": 24.0}
        svg = call("drawing.timeCurve", {**drawn, "width": width, "height": 336})
        assert min(numbers_of(svg)) >= 0
        assert max(numbers_of(svg)) <= max(width, 336)
        assert "batch 128" in svg
        assert svg.count("ring") == 2


def test_each_number_of_replicas_is_a_point_on_the_trade_of_time_and_cost():
    plans = [plan(64 * k, 1000 / k**0.8, k) for k in (1, 2, 4, 8)]
    given = {"plans": plans, "replicas": 4, "width": 400, "height": 336}
    svg = call("drawing.paretoCurve", given)
    assert svg.count("<circle") == 4
    assert "P = 4" in svg
    assert max(numbers_of(svg)) <= 400


def test_words_cannot_become_tags():
    assert call("drawing.escape", "<b>&") == "&lt;b>&amp;"
