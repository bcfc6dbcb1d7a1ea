"""Claims of Zhang et al. (2019) on learning rates, schedules and growing batches."""

from collections.abc import Callable

import numpy as np

from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.paper.claims import Claim, Condition, Evidence, Kind, said
from rightbatch.quadratic.paper.results import (
    FittedTable,
    PaperResults,
    PaperSetting,
    ScheduleKey,
)
from rightbatch.quadratic.paper.rules import Names, Reader, Rule, by_power
from rightbatch.quadratic.schedules.growth import GrownBatch

_LINEAR = (0.9, 1.1)  # slopes that count as linear
_FLAT = 0.1
_LITTLE = 0.2  # share of the steps that counts as little
_FEWER = 2.0
_NO_DEARER = 0.05  # rise of the loss that counts as none, as in `grow_batch`


def judge_schedules(results: PaperResults) -> tuple[Claim, ...]:
    """Return the claims 5 to 7 with their conditions.

    Args:
        results: What was computed.

    Returns:
        The claims. Every threshold stands in the statement of its condition.
    """
    return _linear_lr(results), _schedules(results), _growth(results)


# 5 ----------------------------------------------------------------------------------


def lr_slopes(
    table: FittedTable, setting: PaperSetting, name: OptimizerName, power: float
) -> tuple[float, float]:
    """Return slopes of log lr/(1 - momentum) on log B, up to phi/2 and from 2 phi.

    Args:
        table: Of steps.
        setting: With the batch sizes.
        name: The optimizer.
        power: Of the preconditioner.

    Returns:
        Two slopes by least squares; nan where there are fewer than two batch sizes.
    """
    sizes, rates = np.array(setting.batch_sizes), table.rates(name, power)
    phi, known = table.critical(name, power), np.isfinite(rates)

    def slope(kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
        if kept.sum() < 2:
            return float("nan")
        return float(np.polyfit(np.log(sizes[kept]), np.log(rates[kept]), 1)[0])

    return slope((sizes <= phi / 2) & known), slope((sizes >= 2 * phi) & known)


def _slopes(setting: PaperSetting, part: int, names: Names) -> Reader:
    def read(table: FittedTable) -> Evidence:
        return by_power(
            setting,
            "number",
            names,
            lambda name, power: lr_slopes(table, setting, name, power)[part],
        )

    return read


def _is_linear(_: FittedTable, found: Evidence) -> bool:
    low, high = _LINEAR
    return bool(((found.values >= low) & (found.values <= high)).all())


def _is_flat(_: FittedTable, found: Evidence) -> bool:
    return bool((abs(found.values) <= _FLAT).all())


def _linear_lr(results: PaperResults) -> Claim:
    setting = results.setting
    others: Names = ("momentum", "ema")
    rules = (
        Rule(
            "slope_below",
            "Up to phi/2 the slope of log lr on log B is between .9 and 1.1.",
            _slopes(setting, 0, ("sgd",)),
            _is_linear,
        ),
        Rule(
            "slope_above",
            "From 2 phi on it is between -.1 and .1.",
            _slopes(setting, 1, ("sgd",)),
            _is_flat,
        ),
        Rule(
            "slope_below_of_others",
            "The same up to phi/2 of lr/(1 - momentum), with momentum and with an EMA.",
            _slopes(setting, 0, others),
            _is_linear,
            counts=False,
        ),
        Rule(
            "slope_above_of_others",
            "The same from 2 phi on.",
            _slopes(setting, 1, others),
            _is_flat,
            counts=False,
        ),
    )
    return Claim(
        number=5,
        short="the best lr is linear in B up to phi",
        claim="The best learning rate is linear in the batch size, up to the critical "
        "one.",
        conditions=tuple(rule.on(results) for rule in rules),
        note="A dash: fewer than two batch sizes lie there. Momentum is tuned together "
        "with the lr; what is linear is lr/(1 - momentum).",
        figures=("lr",),
    )


# 6 ----------------------------------------------------------------------------------


def _schedules(results: PaperResults) -> Claim:
    last = results.setting.batch_sizes[-1]
    closed, any_rate = _gap_closed(results), _saved(results, is_capped=False)
    capped = _saved(results, is_capped=True)
    little = "a schedule saves at most 20 % of the best constant rate's steps, or one"
    return Claim(
        number=6,
        short="schedules close the gap, but not at large batch",
        claim="Optimised learning rate schedules close most of the gap to the lower "
        "bound at small batch, and do little at large batch.",
        conditions=(
            Condition(
                key="gap_closed",
                statement="At small batch they close more than half of the gap in log "
                "steps between the best constant rate and the Bayes bound.",
                evidence=closed,
                holds=bool((closed.values > 0.5).all()),
            ),
            Condition(
                key="saved_under_cap",
                statement=f"At B = {last:,.0f}, rates up to the stability edge, "
                f"{little}.",
                evidence=capped,
                holds=_do_little(results, is_capped=True),
            ),
            Condition(
                key="saved_without_cap",
                statement=f"At B = {last:,.0f}, any rates, {little}.",
                evidence=any_rate,
                holds=_do_little(results, is_capped=False),
            ),
        ),
        note="It is the cap that makes schedules useless at large batch: "
        f"{_beyond_the_edge(results)} The longer the pieces, the less: beyond the edge "
        "a direction grows at every step.",
        figures=("3b", "3c", "uncapped"),
    )


def _gap_closed(results: PaperResults) -> Evidence:
    setting = results.setting
    finest = setting.num_pieces[-1]
    rows: dict[str, tuple[float, ...]] = {}
    for size in setting.growth_sizes:
        place = setting.batch_sizes.index(size)
        found: list[float] = []
        for power in setting.powers:
            constant = float(results.tuned.steps("sgd", power)[place])
            key = ScheduleKey(power, finest, True)
            steps = results.scheduled_steps(key)[place]
            bound = results.bayes / size
            found.append(float(np.log(constant / steps) / np.log(constant / bound)))
        rows[f"B = {size:g}, {finest} pieces"] = tuple(found)
    return Evidence(
        heading="power",
        columns=tuple(f"{power:g}" for power in setting.powers),
        rows=rows,
        kind="percent",
    )


def _saved(results: PaperResults, *, is_capped: bool) -> Evidence:
    setting = results.setting
    shown = _shown(setting, is_capped=is_capped)
    numbers = sorted({key.num_pieces for key in shown})
    powers = sorted({key.power for key in shown})
    return Evidence(
        heading="power",
        columns=tuple(f"{power:g}" for power in powers),
        rows={
            f"{num} pieces": tuple(
                float(
                    1
                    - results.scheduled_steps(ScheduleKey(power, num, is_capped))[-1]
                    / results.tuned.steps("sgd", power)[-1]
                )
                for power in powers
            )
            for num in numbers
        },
        kind="percent",
    )


def _shown(setting: PaperSetting, *, is_capped: bool) -> list[ScheduleKey]:
    numbers = setting.num_pieces if is_capped else setting.num_pieces[:1]
    return [
        ScheduleKey(power, num, is_capped)
        for power in setting.powers
        for num in numbers
    ]


def _do_little(results: PaperResults, *, is_capped: bool) -> bool:
    for key in _shown(results.setting, is_capped=is_capped):
        constant = results.tuned.steps("sgd", key.power)[-1]
        saved = constant - results.scheduled_steps(key)[-1]
        if saved > max(1, _LITTLE * constant):
            return False
    return True


def _beyond_the_edge(results: PaperResults) -> str:
    told = [
        f"{results.tuned.steps('sgd', key.power)[-1]:,.0f} steps become "
        f"{results.scheduled_steps(key)[-1]:,.0f} at power {key.power:g}"
        for key in _shown(results.setting, is_capped=False)[1:]
    ]
    return f"without it {', '.join(told)}."


# 7 ----------------------------------------------------------------------------------


def _growth(results: PaperResults) -> Claim:
    sizes = results.setting.growth_sizes
    rises = {size: _by_size(results, (size,), "percent", _rise) for size in sizes}
    updates = _by_size(results, sizes, "times", lambda grown: grown.saving)
    unguarded = [g.saving for g in results.growth.values() if not g.guarded]
    what = "the rate held at its largest and the batch grown instead, the loss rises"
    conditions = [
        Condition(
            key=f"rise_at_batch_{size:g}",
            statement=f"At B = {size:g}, {what} by at most 5 %.",
            evidence=found,
            holds=bool((found.values <= _NO_DEARER).all()),
        )
        for size, found in rises.items()
    ]
    fewer = Condition(
        key="fewer_updates",
        statement="Wherever that is so, it takes at most half the updates; elsewhere "
        "a lower rate is held.",
        evidence=updates,
        holds=bool(unguarded) and min(unguarded) >= _FEWER,
    )
    return Claim(
        number=7,
        short="growing B replaces decaying lr",
        claim="Growing the batch replaces decaying the learning rate.",
        conditions=(*conditions, fewer),
        note=_guarded(results),
        figures=("growth",),
    )


def _rise(grown: GrownBatch) -> float:
    return grown.unguarded_loss / grown.loss_before - 1


def _by_size(
    results: PaperResults,
    sizes: tuple[float, ...],
    kind: Kind,
    value: Callable[[GrownBatch], float],
) -> Evidence:
    powers = results.setting.powers
    return Evidence(
        heading="power",
        columns=tuple(f"{power:g}" for power in powers),
        rows={
            f"B = {size:g}": tuple(
                value(results.growth[power, size])
                if (power, size) in results.growth
                else float("nan")
                for power in powers
            )
            for size in sizes
        },
        kind=kind,
    )


def _guarded(results: PaperResults) -> str:
    told = [
        f"at power {power:g}, B = {size:g} the largest rate is "
        f"{said(_largest(results, power, size), 'percent')} of the stability "
        f"edge, where the fastest direction collects noise; held at "
        f"{grown.held_lr:.3g} it takes {grown.saving:.2f} times fewer updates, for "
        f"{said(grown.loss_increase, 'percent')} more loss"
        for (power, size), grown in results.growth.items()
        if grown.guarded
    ]
    return f"Not at the edge: {'; '.join(told)}." if told else ""


def _largest(results: PaperResults, power: float, size: float) -> float:
    """Return a schedule's largest rate as a share of the stability edge."""
    key = ScheduleKey(power, results.setting.num_pieces[0], True)
    place = results.setting.batch_sizes.index(size)
    rate = max(results.schedules[key][place].lrs)
    return rate * float(results.setting.problem(power).rates.max()) / 2
