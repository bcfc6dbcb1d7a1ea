"""The tables of a result, as sheets: each takes records of the JSON document."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    count,
    ends,
    entries,
    estimate,
    field,
    is_number,
    label,
    number,
    percent,
    seconds,
    span,
    times,
    whole,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]


def plan_sheet(
    plan: Sequence[Record],
    caption: str = "The best batch size for each number of replicas, P",
) -> Sheet:
    """Return the plan: one row per number of replicas.

    Args:
        plan: `optimal` (or `optimal_measured`) of a document.
        caption: What the table shows.

    Returns:
        A sheet that fits 80 columns.

    Example:
        >>> plan = [{"num_replicas": 1, "batch_size": 128, "seconds": 2.31}]
        >>> plan_sheet(plan).rows[0][:2]
        ('1', '128')
    """
    level = _level(plan, "batch_size_interval")
    columns = (
        Column("replicas", "P"),
        Column("best batch", "best\nbatch"),
        Column(level + " interval", level + "\ninterval"),
        Column("within 5 % of the best", "within\n5 %", wide=True),
        Column("lr"),
        Column("micro × accumulation × replicas", "micro\n×acc×P"),
        Column("steps"),
        Column("time to target", "time"),
        Column("interval of the time", level + "\ntime", wide=True),
        Column("speed-up", "speed-\nup"),
        Column("limited by", "limited\nby", "left"),
    )
    beyond = "* beyond the batch sizes that were run: an extrapolation"
    notes = (beyond,) if any(field(entry, "extrapolated") for entry in plan) else ()
    if any(field(entry, "batch_size_is_lower_bound") for entry in plan):
        notes += ("≥ the largest batch size run: the best one may be larger",)
    rows = tuple(_plan_row(entry) for entry in plan)
    return Sheet(caption=caption, columns=columns, rows=rows, notes=notes)


def _level(records: Sequence[Record], key: str) -> str:
    levels = (field(record, key, "level") for record in records)
    return percent(next((level for level in levels if is_number(level)), 0.9))


def _plan_row(entry: Record) -> tuple[str, ...]:
    parts = ("micro_batch_size", "accumulation_steps", "num_replicas")
    within = field(entry, "within_5_percent") or (None, None)
    star = "*" if field(entry, "extrapolated") else ""
    bound = "≥ " if field(entry, "batch_size_is_lower_bound") else ""
    return (
        count(field(entry, "num_replicas")),
        bound + count(field(entry, "batch_size")) + star,
        ends(field(entry, "batch_size_interval"), whole),
        span(*within, text=count),
        number(field(entry, "lr")),
        "×".join(count(field(entry, part)) for part in parts),
        number(field(entry, "steps")),
        seconds(field(entry, "seconds")),
        ends(field(entry, "seconds_interval"), seconds),
        times(field(entry, "speedup")),
        label(field(entry, "limited_by")),
    )


def fit_name(fit: Record) -> str:
    """Return what a fit is of: its target where it has one, else its workload.

    Example:
        >>> fit_name({"workload": "digits-mlp", "target": 0.15})
        'target 0.15'
    """
    target = field(fit, "target")
    if field(fit, "name"):
        return label(field(fit, "name"))
    if target is None:
        return label(field(fit, "workload"))
    return f"target {label(target)}"


def fit_sheet(fits: Sequence[Record]) -> Sheet:
    """Return the fitted laws: one row per workload or target, advice below.

    Args:
        fits: `convergence` of a plan, or `workloads` of a fit.

    Returns:
        A sheet that fits 80 columns.
    """
    level, unit = _level(fits, "critical_batch_size"), _shared_unit(fits)
    columns = (
        Column("fit", align="left"),
        Column("status", align="left"),
        Column("critical batch size", "critical\nbatch size"),
        Column("fewest steps", "fewest\nsteps"),
        Column(level + " interval, steps", level + ",\nsteps", wide=True),
        Column(f"fewest {unit}", f"fewest\n{unit}"),
        Column(f"{level} interval, {unit}", f"{level},\n{unit}", wide=True),
        Column("law", align="left", wide=True),
        Column("median error", "median\nerror"),
        Column("leave-one-out error", "leave-\none-out", wide=True),
        Column("batch sizes", "batch\nsizes", wide=True),
    )
    return Sheet(
        caption="Steps to the target, fitted",
        columns=columns,
        rows=tuple(_fit_row(fit) for fit in fits),
        notes=tuple(
            note for fit in fits for note in _fit_notes(fit, unit, alone=len(fits) == 1)
        ),
    )


def _unit(fit: Record) -> str:
    return f"{label(field(fit, 'example_unit') or 'example')}s"


def _shared_unit(fits: Sequence[Record]) -> str:
    """Return the unit of all fits, in the plural; examples where they differ."""
    units = {_unit(fit) for fit in fits}
    return units.pop() if len(units) == 1 else "examples"


def _fit_notes(fit: Record, unit: str, *, alone: bool) -> list[str]:
    """Return the lines below a table of fits: advice; of one fit, all there is."""
    name, advice = fit_name(fit), label(field(fit, "advice") or "")
    notes = [f"{name}: {advice}"] if advice else []
    if _unit(fit) != unit:
        notes.append(f"{name}: batch sizes count {_unit(fit)}")
    elif unit != "examples":
        notes.append(f"{name}: batch sizes and the fewest {unit} count {unit}")
    if not alone:
        return notes
    notes += [f"next, {next_run_text(run)}" for run in entries(fit, "next_runs")]
    return [*notes, *filter(None, [laws_tried(fit)])]


def next_run_text(run: Record) -> str:
    """Return one purchase of runs in words.

    Example:
        >>> next_run_text({"batch_size": 1024, "num_runs": 3, "narrows": "min_steps"})
        '3 runs at batch size 1,024, for the fewest steps'
    """
    sentence = field(run, "sentence")
    if sentence:
        return label(sentence)
    num = field(run, "num_runs")
    runs = f"{count(num)} run{'' if num == 1 else 's'}"
    names = {
        "min_steps": "the fewest steps",
        "min_examples": "the fewest examples",
        "critical_batch_size": "the critical batch size",
    }
    narrows = field(run, "narrows")
    aim = names.get(label(narrows), label(narrows).replace("_", " "))
    text = f"{runs} at batch size {count(field(run, 'batch_size'))}"
    return f"{text}, for {aim}" if narrows else text


def laws_tried(fit: Record) -> str:
    """Return the law that was chosen and its two nearest rivals.

    Example:
        >>> rivals = [
        ...     {"law": "inverse", "chosen": True, "aicc_difference": 0.0},
        ...     {"law": "knee", "chosen": False, "aicc_difference": 3.14},
        ... ]
        >>> laws_tried({"law": "inverse", "runners_up": rivals})
        'inverse law; next knee (AICc +3.1)'
    """
    rivals = [one for one in entries(fit, "runners_up") if not field(one, "chosen")]
    known = [one for one in rivals if is_number(field(one, "aicc_difference"))]
    if not known:
        return ""
    known.sort(key=lambda one: field(one, "aicc_difference"))
    said = [
        f"{label(field(one, 'law')).replace('_', ' ')} "
        f"(AICc {field(one, 'aicc_difference'):+.1f})".replace("-", "−")
        for one in known[:2]
    ]
    return f"{label(field(fit, 'law'))} law; next {', '.join(said)}"


def _fit_row(fit: Record) -> tuple[str, ...]:
    # By a law of the loss the fewest lie at a batch size, not in a limit.
    fewest = field(fit, "least_examples") or field(fit, "min_examples")
    return (
        fit_name(fit),
        label(field(fit, "status")),
        estimate(field(fit, "critical_batch_size")),
        number(field(fit, "min_steps", "value")),
        ends(field(fit, "min_steps")),
        number(field(fewest, "value")),
        ends(fewest),
        _law_text(fit),
        percent(field(fit, "median_relative_error")),
        percent(field(fit, "leave_one_out_error")),
        count(field(fit, "num_batch_sizes")),
    )


def _law_text(fit: Record) -> str:
    law = label(field(fit, "law"))
    if law == "knee":
        return f"{law}, exponent {number(field(fit, 'knee_exponent'))}"
    floor = field(fit, "min_batch_size", "value")
    return f"{law}, above {number(floor)}" if law == "floor" else law


def loss_law_sheet(fits: Sequence[Record]) -> Sheet:
    """Return the fitted loss laws: a row per quantity with its interval.

    Args:
        fits: `workloads` of a fit; those without a `loss_law` are left out.

    Returns:
        A sheet: the parameters, then what they say of the target where there is one.
    """
    known = [fit for fit in fits if field(fit, "loss_law")]
    level = percent(next((lv for lv in map(_loss_level, known) if is_number(lv)), 0.9))
    columns = (
        Column("fit", align="left"),
        Column("quantity", align="left"),
        Column("value"),
        Column(f"{level} interval"),
    )
    rows = tuple(row for fit in known for row in _loss_rows(fit))
    notes = tuple(
        f"{fit_name(fit)}: {label(field(fit, 'loss_law', 'status'))}. "
        f"{label(field(fit, 'loss_law', 'advice') or '')}"
        for fit in known
    )
    return Sheet(
        caption="Loss after S steps at batch size B: L0 + C_B/B^b + C_S/S^c, fitted",
        columns=columns,
        rows=rows,
        notes=notes,
    )


def _loss_level(fit: Record) -> Any:
    return field(fit, "loss_law", "irreducible_loss", "level")


def _loss_rows(fit: Record) -> list[tuple[str, ...]]:
    law, at_target = field(fit, "loss_law"), field(fit, "loss_law", "at_target")
    unit = _unit(fit)
    parts: list[tuple[str, Any]] = [
        ("irreducible loss, L0", field(law, "irreducible_loss")),
        ("batch term, C_B", field(law, "batch_coefficient")),
        ("its exponent, b", field(law, "batch_exponent")),
        ("steps term, C_S", field(law, "steps_coefficient")),
        ("its exponent, c", field(law, "steps_exponent")),
    ]
    if at_target and field(at_target, "is_reachable") is False:
        parts.append((f"to {number(field(at_target, 'target'))}: out of reach", None))
    elif at_target:
        goal = number(field(at_target, "target"))
        parts += [
            (f"to {goal}: least batch size", field(at_target, "min_batch_size")),
            (f"fewest {unit} at", field(at_target, "data_optimal_batch_size")),
            (f"fewest {unit}", field(at_target, "least_examples")),
            ("fewest steps", field(at_target, "min_steps")),
        ]
    names = [fit_name(fit), *[""] * (len(parts) - 1)]
    return [
        (name, title, number(field(interval, "value")), ends(interval))
        for name, (title, interval) in zip(names, parts, strict=True)
    ]


def points_sheet(fits: Sequence[Record]) -> Sheet:
    """Return the measured steps behind the fits: one row per target and batch size."""
    columns = (
        Column("fit", align="left"),
        Column("batch size", "batch\nsize"),
        Column("lr"),
        Column("runs"),
        Column("mean steps", "mean\nsteps"),
        Column("spread of the runs", "spread"),
        Column("used", align="left"),
    )
    rows = tuple(
        (
            fit_name(fit),
            count(field(point, "batch_size")),
            number(field(point, "lr")),
            count(field(point, "num_runs")),
            number(field(point, "mean_steps")),
            percent(field(point, "relative_sd")),
            "no, an outlier" if field(point, "excluded") else "yes",
        )
        for fit in fits
        for point in entries(fit, "points")
    )
    return Sheet(caption="Steps to the target, measured", columns=columns, rows=rows)


def step_time_sheet(step_time: Record) -> Sheet:
    """Return the fitted time of one step: a row per quantity with its interval."""
    parts: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("fixed cost of a step", "overhead_seconds", seconds),
        ("each example adds", "seconds_per_example", seconds),
        ("flat below, local examples", "saturation_batch_size", number),
    )
    rows = [
        (title, text(field(step_time, key, "value")), ends(field(step_time, key), text))
        for title, key, text in parts
    ]
    notes: list[str] = []
    communication = field(step_time, "communication")
    if communication:
        # As a row it would be too long for 80 columns.
        notes.append(f"communication: {communication_text(communication)}")
    if field(step_time, "knee_seen") is False:
        notes.append("no knee was seen: a straight line does as well")
    columns = (Column("quantity", align="left"), Column("value"), Column("interval"))
    return Sheet(
        caption="Seconds per step, fitted",
        columns=columns,
        rows=tuple(rows),
        notes=tuple(notes),
    )


def communication_text(communication: Record) -> str:
    """Return a communication term in words.

    Example:
        >>> communication_text({"kind": "constant", "seconds": 0.0004})
        'constant, 400 µs'
    """
    parts = [label(field(communication, "kind"))]
    fitted = field(communication, "bytes_per_second") == 1
    for key, value in communication.items():
        if fitted and key == "num_bytes":
            # A fit cannot tell bytes from bandwidth, only the seconds they take.
            parts.append(f"{seconds(value)} for the bytes")
        elif is_number(value) and not (fitted and key == "bytes_per_second"):
            text = _size(value) if "bytes" in key else number(value)
            text = seconds(value) if "seconds" in key else text
            words = key.replace("seconds", "").replace("bytes", "")
            words = words.removeprefix("num_").replace("_", " ")
            parts.append(" ".join([text, *words.split()]))
    return ", ".join(parts)


def _size(num_bytes: float) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{number(num_bytes / unit)} {name}"
    return f"{number(num_bytes)} bytes"


def times_sheet(timings: Sequence[Record]) -> Sheet:
    """Return measured step times: one row per batch size and number of replicas."""
    columns = (
        Column("batch size", "batch\nsize"),
        Column("replicas", "P"),
        Column("time of a step", "step"),
        Column("spread"),
        Column("examples per second", "examples\nper second"),
    )
    return Sheet(
        caption="Seconds per step, measured",
        columns=columns,
        rows=tuple(_times_row(timing) for timing in timings),
    )


def _times_row(timing: Record) -> tuple[str, ...]:
    size, step = field(timing, "batch_size"), field(timing, "seconds")
    rate = size / step if is_number(size) and is_number(step) and step > 0 else None
    return (
        count(size),
        count(field(timing, "num_replicas") or 1),
        seconds(step),
        ends(timing, seconds) if field(timing, "low") is not None else "",
        number(rate),
    )


def verification_sheet(checks: Sequence[Record]) -> Sheet:
    """Return predictions beside fresh runs: one row per batch size."""
    columns = (
        Column("batch size", "batch\nsize"),
        Column("lr"),
        Column("predicted steps", "steps,\npredicted"),
        Column("measured steps", "steps,\nmeasured"),
        Column("predicted time", "time,\npredicted"),
        Column("measured time", "time,\nmeasured"),
        Column("off by", "off by"),
        Column("time spent checking", "time\nchecking", wide=True),
    )
    return Sheet(
        caption="Predicted, and measured with fresh seeds",
        columns=columns,
        rows=tuple(_verification_row(check) for check in checks),
    )


def _verification_row(check: Record) -> tuple[str, ...]:
    predicted = field(check, "predicted_seconds")
    measured = field(check, "measured_seconds")
    known = is_number(predicted) and is_number(measured) and predicted > 0
    return (
        count(field(check, "batch_size")),
        number(field(check, "lr")),
        number(field(check, "predicted_steps")),
        number(field(check, "measured_steps")),
        seconds(predicted),
        seconds(measured),
        f"{100 * (measured / predicted - 1):+.0f} %".replace("-", "−")
        if known
        else number(None),
        seconds(field(check, "checking_seconds")),
    )


def runs_sheet(runs: Sequence[Record]) -> Sheet:
    """Return single runs to the target, one row each."""
    columns = (
        Column("batch size", "batch\nsize"),
        Column("lr"),
        Column("seed"),
        Column("target"),
        Column("steps"),
        Column("examples"),
        Column("status", align="left"),
    )
    rows = tuple(
        (
            count(field(run, "batch_size")),
            number(field(run, "lr")),
            label(field(run, "seed")),
            label(field(run, "target")),
            count(field(run, "steps")),
            count(field(run, "examples")),
            label(field(run, "status")).replace("_", " "),
        )
        for run in runs
    )
    return Sheet(caption="Every run", columns=columns, rows=rows)


def workloads_sheet(workloads: Sequence[Record]) -> Sheet:
    """Return the workloads that can be named, one row each."""
    columns = (
        Column("workload", align="left"),
        Column("parameters"),
        Column("data", align="left"),
        Column("source", align="left", wide=True),
    )
    rows = tuple(
        (
            label(field(workload, "name")),
            count(field(workload, "parameters")),
            label(field(workload, "data")),
            label(field(workload, "source") or ""),
        )
        for workload in workloads
    )
    return Sheet(caption="Workloads", columns=columns, rows=rows)
