"""Figures of steps to the target: optimizers, preconditioners and targets."""

import numpy as np

from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.paper.claims import said
from rightbatch.quadratic.paper.figures import Curve, Figure, Panel, floats
from rightbatch.quadratic.paper.results import (
    COMPARED,
    WORDS,
    FittedTable,
    PaperResults,
)
from rightbatch.quadratic.paper.schedule_figures import (
    BATCH_AXIS,
    STEPS_AXIS,
    bound_curves,
    bounds_told,
)
from rightbatch.quadratic.spectrum import FloatArray

_SHOWN = 0.05


def steps_figures(results: PaperResults) -> tuple[Figure, ...]:
    """Return figures 3a and 4, and those of claims 1 to 4 and 8.

    Args:
        results: What was computed.

    Returns:
        The figures, those of the paper first.
    """
    return (
        _momentum(results),
        _averaging(results),
        _critical(results),
        _gains(results),
        _isotropic(results),
        _targets(results),
        _both(results),
        _uniform(results),
    )


def _against_sgd(results: PaperResults, name: OptimizerName) -> tuple[Curve, ...]:
    """Return an optimizer at every power, SGD beside it, and the bounds."""
    setting = results.setting
    curves = [
        Curve(
            name=f"{WORDS[one]}, power {power:g}",
            label=f"{power:g}" if one == name else "",
            group=f"power {power:g}",
            x=floats(setting.batch_sizes),
            y=floats(results.tuned.steps(one, power)),
            dashed=one == "sgd",
        )
        for power in setting.powers
        for one in (name, "sgd")
    ]
    return (*curves, *bound_curves(results))


def _momentum(results: PaperResults) -> Figure:
    setting, table = results.setting, results.tuned
    low, high = setting.powers[0], setting.powers[-1]
    return Figure(
        name="3a",
        title=f"Perfect scaling ends at B = {table.critical('sgd', low):,.0f} for SGD, "
        f"at {table.critical('momentum', low):,.0f} with momentum, and at "
        f"{table.critical('momentum', high):,.0f} with momentum and preconditioning",
        caption="Fewest steps, all settings tuned at every batch size, at each "
        f"preconditioning power. Solid: momentum. Dashed: SGD. {bounds_told(results)}",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title=STEPS_AXIS, curves=_against_sgd(results, "momentum")),),
        in_paper=True,
        command=setting.options("sgd,momentum", setting.powers),
    )


def _averaging(results: PaperResults) -> Figure:
    setting, table = results.setting, results.tuned
    power = setting.powers[0]
    small, large = (
        table.steps("sgd", power)[at] / table.steps("ema", power)[at] for at in (0, -1)
    )
    return Figure(
        name="4",
        title=f"Averaging the iterates saves {small:.3g} times the steps at "
        f"B = {setting.batch_sizes[0]:g}, and {said(large - 1, 'percent')} at "
        f"{setting.batch_sizes[-1]:,.0f}",
        caption="Fewest steps, all settings tuned, at each preconditioning power. "
        "Solid: SGD read at an exponential moving average. Dashed: SGD. "
        f"{bounds_told(results)}",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title=STEPS_AXIS, curves=_against_sgd(results, "ema")),),
        in_paper=True,
        command=setting.options("sgd,ema", setting.powers),
    )


