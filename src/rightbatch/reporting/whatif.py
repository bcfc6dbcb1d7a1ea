"""The what-if panel of a plan: its knobs, and the laws it starts from.

The panel's formulas are in ``laws.js``, which knows of no page and is tested against
the Python laws; ``drawing.js`` makes words and curves, ``panel.js`` ties both to the
inputs of the page.
"""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

from rightbatch.reporting.formats import entries, field, is_number, unit_of

Document = Mapping[str, Any]
Knob = dict[str, Any]
_LAWS = ("inverse", "knee", "floor")
_KINDS = (
    "none",
    "constant",
    "linear",
    "ring",
    "halving_doubling",
    "sharded",
    "two_level",
)
_PLACES = 200  # of a slider
_MOST = 1e15
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def what_if(document: Document) -> dict[str, Any] | None:
    """Return what the panel starts from, None where a law is not there.

    Args:
        document: A plan's JSON document.

    Returns:
        `convergence`, `step_time` and `limits` as the laws take them, `fitted_range`
        (batch sizes run), the largest of the plan's `replicas`, `unit`, `knobs`.

    Example:
        >>> what_if({"command": "plan"}) is None
        True
    """
    fits, plan = entries(document, "convergence"), entries(document, "optimal")
    if not fits or not plan:
        return None
    convergence = _convergence(fits[-1])
    step_time = _step_time(field(document, "step_time"))
    if convergence is None or step_time is None:
        return None
    sizes = [point["batch_size"] for point in entries(fits[-1], "points")]
    sizes = field(fits[-1], "fitted_range") or sizes or [1, _MOST]
    limits = _limits(document, max(sizes))
    passes = max(field(entry, "accumulation_steps") or 1 for entry in plan)
    if passes > 1 and not limits["max_micro_batch_size"]:
        return None  # the memory that the plan went by is not known here
    if (field(document, "limits", "min_batch_size") or 1) > 1:
        return None  # the panel would go where no run arrived
    replicas = [entry["num_replicas"] for entry in plan]
    return {
        "convergence": convergence,
        "step_time": step_time,
        "limits": limits,
        "fitted_range": [min(sizes), max(sizes)],
        "replicas": max(replicas),
        "unit": _unit(document),
        "knobs": _knobs(document, convergence, step_time, replicas),
    }


def _convergence(fit: Document) -> dict[str, Any] | None:
    law = {key: field(fit, key, "value") for key in ("min_steps", "min_examples")}
    known = all(map(is_number, law.values())) and law["min_examples"] > 0
    if not known or field(fit, "law") not in _LAWS:
        return None
    floor = field(fit, "min_batch_size")
    floor = field(floor, "value") if isinstance(floor, Mapping) else floor
    exponent = field(fit, "knee_exponent")
    exponent = field(exponent, "value") if isinstance(exponent, Mapping) else exponent
    law["knee_exponent"] = 1.0 if exponent is None else exponent
    law["min_batch_size"] = floor or 0.0
    return law


def _step_time(entry: Any) -> dict[str, Any] | None:
    law = {
        key: field(entry, key, "value")
        for key in ("seconds_per_example", "overhead_seconds", "saturation_batch_size")
    }
    law["saturation_batch_size"] = law["saturation_batch_size"] or 1.0
    if not all(map(is_number, law.values())):
        return None
    communication = field(entry, "communication") or {"kind": "none"}
    if communication.get("kind") not in _KINDS:
        return None
    law["communication"] = {
        key: value
        for key, value in communication.items()
        if key == "kind" or is_number(value)
    }
    exponent = field(entry, "overlap_exponent")
    exponent = field(exponent, "value") if isinstance(exponent, Mapping) else exponent
    if isinstance(entry, Mapping) and "overlap_exponent" not in entry:
        exponent = 1.0
    if not is_number(exponent) and exponent != "Infinity":
        return None
    law["overlap_exponent"] = exponent
    law["evaluation"] = field(entry, "evaluation")
    return law


