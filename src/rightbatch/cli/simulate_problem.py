"""The problem of ``simulate`` from its options: spectrum, noise, start and bins."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rightbatch._checks import did_you_mean, one_of
from rightbatch.cli.spectrum_file import read_spectrum
from rightbatch.errors import InputError
from rightbatch.quadratic import Noise, NoisyQuadratic, Spectrum
from rightbatch.quadratic.binning import bin_problem, binning_error

STANDARD_DIMS = 10_000
PUBLISHED_EDGES = 100
MOST_DIMS = 10_000_000
_SPECTRA = ("inverse", "power")
_NOISES = ("curvature", "isotropic", "mixed")
_BINS = ("centroid", "exact", "notebook", "published")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bins:
    """How directions were put together.

    Args:
        rule: ``exact``, ``centroid`` or ``notebook``.
        num_dims: Directions of the problem.
        num_nodes: What stands for them.
        error: Relative error of the loss that binning makes; 0 where it is exact.
    """

    rule: str
    num_dims: float
    num_nodes: int
    error: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a program."""
        return {
            "rule": self.rule,
            "num_dims": self.num_dims,
            "num_nodes": self.num_nodes,
            "error": self.error,
        }


def read_problem(
    *,
    spectrum: str,
    dims: int | None,
    noise: str | None,
    initial: float | None,
    irreducible: float,
    note: Callable[[str], None],
) -> NoisyQuadratic:
    """Return the exact problem that the options describe.

    Args:
        spectrum: ``inverse``, ``power:1.5`` or a CSV file.
        dims: Directions; 10 000 where there is no file.
        noise: ``curvature``, ``isotropic``, ``mixed:curvature=1,isotropic=.1``; the
            file's, or curvature, by default.
        initial: Second moment at the start; the file's, or 1, by default.
        irreducible: The loss at the minimum.
        note: Takes a line on columns of the file that are not read.

    Returns:
        The problem, without preconditioner.

    Raises:
        InputError: An option or the file cannot be used.
    """
    rule = None if noise is None else _noise(noise)
    if initial is not None and not (initial >= 0 and math.isfinite(initial)):
        raise InputError(f"--initial: must not be negative, got {initial:g}.")
    if not math.isfinite(irreducible):
        raise InputError(f"--irreducible: must be a finite number, got {irreducible}.")
    if dims is not None and dims > MOST_DIMS:
        raise InputError(
            f"--dims: must be at most {MOST_DIMS}, got {dims}.",
            "a --spectrum file with a column weight stands for more",
        )
    given: dict[str, Any] = {}
    path = spectrum_file(spectrum)
    if path is None:
        shape = _named_spectrum(spectrum, STANDARD_DIMS if dims is None else dims)
    elif dims is not None:
        raise InputError(
            "--dims: has no use beside a spectrum from a file.",
            "a column weight says how many directions each curvature stands for",
        )
    else:
        shape, given = _read_spectrum(path, note)
    return NoisyQuadratic(
        spectrum=shape,
        noise=rule if rule is not None else given.get("noise", Noise()),
        initial_second_moments=initial
        if initial is not None
        else given.get("start", 1.0),
        irreducible_loss=irreducible,
    )


def bin_by(text: str, problem: NoisyQuadratic) -> tuple[NoisyQuadratic, str]:
    """Return the problem on bins, and the rule's name.

    Args:
        text: ``exact``, ``centroid``, ``centroid:84`` or ``notebook:100``.
        problem: The exact one.

    Returns:
        The problem with fewer directions, or itself.

    Raises:
        InputError: The rule is unknown, or there are more bins than directions.
    """
    name, _, rest = text.strip().partition(":")
    one_of("--bins", "bins", name, _BINS)
    if name == "exact":
        if rest:
            raise InputError(f"--bins: exact takes no number, got {rest!r}.")
        return problem, "exact"
    usual = None if name == "centroid" else PUBLISHED_EDGES
    num = _count("--bins", name, rest) if rest else usual
    size = problem.curvatures.size
    if num is not None and num > size:
        raise InputError(
            f"--bins: {num} bins are more than the {size} "
            f"curvature{'s' if size > 1 else ''}.",
            "use exact",
        )
    if name == "centroid":
        return bin_problem(problem, "centroid", num), "centroid"
    return bin_problem(problem, "published", num), "notebook"


def binning(
    exact: NoisyQuadratic,
    binned: NoisyQuadratic,
    rule: str,
    powers: tuple[float, ...],
) -> Bins:
    """Return what binning did, its error the largest over preconditioner powers.

    Args:
        exact: The problem.
        binned: On bins.
        rule: Its name.
        powers: Of the table.

    Returns:
        The account of it.
    """
    error = 0.0
    if binned is not exact and binned.curvatures.size < exact.curvatures.size:
        error = max(
            binning_error(exact.with_power(power), binned.with_power(power))
            for power in powers
        )
    return Bins(
        rule=rule if binned is not exact else "exact",
        num_dims=exact.spectrum.num_dims,
        num_nodes=binned.curvatures.size,
        error=error,
    )


