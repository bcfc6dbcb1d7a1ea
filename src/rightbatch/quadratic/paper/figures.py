"""A figure as numbers: curves, what their axes mean, and the finding in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Scale = Literal["batch", "log", "linear", "momentum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One line of a figure.

    Args:
        name: In full, unique within a panel.
        label: What stands at its end; empty for none.
        group: Curves of one group share a colour; empty for a line of reference.
        x: Shape (n,).
        y: Shape (n,); nan where there is none.
        dashed: Whether it is what the solid curve is compared with.
        stepped: Whether it keeps each value up to the next.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    label: str = ""
    group: str = ""
    dashed: bool = False
    stepped: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the curve for a program, None where there is no value."""
        return {
            "name": self.name,
            "group": self.group,
            "x": list(self.x),
            "y": [value if np.isfinite(value) else None for value in self.y],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Axes with curves.

    Args:
        y_title: What the height means, with its unit.
        curves: The lines.
        y_scale: Of the height.
    """

    y_title: str
    curves: tuple[Curve, ...]
    y_scale: Literal["log", "linear"] = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure with its finding.

    Args:
        name: As in the paper where it has one: 1, 2, 3a, 3b, 3c, 4.
        title: The finding, computed from the numbers.
        caption: How to read the lines.
        x_title: What the horizontal axis means, with its unit.
        panels: One, or two above each other.
        x_scale: Of the horizontal axis.
        in_paper: Whether the paper has this figure.
        command: Arguments of the command that computes the numbers.
    """

    name: str
    title: str
    caption: str
    x_title: str
    panels: tuple[Panel, ...]
    x_scale: Scale = "batch"
    in_paper: bool = False
    command: str = "simulate --paper"

    def to_dict(self) -> dict[str, Any]:
        """Return the figure for a program."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "in_paper": self.in_paper,
            "command": self.command,
            "x": self.x_title,
            "panels": [
                {
                    "y": panel.y_title,
                    "curves": [curve.to_dict() for curve in panel.curves],
                }
                for panel in self.panels
            ],
        }


def floats(values: Sequence[float] | np.ndarray[Any, Any]) -> tuple[float, ...]:
    """Return values as floats of Python.

    Example:
        >>> floats(np.array([1, 2]))
        (1.0, 2.0)
    """
    return tuple(float(value) for value in values)
