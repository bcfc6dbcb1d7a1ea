r"""The Hessian noise scale: the batch size at which noise and gradient count alike.

.. math:: B_{noise} = \frac{\mathrm{tr}(H \Sigma)}{G^\top H G}

(McCandlish et al., 2018, eq. 2.8): one step of the best length with batch size B lowers
a quadratic loss by :math:`1/(1 + B_{noise}/B)` of what the full gradient's would.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from rightbatch import _checks
from rightbatch.curvature.loss_surface import (
    Loss,
    LossSurface,
    listed,
    own_differentiation,
)
from rightbatch.curvature.products import (
    Product,
    checked_diagonal,
    gauss_newton,
    hessian,
)
from rightbatch.curvature.unit_gradients import equal_size, refuse_batch_norm
from rightbatch.errors import InputError
from rightbatch.fitting import Interval
from rightbatch.noise_scale import GradientMoments, MomentAverage

CURVATURES = ("hessian", "gauss_newton")
PER_DRAW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HessianNoiseScale:
    r"""The noise scale :math:`\mathrm{tr}(H\Sigma)/G^\top HG` with its interval.

    Args:
        interval: In examples; its value is the ratio of the averages over draws, None
            where that of G'HG is not above zero, its upper end None where G'HG is not
            told from zero.
        lower_bound: What it exceeds with the probability `interval.level`, one-sided.
        noise_curvature: Average of tr(H Sigma); below zero where noise lies along
            negative curvature.
        gradient_curvature: Average of G'HG.
        num_draws: Draws of three independent batches.

    Example:
        >>> between = Interval(value=48.0, low=30, high=80, level=0.95, unit="examples")
        >>> print(HessianNoiseScale(interval=between, lower_bound=32.5,
        ...     noise_curvature=96.0, gradient_curvature=2.0, num_draws=20))
        Hessian noise scale 48 examples (30 to 80, 95 %) from 20 draws
    """

    interval: Interval
    lower_bound: float
    noise_curvature: float
    gradient_curvature: float
    num_draws: int

    @property
    def hessian_noise_scale(self) -> float | None:
        """The ratio of the averages, in examples; None where there is none."""
        return self.interval.value

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, the interval as a dictionary."""
        return {
            "interval": self.interval.to_dict(),
            "lower_bound": self.lower_bound,
            "noise_curvature": self.noise_curvature,
            "gradient_curvature": self.gradient_curvature,
            "num_draws": self.num_draws,
        }

    def __str__(self) -> str:
        return f"Hessian noise scale {self.interval} from {self.num_draws} draws"


def pair_curvature(
    first: Tensor, second: Tensor, product: Product, batch_size: int
) -> GradientMoments:
    r"""Return unbiased estimates of G'HG and tr(H Sigma) from two batches' gradients.

    .. math:: \mathrm{tr}(H\Sigma) \approx \tfrac b2 (g_1 - g_2)^\top H (g_1 - g_2),
              \quad G^\top H G \approx g_1^\top H g_2

    They stand in the places of :math:`|G|^2` and :math:`\mathrm{tr}\,\Sigma`, and are
    averaged and divided like these. The three must come from independent batches: with
    H of one that gave a gradient, both are biased.

    Args:
        first: Mean gradient of one batch, shape (n,).
        second: Of another batch.
        product: H, of a third.
        batch_size: b, examples in each of the first two.

    Returns:
        G'HG as `grad_sq_norm` and tr(H Sigma) as `grad_variance`.

    Example:
        >>> import torch
        >>> curvatures = torch.tensor([2.0, 1.0])
        >>> product = Product(name="H", apply=curvatures.mul, like=curvatures)
        >>> first, second = torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0])
        >>> pair_curvature(first, second, product, batch_size=4)
        GradientMoments(grad_sq_norm=7.0, grad_variance=16.0)
    """
    apart = first - second
    return GradientMoments(
        grad_sq_norm=float(first.dot(product(second))),
        grad_variance=batch_size / 2 * float(apart.dot(product(apart))),
    )