# Spectra ----------------------------------------------------------------------------


def spectrum_file(text: str) -> Path | None:
    """Return the file that ``--spectrum`` means, None for a name.

    Args:
        text: ``inverse``, ``power:1.5`` or a CSV file.

    Returns:
        Its path, whether it is there or not.

    Raises:
        InputError: It is neither a name nor like a path.
    """
    name = text.partition(":")[0]
    if name in _SPECTRA:
        return None
    path = Path(text)
    if path.exists() or path.suffix or "/" in text:
        return path
    way_out = did_you_mean(name, _SPECTRA) or "inverse, power:1.5 or a CSV file"
    raise InputError(f"--spectrum: cannot be {text!r}.", way_out)


def _named_spectrum(text: str, dims: int) -> Spectrum:

    name, _, rest = text.partition(":")
    if name == "inverse":
        if rest:
            raise InputError(
                f"--spectrum: inverse takes no number, got {rest!r}.",
                f"power:{rest} for h_i = i^-{rest}",
            )
        return Spectrum.inverse(dims)
    values = parse_pairs("--spectrum", name, rest, ("exponent",))
    if "exponent" not in values:
        raise InputError("--spectrum: power needs its exponent.", "such as power:1.5")
    if values["exponent"] <= 0:
        raise InputError(
            f"--spectrum: the exponent must be positive, got {values['exponent']:g}."
        )
    return Spectrum.power_law(dims, values["exponent"])


def _read_spectrum(
    path: Path, note: Callable[[str], None]
) -> tuple[Spectrum, dict[str, Any]]:
    """Return the spectrum of a CSV file, and its noise and start where it has them."""
    columns = read_spectrum(path)
    if columns.unread:
        note(f"{path}: not read: {', '.join(columns.unread)}")
    h = np.array(columns.curvature)
    order = np.argsort(-h, kind="stable")  # as a Spectrum keeps them
    per_direction = {"noise": columns.noise, "start": columns.start}
    given = {
        name: np.array(values)[order]
        for name, values in per_direction.items()
        if values is not None
    }
    weights = np.array(columns.weight or ())
    return Spectrum(curvatures=h, weights=weights), given


# Parameterised choices --------------------------------------------------------------


def _noise(text: str) -> Noise:

    name, _, rest = text.strip().partition(":")
    one_of("--noise", "noise", name, _NOISES)
    keys = ("curvature", "isotropic") if name == "mixed" else (name,)
    values = parse_pairs("--noise", name, rest, keys)
    for key, value in values.items():
        if value < 0:
            raise InputError(f"--noise: {key} must not be negative, got {value:g}.")
    if name == "mixed":
        if set(values) != set(keys):
            raise InputError(
                f"--noise: mixed needs both its parts, got {text!r}.",
                "such as mixed:curvature=1,isotropic=.1",
            )
        return Noise(curvature=values["curvature"], isotropic=values["isotropic"])
    level = values.get(name, 1.0)
    if name == "curvature":
        return Noise(curvature=level)
    return Noise(curvature=0.0, isotropic=level)


def parse_pairs(
    option: str, name: str, text: str, keys: Sequence[str]
) -> dict[str, float]:
    """Return the numbers of a choice written as name:key=value,... or name:value.

    Args:
        option: Where it stands, for errors.
        name: The choice.
        text: What follows its colon.
        keys: What it takes; a value alone is the only one's.

    Returns:
        The numbers given.

    Raises:
        InputError: A key is unknown or given twice, or a value is no number.

    Example:
        >>> parse_pairs("--noise", "mixed", "curvature=1,isotropic=.1", ("curvature",
        ...     "isotropic"))
        {'curvature': 1.0, 'isotropic': 0.1}
    """
    values: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        key, equals, number = part.rpartition("=")
        key = key.strip() if equals or len(keys) > 1 else keys[0]
        if key not in keys:
            way_out = did_you_mean(key, keys) or f"it takes {', '.join(keys)}"
            raise InputError(f"{option}: {name} has no {key or part!r}.", way_out)
        if key in values:
            raise InputError(f"{option}: {key} stands twice in {text!r}.")
        try:
            values[key] = float(number)
        except ValueError:
            values[key] = math.nan
        if not math.isfinite(values[key]):
            raise InputError(f"{option}: {number.strip()!r} is not a number.")
    return values


def _count(option: str, name: str, text: str) -> int:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (number >= 1 and number.is_integer()):
        raise InputError(
            f"{option}: {text!r} is no number of bins.", f"such as {name}:100"
        )
    return int(number)
