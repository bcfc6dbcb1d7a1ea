"""Claims of Zhang et al. (2019) on optimizers: momentum, averages, preconditioners."""

from collections.abc import Callable

import numpy as np

from rightbatch.quadratic.optimizers import OptimizerName
from rightbatch.quadratic.paper.claims import Claim, Condition, Evidence, Kind, said
from rightbatch.quadratic.paper.results import (
    COMPARED,
    WORDS,
    FittedTable,
    PaperResults,
    PaperSetting,
)
from rightbatch.quadratic.paper.rules import (
    Names,
    Reader,
    Rule,
    at_least,
    at_most,
    by_power,
)
from rightbatch.quadratic.spectrum import FloatArray

_NEAR = 0.05  # what counts as the same
_LITTLE = 0.3  # what counts as little
_MUCH = 1.25  # what counts as fewer steps
_HELPS = 1.1
_WIDER = 1.5  # what counts as a larger critical batch size


def judge_optimizers(results: PaperResults) -> tuple[Claim, ...]:
    """Return the claims 1 to 4 and 8 with their conditions.

    Args:
        results: What was computed.

    Returns:
        The claims. Every threshold stands in the statement of its condition.
    """
    return (
        _perfect_scaling(results),
        _momentum(results),
        _averaging(results),
        _preconditioning(results),
        _target(results),
    )


# 1 ----------------------------------------------------------------------------------


def _perfect_scaling(results: PaperResults) -> Claim:
    setting = results.setting
    sizes = np.array(setting.batch_sizes)

    def extra(table: FittedTable) -> Evidence:
        def value(name: OptimizerName, power: float) -> float:
            examples = sizes * table.steps(name, power)
            return float(examples[1] / examples[0] - 1)

        return by_power(setting, "percent", COMPARED, value)

    def saved(table: FittedTable) -> Evidence:
        def value(name: OptimizerName, power: float) -> float:
            steps = table.steps(name, power)
            return float(1 - steps[-1] / steps[-2])

        return by_power(setting, "percent", COMPARED, value)

    def critical(table: FittedTable) -> Evidence:
        return by_power(setting, "count", COMPARED, table.critical)

    def flat(table: FittedTable, _: Evidence) -> bool:
        curves = [table.steps(n, p) for n in COMPARED for p in setting.powers]
        return all(is_same(steps[-2], steps[-1]) for steps in curves)

    rules = (
        Rule(
            "extra_examples",
            f"At small batch, B = {sizes[1]:g} takes at most 5 % more examples than "
            f"B = {sizes[0]:g}.",
            extra,
            at_most(_NEAR),
        ),
        Rule(
            "saved_at_last",
            f"At large batch, going from B = {sizes[-2]:,.0f} to {sizes[-1]:,.0f} "
            "saves at most 5 % of the steps, or one step.",
            saved,
            flat,
        ),
        Rule(
            "critical_batch_size",
            "The critical batch size phi grows from each power to the next.",
            critical,
            _grows,
        ),
    )
    return Claim(
        number=1,
        short="perfect scaling, then none; preconditioning extends it",
        claim="Steps fall as 1/B, then flatten; the critical batch size grows with the "
        "preconditioning power.",
        conditions=tuple(rule.on(results) for rule in rules),
        note=_misfit(results),
        figures=("3a", "phi"),
    )


def _misfit(results: PaperResults) -> str:
    fits = [results.tuned.fits[n, p] for n in COMPARED for p in results.setting.powers]
    errors = [fit.misfit for fit in fits]
    return (
        "phi is E_min/S_min of S = S_min + E_min/B by least squares on log steps. The "
        "corner of these curves is sharper than the law's, which misses some batch "
        f"size by {said(min(errors), 'percent')} to {said(max(errors), 'percent')}."
    )


def is_same(before: float, after: float) -> bool:
    """Return whether steps are at most 5 % fewer, or fewer by one step at most."""
    return after >= (1 - _NEAR) * before or before - after <= 1


def _rises(row: FloatArray) -> bool:
    return bool((np.diff(row) > 0).all())


def _grows(_: FittedTable, found: Evidence) -> bool:
    return _each_row(found, _rises)


def _below_sgd(_: FittedTable, found: Evidence) -> bool:
    return bool((found.values < 1).all())


def _each_row(evidence: Evidence, holds: Callable[[FloatArray], bool]) -> bool:
    return all(holds(np.array(row)) for row in evidence.rows.values())


# 2, 3 -------------------------------------------------------------------------------


