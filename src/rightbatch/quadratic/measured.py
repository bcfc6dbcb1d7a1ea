"""A noisy quadratic from what was measured on a real run."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rightbatch import _checks
from rightbatch.errors import InputError
from rightbatch.quadratic.problem import Noise, NoisyQuadratic
from rightbatch.quadratic.spectrum import FloatArray, Spectrum


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What of a measured spectrum a problem does not hold.

    Args:
        num_nodes: How many nodes were dropped.
        weight: Of how many directions.
        negative_trace: Sum of w h over the negative ones, at most 0.
        small_trace: Sum of w h over the small positive ones.
        trace_share: Sum of w abs(h) dropped over that of all nodes.
    """

    num_nodes: int
    weight: float
    negative_trace: float
    small_trace: float
    trace_share: float

    def __str__(self) -> str:
        if not self.num_nodes:
            return "nothing left out"
        nodes = "1 node" if self.num_nodes == 1 else f"{self.num_nodes} nodes"
        return (
            f"{nodes} left out, {self.weight:.6g} directions with "
            f"{100 * self.trace_share:.2g} % of the absolute trace"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredProblem:
    """A noisy quadratic built from measurements, with what was left out or scaled.

    Args:
        problem: The noisy quadratic.
        left_out: Nodes it does not hold.
        start_scale: What the given second moments were multiplied by to give the
            measured loss; 1 where none was given.
    """

    problem: NoisyQuadratic
    left_out: LeftOut
    start_scale: float


def from_measurements(
    *,
    nodes: ArrayLike,
    weights: ArrayLike,
    noise: Noise | ArrayLike,
    initial_loss: float | None = None,
    initial_second_moments: ArrayLike = 1.0,
    irreducible_loss: float = 0.0,
    drop_below: float | None = None,
) -> MeasuredProblem:
    r"""Return the noisy quadratic of a real run.

    Args:
        nodes: Curvatures in any order, for instance Ritz values. Shape (n,).
        weights: How many directions each stands for: squared first components of a
            Lanczos run times the number of parameters. Shape (n,).
        noise: Variance of one example's gradient along one direction of each node: a
            rule, or values of shape (n,).
        initial_loss: Loss where the run begins; the second moments are scaled to give
            it. None to leave them as given.
        initial_second_moments: E x^2 from the minimum along one direction of each node,
            or only their ratios if `initial_loss` is given; one value or shape (n,).
        irreducible_loss: The loss at the minimum.
        drop_below: Share of the largest curvature at or below which a node is left out,
            0 for the negative ones alone. None refuses those instead.

    Returns:
        The problem, what was left out, and the scale of the start.

    Raises:
        InputError: A value is not a number or out of range, shapes differ, a node is
            not positive and `drop_below` is None, or the start has no loss to scale.

    Example:
        >>> measured = from_measurements(
        ...     nodes=[-0.1, 2.0, 0.5],
        ...     weights=[10, 1, 40],
        ...     noise=[0.1, 1.0, 0.2],
        ...     initial_loss=2.3,
        ...     irreducible_loss=0.1,
        ...     drop_below=0,
        ... )
        >>> print(measured.left_out)
        1 node left out, 10 directions with 4.3 % of the absolute trace
        >>> measured.problem.initial_loss, round(float(measured.problem.start[0]), 3)
        (2.3, 0.2)
    """
    who = "from_measurements"
    h, w = _array(who, "nodes", nodes), _array(who, "weights", weights)
    start = _array(who, "initial_second_moments", initial_second_moments, h.size)
    given = noise.variances(h) if isinstance(noise, Noise) else noise
    variances = _array(who, "noise", given, h.size)
    if w.shape != h.shape:
        raise InputError(
            f"{who}: `weights` must be as many as `nodes`, got {w.size} and {h.size}."
        )
    keep = _kept(who, h, drop_below)
    order = np.flatnonzero(keep)[np.argsort(-h[keep], kind="stable")]
    problem = NoisyQuadratic(
        spectrum=Spectrum(curvatures=h[order], weights=w[order]),
        noise=noise if isinstance(noise, Noise) else variances[order],
        initial_second_moments=start[order],
        irreducible_loss=irreducible_loss,
    )
    scale = 1.0 if initial_loss is None else _start_scale(who, problem, initial_loss)
    return MeasuredProblem(
        problem=replace(problem, initial_second_moments=problem.start * scale),
        left_out=_left_out(h, w, ~keep),
        start_scale=scale,
    )


def _array(
    who: str, name: str, values: ArrayLike, size: int | None = None
) -> FloatArray:
    """Return finite floats of shape (n,); with a size, one value stands for all.

    Raises:
        InputError: They are not numbers, not finite or of another shape.
    """
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise InputError(f"{who}: `{name}` must be numbers, got {values!r}.") from None
    if size is not None and array.ndim == 0:
        array = np.full(size, float(array))
    if array.ndim != 1 or not array.size or array.size != (size or array.size):
        wanted = f"{size} numbers" if size else "a list of numbers"
        raise InputError(f"{who}: `{name}` must be {wanted}, got shape {array.shape}.")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{who}: `{name}` must be finite, got {array[bad[0]]:g} at {bad[0]}."
        )
    if name != "nodes" and (array < 0).any():
        place = int(np.flatnonzero(array < 0)[0])
        raise InputError(
            f"{who}: `{name}` must not be negative, got {array[place]:g} at {place}."
        )
    return array


def _kept(who: str, h: FloatArray, drop_below: float | None) -> NDArray[np.bool_]:
    """Return which nodes to keep.

    Raises:
        InputError: None is positive, or one is not and dropping was not asked for.
    """
    if h.max() <= 0:
        raise InputError(f"{who}: `nodes` must hold a positive one, got {h.max():g}.")
    if drop_below is None:
        bad = np.flatnonzero(h <= 0)
        if bad.size:
            raise InputError(
                f"{who}: `nodes` must be positive, got {h[bad[0]]:g} at {bad[0]}.",
                "`drop_below=0` leaves such nodes out and says how much that was",
            )
        return h > 0
    if _checks.nonnegative(who, "drop_below", drop_below) >= 1:
        raise InputError(
            f"{who}: `drop_below` must be a share below 1 of the largest curvature, "
            f"got {drop_below:g}."
        )
    return h > drop_below * h.max()


def _start_scale(who: str, problem: NoisyQuadratic, initial_loss: float) -> float:
    _checks.finite(who, "initial_loss", initial_loss)
    above = initial_loss - problem.irreducible_loss
    if above <= 0:
        raise InputError(
            f"{who}: `initial_loss` must be above the irreducible loss "
            f"{problem.irreducible_loss:g}, got {initial_loss:g}."
        )
    given = problem.initial_loss - problem.irreducible_loss
    if given <= 0:
        raise InputError(
            f"{who}: `initial_second_moments` must not all be 0, got a start at the "
            f"minimum."
        )
    return above / given


def _left_out(h: FloatArray, w: FloatArray, dropped: NDArray[np.bool_]) -> LeftOut:
    gone = (w * h)[dropped]
    return LeftOut(
        num_nodes=int(dropped.sum()),
        weight=float(w[dropped].sum()),
        negative_trace=float(gone[gone < 0].sum()),
        small_trace=float(gone[gone > 0].sum()),
        trace_share=float(np.abs(gone).sum() / (w @ np.abs(h))),
    )
