"""Quantities as a person writes them: 2 h, 50 us, 100 Gbit/s, 10 GB."""

import math
import re
from typing import Any

from rightbatch._checks import did_you_mean
from rightbatch.errors import InputError

_TIMES = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
}
_BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
    "TiB": 2.0**40,
}
_BITS = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9, "Tbit": 1e12}
_RATES = {f"{unit}/s": size for unit, size in _BYTES.items()} | {
    f"{unit}/s": size / 8 for unit, size in _BITS.items()
}
_KINDS = {
    "time": (_TIMES, "30 min"),
    "size": (_BYTES, "10 GB"),
    "bandwidth": (_RATES, "100 Gbit/s"),
}
_FORM = re.compile(r"\s*([-+]?[\d_.,]+(?:[eE][-+]?\d+)?)\s*(\S.*?)?\s*")
# A comma between other digits may be a decimal one: 1,5 h is not fifteen hours.
_GROUPS = re.compile(r"[-+]?[1-9]\d{0,2}(?:[,_]\d{3})+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")


def quantity(where: str, kind: str, value: Any) -> float:
    """Return a time in seconds, a size in bytes or a bandwidth in bytes per second.

    Args:
        where: Who asks, with the key.
        kind: ``time``, ``size`` or ``bandwidth``.
        value: A number in that unit, or a text of number and unit.

    Returns:
        The number, not negative.

    Raises:
        InputError: It is neither, is negative or not finite, or its unit is unknown or
            one of something else.

    Example:
        >>> quantity("job: `deadline`", "time", "1.5 h")
        5400.0
        >>> quantity("job: `bytes_per_second`", "bandwidth", "100 Gbit/s")
        12500000000.0
    """
    units, example = _KINDS[kind]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(
            f"{where} must be a {kind}, got {value!r}.", f'such as "{example}"'
        )
    number, unit = (value, "") if not isinstance(value, str) else _parts(where, value)
    if unit and unit not in units:
        raise _wrong_unit(where, kind, str(value), unit)
    if not (number >= 0 and math.isfinite(number)):
        raise InputError(f"{where} must not be negative, got {value!r}.")
    return float(number) * (units[unit] if unit else 1.0)


def _parts(where: str, text: str) -> tuple[float, str]:
    found = _FORM.fullmatch(text)
    digits, unit = (found[1], found[2] or "") if found else ("", "")
    if _GROUPS.fullmatch(digits):
        digits = digits.replace(",", "").replace("_", "")
    try:
        # Python's own numbers may hold underscores anywhere.
        number = math.nan if "_" in digits else float(digits)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        way_out = 'such as "2 h"'
        if _DECIMAL_COMMA.fullmatch(digits):
            plain = f"{digits.replace(',', '.')} {unit}".strip()
            way_out = f'write "{plain}"'
        raise InputError(f"{where} must be a number and a unit, got {text!r}.", way_out)
    return number, unit


def _wrong_unit(where: str, kind: str, text: str, unit: str) -> InputError:
    for other, (units, _) in _KINDS.items():
        if other != kind and unit in units:
            return InputError(f"{where} must be a {kind}, got {text!r}, a {other}.")
    units, example = _KINDS[kind]
    way_out = did_you_mean(unit, list(units)) or f'such as "{example}"'
    return InputError(f"{where} has an unknown unit, {unit!r}.", way_out)
