"""Learning rates that change along a run, by name: shapes over the run, and pieces."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.spectrum import FloatArray

ShapeName = Literal[
    "constant", "linear", "cosine", "quarter_cosine", "wsd", "step", "inverse_time"
]
SHAPES: tuple[ShapeName, ...] = get_args(ShapeName)
"""All names of shapes."""


class _Rule(NamedTuple):
    """A shape's factor of progress, and its parameter.

    Args:
        factor: (progress, parameter, number of cuts) -> factors.
        parameter: What the parameter is called; empty where there is none.
        low: Its smallest value.
        high: Its largest value, or infinity.
        usual: Its value unless given; None where it is left to a search.
    """

    factor: Callable[[FloatArray, float, int], FloatArray]
    parameter: str = ""
    low: float = 0.0
    high: float = 1.0
    usual: float | None = None


def _constant(progress: FloatArray, _parameter: float, _cuts: int) -> FloatArray:
    return np.ones_like(progress)


def _linear(progress: FloatArray, final: float, _cuts: int) -> FloatArray:
    return final + (1 - final) * (1 - progress)


def _cosine(progress: FloatArray, final: float, _cuts: int) -> FloatArray:
    return final + (1 - final) * 0.5 * (1 + np.cos(math.pi * progress))


def _quarter_cosine(progress: FloatArray, final: float, _cuts: int) -> FloatArray:
    return final + (1 - final) * np.maximum(np.cos(0.5 * math.pi * progress), 0)


def _wsd(progress: FloatArray, tail: float, _cuts: int) -> FloatArray:
    return np.minimum(1.0, (1 - progress) / tail)


def _step(progress: FloatArray, factor: float, num_cuts: int) -> FloatArray:
    cuts = np.arange(1, num_cuts + 1) / (num_cuts + 1)
    return factor ** -np.searchsorted(cuts, progress, "right").astype(float)


def _inverse_time(progress: FloatArray, final: float, _cuts: int) -> FloatArray:
    return 1 / (1 + (1 / final - 1) * progress)


_LEAST = 1e-6
_RULES: dict[ShapeName, _Rule] = {
    "constant": _Rule(_constant),
    "linear": _Rule(_linear, "final", usual=0.0),
    "cosine": _Rule(_cosine, "final", usual=0.0),
    "quarter_cosine": _Rule(_quarter_cosine, "final", usual=0.0),
    "wsd": _Rule(_wsd, "tail", low=_LEAST),
    "step": _Rule(_step, "factor", low=1.0, high=math.inf),
    "inverse_time": _Rule(_inverse_time, "final", low=_LEAST),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    r"""A learning rate over its peak, against the share t of the run that is done.

    ====================  =====================================  ====================
    ``constant``          1
    ``linear``            :math:`1 - t`                          `final`, 0
    ``cosine``            :math:`(1 + \cos \pi t)/2`             `final`, 0
    ``quarter_cosine``    :math:`\cos(\pi t/2)`                  `final`, 0
    ``wsd``               1, then linear to 0 over the last part `tail`, tuned
    ``step``              divided by a factor at equal distances `factor`, tuned
    ``inverse_time``      :math:`1/(1 + c t)`                    `final`, tuned
    ====================  =====================================  ====================

    The first three decay to `final` instead of 0 where it is given, and c follows from
    `final`. The first step of a run has t = 0 and the last t = 1, so that what decays
    to 0 makes its last step at 0. (torch and transformers put t = 1 one step after the
    last; their runs are one step shorter.)

    Args:
        name: One of :data:`SHAPES`.
        parameter: As in the last column: the last factor, the share of the decay, or
            what each cut divides by. None takes the usual value, or leaves it to the
            search where there is none.
        num_cuts: How often ``step`` cuts.

    Raises:
        InputError: A value is out of range, or the shape has no such parameter.

    Example:
        >>> Shape(name="wsd", parameter=0.5).lrs(0.1, 5).tolist()
        [0.1, 0.1, 0.1, 0.05, 0.0]
    """

    name: ShapeName
    parameter: float | None = None
    num_cuts: int = 2

    def __post_init__(self) -> None:
        who = f"schedule {self.name}"
        _checks.one_of("schedule", "name", self.name, SHAPES)
        _checks.positive_integer(who, "num_cuts", self.num_cuts)
        rule, value = _RULES[self.name], self.parameter
        if value is None:
            object.__setattr__(self, "parameter", rule.usual)
            return
        if not rule.parameter:
            raise InputError(f"{who}: has no parameter, got {value!r}.")
        _checks.finite(who, rule.parameter, value)
        if not rule.low <= value <= rule.high:
            top = "" if math.isinf(rule.high) else f" and at most {rule.high:g}"
            raise InputError(
                f"{who}: `{rule.parameter}` must be at least {rule.low:g}{top}, "
                f"got {value:g}."
            )

    @property
    def parameter_name(self) -> str:
        """What the parameter is called; empty where there is none."""
        return _RULES[self.name].parameter

    @property
    def is_tuned(self) -> bool:
        """Whether the parameter is left to a search."""
        return bool(self.parameter_name) and self.parameter is None

    @property
    def parameter_bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that the parameter may have."""
        rule = _RULES[self.name]
        return rule.low, rule.high

    def with_parameter(self, value: float) -> "Shape":
        """Return the shape with another parameter."""
        return Shape(name=self.name, parameter=value, num_cuts=self.num_cuts)

    def factors(self, progress: FloatArray) -> FloatArray:
        """Return the learning rate over its peak at each share of the run done.

        Args:
            progress: In [0, 1]. Any shape.

        Returns:
            The same shape.

        Raises:
            InputError: The parameter is still to be tuned.
        """
        if self.is_tuned:
            raise InputError(
                f"schedule {self.name}: `{self.parameter_name}` is not known yet.",
                f"give it, as in {self.name}:.2, or search for it",
            )
        value = 0.0 if self.parameter is None else self.parameter
        return _RULES[self.name].factor(progress, value, self.num_cuts)

    def lrs(self, peak: float, num_steps: int) -> FloatArray:
        """Return the learning rate of every step of a run.

        Args:
            peak: Of the first step.
            num_steps: How many steps.

        Returns:
            The learning rates, shape (num_steps,).

        Raises:
            InputError: A value is out of range or the parameter is to be tuned.
        """
        who = f"schedule {self.name}"
        _checks.positive(who, "peak", peak)
        num = _checks.positive_integer(who, "num_steps", num_steps)
        return peak * self.factors(np.arange(num) / max(num - 1, 1))

    def __str__(self) -> str:
        given = "" if self.parameter is None else f":{self.parameter:.4g}"
        return f"{self.name}{given}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualPieces:
    """A schedule of equally long pieces, each with the learning rate that suits it.

    Args:
        num_pieces: How many.

    Raises:
        InputError: It is no whole number of at least one.

    Example:
        >>> schedule_named("pieces:50")
        EqualPieces(num_pieces=50)
    """

    num_pieces: int = 10

    def __post_init__(self) -> None:
        _checks.positive_integer("schedule pieces", "num_pieces", self.num_pieces)

    def __str__(self) -> str:
        return f"pieces:{self.num_pieces}"