def _limits(document: Document, largest_run: float) -> dict[str, Any]:
    known = field(document, "limits") or {}
    asked = field(document, "inputs") or {}
    names = ("max_micro_batch_size", "max_accumulation_steps", "candidates")
    limits = {name: known.get(name) or asked.get(name) for name in names}
    sizes = [
        asked.get("max_batch_size"),
        known.get("max_batch_size"),
        field(document, "workload", "num_examples"),
    ]
    limits["max_batch_size"] = min(filter(is_number, sizes), default=None)
    limits["largest_run"] = int(largest_run)
    return limits


def _unit(document: Document) -> str:
    """Return what batch sizes count, in the plural."""
    fit = entries(document, "convergence")[-1]
    if field(fit, "example_unit") is None:
        return unit_of(field(document, "workload"))
    return unit_of(fit)


def _knobs(
    document: Document,
    convergence: Mapping[str, Any],
    step_time: Mapping[str, Any],
    replicas: list[int],
) -> list[Knob]:
    plural = escape(_unit(document))
    unit = plural.removesuffix("s")
    steps, examples = convergence["min_steps"], convergence["min_examples"]
    gamma, fixed = step_time["seconds_per_example"], step_time["overhead_seconds"]
    knee = step_time["saturation_batch_size"]
    return [
        _replicas_knob(replicas),
        _between(step_time["communication"]),
        _knob("price", "price of a replica-hour", 1.0, reach=1000),
        _knob("S_min", "fewest steps, <i>S</i><sub>min</sub>", steps, reach=30),
        _knob("E_min", f"fewest {plural}, <i>E</i><sub>min</sub>", examples, reach=30),
        _knob("gamma", f"one more {unit}, <i>γ</i>", gamma, "s", 100),
        _knob("M_T", "saturation batch, <i>M</i><sub>T</sub>", knee)
        | {"low": min(1.0, knee), "high": max(4096.0, 16 * knee)},
        _knob("o", "fixed cost, <i>o</i>", fixed, "s", 1000, zero=True),
    ]


def _replicas_knob(replicas: list[int]) -> Knob:
    octaves = range(max(10, math.ceil(math.log2(max(replicas))) + 4))
    stops = {2**k for k in octaves} | {3 * 2**k for k in octaves[:-1]} | {*replicas}
    knob = _knob("P", "replicas, <i>P</i>", max(replicas))
    stops = sorted(stops)
    return knob | {
        "stops": stops,
        "places": len(stops) - 1,
        "min": 1,
        "max": 2**20,
        "whole": True,
        "step": 1,
    }


def _between(communication: Mapping[str, Any]) -> Knob:
    if communication["kind"] in {"none", "constant"}:
        delta = communication.get("seconds", 0.0)
        return _knob("delta", "communication, <i>Δ</i>", delta, "s", 1000, zero=True)
    return _knob("bandwidth", "bandwidth, as planned", 1.0, "×", 100)


def _knob(
    name: str,
    title: str,
    value: float,
    unit: str = "",
    reach: float = 100,
    *,
    zero: bool = False,
) -> Knob:
    # A quantity that is zero or less lies left of its logarithmic slider.
    zero = zero or value <= 0
    centre = value if value > 0 else {"s": 1e-2}.get(unit, 1e2)
    size = 1.0
    if unit == "s":
        size, unit = next((u for u in _UNITS if centre >= u[0]), _UNITS[-1])
    decade = math.floor(math.log10(centre / size))
    least = 0.0 if zero else 1e-15
    return {
        "name": name,
        "title": title,
        "unit": unit,
        "size": size,
        "value": value,
        "low": centre / reach,
        "high": centre * reach,
        "places": _PLACES,
        "zero": zero,
        "whole": False,
        "min": min(least, -_MOST if value < 0 else least),
        "max": _MOST,
        "step": 10.0 ** (decade - 1),
    }