def _sgd_over(setting: PaperSetting, name: OptimizerName, at: int) -> Reader:
    """Return a reader of SGD's steps over those of another, at a place of the sizes."""

    def read(table: FittedTable) -> Evidence:
        def value(name: OptimizerName, power: float) -> float:
            return float(table.steps("sgd", power)[at] / table.steps(name, power)[at])

        return by_power(setting, "times", (name,), value)

    return read


def _more_of_sgd(setting: PaperSetting, name: OptimizerName, at: int) -> Reader:
    def read(table: FittedTable) -> Evidence:
        ratio = _sgd_over(setting, name, at)(table)
        rows = {key: tuple(v - 1 for v in row) for key, row in ratio.rows.items()}
        return Evidence(
            heading=ratio.heading, columns=ratio.columns, rows=rows, kind="percent"
        )

    return read


def _critical_over_sgd(setting: PaperSetting, name: OptimizerName) -> Reader:
    def read(table: FittedTable) -> Evidence:
        return by_power(
            setting,
            "times",
            (name,),
            lambda name, p: table.critical(name, p) / table.critical("sgd", p),
        )

    return read


def _momentum(results: PaperResults) -> Claim:
    setting = results.setting
    first, last = setting.batch_sizes[0], setting.batch_sizes[-1]
    rules = (
        Rule(
            "critical_over_sgd",
            "Its critical batch size is at least 1.5 times that of SGD.",
            _critical_over_sgd(setting, "momentum"),
            at_least(_WIDER),
        ),
        Rule(
            "more_steps_of_sgd",
            f"At B = {first:g} SGD needs at most 30 % more steps.",
            _more_of_sgd(setting, "momentum", 0),
            at_most(_LITTLE),
        ),
        Rule(
            "gain_at_large_batch",
            f"At B = {last:,.0f} SGD needs at least twice the steps.",
            _sgd_over(setting, "momentum", -1),
            at_least(2),
        ),
    )
    conditions = tuple(rule.on(results) for rule in rules)
    little = conditions[1]
    return Claim(
        number=2,
        short="momentum extends perfect scaling",
        claim="Momentum extends perfect scaling to larger batches; at small batch it "
        "helps little.",
        conditions=conditions,
        note=f"Little is not nothing: at B = {first:g} SGD needs "
        f"{_range(little.evidence)} more steps than momentum tuned without a grid"
        + (
            f"; by the published grids {_range(little.on_grid)}, "
            f"{said(float(little.on_grid.values[0]), 'percent')} without "
            "preconditioner."
            if little.on_grid
            else "."
        ),
        figures=("3a", "gains"),
    )


def _range(evidence: Evidence) -> str:
    low, high = evidence.values.min(), evidence.values.max()
    return f"{said(low, evidence.kind)} to {said(high, evidence.kind)}"


def _averaging(results: PaperResults) -> Claim:
    setting = results.setting
    first, last = setting.batch_sizes[0], setting.batch_sizes[-1]

    def same(table: FittedTable, _: Evidence) -> bool:
        return all(
            is_same(table.steps("sgd", p)[-1], table.steps("ema", p)[-1])
            for p in setting.powers
        )

    rules = (
        Rule(
            "gain_at_small_batch",
            f"At B = {first:g} SGD needs at least 1.25 times the steps.",
            _sgd_over(setting, "ema", 0),
            at_least(_MUCH),
        ),
        Rule(
            "more_steps_of_sgd",
            f"At B = {last:,.0f} it saves at most 5 % of SGD's steps, or one step.",
            _more_of_sgd(setting, "ema", -1),
            same,
        ),
        Rule(
            "critical_over_sgd",
            "Its critical batch size is below that of SGD.",
            _critical_over_sgd(setting, "ema"),
            _below_sgd,
        ),
    )
    return Claim(
        number=3,
        short="averaging helps small batches only",
        claim="An exponential moving average (EMA) cuts steps at small batch, does "
        "nothing at large batch, and lowers the critical batch size.",
        conditions=tuple(rule.on(results) for rule in rules),
        note="A negative number is a grid's: its EMA rates stop further from the "
        "stability edge than its SGD rates."
        if results.grid
        and _more_of_sgd(setting, "ema", -1)(results.grid).values.min() < 0
        else "",
        figures=("4", "gains"),
    )


# 4 ----------------------------------------------------------------------------------


def _gain_over_none(setting: PaperSetting, names: Names) -> Reader:
    """Return a reader of steps without preconditioner over those with, at small B."""

    def read(table: FittedTable) -> Evidence:
        def value(name: OptimizerName, power: float) -> float:
            plain = table.steps(name, setting.powers[0])[0]
            return float(plain / table.steps(name, power)[0])

        return by_power(setting, "times", names, value)

    return read


