"""Figures 1 and 2 of Zhang et al. (2019): risk along directions, exactly."""

import numpy as np

from rightbatch.quadratic.dynamics import loss_after
from rightbatch.quadratic.optimizers import Optimizer
from rightbatch.quadratic.paper.figures import Curve, Figure, Panel, floats
from rightbatch.quadratic.problem import NoisyQuadratic
from rightbatch.quadratic.spectrum import FloatArray, Spectrum
from rightbatch.quadratic.steady_state import convergence_rate, steady_state_risk
from rightbatch.quadratic.theorems import risk_bound

CURVATURES = (1.0, 0.2, 0.03)
"""Of the three directions of figure 1."""
_LR, _CUT, _CUT_AT, _LAST = 0.1, 10.0, 200, 30_000
_RATE = 0.0005  # lr h of figure 2
_NEAR_START = 0.01  # small enough for noise to matter from the first step
_SHOWN = 61  # points of a curve


def risk_figures() -> tuple[Figure, ...]:
    """Return figures 1 and 2, and what the theorems bound; they need no search.

    Returns:
        The figures.
    """
    return _decay(), _steady_state(), _theorems()


def _one(curvature: float, start: float = 1.0) -> NoisyQuadratic:
    """Return a problem of one direction with c = h."""
    return NoisyQuadratic(
        spectrum=Spectrum(curvatures=np.array([curvature])),
        initial_second_moments=start,
    )


def _risks(curvature: float, steps: FloatArray, *, decays: bool) -> FloatArray:
    """Return the risk of one direction after steps at B = 1; lr is cut on the way."""
    problem = _one(curvature)
    before = np.minimum(steps, _CUT_AT) if decays else steps
    risks = loss_after(problem, Optimizer(name="sgd", lr=_LR), 1, before)
    if not decays:
        return risks
    # SGD remembers nothing but where it is: a run goes on as a new one from there.
    at_cut = float(loss_after(problem, Optimizer(name="sgd", lr=_LR), 1, _CUT_AT))
    moved = _one(curvature, 2 * at_cut / curvature)
    slow = Optimizer(name="sgd", lr=_LR / _CUT)
    after = loss_after(moved, slow, 1, np.maximum(steps - _CUT_AT, 0))
    return np.where(steps > _CUT_AT, after, risks)


def _decay() -> Figure:
    steps = np.unique(np.round(np.geomspace(1, _LAST, 2 * _SHOWN)))
    curves = [
        Curve(
            name=f"h = {h:g}, {'decayed' if decays else 'constant'} lr",
            label="" if decays else f"h = {h:g}",
            group=f"h = {h:g}",
            x=floats(steps),
            y=floats(_risks(h, steps, decays=decays)),
            dashed=not decays,
        )
        for h in CURVATURES
        for decays in (True, False)
    ]
    end = {decays: _risks(1.0, steps, decays=decays)[-1] for decays in (True, False)}
    flat = {
        decays: _risks(CURVATURES[-1], np.array([1000]), decays=decays)[0]
        for decays in (True, False)
    }
    return Figure(
        name="1",
        title=f"Cutting the learning rate tenfold lowers the floor of the steep "
        f"direction {end[False] / end[True]:.0f} times, and leaves the flat one "
        f"{flat[True] / flat[False]:.1f} times higher at step 1,000",
        caption=f"Risk .5 h E x^2 of three directions, noise c = h, B = 1, lr {_LR:g}. "
        f"Dashed: constant. Solid: cut to {_LR / _CUT:g} at step {_CUT_AT}. Steep "
        "directions settle early and high, flat ones late and low.",
        x_title="steps",
        panels=(Panel(y_title="risk", curves=tuple(curves)),),
        x_scale="log",
        in_paper=True,
    )


def _steady_state() -> Figure:
    problem = _one(1.0)
    critical = float((1 - np.sqrt(_RATE)) ** 2)
    momenta = np.unique(np.append(1 - np.geomspace(1, 1e-4, _SHOWN), critical))
    optimizers = [Optimizer(name="momentum", lr=_RATE, momentum=m) for m in momenta]
    shrinks = np.array([1 - convergence_rate(problem, one) for one in optimizers])
    risks = np.array([steady_state_risk(problem, one, 1) for one in optimizers])
    best = int(shrinks.argmax())
    return Figure(
        name="2",
        title=f"Momentum {momenta[best]:.3f} converges "
        f"{shrinks[best] / shrinks[0]:.0f} times as fast as none, to a risk "
        f"{risks[best] / risks[0]:.0f} times as high",
        caption=f"One direction, lr h = {_RATE:g}, B = 1, c = h = 1. Above: the share "
        "of the mean's distance that a step takes away, 1 - r with r the larger root; "
        "greatest at (1 - sqrt(lr h))^2. Below: the risk that noise keeps up for ever.",
        x_title="momentum",
        panels=(
            Panel(
                y_title="convergence, share of the distance per step",
                curves=(
                    Curve(
                        name="1 - r", group="rate", x=floats(momenta), y=floats(shrinks)
                    ),
                ),
            ),
            Panel(
                y_title="steady-state risk",
                curves=(
                    Curve(
                        name="risk", group="risk", x=floats(momenta), y=floats(risks)
                    ),
                ),
            ),
        ),
        x_scale="momentum",
        in_paper=True,
    )


def _theorems() -> Figure:
    problem = _one(1.0, _NEAR_START)
    steps = np.unique(np.round(np.geomspace(1, 10_000, _SHOWN))).astype(np.int64)
    cases = (
        ("no momentum", Optimizer(name="momentum", lr=_RATE)),
        ("momentum 0.9", Optimizer(name="momentum", lr=_RATE, momentum=0.9)),
        ("momentum 0.99", Optimizer(name="momentum", lr=_RATE, momentum=0.99)),
        ("EMA 0.999", Optimizer(name="ema", lr=20 * _RATE, ema_decay=0.999)),
    )
    curves: list[Curve] = []
    for name, one in cases:
        found = [risk_bound(problem, one, 1, int(num)) for num in steps]
        ratio = [bound.bound / bound.exact for bound in found]
        curves.append(
            Curve(name=name, label=name, group=name, x=floats(steps), y=floats(ratio))
        )
    worst = max(max(curve.y) for curve in curves)
    return Figure(
        name="theorems",
        title="The theorems' bounds hold and end at the exact risk; on the way they "
        f"are up to {worst:.3g} times too high",
        caption="Bound over exact risk of one direction, h = c = 1, B = 1, E x^2 = "
        f"{_NEAR_START:g} at the start. The bounds count from the first step all the "
        f"noise there will ever be. Momentum theorem at lr {_RATE:g}, its EMA analogue "
        f"at {20 * _RATE:g}.",
        x_title="steps",
        panels=(Panel(y_title="bound over exact risk", curves=tuple(curves)),),
        x_scale="log",
    )
