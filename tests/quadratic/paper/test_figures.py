"""A figure as numbers, for programs."""

import math

import numpy as np

from rightbatch.quadratic.paper.figures import Curve, Figure, Panel, floats


def test_what_is_not_there_is_null():
    curve = Curve(name="a", x=(1.0, 2.0), y=(math.nan, 3.0))
    figure = Figure(
        name="5",
        title="It falls",
        caption="",
        x_title="steps",
        panels=(Panel(y_title="risk", curves=(curve,)),),
    )
    told = figure.to_dict()
    assert told["panels"][0]["curves"][0]["y"] == [None, 3.0]
    assert told["command"] == "simulate --paper"


def test_floats_are_those_of_python():
    assert [type(value) for value in floats(np.array([1, 2]))] == [float, float]
