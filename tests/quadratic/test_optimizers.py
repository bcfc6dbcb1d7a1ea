"""Optimizers, their settings and their stability edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quadratic import oracles_problem as oracles

from rightbatch.errors import InputError
from rightbatch.quadratic import OPTIMIZERS, Optimizer

below_one = st.floats(0, 0.99)


def settings_for(name, momentum, ema_decay):
    chosen = {}
    if "momentum" in name or "nesterov" in name:
        chosen["momentum"] = momentum
    if "ema" in name:
        chosen["ema_decay"] = ema_decay
    return chosen


@given(st.sampled_from(OPTIMIZERS), below_one, below_one)
def test_iterates_are_stable_exactly_below_the_edge(name, momentum, ema_decay):
    chosen = settings_for(name, momentum, ema_decay)
    edge = Optimizer(name=name, lr=1.0, **chosen).max_stable_rate

    def radius(lr):
        optimizer = Optimizer(name=name, lr=lr, **chosen)
        matrix, _ = oracles.one_step(optimizer, 1.0, 1.0)
        iterates = matrix[:2, :2].astype(float)
        return np.abs(np.linalg.eigvals(iterates)).max()

    assert radius(edge * (1 - 1e-6)) < 1 < radius(edge * (1 + 1e-6))


def test_a_name_says_what_an_optimizer_has():
    nesterov = Optimizer(name="nesterov+ema", lr=0.1, momentum=0.9, ema_decay=0.99)
    assert nesterov.has_momentum
    assert nesterov.is_nesterov
    assert nesterov.has_ema
    assert not nesterov.averages
    tail = Optimizer(name="tail-average", lr=0.1)
    assert tail.averages
    assert not tail.has_ema
    assert not tail.has_momentum
    assert not Optimizer(name="momentum", lr=0.1, momentum=0.9).is_nesterov


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "sgd"}, {}),
        ({"name": "momentum", "momentum": 0.5}, {"momentum": 0.5}),
        ({"name": "ema", "ema_decay": 0.5}, {"ema_decay": 0.5}),
        ({"name": "tail-average"}, {"tail_fraction": 0.5}),
    ],
)
def test_a_program_gets_the_settings_an_optimizer_has_and_no_others(settings, expected):
    document = Optimizer(lr=0.1, **settings).to_dict()
    assert document == {"optimizer": settings["name"], "lr": 0.1, **expected}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adam"}, "`name` cannot be 'adam'"),
        ({"name": "momentun"}, "did you mean momentum"),
        ({"lr": 0.0}, "`lr` must be positive, got 0.0"),
        ({"lr": np.inf}, "`lr` must be positive, got inf"),
        (
            {"name": "momentum", "momentum": 1.0},
            r"`momentum` must be in \[0, 1\), got 1",
        ),
        ({"name": "momentum", "momentum": -0.1}, r"`momentum` must be in \[0, 1\)"),
        ({"name": "momentum", "momentum": "x"}, "`momentum` must be a finite number"),
        ({"name": "ema", "ema_decay": 1.0}, r"`ema_decay` must be in \[0, 1\), got 1"),
        ({"momentum": 0.9}, "sgd has no `momentum`, got 0.9"),
        ({"name": "momentum", "ema_decay": 0.9}, "momentum has no `ema_decay`"),
        ({"tail_fraction": 0.0}, r"`tail_fraction` must be in \(0, 1\], got 0"),
        ({"tail_fraction": 1.5}, r"`tail_fraction` must be in \(0, 1\], got 1.5"),
    ],
)
def test_a_setting_out_of_range_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Optimizer(**{"name": "sgd", "lr": 0.1, **settings})
