"""Figures 1 and 2 against the recursions, step by step."""

import numpy as np
import pytest

from rightbatch.quadratic.paper.risk_figures import CURVATURES, risk_figures

FIGURES = {figure.name: figure for figure in risk_figures()}


def curve(name, panel, which):
    return next(c for c in FIGURES[name].panels[panel].curves if c.name == which)


@pytest.mark.parametrize("h", CURVATURES)
@pytest.mark.parametrize("decays", [True, False])
def test_figure_1_is_what_stepping_gives(h, decays):
    drawn = curve("1", 0, f"h = {h:g}, {'decayed' if decays else 'constant'} lr")
    risks = [0.5 * h]
    moment = 1.0
    for step in range(10_000):
        lr = 0.01 if decays and step >= 200 else 0.1
        moment = (1 - lr * h) ** 2 * moment + lr**2 * h
        risks.append(0.5 * h * moment)
    for x, y in zip(drawn.x, drawn.y, strict=True):
        if x <= 10_000:
            assert y == pytest.approx(risks[int(x)], rel=1e-9)


def test_decay_lowers_the_floor_tenfold_and_slows_the_flat_direction():
    assert "lowers the floor of the steep direction 10 times" in FIGURES["1"].title


def test_figure_2_has_the_larger_root_of_heavy_ball():
    drawn = curve("2", 0, "1 - r")
    for momentum, shrink in zip(drawn.x[::7], drawn.y[::7], strict=True):
        roots = np.roots([1, -(1 - 0.0005 + momentum), momentum])
        # Two roots that meet are known to half the digits only.
        assert shrink == pytest.approx(1 - abs(roots).max(), abs=1e-7)


def test_figure_2_has_the_steady_state_of_the_theorem():
    drawn = curve("2", 1, "risk")
    m, lr = np.array(drawn.x), 0.0005
    risk = (1 + m) * lr / (2 * (2 * m + 2 - lr) * (1 - m))
    assert drawn.y == pytest.approx(risk, rel=1e-9)


def test_convergence_is_fastest_at_the_critical_momentum():
    drawn = curve("2", 0, "1 - r")
    best = drawn.x[int(np.argmax(drawn.y))]
    assert best == pytest.approx((1 - np.sqrt(0.0005)) ** 2)
    assert "0.956 converges 45 times as fast" in FIGURES["2"].title


def test_no_bound_is_below_the_exact_risk_and_all_end_there():
    for one in FIGURES["theorems"].panels[0].curves:
        assert min(one.y) >= 1 - 1e-9
        assert one.y[-1] == pytest.approx(1, abs=0.02)
