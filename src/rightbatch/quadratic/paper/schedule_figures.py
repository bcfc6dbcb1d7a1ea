"""Figures of learning rates: schedules, the best constant rate, growing batches."""

import numpy as np

from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.paper.claims import said
from rightbatch.quadratic.paper.figures import Curve, Figure, Panel, floats
from rightbatch.quadratic.paper.results import WORDS, PaperResults, ScheduleKey
from rightbatch.quadratic.paper.schedule_claims import lr_slopes
from rightbatch.quadratic.pieces import Piece

BATCH_AXIS = "batch size, examples per step"
STEPS_AXIS = "steps to the target"


def schedule_figures(results: PaperResults) -> tuple[Figure, ...]:
    """Return figures 3b and 3c, and those of claims 5 to 7.

    Args:
        results: What was computed.

    Returns:
        The figures, those of the paper first.
    """
    return (
        _against_constant(results),
        _rates(results),
        _uncapped(results),
        _best_lr(results),
        _growth(results),
    )


def _schedule_curve(results: PaperResults, key: ScheduleKey, label: str) -> Curve:
    return Curve(
        name=label if key.is_capped else f"{label}, any rate",
        label=label,
        group=f"power {key.power:g}",
        x=floats(results.setting.batch_sizes),
        y=floats(results.scheduled_steps(key)),
    )


def _constant_curve(results: PaperResults, power: float) -> Curve:
    return Curve(
        name=f"power {power:g}, constant",
        group=f"power {power:g}",
        x=floats(results.setting.batch_sizes),
        y=floats(results.tuned.steps("sgd", power)),
        dashed=True,
    )


def bound_curves(results: PaperResults) -> tuple[Curve, Curve]:
    """Return the maximum-likelihood number and the Bayes bound over batch sizes.

    Args:
        results: What was computed.

    Returns:
        Two curves, cut off below one step.
    """
    sizes = np.array(results.setting.batch_sizes)

    def curve(name: str, label: str, examples: float, *, dashed: bool) -> Curve:
        steps = np.where(examples >= sizes, examples / sizes, np.nan)
        return Curve(
            name=name, label=label, x=floats(sizes), y=floats(steps), dashed=dashed
        )

    return (
        curve(
            "maximum likelihood, no bound",
            "",
            results.max_likelihood,
            dashed=True,
        ),
        curve("Bayes bound", "bound", results.bayes, dashed=False),
    )


def bounds_told(results: PaperResults) -> str:
    """Return what to know of the two lines of :func:`bound_curves`."""
    above = said(results.max_likelihood / results.bayes - 1, "percent")
    return (
        "Grey: the Bayes bound, below which nothing can be; dotted, "
        f"{above} above it, the maximum-likelihood number, the paper's bound, which "
        "can be beaten."
    )


def _against_constant(results: PaperResults) -> Figure:
    setting = results.setting
    num = setting.num_pieces[-1]
    curves: list[Curve] = []
    for power in setting.powers:
        key = ScheduleKey(power, num, True)
        curves += [
            _schedule_curve(results, key, f"power {power:g}"),
            _constant_curve(results, power),
        ]
    power, place = setting.powers[0], 2
    constant = results.tuned.steps("sgd", power)[place]
    steps = results.scheduled_steps(ScheduleKey(power, num, True))[place]
    last = results.scheduled_steps(ScheduleKey(power, num, True))[-1]
    return Figure(
        name="3b",
        title=f"At B = {setting.batch_sizes[place]:g} an optimised schedule takes "
        f"{steps:,.0f} steps instead of {constant:,.0f}; at "
        f"{setting.batch_sizes[-1]:,.0f}, {last:,.0f} instead of "
        f"{results.tuned.steps('sgd', power)[-1]:,.0f}",
        caption=f"Solid: {num} equal pieces, the rate of each optimised, none above "
        f"the stability edge. Dashed: the best constant rate. {bounds_told(results)}",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title=STEPS_AXIS, curves=(*curves, *bound_curves(results))),),
        in_paper=True,
        command=setting.options("sgd", setting.powers, f"--schedule pieces:{num}"),
    )


def _rates(results: PaperResults) -> Figure:
    setting = results.setting
    power, num = setting.powers[0], setting.num_pieces[-1]
    every = results.schedules[ScheduleKey(power, num, True)]
    places = np.unique(np.linspace(0, len(every) - 1, 5).round().astype(int))
    found = [every[place] for place in places]
    curves: list[Curve] = []
    for one in found:
        ends = np.cumsum(one.lengths)
        shares = np.append(0, ends) / max(ends[-1], 1)
        name = f"B = {one.batch_size:,.0f}"
        curves.append(
            Curve(
                name=name,
                label=name,
                group=name,
                x=floats(shares),
                y=floats((*one.lrs, one.lrs[-1])),
                stepped=True,
            )
        )
    edge = 2 / setting.problem(power).rates.max()
    first, last = found[1], found[-1]
    held, kept = (
        float(np.mean(np.array(one.lrs) > 0.99 * edge)) for one in (first, last)
    )
    return Figure(
        name="3c",
        title="The larger the batch, the later the rate falls: it stays at the edge "
        f"for {100 * held:.0f} % of the run at B = {first.batch_size:g}, for "
        f"{100 * kept:.0f} % at {last.batch_size:,.0f}",
        caption=f"The {num} rates of the optimised schedules of figure 3b at power "
        f"{power:g}; the stability edge is {edge:g}.",
        x_title="share of the run",
        panels=(Panel(y_title="learning rate", curves=tuple(curves)),),
        x_scale="linear",
        in_paper=True,
        command=setting.options("sgd", (power,), f"--schedule pieces:{num}"),
    )


