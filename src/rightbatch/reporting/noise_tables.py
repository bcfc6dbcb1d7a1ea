"""The tables of a measured noise scale, as sheets."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting.formats import (
    MISSING,
    count,
    ends,
    entries,
    estimate,
    field,
    is_number,
    label,
    number,
    percent,
    whole,
)
from rightbatch.reporting.sheet import Column, Sheet

Record = Mapping[str, Any]
MOST_PARTS = 12

_NAMES = {
    "noise_scale": ("noise scale", "noise\nscale"),
    "diversity": ("gradient diversity", "diver-\nsity"),
    "norm_test": ("norm test", "norm\ntest"),
    "similarity": ("similarity", "simi-\nlarity"),
    "inner_product_test": ("inner-product test", "inner\nproduct"),
    "cabs": ("CABS", "CABS"),
}


def noise_sheets(document: Record) -> list[Sheet]:
    """Return the tables of a document, in reading order.

    Args:
        document: What `noise` prints with `--json`.

    Returns:
        The rows, what each definition suggests, the calibration, the layers.

    Example:
        >>> noise_sheets({"measurements": []})
        []
    """
    rows = entries(document, "measurements")
    sheets = [
        noise_sheet(rows),
        suggestions_sheet(rows),
        calibration_sheet(field(document, "calibration")),
        parts_sheet(rows),
    ]
    return [sheet for sheet in sheets if sheet.rows]


def noise_sheet(measurements: Sequence[Record]) -> Sheet:
    """Return the moments and the noise scale along training, a row per window.

    Args:
        measurements: Of a document.

    Returns:
        A sheet that fits 80 columns.

    Example:
        >>> row = {"step": 20, "examples": 1280, "loss": 1.9, "status": "at least",
        ...     "lower_bound": 96.2, "simple_noise_scale": {"low": 80, "high": None}}
        >>> noise_sheet([row]).rows[0][-3]
        '≥ 96.2'
    """
    level = percent(_first(measurements, "simple_noise_scale", "level") or 0.95)
    columns = (
        Column("updates"),
        Column("examples"),
        Column("loss"),
        Column("|G|²"),
        Column("tr Σ"),
        Column("noise scale", "noise\nscale"),
        Column(f"{level} interval"),
        Column("diversity bound", "diversity\nbound"),
    )
    notes: list[str] = []
    if any(field(row, "status") == "at least" for row in measurements):
        notes.append(
            "≥: at least, one-sided; |G|² is not told from zero, so there is no upper "
            "end."
        )
    if len(measurements) > 1:
        notes.append(
            "Updates 0: frozen weights. Each other row: all updates since the one "
            "above."
        )
    return Sheet(
        caption="Gradient noise along training",
        columns=columns,
        rows=tuple(_noise_row(row) for row in measurements),
        notes=tuple(notes),
    )


def _noise_row(row: Record) -> tuple[str, ...]:
    scale = field(row, "simple_noise_scale")
    return (
        count(field(row, "step")),
        count(field(row, "examples")),
        number(field(row, "loss")),
        number(field(row, "grad_sq_norm")),
        number(field(row, "grad_variance")),
        noise_text(row),
        ends(scale) if field(row, "status") == "resolved" else MISSING,
        number(field(row, "diversity_batch_bound")),
    )


def noise_text(row: Record) -> str:
    """Return a noise scale as it is known: a number, at least so much, or unresolved.

    Args:
        row: A measurement, or a part of one.

    Returns:
        A word or two.

    Example:
        >>> noise_text({"status": "too few steps"})
        'too few steps'
    """
    status = field(row, "status")
    if status == "resolved":
        return number(field(row, "simple_noise_scale", "value"))
    if status == "at least":
        return f"≥ {number(field(row, 'lower_bound'))}"
    return label(status)


def suggestions_sheet(measurements: Sequence[Record]) -> Sheet:
    """Return the batch size by each published definition, a row per window.

    Args:
        measurements: Of a document.

    Returns:
        The sheet; definitions and sources are its notes.
    """
    found: dict[str, Record] = {}
    for row in measurements:
        found |= field(row, "suggested") or {}
    columns = [Column("updates"), Column("loss")]
    columns += [Column(*_NAMES.get(name, (name, name))) for name in found]
    rows = [
        (
            count(field(row, "step")),
            number(field(row, "loss")),
            *(whole(field(row, "suggested", name, "value")) for name in found),
        )
        for row in measurements
    ]
    notes = [
        f"{_NAMES.get(name, (name,))[0]}: {label(field(one, 'definition'))} "
        f"({label(field(one, 'source'))})"
        for name, one in found.items()
    ]
    return Sheet(
        caption="The batch size by each definition; none is the critical batch size",
        columns=tuple(columns),
        rows=tuple(rows) if found else (),
        notes=tuple(notes),
    )


def calibration_sheet(calibration: Any) -> Sheet:
    """Return what was fitted to runs beside what was measured, and their ratio.

    Args:
        calibration: Of a document; None without one.

    Returns:
        The sheet, empty without a calibration.
    """
    columns = (
        Column("quantity", align="left"),
        Column("value"),
        Column("interval"),
        Column("level"),
    )
    names = (
        ("critical batch size, fitted to runs", "critical_batch_size"),
        ("noise scale, averaged over the run", "noise_scale"),
        ("calibrated factor", "factor"),
    )
    rows: list[tuple[str, ...]] = []
    for name, key in names:
        one = field(calibration, key)
        if one is not None:
            value, level = number(field(one, "value")), percent(field(one, "level"))
            rows.append((name, value, ends(one), level))
    return Sheet(
        caption="Calibration against runs to the target",
        columns=columns,
        rows=tuple(rows),
        notes=(
            "The factor is of one run, and of this workload, optimizer and learning "
            "rate: `plan --quick --factor` takes it.",
        ),
    )


def parts_sheet(measurements: Sequence[Record]) -> Sheet:
    """Return the layers of the last row that tells them, the noisiest first.

    Args:
        measurements: Of a document.

    Returns:
        The sheet, of twelve layers at most.
    """
    row = next((row for row in reversed(measurements) if field(row, "parts")), {})
    parts: dict[str, Record] = field(row, "parts") or {}
    order = sorted(parts, key=lambda name: -_sized(parts[name], "grad_variance"))
    columns = (
        Column("layer", align="left"),
        Column("share of tr Σ", "share of\ntr Σ"),
        Column("share of |G|²", "share of\n|G|²"),
        Column("its noise scale", "its noise\nscale"),
        Column("interval"),
    )
    rows = [
        (
            name,
            percent(field(parts[name], "share_of_variance")),
            percent(field(parts[name], "share_of_sq_norm")),
            noise_text(parts[name]),
            ends(field(parts[name], "simple_noise_scale"))
            if field(parts[name], "status") == "resolved"
            else MISSING,
        )
        for name in order[:MOST_PARTS]
    ]
    left = len(order) - len(rows)
    notes = (f"and {left} more, with less noise",) if left > 0 else ()
    where = count(field(row, "step"))
    caption = f"Layers, in the window that ends at update {where}"
    return Sheet(caption=caption, columns=columns, rows=tuple(rows), notes=notes)


def quick_sheet(document: Record) -> Sheet:
    """Return the plan made from a noise scale: relative times only.

    Args:
        document: What `plan --quick` prints with `--json`.

    Returns:
        A row per number of replicas; both ends of the band beside the best batch.
    """
    low, high = (entries(document, "band", end, "optimal") for end in ("low", "high"))
    columns = (
        Column("replicas", "P"),
        Column("best batch by the noise scale", "best\nbatch"),
        Column("interval"),
        Column("best at the band's low end", "at the\nlow end"),
        Column("best at the band's high end", "at the\nhigh end"),
        Column("micro × accumulation × replicas", "micro\n×acc×P"),
        Column("speed-up", "speed-\nup"),
        Column("limited by", "limited\nby", "left"),
    )
    parts = ("micro_batch_size", "accumulation_steps", "num_replicas")
    rows: list[tuple[str, ...]] = []
    for place, entry in enumerate(entries(document, "optimal")):
        bound = "≥ " if field(entry, "batch_size_is_lower_bound") else ""
        gain = field(entry, "speedup")
        rows.append(
            (
                count(field(entry, "num_replicas")),
                bound + count(field(entry, "batch_size")),
                ends(field(entry, "batch_size_interval"), whole),
                count(field(low[place], "batch_size")) if low else MISSING,
                count(field(high[place], "batch_size")) if high else MISSING,
                "×".join(count(field(entry, part)) for part in parts),
                f"{number(gain)}×" if is_number(gain) else MISSING,
                label(field(entry, "limited_by")),
            )
        )
    phi = estimate(field(document, "noise_scale", "phi"))
    how = label(field(document, "noise_scale", "label"))
    timed = [count(one["batch_size"]) for one in entries(document, "optimal_measured")]
    said = f"With the measured step times in place of their law: {', '.join(timed)}."
    return Sheet(
        caption=f"The best batch size for each number of replicas, phi {phi}, {how}",
        columns=columns,
        rows=tuple(rows),
        notes=(said,) if timed else (),
    )


def _first(rows: Sequence[Record], *path: str) -> Any:
    return next((found for row in rows if (found := field(row, *path))), None)


def _sized(part: Record, key: str) -> float:
    value = field(part, key)
    return value if is_number(value) else 0.0
