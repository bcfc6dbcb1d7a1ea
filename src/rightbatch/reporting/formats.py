"""Numbers as a person reads them, and access to the parts of a result document.

Three significant digits say all that a fit or a timing knows; what is counted (batch
sizes, steps that were run) is written out.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

MISSING = "–"
_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
_PLAIN_FROM, _PLAIN_BELOW = 1e-4, 1e10


def number(value: Any) -> str:
    """Return a number to three significant digits, thousands separated.

    Example:
        >>> number(1138.4), number(0.05), number(45), number(None)
        ('1,140', '0.05', '45', '–')
    """
    if not is_number(value):
        return MISSING
    rounded = float(f"{value:.3g}")
    if rounded == 0:
        return "0"
    if not _PLAIN_FROM <= abs(rounded) < _PLAIN_BELOW:
        return f"{rounded:.3g}".replace("e-0", "e-").replace("e+", "e")
    decimals = max(0, 2 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: Any) -> str:
    """Return a counted number in full; a fraction is rounded to three digits.

    Example:
        >>> count(131072), count(95.5)
        ('131,072', '95.5')
    """
    if is_number(value) and value == int(value):
        return f"{int(value):,}"
    return number(value)


def compact(value: Any) -> str:
    """Return a number short enough for a tick: thousands and up by their letter.

    Example:
        >>> compact(950), compact(20_000), compact(1.5e6), compact(3e9), compact(2e13)
        ('950', '20k', '1.5M', '3G', '20T')
    """
    if not is_number(value):
        return MISSING
    for letter, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{number(value / (1e3 if letter == 'k' else size))}{letter}"
    return number(value)


def whole(value: Any) -> str:
    """Return the nearest whole number, to three significant digits past 9,999.

    Example:
        >>> whole(96.8), whole(1342.1), whole(13421)
        ('97', '1,342', '13,400')
    """
    if not is_number(value):
        return MISSING
    return f"{round(value):,}" if abs(value) < 10_000 else number(round(value))


def seconds(value: Any) -> str:
    """Return a duration in the unit that suits it.

    Example:
        >>> seconds(2.12e-4), seconds(0.0312), seconds(4.318), seconds(5400)
        ('212 µs', '31.2 ms', '4.32 s', '1.5 h')
    """
    if not is_number(value):
        return MISSING
    # Rounded first: 59.97 s is 1 min, never "60 s" beside "1 min".
    rounded = float(f"{value:.3g}")
    for unit, size in _UNITS:
        if abs(rounded) >= size:
            return f"{number(rounded / size)} {unit}"
    return f"{number(rounded * 1e6)} µs" if rounded else "0 s"


def percent(fraction: Any) -> str:
    """Return a fraction as a percentage.

    Example:
        >>> percent(0.0412), percent(1.0)
        ('4.1 %', '100 %')
    """
    if not is_number(fraction):
        return MISSING
    return f"{number(float(f'{100 * fraction:.2g}'))} %"


def times(value: Any) -> str:
    """Return a ratio.

    Example:
        >>> times(4.2057)
        '4.21×'
    """
    return f"{number(value)}×" if is_number(value) else MISSING


def span(low: Any, high: Any, text: Callable[[Any], str] = number) -> str:
    """Return two ends; an end that is not there is open.

    Example:
        >>> span(80, 200), span(96, None), span(None, 300), span(None, None)
        ('80–200', '≥ 96', '≤ 300', 'unbounded')
        >>> span(0.0452, 0.0553, seconds), span(0.9, 1.2, seconds)
        ('45.2–55.3 ms', '900 ms–1.2 s')
    """
    if is_number(low) and is_number(high):
        start, end = text(low), text(high)
        _, blank, unit = end.partition(" ")
        # A unit that both ends share is said once.
        return f"{start.removesuffix(blank + unit)}–{end}"
    if is_number(low):
        return f"≥ {text(low)}"
    return f"≤ {text(high)}" if is_number(high) else "unbounded"


def ends(interval: Any, text: Callable[[Any], str] = number) -> str:
    """Return the ends of an interval of the document, or a dash for none.

    Example:
        >>> ends({"value": 45.0, "low": 40.2, "high": 51.9, "level": 0.9})
        '40.2–51.9'
    """
    if not isinstance(interval, Mapping):
        return MISSING
    return span(field(interval, "low"), field(interval, "high"), text)


def estimate(interval: Any, text: Callable[[Any], str] = number) -> str:
    """Return an interval with its value in front, where there is one to give.

    Example:
        >>> estimate({"value": 45.0, "low": 40.2, "high": 51.9, "level": 0.9})
        '45 (40.2–51.9)'
        >>> estimate({"value": None, "low": 96, "high": None, "level": 0.9})
        '≥ 96'
    """
    value = field(interval, "value")
    return (
        f"{text(value)} ({ends(interval, text)})"
        if is_number(value)
        else (ends(interval, text))
    )


def replicas_text(num_replicas: Any) -> str:
    """Return a number of replicas in words.

    Example:
        >>> replicas_text(1), replicas_text(16)
        ('1 replica', '16 replicas')
    """
    return f"{count(num_replicas)} replica{'' if num_replicas == 1 else 's'}"


def label(value: Any) -> str:
    """Return a setting, a name or a target as text.

    Example:
        >>> label(0.15), label([1, 2, 4]), label("digits-mlp"), label(True)
        ('0.15', '1, 2, 4', 'digits-mlp', 'yes')
    """
    if value is None or isinstance(value, bool):
        return {None: MISSING, True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        pairs: Mapping[Any, Any] = value
        return ", ".join(f"{key} {label(item)}" for key, item in pairs.items())
    if isinstance(value, (list, tuple)):
        items: list[Any] | tuple[Any, ...] = value
        return ", ".join(label(item) for item in items)
    return str(value)


def unit_of(fit: Any) -> str:
    """Return what a fit's batch sizes count, in the plural.

    Example:
        >>> unit_of({"example_unit": "token"}), unit_of({})
        ('tokens', 'examples')
    """
    return f"{label(field(fit, 'example_unit') or 'example')}s"


def is_number(value: Any) -> TypeGuard[float]:
    """Return True for a finite int or float; a bool or text is none.

    Example:
        >>> is_number(3), is_number(float("nan")), is_number(None)
        (True, False, False)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def field(part: Any, *path: str) -> Any:
    """Return what lies at the end of a path of keys, None where it breaks off.

    Example:
        >>> field({"law": {"name": "inverse"}}, "law", "name")
        'inverse'
        >>> field({"law": None}, "law", "name") is None
        True
    """
    for key in path:
        if not isinstance(part, Mapping):
            return None
        inner: Mapping[str, Any] = part
        part = inner.get(key)
    return part


def entries(part: Any, *path: str) -> list[dict[str, Any]]:
    """Return the list of records at the end of a path; an absent one is empty.

    Example:
        >>> entries({"runs": [{"batch_size": 4}]}, "runs"), entries({}, "runs")
        ([{'batch_size': 4}], [])
    """
    found = field(part, *path)
    return list(found) if found else []