def _critical(results: PaperResults) -> Figure:
    setting = results.setting
    low, high = setting.powers[0], setting.powers[-1]

    def curve(name: OptimizerName, table: FittedTable, *, dashed: bool) -> Curve:
        return Curve(
            name=WORDS[name] + ", published grid" * dashed,
            label="" if dashed else WORDS[name],
            group=name,
            x=floats(setting.powers),
            y=tuple(table.critical(name, power) for power in setting.powers),
            dashed=dashed,
        )

    curves = [curve(name, results.tuned, dashed=False) for name in COMPARED]
    if results.grid is not None:
        curves += [curve(name, results.grid, dashed=True) for name in COMPARED]
    grown = {
        name: results.tuned.critical(name, high) / results.tuned.critical(name, low)
        for name in COMPARED
    }
    return Figure(
        name="phi",
        title=f"From power {low:g} to {high:g} the critical batch size grows "
        f"{grown['sgd']:,.0f} times for SGD, {grown['momentum']:.1f} times with "
        "momentum",
        caption="phi = E_min/S_min of the inverse law, least squares on log steps. "
        "Dashed: from the steps of the published grids.",
        x_title="preconditioning power",
        panels=(Panel(y_title="critical batch size, examples", curves=tuple(curves)),),
        x_scale="linear",
    )


def _gains(results: PaperResults) -> Figure:
    setting, table = results.setting, results.tuned
    names: tuple[OptimizerName, ...] = ("momentum", "ema")
    curves = [
        Curve(
            name=f"{WORDS[name]}, power {power:g}",
            label=f"{WORDS[name]} {power:g}",
            group=f"power {power:g}",
            x=floats(setting.batch_sizes),
            y=floats(table.steps("sgd", power) / table.steps(name, power)),
            dashed=name == "ema",
        )
        for power in setting.some_powers()
        for name in names
    ]
    power = setting.powers[0]
    plain = table.steps("sgd", power)
    ends = (
        plain[-1] / table.steps("momentum", power)[-1],
        plain[0] / table.steps("ema", power)[0],
    )
    return Figure(
        name="gains",
        title=f"Momentum is for large batches, up to {ends[0]:.3g} times fewer steps; "
        f"averaging for small ones, up to {ends[1]:.3g} times",
        caption="Steps of SGD over those of momentum (solid) and of an EMA (dashed), "
        "everything tuned.",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title="steps of SGD over steps", curves=tuple(curves)),),
        command=setting.options("sgd,momentum,ema", setting.some_powers()),
    )


def _isotropic(results: PaperResults) -> Figure:
    setting = results.setting

    def gain(table: FittedTable, name: OptimizerName) -> FloatArray:
        steps = [table.steps(name, power)[0] for power in setting.powers]
        return steps[0] / np.array(steps)

    cases: tuple[tuple[str, FittedTable, OptimizerName], ...] = (
        ("SGD, noise c = h", results.tuned, "sgd"),
        ("SGD, isotropic", results.isotropic, "sgd"),
        ("EMA, noise c = h", results.tuned, "ema"),
        ("EMA, isotropic", results.isotropic, "ema"),
    )
    curves = [
        Curve(
            name=name,
            label=name,
            group=optimizer,
            x=floats(setting.powers),
            y=floats(gain(table, optimizer)),
            dashed=table is results.isotropic,
        )
        for name, table, optimizer in cases
    ]
    middle = len(setting.powers) // 2
    follows, same = (float(gain(t, "sgd")[middle]) for _, t, _ in cases[:2])
    return Figure(
        name="isotropic",
        title=f"At B = {setting.batch_sizes[0]:g}, power {setting.powers[middle]:g} "
        f"saves SGD {follows:.3g} times the steps where noise follows curvature, "
        f"{same:.3g} times where it is isotropic",
        caption="Steps without preconditioner over steps with, at the smallest batch. "
        "Dashed: the same total noise, alike in every direction.",
        x_title="preconditioning power",
        panels=(
            Panel(
                y_title="steps at power 0 over steps",
                curves=tuple(curves),
            ),
        ),
        x_scale="linear",
        command=setting.options("sgd,ema", setting.powers)
        + f" --noise isotropic:{setting.isotropic_noise.isotropic:.4g}",
    )


