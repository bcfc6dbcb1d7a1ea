"""Argument checks: each returns the value it was given, or says what is wrong.

A check names who refuses, which argument, the rule and the value.
"""

import math
import tempfile
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch.errors import InputError


def finite(who: str, name: str, value: float) -> float:
    """Return `value` if it is a finite number.

    Raises:
        InputError: It is not.

    Example:
        >>> finite("law", "min_steps", 3.0)
        3.0
    """
    if not _is_number(value) or not math.isfinite(value):
        raise InputError(f"{who}: `{name}` must be a finite number, got {value!r}.")
    return value


def positive(who: str, name: str, value: float) -> float:
    """Return `value` if it is finite and above zero.

    Raises:
        InputError: It is not.
    """
    if not _is_number(value) or not (value > 0 and math.isfinite(value)):
        raise InputError(f"{who}: `{name}` must be positive, got {value!r}.")
    return value


def nonnegative(who: str, name: str, value: float) -> float:
    """Return `value` if it is finite and not below zero.

    Raises:
        InputError: It is not.
    """
    if not _is_number(value) or not (value >= 0 and math.isfinite(value)):
        raise InputError(f"{who}: `{name}` must not be negative, got {value!r}.")
    return value


def confidence_level(who: str, value: float) -> float:
    """Return the level of an interval if it is between 0 and 1, both left out.

    Raises:
        InputError: It is not, 90 for instance.

    Example:
        >>> confidence_level("fit", 0.9)
        0.9
    """
    if not _is_number(value) or not 0 < value < 1:
        way_out = f"write {value / 100:g}" if _is_number(value) and value > 1 else ""
        raise InputError(
            f"{who}: `level` must be between 0 and 1, got {value!r}.", way_out
        )
    return value


def positive_integer(who: str, name: str, value: float) -> int:
    """Return `value` as an int if it is a whole number of at least one.

    Raises:
        InputError: It is not.
    """
    if not _is_number(value) or not (value >= 1 and float(value).is_integer()):
        raise InputError(f"{who}: `{name}` must be a whole number >= 1, got {value!r}.")
    return int(value)


def one_of(who: str, name: str, value: str, choices: Sequence[str]) -> str:
    """Return `value` if it is among `choices`.

    Raises:
        InputError: It is not; the near names are offered.
    """
    if value not in choices:
        way_out = did_you_mean(value, choices) or f"one of {', '.join(choices)}"
        raise InputError(f"{who}: `{name}` cannot be {value!r}.", way_out)
    return value


def did_you_mean(value: str, choices: Sequence[str]) -> str:
    """Return a question that offers the near names, or nothing.

    Example:
        >>> did_you_mean("digit-mlp", ["digits-mlp", "mnist-even-odd"])
        'did you mean digits-mlp?'
    """
    near = get_close_matches(value, choices, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else ""


def positive_array(who: str, name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return `values` as a one-dimensional float array, all finite and above zero.

    Raises:
        InputError: A value is not a number, not finite or not positive, or there
            are none; the first offender and its place are named.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{who}: `{name}` must be numbers, got {values!r}.") from None
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{who}: `{name}` must be a list of numbers, got {values!r}.")
    bad = np.flatnonzero(~(np.isfinite(array) & (array > 0)))
    if bad.size:
        place = int(bad[0])
        raise InputError(
            f"{who}: `{name}` must be positive, got {array[place]:g} at {place}."
        )
    return array


def writable_path(who: str, path: str | Path) -> Path:
    """Return `path` if a file can be written there; nothing is left behind.

    Meant to be called before the measuring, so that minutes are not lost to a typo.

    Raises:
        InputError: It is a folder, its folder is not there, or writing is forbidden.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{who}: {path} is a folder.", "name a file in it")
    if not path.parent.is_dir():
        raise InputError(f"{who}: there is no folder {path.parent}.", "make it first")
    try:
        if path.exists():
            with path.open("ab"):
                return path
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise InputError(
            f"{who}: {path} cannot be written: {error.strerror}.",
            "name a file in a folder of yours",
        ) from error


def _is_number(value: Any) -> bool:
    # A bool is an int to Python, and a mistake to us.
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(
        value, bool
    )