def _uncapped(results: PaperResults) -> Figure:
    setting = results.setting
    num = setting.num_pieces[0]
    curves: list[Curve] = []
    gains: dict[float, float] = {}
    for power in setting.powers:
        capped, free = (ScheduleKey(power, num, c) for c in (True, False))
        under_cap = _schedule_curve(results, capped, f"power {power:g}, up to the edge")
        curves += [
            _schedule_curve(results, free, f"power {power:g}"),
            Curve(
                name=under_cap.name,
                group=under_cap.group,
                x=under_cap.x,
                y=under_cap.y,
                dashed=True,
            ),
        ]
        steps, fewest = (results.scheduled_steps(key)[-1] for key in (capped, free))
        gains[power] = steps / fewest
    best = max(gains, key=lambda power: gains[power])
    return Figure(
        name="uncapped",
        title=f"Rates past the stability edge take {gains[best]:.3g} times fewer "
        f"steps at large batch, power {best:g}",
        caption=f"{num} equal pieces. Solid: any rate. Dashed: none above the "
        "stability edge; the published code caps rates just below it.",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title=STEPS_AXIS, curves=tuple(curves)),),
    )


def _best_lr(results: PaperResults) -> Figure:
    setting = results.setting
    shown: tuple[OptimizerName, ...] = ("sgd", "momentum", "ema")
    power = setting.powers[0]
    curves: list[Curve] = []
    for name in shown:
        for table, dashed in ((results.tuned, False), (results.grid, True)):
            if table is None:
                continue
            curves.append(
                Curve(
                    name=f"{WORDS[name]}{', published grid' * dashed}",
                    label="" if dashed else WORDS[name],
                    group=name,
                    x=floats(setting.batch_sizes),
                    y=floats(table.rates(name, power)),
                    dashed=dashed,
                )
            )
    below, above = lr_slopes(results.tuned, setting, "sgd", power)
    phis = ", ".join(
        f"{WORDS[name]} {results.tuned.critical(name, power):,.0f}" for name in shown
    )
    return Figure(
        name="lr",
        title=f"SGD's best learning rate grows as B to the power {below:.2f} up to "
        f"half of phi, and {max(above, 0):.2f} from twice phi on",
        caption=f"Best lr, for momentum lr/(1 - momentum), at power {power:g}; phi is "
        f"{phis}. Dashed: the best point of the published grids.",
        x_title=BATCH_AXIS,
        panels=(Panel(y_title="lr / (1 - momentum)", curves=tuple(curves)),),
        command=setting.options("sgd,momentum,ema", (power,)),
    )


def _staircase(pieces: tuple[Piece, ...], of: str) -> tuple[list[float], list[float]]:
    """Return updates and the value that holds from each on."""
    ends = np.cumsum([piece.steps for piece in pieces])
    values = [getattr(piece, of) for piece in pieces]
    return [0.0, *ends.tolist()], [*values, values[-1]]


def _growth(results: PaperResults) -> Figure:
    setting = results.setting
    (power, size), grown = next(iter(results.growth.items()))
    key = ScheduleKey(power, setting.num_pieces[0], True)
    decayed = results.schedules[key][setting.batch_sizes.index(size)].pieces
    panels: list[Panel] = []
    for of, title in (
        ("lr", "learning rate"),
        ("batch_size", "batch size, examples per step"),
    ):
        curves: list[Curve] = []
        for name, pieces in (("decaying lr", decayed), ("growing batch", grown.pieces)):
            x, y = _staircase(pieces, of)
            curves.append(
                Curve(
                    name=name,
                    label=name,
                    group=name,
                    x=floats(x),
                    y=floats(y),
                    dashed=name == "decaying lr",
                    stepped=True,
                )
            )
        panels.append(Panel(y_title=title, curves=tuple(curves)))
    return Figure(
        name="growth",
        title=f"Growing the batch from {size:g} to "
        f"{max(p.batch_size for p in grown.pieces):,.0f} takes {grown.saving:.2f} "
        "times fewer updates than decaying the rate, for "
        f"{said(grown.loss_increase, 'percent')} more loss",
        caption=f"Power {power:g}. As many examples and the same sum of rates, piece "
        f"by piece; {grown.updates:,} updates for {grown.updates_before:,}.",
        x_title="updates",
        panels=tuple(panels),
        x_scale="linear",
        command=setting.options(
            "sgd", (power,), f"--schedule pieces:{key.num_pieces} --grow"
        ),
    )
