"""Fewer directions for the same loss: curvatures that are close share a node."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.problem import Noise, NoisyQuadratic
from rightbatch.quadratic.spectrum import FloatArray, Spectrum

IntArray = NDArray[np.int64]
BinRule = Literal["centroid", "published"]

DEFAULT_BINS = 84  # what 101 edges leave of 10 000 curvatures 1/i
ENOUGH = 1e-2  # of the loss; a few tenths of a percent of the steps
MOST_BINS = 400
LEAST_SHARE = 1e-3  # errors count while at least this share of the loss is left
EDGE_TOLERANCE = 1e-12  # a curvature that equals an edge but for rounding is on it


def centroid_bins(spectrum: Spectrum, num_bins: int | None = None) -> Spectrum:
    """Return nodes that stand for groups of neighbouring curvatures.

    A node is the weighted mean curvature of its group and its weight the group's, so
    number of directions and trace are kept. Groups are cut where the index (with
    weights: the number of directions before) passes round(geomspace(1, n + 1, m)), with
    m chosen to leave `num_bins` groups; 101 for 10 000 directions and 84 bins. Where an
    even cut in log curvature at least halves the error, for instance for clusters or an
    exponential tail, that one is taken. Equal curvatures always merge: that is exact.

    Args:
        spectrum: The exact curvatures.
        num_bins: How many nodes; fewer only where cutting cannot give as many, as for
            equal curvatures. None takes 84 and doubles while :func:`binning_error`
            would be above 1 %, up to 400.

    Returns:
        The nodes as a spectrum.

    Raises:
        InputError: `num_bins` is no whole number >= 1, or more than the curvatures.

    Example:
        >>> binned = centroid_bins(Spectrum.inverse(10_000))
        >>> binned.curvatures.size, round(binned.trace, 3)
        (84, 9.788)
    """
    starts = _centroid_starts(spectrum, num_bins)
    weights = np.add.reduceat(spectrum.weights, starts)
    totals = np.add.reduceat(spectrum.weights * spectrum.curvatures, starts)
    return Spectrum(curvatures=totals / weights, weights=weights)


def published_bins(spectrum: Spectrum, num_edges: int = 100) -> Spectrum:
    """Return the binning of the published code: each curvature rounded down to an edge.

    Edges are geomspace(largest, smallest, num_edges), geomspace(1, 1e-4, 100) for
    10 000 curvatures 1/i; empty ones are dropped. The trace shrinks (9.405 of 9.788),
    which moves steps by -.8 to +3.3 %: for comparisons with published numbers only.

    Args:
        spectrum: The exact curvatures.
        num_edges: How many edges, empty ones included.

    Returns:
        The edges that hold a curvature, as a spectrum.

    Raises:
        InputError: `num_edges` is no whole number >= 2, or more than the curvatures.

    Example:
        >>> binned = published_bins(Spectrum.inverse(10_000))
        >>> binned.curvatures.size, round(binned.trace, 3)
        (84, 9.405)
    """
    nodes, starts = _published_groups(spectrum, num_edges)
    return Spectrum(curvatures=nodes, weights=np.add.reduceat(spectrum.weights, starts))


def bin_problem(
    problem: NoisyQuadratic, rule: BinRule = "centroid", num: int | None = None
) -> NoisyQuadratic:
    """Return the problem on binned curvatures, its noise and start binned with them.

    A group's noise is the mean of c over its directions, its start the mean of the
    second moment weighted by curvature: the sums of w h, w c and w h s are kept. The
    published rule keeps w h s as a mean only, as its nodes lie below the curvatures,
    and its noise is the rule's value at the node where the noise is a rule.

    Args:
        problem: The exact problem.
        rule: ``centroid`` (:func:`centroid_bins`) or ``published``
            (:func:`published_bins`).
        num: Bins of the first, edges of the second; None for their defaults.

    Returns:
        The same problem with fewer directions.

    Raises:
        InputError: The rule is not known or `num` is out of range.

    Example:
        >>> exact = NoisyQuadratic(spectrum=Spectrum.inverse(10_000))
        >>> binned = bin_problem(exact)
        >>> abs(binned.initial_loss / exact.initial_loss - 1) < 1e-12
        True
    """
    _checks.one_of("bin_problem", "rule", rule, ("centroid", "published"))
    exact = problem.spectrum
    if rule == "published":
        nodes, starts = _published_groups(exact, 100 if num is None else num)
        weights = np.add.reduceat(exact.weights, starts)
    else:
        starts = _centroid_starts(exact, num)
        weights = np.add.reduceat(exact.weights, starts)
        nodes = np.add.reduceat(exact.weights * exact.curvatures, starts) / weights
    return replace(
        problem,
        spectrum=Spectrum(curvatures=nodes, weights=weights),
        noise=problem.noise
        if isinstance(problem.noise, Noise)
        else _means(problem.noise_variances, exact.weights, starts),
        initial_second_moments=problem.initial_second_moments
        if np.ndim(problem.initial_second_moments) == 0
        else _means(problem.start, exact.weights * exact.curvatures, starts),
    )


def binning_error(
    exact: Spectrum | NoisyQuadratic, binned: Spectrum | NoisyQuadratic
) -> float:
    r"""Return the largest relative error that binning makes in the loss of small steps.

    With rates r = p h, the loss of SGD after a time t = lr k is

    .. math:: F(t) + \tfrac{lr}{B} G(t),\quad F = \tfrac12\sum w h s\,e^{-2rt},\quad
              G = \tfrac12\sum w h p^2 c\,(1 - e^{-2rt}) / 2r

    as lr falls, so the larger relative error of F and of G, over all t at which F is at
    least a thousandth of what it was, bounds that of the loss at every lr, batch size
    and step there. Momentum acts as SGD at lr / (1 - momentum) in the same limit. It
    says nothing about lr r near 2, where the largest curvatures decide; those stay
    alone in their bins. Times are on a grid of ratio 2.

    Args:
        exact: A spectrum (with c = h, s = 1 and no preconditioner) or a problem.
        binned: What it was binned to, of the same kind.

    Returns:
        The error, 0.003 for .3 %.

    Example:
        >>> exact = Spectrum.inverse(10_000)
        >>> round(binning_error(exact, centroid_bins(exact)), 4)
        0.0032
        >>> round(binning_error(exact, published_bins(exact)), 2)
        0.15
    """
    first, second = (
        x if isinstance(x, NoisyQuadratic) else NoisyQuadratic(spectrum=x)
        for x in (exact, binned)
    )
    times = _times(second.loss_weights * second.start, second.rates)
    parts, binned_parts = _parts(first, times), _parts(second, times)
    seen = parts > 0
    return float(np.abs(binned_parts[seen] / parts[seen] - 1).max(initial=0.0))


def _times(pull: FloatArray, rates: FloatArray) -> FloatArray:
    """Return times of ratio 2, increasing, up to where F is a thousandth."""
    floor = LEAST_SHARE * pull.sum()
    # Between where even the fastest and where even the slowest direction has decayed.
    low, high = np.log(np.array([0.5, 50.0]) / rates[[0, -1]])
    for _ in range(50):
        middle = (low + high) / 2
        left = pull @ np.exp(-2 * rates * np.exp(middle))
        low, high = (middle, high) if left > floor else (low, middle)
    last = float(np.exp(high))
    num = max(1, int(np.ceil(np.log2(32 * last * rates[0]))))
    return np.ldexp(last, np.arange(1 - num, 1))


def _parts(problem: NoisyQuadratic, times: FloatArray) -> FloatArray:
    """Return F and G at times of ratio 2, shape (len(times), 2)."""
    rates = problem.rates  # decreasing, or all equal: what has died is a prefix
    noise = problem.loss_weights * problem.step_noise / (2 * rates)
    terms = np.stack([problem.loss_weights * problem.start, noise])
    total = noise.sum()
    decay = np.exp(-2 * times[0] * rates)
    parts = np.empty((times.size, 2))
    for row in parts:
        row[:] = terms @ decay
        np.multiply(decay, decay, out=decay)
        # Squares of dead entries would be denormal numbers, which are slow.
        alive = int(np.searchsorted(decay, 1e-100))
        decay, terms = decay[alive:], terms[:, alive:]
    parts[:, 1] = total - parts[:, 1]
    return parts


def _means(values: FloatArray, weights: FloatArray, starts: IntArray) -> FloatArray:
    """Return the weighted mean of each group."""
    total = np.add.reduceat(weights, starts)
    return np.add.reduceat(weights * values, starts) / total


# Where groups start: indices into the curvatures, increasing, the first 0 -----------


def _published_groups(
    spectrum: Spectrum, num_edges: int
) -> tuple[FloatArray, IntArray]:
    who, h = "published_bins", spectrum.curvatures
    num = _checks.positive_integer(who, "num_edges", num_edges)
    if num < 2:
        raise InputError(f"{who}: `num_edges` must be at least 2, got {num}.")
    _refuse_too_many(who, "num_edges", num, h.size)
    edges = np.geomspace(h[0], h[-1], num)
    # The largest edge at or below h is the first of the decreasing edges that is.
    home = np.searchsorted(-edges * (1 - EDGE_TOLERANCE), -h, side="left")
    first = np.concatenate([[True], home[1:] != home[:-1]])
    starts = np.flatnonzero(first)
    return edges[home[starts]], starts


def _centroid_starts(spectrum: Spectrum, num_bins: int | None) -> IntArray:
    who, size = "centroid_bins", spectrum.curvatures.size
    if num_bins is not None:
        num = _checks.positive_integer(who, "num_bins", num_bins)
        _refuse_too_many(who, "num_bins", num, size)
        return _better_cut(spectrum, num)
    num = min(DEFAULT_BINS, size)
    starts = _better_cut(spectrum, num)
    while _expected_error(spectrum, starts) > ENOUGH and num < min(MOST_BINS, size):
        num = min(2 * num, MOST_BINS, size)
        starts = _better_cut(spectrum, num)
    return starts


def _refuse_too_many(who: str, name: str, num: int, size: int) -> None:
    if num > size:
        raise InputError(
            f"{who}: `{name}` must be at most the number of curvatures, {size}, "
            f"got {num}.",
            "keep the exact spectrum, it is small enough",
        )


def _better_cut(spectrum: Spectrum, num_bins: int) -> IntArray:
    """Return the cut by index, or by curvature where that at least halves the error."""
    h, weights = spectrum.curvatures, spectrum.weights
    distinct = np.flatnonzero(np.concatenate([[True], h[1:] != h[:-1]]))
    if distinct.size <= num_bins:
        return distinct
    # Position 1 + number of directions before: the index, where all weights are one.
    before = np.concatenate([[0.0], np.cumsum(weights)])
    positions = 1 + before[:-1]
    log_fall = np.log(h[0] / h)

    def by_index(num_edges: int) -> IntArray:
        edges = np.unique(np.round(np.geomspace(1, 1 + before[-1], num_edges)))
        inside = edges[edges < 1 + before[-1]]
        return _starts(np.searchsorted(positions, inside, side="right") - 1, h.size)

    def by_curvature(num_edges: int) -> IntArray:
        edges = np.linspace(0, log_fall[-1], num_edges)[:-1]
        return _starts(np.searchsorted(log_fall, edges), h.size)

    # A cut may fall among equal curvatures; it moves to the first of them.
    def whole(cut: Callable[[int], IntArray]) -> Callable[[int], IntArray]:
        return lambda num: np.unique(
            distinct[np.searchsorted(distinct, cut(num), side="right") - 1]
        )

    index = _cut_into(whole(by_index), num_bins, h.size)
    curvature = _cut_into(whole(by_curvature), num_bins, h.size)
    errors = [_expected_error(spectrum, starts) for starts in (index, curvature)]
    return curvature if errors[1] < errors[0] / 2 else index


def _starts(cuts: IntArray, size: int) -> IntArray:
    return np.unique(np.append(cuts[cuts < size], 0))


def _cut_into(cut: Callable[[int], IntArray], num_bins: int, size: int) -> IntArray:
    """Return the cut of most groups, at most `num_bins` of them, by its edges."""
    if num_bins == 1:
        return np.zeros(1, dtype=np.int64)
    low, high, most = 2, num_bins + 1, 32 * size
    while high < most and cut(high).size <= num_bins:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cut(middle).size <= num_bins else (low, middle)
    # Rounding makes the number of groups fall now and then: look at the neighbours.
    near = [cut(num) for num in range(low, low + 4)]
    return max((c for c in near if c.size <= num_bins), key=len)


def _expected_error(spectrum: Spectrum, starts: IntArray) -> float:
    r"""Return the error of F to second order in the widths, from the groups alone.

    .. math:: \sum_b \tfrac12 W_b \mathrm{Var}_b f''(\bar h_b) / \sum_b W_b f(\bar h_b),
              \quad f = h e^{-2th}
    """
    h, w = spectrum.curvatures, spectrum.weights
    weights = np.add.reduceat(w, starts)
    nodes = np.add.reduceat(w * h, starts) / weights
    # Deviations first: a difference of squares would drown small curvatures.
    sizes = np.diff(np.append(starts, h.size))
    squares = np.add.reduceat(w * (h - np.repeat(nodes, sizes)) ** 2, starts)
    times = _times(weights * nodes, nodes)[:, None]
    decays = np.exp(-2 * times * nodes)
    bends = (decays * (2 * times**2 * nodes - 2 * times)) @ squares
    return float(np.abs(bends / (decays @ (weights * nodes))).max())