def _helps(_: FittedTable, found: Evidence) -> bool:
    return _each_row(found, lambda row: bool((row[1:] >= _HELPS).all()))


def _preconditioning(results: PaperResults) -> Claim:
    setting = results.setting
    first = setting.batch_sizes[0]
    more = f"it takes 1.1 times the steps or more without one at B = {first:g}"
    follows = Rule(
        "gain_at_small_batch",
        f"Where the noise is c = h, {more}.",
        _gain_over_none(setting, ("sgd", "momentum")),
        _helps,
    )
    averaged = Rule(
        "gain_under_ema",
        f"Under an EMA, {more}.",
        _gain_over_none(setting, ("ema",)),
        _helps,
        counts=False,
    )
    return Claim(
        number=4,
        short="preconditioning helps even at small batch",
        claim="Preconditioning helps even at the smallest batch.",
        conditions=(
            follows.on(results),
            _with_isotropic_noise(results, "sgd", more),
            averaged.on(results),
            _with_isotropic_noise(results, "ema", more),
        ),
        note="How much it helps depends on the noise: c = h leaves flat directions "
        "quiet, and isotropic noise of the same total does not. An EMA does most of "
        "the same work by itself.",
        figures=("isotropic",),
    )


def _with_isotropic_noise(
    results: PaperResults, name: OptimizerName, more: str
) -> Condition:
    counts = name == "sgd"
    found = _gain_over_none(results.setting, (name,))(results.isotropic)
    return Condition(
        key="gain_with_isotropic_noise" + ("" if counts else f"_under_{name}"),
        statement=f"Where the noise is isotropic, {WORDS[name]}: {more}.",
        evidence=found,
        holds=_helps(results.isotropic, found),
        counts=counts,
    )


# 8 ----------------------------------------------------------------------------------


def _by_target(
    results: PaperResults,
    kind: Kind,
    names: Names,
    value: Callable[[FittedTable, OptimizerName, float], float],
) -> Evidence:
    setting = results.setting
    return Evidence(
        heading="target loss",
        columns=tuple(f"{target:g}" for target in setting.targets),
        rows={
            f"{WORDS[name]}, power {power:g}": tuple(
                value(results.by_target[target], name, power)
                for target in setting.targets
            )
            for name in names
            for power in setting.some_powers()
        },
        kind=kind,
    )


def _target(results: PaperResults) -> Claim:
    phi = _by_target(results, "count", COMPARED, lambda t, n, p: t.critical(n, p))
    over_sgd = _by_target(
        results,
        "times",
        ("momentum", "ema"),
        lambda t, n, p: t.critical(n, p) / t.critical("sgd", p),
    )
    gain = _by_target(
        results,
        "times",
        ("momentum", "ema"),
        lambda t, n, p: float(t.steps("sgd", p)[0] / t.steps(n, p)[0]),
    )
    ordered = all(
        (np.array(row) > 1).all()
        if name.startswith(WORDS["momentum"])
        else (np.array(row) < 1).all()
        for name, row in over_sgd.rows.items()
    )
    conditions = (
        Condition(
            key="critical_batch_size",
            statement="phi grows at each lower target, for every optimizer.",
            evidence=phi,
            holds=_each_row(phi, _rises),
        ),
        Condition(
            key="critical_over_sgd",
            statement="At every target phi is above SGD's with momentum, below with "
            "an EMA.",
            evidence=over_sgd,
            holds=ordered,
        ),
        Condition(
            key="gain_at_small_batch",
            statement="What SGD needs over momentum and over an EMA at "
            f"B = {results.setting.batch_sizes[0]:g} grows at each lower target.",
            evidence=gain,
            holds=_each_row(gain, _rises),
            counts=False,
        ),
    )
    return Claim(
        number=8,
        short="lower targets call for larger batches",
        claim="A lower target calls for larger batches; which optimizer scales further "
        "does not depend on it.",
        conditions=conditions,
        note=_target_slopes(results),
        figures=("targets",),
    )


def _target_slopes(results: PaperResults) -> str:
    targets = np.array(results.setting.targets)
    slopes = [
        float(np.polyfit(np.log(targets), np.log(row), 1)[0])
        for name in COMPARED
        for power in results.setting.some_powers()
        for row in [[results.by_target[t].critical(name, power) for t in targets]]
    ]
    return (
        "phi goes about as the target to the power "
        f"{max(slopes):.2f} to {min(slopes):.2f}."
    )
