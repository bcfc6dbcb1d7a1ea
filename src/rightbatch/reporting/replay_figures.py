"""The figure of a replay: batch sizes asked for beside those of the recorded run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rightbatch.reporting import marks, style
from rightbatch.reporting.formats import entries, field, is_number, label, whole
from rightbatch.reporting.marks import Chart
from rightbatch.reporting.replay_tables import moments_sheet

Document = Mapping[str, Any]


def replay_charts(document: Document) -> list[Chart]:
    """Return the figure of a document of a replay.

    Args:
        document: What `replay` prints with `--json`.

    Returns:
        One, or none where there is nothing to draw.

    Example:
        >>> replay_charts({"replays": []})
        []
    """
    replays = entries(document, "replays")
    taken = field(document, "recorded", "curve")
    if not replays or not field(taken, "examples"):
        return []
    drawing = style.blank("batch size, examples")
    curves = [(label(one["policy"]), one["curve"]) for one in replays]
    noise = field(document, "recorded", "noise")
    everything = [*taken["batch_size"], *(field(noise, "batch_size") or [])]
    everything += [y for _, curve in curves for y in curve["batch_size"]]
    axis = style.log_axis(everything, "batch")
    ends: list[tuple[float, float, str, str]] = []
    muted = style.color("muted")
    _line(drawing, "recorded", taken, muted, "dot")
    ends.append((taken["examples"][-1], taken["batch_size"][-1], "recorded", muted))
    if field(noise, "examples"):
        _line(drawing, "noise scale", noise, style.color("axis"), "dash")
    for (name, curve), shade in zip(curves, _shades(len(curves)), strict=True):
        _line(drawing, name, curve, shade)
        ends.append((curve["examples"][-1], curve["batch_size"][-1], name, shade))
    marks.name_ends(drawing, ends, axis)
    top = taken["examples"][-1]
    across = style.axis_layout("examples taken by the recorded run")
    drawing.update_xaxes(across | {"range": [0, 1.01 * top], "nticks": 5})
    drawing.update_yaxes(axis.layout())
    told = ", ".join(f"{label(one['policy'])} {whole(one['last'])}" for one in replays)
    caption = "Lines: what each policy would have asked for, knowing what the recorded "
    caption += "run knew. Dotted: the batches it took."
    if field(noise, "examples"):
        caption += " Dashed: the noise scale it measured."
    return [
        Chart(
            name="replay-batch",
            title=f"At the end they would have asked for: {told}",
            caption=caption,
            drawing=drawing,
            sheet=moments_sheet(document, replays),
        )
    ]


def _line(drawing: Any, name: str, curve: Any, shade: str, dash: str = "") -> None:
    known = [
        (x, y)
        for x, y in zip(curve["examples"], curve["batch_size"], strict=True)
        if is_number(y) and y > 0
    ]
    texts = [f"{name}: {whole(y)}" for _, y in known]
    x, y = [x for x, _ in known], [y for _, y in known]
    look: dict[str, Any] = {"dash": dash or None, "hover": "%{text}", "texts": texts}
    marks.line(drawing, x, y, shade, **look)


def _shades(num: int) -> Sequence[str]:
    few = [style.color(name) for name in ("first", "second", "third")]
    return few[:num] if num <= len(few) else style.ramp(num)
