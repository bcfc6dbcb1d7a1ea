import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rightbatch.experiments.randomness import OwnRandomness, derived_seed


def draws():
    return torch.rand(1).item(), np.random.rand(), random.random()


def test_what_is_drawn_inside_goes_on_where_it_was_left():
    whole, cut = OwnRandomness(3), OwnRandomness(3)
    with whole.in_use():
        wanted = [draws(), draws()]
    found = []
    for _ in range(2):
        draws()
        with cut.in_use():
            found.append(draws())
    assert found == wanted


def test_what_is_drawn_outside_does_not_see_what_is_drawn_inside():
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    wanted = draws()
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
    with OwnRandomness(3).in_use():
        draws()
    assert draws() == wanted


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 5)), unique=True))
def test_seeds_of_different_streams_differ(pairs):
    assert len({derived_seed(*pair) for pair in pairs}) == len(pairs)
