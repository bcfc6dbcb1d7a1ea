"""A figure as plotly.js reads it: traces and a layout, in plain dicts.

plotly's own figures load half of its package and check every setting they are given.
Nobody should wait for that on every run: here nothing is checked, and the tests build
plotly's figure of every chart, which does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Settings = Mapping[str, Any]


@dataclass(slots=True)
class Drawing:
    """Traces and a layout; methods are named, and do, as those of plotly's figure.

    A setting of None is not written, and leaves plotly.js its default.

    Args:
        data: The traces, in the order in which they are drawn.
        layout: Settings of the paper, the axes and the annotations.

    Example:
        >>> drawing = Drawing()
        >>> drawing.add_scatter(x=np.arange(2), y=[4.0, 9.0], text=None)
        >>> drawing.update_xaxes({"title": {"text": "steps"}})
        >>> drawing.update_xaxes({"title": {"standoff": 10}})
        >>> drawing.to_dict()["data"]
        [{'type': 'scatter', 'x': [0, 1], 'y': [4.0, 9.0]}]
        >>> drawing.to_dict()["layout"]
        {'xaxis': {'title': {'text': 'steps', 'standoff': 10}}}
    """

    data: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    layout: dict[str, Any] = field(default_factory=dict[str, Any])

    def add_scatter(self, **trace: Any) -> None:
        """Draw a trace of lines, markers or text above those there are."""
        self.data.append({"type": "scatter"} | trace)

    def add_annotation(self, **annotation: Any) -> None:
        """Write words on the paper."""
        self.layout.setdefault("annotations", []).append(annotation)

    def update_layout(self, **changes: Any) -> None:
        """Change the settings that are named, and no others beside or within."""
        self.layout = _merged(self.layout, changes)

    def update_xaxes(self, changes: Settings, row: int | None = None) -> None:
        """Change the x axis of one row, or of every row."""
        self._update_axes("xaxis", changes, row)

    def update_yaxes(self, changes: Settings, row: int | None = None) -> None:
        """Change the y axis of one row, or of every row."""
        self._update_axes("yaxis", changes, row)

    def split(self, spacing: float) -> None:
        """Make two rows, the upper one first, that share the numbers of the x axis.

        A trace in the second row names its axes "x2" and "y2".

        Args:
            spacing: Between the rows, as a fraction of the height.
        """
        height = (1 - spacing) / 2
        across = {"domain": [0.0, 1.0]}
        self.update_layout(
            xaxis=across | {"anchor": "y", "matches": "x2", "showticklabels": False},
            yaxis={"anchor": "x", "domain": [height + spacing, 1.0]},
            xaxis2=across | {"anchor": "y2"},
            yaxis2={"anchor": "x2", "domain": [0.0, height]},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return `data` and `layout` in lists and dicts of their own, no arrays."""
        return {"data": _plain(self.data), "layout": _plain(self.layout)}

    def _update_axes(self, name: str, changes: Settings, row: int | None) -> None:
        every = [key for key in self.layout if key.startswith(name)] or [name]
        one = name if row == 1 else f"{name}{row}"
        for key in every if row is None else [one]:
            self.update_layout(**{key: changes})


def _merged(old: Settings, new: Settings) -> dict[str, Any]:
    # A new dict: one and the same may be part of several settings.
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        pairs: Settings = value
        return {key: _plain(item) for key, item in pairs.items() if item is not None}
    if isinstance(value, (list, tuple)):
        items: list[Any] | tuple[Any, ...] = value
        return [_plain(item) for item in items]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