def _targets(results: PaperResults) -> Figure:
    setting = results.setting
    targets = setting.targets[::-1]  # the axis rises
    curves = [
        Curve(
            name=f"{WORDS[name]}, power {power:g}",
            label=f"{WORDS[name]} {power:g}",
            group=name,
            x=floats(targets),
            y=tuple(results.by_target[t].critical(name, power) for t in targets),
            dashed=power == setting.powers[0],
        )
        for name in COMPARED
        for power in setting.some_powers()
    ]
    power = setting.powers[0]
    high, low = (
        results.by_target[t].critical("sgd", power) for t in (targets[-1], targets[0])
    )
    return Figure(
        name="targets",
        title=f"A target {targets[-1] / targets[0]:.0f} times lower calls for batches "
        f"{low / high:.0f} times larger",
        caption="phi of the inverse law at other targets. Solid: power "
        f"{setting.some_powers()[1]:g}. Dashed: power {power:g}; the title is SGD's.",
        x_title="target loss",
        panels=(Panel(y_title="critical batch size, examples", curves=tuple(curves)),),
        x_scale="log",
    )


def _both(results: PaperResults) -> Figure:
    setting, table = results.setting, results.tuned
    power = setting.powers[0]
    names: tuple[OptimizerName, ...] = ("sgd", "momentum", "ema", "momentum+ema")
    curves = [
        Curve(
            name=WORDS[name],
            label=WORDS[name],
            group=name,
            x=floats(setting.batch_sizes),
            y=floats(table.steps(name, power)),
            dashed=name != "momentum+ema",
        )
        for name in names
    ]
    gain = np.minimum(table.steps("momentum", power), table.steps("ema", power))
    gain = gain / table.steps("momentum+ema", power)
    best = int(gain.argmax())
    return Figure(
        name="momentum-and-ema",
        title=f"Momentum with an EMA needs {gain[best]:.3g} times fewer steps than the "
        f"better of the two at B = {setting.batch_sizes[best]:,.0f}",
        caption=f"Power {power:g}. Solid: momentum read at an EMA, all three settings "
        "tuned together. Dashed: each alone. Grey: the Bayes bound.",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title=STEPS_AXIS, curves=(*curves, *bound_curves(results))),),
        command=setting.options("sgd,momentum,ema,momentum+ema", (power,)),
    )


def _uniform(results: PaperResults) -> Figure:
    setting, table = results.setting, results.tuned
    sizes = np.array(setting.batch_sizes)
    bound = results.bayes / sizes
    above = {p: table.steps("average", p) / bound - 1 for p in setting.powers}
    # Far above the bound is far from what this is about; so are runs of a few steps.
    kept = {
        p: np.where((a < _SHOWN) & (bound > 4), a, np.nan) for p, a in above.items()
    }
    curves = [
        Curve(
            name=f"{WORDS['average']}, power {power:g}",
            label=f"power {power:g}",
            group=f"power {power:g}",
            x=floats(sizes),
            y=floats(100 * kept[power]),
        )
        for power in setting.powers
    ]
    ratio = results.max_likelihood / results.bayes - 1
    curves.append(
        Curve(
            name="maximum likelihood, no bound",
            label="max. likelihood",
            x=floats(sizes),
            y=(100 * ratio,) * sizes.size,
            dashed=True,
        )
    )
    power = min(setting.powers, key=lambda p: float(above[p].min()))
    place = int(above[power].argmin())
    return Figure(
        name="averaging",
        title="The mean of all iterates comes within "
        f"{said(float(above[power][place]), 'percent')} of the Bayes bound, where "
        f"maximum likelihood stays {said(ratio, 'percent')} above it",
        caption=f"SGD read at the mean of all iterates, lr tuned; left out above "
        f"{100 * _SHOWN:.0f} %. Dotted: the maximum-likelihood number, the paper's "
        f"bound. The best is power {power:g} at B = {sizes[place]:g}, "
        f"{table.steps('average', power)[place]:,.0f} steps.",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title="steps above the Bayes bound, %", curves=tuple(curves)),),
        command=setting.options("average", setting.powers),
    )