def measure_hessian_noise_scale(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Any],
    *,
    curvature: str = "hessian",
    diagonal: Tensor | None = None,
    level: float = 0.95,
) -> HessianNoiseScale:
    r"""Return :math:`\mathrm{tr}(H\Sigma)/G^\top HG`, averaged over draws apart.

    Each three batches in succession are a draw: two for gradients, the third for the
    curvature. A draw costs about seven gradients, nine for the Gauss-Newton matrix.

    Args:
        model: Left as it is; in eval mode if it holds batch normalisation.
        loss: ``loss(model, batch)`` returns the loss of each example; an `OutputLoss`
            for the Gauss-Newton matrix.
        batches: Independent ones, three per draw and two draws at least; the first two
            of each draw of one size.
        curvature: ``"hessian"``, or ``"gauss_newton"``, whose two parts cannot fall
            below zero in expectation.
        diagonal: A preconditioner D of before the step, for the scale of D g in place
            of g. Shape (n,).
        level: Of the interval, Fieller's.

    Returns:
        The noise scale with its interval.

    Raises:
        InputError: Batches are too few or differ in size, examples see each other, an
            argument is not what it must be, or a gradient is not finite.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Linear(3, 1)
        >>> squares = lambda model, x: (model(x) - x[:, :1]).square().sum(1)
        >>> batches = [torch.randn(64, 3) for _ in range(30)]
        >>> found = measure_hessian_noise_scale(model, squares, batches)
        >>> found.num_draws, found.interval.definition
        (10, "Hessian noise scale tr(H Sigma)/(G'HG), ratio of averages")
    """
    who = "measure_hessian_noise_scale"
    _checks.one_of(who, "curvature", curvature, CURVATURES)
    _checks.confidence_level(who, level)
    surface = LossSurface(who, model)
    refuse_batch_norm(who, model)
    draws = _draws(who, batches)
    if diagonal is not None:
        diagonal = checked_diagonal(who, diagonal, surface.size)
    sizes: list[int] = []
    average = MomentAverage()
    with own_differentiation(surface.leaves):
        for number, (one, other, third) in enumerate(draws):
            product = _product(model, loss, third, curvature, seed=number)
            pair = [surface.gradient(loss, batch) for batch in (one, other)]
            sizes += [examples for _, examples in pair]
            size = equal_size(who, sizes)
            first, second = (g if diagonal is None else diagonal * g for g, _ in pair)
            moments = pair_curvature(first, second, product, size)
            average = average.add(moments, examples=size)
    return _result(average, level, curvature, is_preconditioned=diagonal is not None)


def _draws(who: str, batches: Iterable[Any]) -> list[list[Any]]:
    found = listed(who, batches)
    if len(found) < 2 * PER_DRAW or len(found) % PER_DRAW:
        raise InputError(
            f"{who}: `batches` must be a multiple of 3, at least 6, got {len(found)}.",
            "each three are a draw: two gradients and a curvature, all independent",
        )
    return [found[k : k + PER_DRAW] for k in range(0, len(found), PER_DRAW)]


def _product(
    model: nn.Module, loss: Loss, batch: Any, curvature: str, seed: int
) -> Product:
    if curvature == "hessian":
        return hessian(model, loss, [batch], seed=seed, keep_graphs=True)
    return gauss_newton(model, loss, [batch], seed=seed)


def _result(
    average: MomentAverage, level: float, curvature: str, *, is_preconditioned: bool
) -> HessianNoiseScale:
    estimate = average.noise_scale(level=level)
    matrix = "H" if curvature == "hessian" else "GN"
    scale = f"tr({matrix} Sigma)/(G'{matrix}G)"
    if is_preconditioned:
        scale += " of D g"
    moments = average.moments
    return HessianNoiseScale(
        interval=replace(
            estimate.interval,
            definition=f"Hessian noise scale {scale}, ratio of averages",
        ),
        lower_bound=estimate.lower_bound,
        noise_curvature=moments.grad_variance,
        gradient_curvature=moments.grad_sq_norm,
        num_draws=average.num_steps,
    )
