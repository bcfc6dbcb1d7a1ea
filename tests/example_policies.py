"""Runs on a noisy quadratic, slow and obvious, for the tests of simulations."""

from dataclasses import dataclass

import numpy as np
import torch

from rightbatch.policies import Decision

OBSERVED = frozenset({"eval_loss"})


@dataclass(frozen=True)
class Growing:
    """AdaDamp's formula, B0 (F_0 - F*) / (F_k - F*); remembers F_0."""

    batch_size: float
    best_loss: float = 0.0
    needs: frozenset[str] = OBSERVED

    def init(self):
        return None

    def update(self, first_loss, seen):
        first_loss = seen.eval_loss if first_loss is None else first_loss
        ratio = (first_loss - self.best_loss) / (seen.eval_loss - self.best_loss)
        return Decision(self.batch_size * ratio, reason="damped"), first_loss


@dataclass(frozen=True)
class Listed:
    """The batch sizes and factors of a list, one per update, over and over."""

    batch_sizes: tuple[float, ...]
    lr_factors: tuple[float, ...] = (1.0,)
    needs: frozenset[str] = frozenset()

    def init(self):
        return 0

    def update(self, place, seen):
        batch = self.batch_sizes[place % len(self.batch_sizes)]
        factor = self.lr_factors[place % len(self.lr_factors)]
        return Decision(batch, factor, f"number {place}"), place + 1


@dataclass(frozen=True)
class Watching:
    """Always the same batch size, but it keeps what it saw."""

    batch_size: float
    needs: frozenset[str]

    def init(self):
        return ()

    def update(self, seen_so_far, seen):
        self.seen.append(seen)
        return Decision(self.batch_size), (*seen_so_far, seen.step)

    def __post_init__(self):
        object.__setattr__(self, "seen", [])


def expected_losses(problem, optimizer, batch_sizes, lrs):
    """Let torch's own optimizer step, on coefficients of independent sources.

    Every iterate is a linear function of the start and of each step's noise. A vector
    of its coefficients is a parameter like any other to an optimizer that is linear.
    """
    return problem.irreducible_loss + sum(
        0.5 * w * h * second
        for w, h, second in zip(
            problem.weights,
            problem.curvatures,
            _second_moments(problem, optimizer, batch_sizes, lrs),
            strict=True,
        )
    )


def _second_moments(problem, optimizer, batch_sizes, lrs):
    steps = len(batch_sizes)
    for place in range(len(problem.curvatures)):
        h, p = problem.curvatures[place], problem.preconditioner[place]
        variances = np.array(
            [
                problem.start[place],
                *(problem.noise_variances[place] / np.array(batch_sizes, float)),
            ]
        )
        x = torch.zeros(1 + steps, dtype=torch.float64)
        x[0] = 1
        torch_sgd = torch.optim.SGD(
            [x],
            lr=1.0,
            momentum=optimizer.momentum,
            nesterov=optimizer.is_nesterov and optimizer.momentum > 0,
        )
        y, iterates, moments = x.clone(), [], []
        for step, lr in enumerate(lrs):
            noise = torch.zeros_like(x)
            noise[1 + step] = 1
            x.grad = p * (h * x + noise)
            torch_sgd.param_groups[0]["lr"] = lr
            torch_sgd.step()
            iterates.append(x.clone())
            y = read(optimizer, y, iterates)
            moments.append(float((y.numpy() ** 2 * variances).sum()))
        yield np.array(moments)


def read(optimizer, y, iterates):
    """Return where the loss is read after the newest iterate."""
    k = len(iterates)
    if optimizer.has_ema:
        return optimizer.ema_decay * y + (1 - optimizer.ema_decay) * iterates[-1]
    if optimizer.name == "average":
        return torch.stack(iterates).mean(0)
    if optimizer.name == "tail-average":
        length = max(1, round(optimizer.tail_fraction * k))
        return torch.stack(iterates[-length:]).mean(0)
    return iterates[-1]