_INTRO = (
    "Move what could be otherwise: the answer and the curves follow. The address of "
    "this page holds the numbers, so a link opens them again."
)
_NO_SCRIPT = (
    "The panel needs JavaScript. The plan above was made with the numbers it starts "
    "from."
)
_CAPTIONS = {
    "time": "Line: the laws at these numbers. Thick: within 5 % of the best time. "
    "Dashed: as planned.",
    "pareto": "The best batch on each number of replicas. At price 1 the cost is in "
    "replica-hours.",
}
_TILES = (
    ("batch", "best batch size"),
    ("seconds", "time to the target"),
    ("steps", "steps"),
    ("cost", "cost"),
    ("speedup", "against one replica"),
    ("limit", "limited by"),
)
_COLUMNS = ("P", "best batch", "within 5 %", "steps", "time", "speed-up", "cost")


def panel(model: Mapping[str, Any]) -> str:
    """Return the panel's section, hidden until its script runs.

    Args:
        model: What `what_if` returned.

    Returns:
        HTML; the numbers of the model are not in it.
    """
    tiles = "".join(
        f'<div><dt>{title}</dt><dd id="what-if-{name}"></dd></div>'
        for name, title in _TILES
    )
    return (
        '<section id="what-if" aria-labelledby="what-if-title">\n'
        '<h2 id="what-if-title">What if</h2>\n'
        f"<noscript><p>{_NO_SCRIPT}</p></noscript>\n"
        '<div id="what-if-panel" class="panel" hidden>\n'
        f'<div class="controls"><p class="note">{_INTRO}</p>\n'
        f"<fieldset><legend>Numbers of the laws</legend>{_inputs(model)}</fieldset>\n"
        '<p class="buttons"><button id="what-if-reset" type="button">As planned'
        '</button> <button id="what-if-copy" type="button">Copy link</button> '
        '<span id="what-if-said" role="status"></span></p></div>\n'
        f'<div class="results"><output id="what-if-answer" aria-live="polite"></output>'
        f'\n<dl class="tiles">{tiles}</dl></div>\n'
        f'<div class="curves">{_figure("time")}\n{_figure("pareto")}</div>\n'
        f"{_numbers()}</div>\n</section>"
    )


def _inputs(model: Mapping[str, Any]) -> str:
    return "\n".join(_input(knob) for knob in model["knobs"])


def _input(knob: Knob) -> str:
    name, unit = f"knob-{knob['name']}", escape(knob["unit"])
    return (
        f'<div class="knob"><label id="{name}-name" for="{name}">'
        f"{knob['title']}</label>"
        f'<span class="box"><input id="{name}" type="number" inputmode="decimal" '
        f'step="{knob["step"]:g}" autocomplete="off" aria-describedby="{name}-unit">'
        f'<span id="{name}-unit" class="unit">{unit}</span></span>'
        f'<input id="{name}-slider" type="range" min="0" max="{knob["places"]}" '
        f'step="1" autocomplete="off" aria-labelledby="{name}-name"></div>'
    )


def _figure(name: str) -> str:
    return (
        f'<figure><h3 id="what-if-{name}-title"></h3>'
        f'<svg id="what-if-{name}" class="curve" role="img" '
        f'aria-labelledby="what-if-{name}-title"></svg>'
        f"<figcaption>{_CAPTIONS[name]}</figcaption></figure>"
    )


def _numbers() -> str:
    heads = "".join(f'<th scope="col" class="right">{name}</th>' for name in _COLUMNS)
    return (
        '<details class="numbers" id="what-if-numbers"><summary>Numbers</summary>'
        '<div class="table"><div class="scroll" role="region" tabindex="0" '
        'aria-label="The best batch size at these numbers"><table><caption><span>'
        "The best batch size at these numbers</span></caption>"
        f'<thead><tr>{heads}</tr></thead><tbody id="what-if-rows"></tbody></table>'
        "</div></div></details>"
    )
