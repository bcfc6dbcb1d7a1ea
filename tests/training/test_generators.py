"""Random numbers go on where they were, of every generator."""

import random

import numpy as np
import torch
from training.example_runs import made

from rightbatch.training.generators import all_generators, put_back


def draws():
    return [*torch.rand(3).tolist(), *np.random.rand(3), np.random.normal()] + [
        random.random(),
        random.gauss(0, 1),
    ]


def test_all_generators_of_a_process_go_on_where_they_were():
    controller = made()
    draws()  # an odd number of normal draws: one of numpy's is kept for the next
    states = all_generators(controller)
    first = draws()
    draws()
    put_back(states, controller)
    assert draws() == first


def test_states_of_more_replicas_seed_anew_repeatably():
    controller = made()
    states = all_generators(controller) * 2
    first = draws()
    found = []
    for _ in range(2):
        put_back(states, controller)
        found.append(draws())
        draws()
    assert found[0] == found[1]
    assert found[0] != first