def schedule_named(text: str) -> Shape | EqualPieces:
    """Return a schedule by its name and parameters.

    Args:
        text: ``constant``, ``pieces:10``, or a shape as ``name``, ``name:value`` for
            its parameter, or ``name:key=value,key=value``; a parameter without a usual
            value that is not given is left to the search.

    Returns:
        The shape, or the number of pieces.

    Raises:
        InputError: The name or a parameter is unknown, or a value is out of its range.

    Example:
        >>> str(schedule_named("wsd:.2")), schedule_named("wsd").is_tuned
        ('wsd:0.2', True)
    """
    name, _, rest = text.strip().partition(":")
    name = name.strip().replace("-", "_")
    _checks.one_of("schedule", "schedule", name, (*SHAPES, "pieces"))
    if name == "pieces":
        given = _values(name, rest, ("num",))
        num = _checks.positive_integer("schedule pieces", "num", given.get("num", 10))
        return EqualPieces(num_pieces=num)
    shape: ShapeName = next(known for known in SHAPES if known == name)
    parameter = _RULES[shape].parameter
    keys = tuple(key for key in (parameter, "num" * (name == "step")) if key)
    given = _values(name, rest, keys)
    num = _checks.positive_integer(f"schedule {name}", "num", given.get("num", 2))
    return Shape(name=shape, parameter=given.get(parameter), num_cuts=num)


def _values(name: str, text: str, keys: tuple[str, ...]) -> dict[str, float]:
    given: dict[str, float] = {}
    for part in text.split(",") if text else []:
        key, equals, value = part.rpartition("=")
        key = key.strip() if equals else next(iter(keys), "")
        if key not in keys:
            has = f"it has {', '.join(keys)}" if keys else "write the name alone"
            raise InputError(f"schedule {name}: no parameter {part.strip()!r}.", has)
        if key in given:
            raise InputError(f"schedule {name}: `{key}` is given twice.")
        try:
            given[key] = _checks.finite(f"schedule {name}", key, float(value))
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"schedule {name}: {value.strip()!r} is not a number.",
                f"write {name}:{key}=.2, for instance",
            ) from None
    return given
