"""Tiny models with known curvature, and slow obvious ways to it."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, jacrev

from rightbatch.curvature import OutputLoss

CROSS_ENTROPY = OutputLoss(
    outputs=lambda model, batch: model(batch[0]),
    loss_of_outputs=lambda outputs, batch: F.cross_entropy(
        outputs, batch[1], reduction="none"
    ),
)
HALF_SQUARES = OutputLoss(
    outputs=lambda model, batch: model(batch[0]).squeeze(1),
    loss_of_outputs=lambda outputs, batch: (outputs - batch[1]).square() / 2,
)


def network(seed=0, inputs=3, hidden=4, classes=3):
    """A small network with curved outputs, in double precision."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, classes)
    ).double()


def labelled(num_examples, seed=0, inputs=3, classes=3):
    """A batch of inputs and classes."""
    drawn = torch.Generator().manual_seed(seed)
    x = torch.randn(num_examples, inputs, generator=drawn, dtype=torch.float64)
    return x, torch.randint(classes, (num_examples,), generator=drawn)


class Tied(nn.Module):
    """The same weight twice, a frozen one, and one without part in the loss."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)
        self.idle = nn.Parameter(torch.ones(2))
        self.double()

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def at_flat_point(function, model, batch):
    """Return ``f(vector)`` and the model's vector, frozen parameters held."""
    named = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return function(self.model, batch)

    def of_vector(vector):
        parts = vector.split([p.numel() for p in named.values()])
        pairs = zip(named.items(), parts, strict=True)
        moved = {f"model.{n}": v.view_as(p) for (n, p), v in pairs}
        return functional_call(Holder(), moved, ())

    return of_vector, torch.cat([p.reshape(-1) for p in named.values()])


def explicit_hessian(model, loss, batch):
    """The whole matrix, by torch's own transforms."""
    of_vector, point = at_flat_point(loss, model, batch)
    return jacrev(jacrev(lambda v: of_vector(v).mean()))(point)


def explicit_gauss_newton(model, loss, batch):
    """Sum of J'HJ over examples, one by one."""
    of_vector, point = at_flat_point(loss.outputs, model, batch)
    slopes, outputs = jacrev(of_vector)(point), of_vector(point)
    total = torch.zeros(len(point), len(point), dtype=point.dtype)
    for i in range(len(outputs)):
        one = tuple(part[i : i + 1] for part in batch)

        def of_output(o, one=one):
            return loss.loss_of_outputs(o[None], one).sum()

        bend = jacrev(jacrev(of_output))(outputs[i])
        slope = slopes[i].reshape(-1, len(point))
        total += slope.T @ bend.reshape(len(slope), len(slope)) @ slope
    return total / len(outputs)


def example_gradients(model, loss, batch):
    """One gradient per example, each by itself. Shape (B, n)."""
    of_vector, point = at_flat_point(loss, model, batch)
    return jacrev(of_vector)(point)


class Regression:
    """A linear regression on a finite set of examples: all that is to know is known.

    Batches are drawn with replacement, so the set is the distribution.
    """

    def __init__(self, num_examples=200, inputs=6, seed=0):
        drawn = torch.Generator().manual_seed(seed)
        scales = torch.linspace(0.4, 2.0, inputs, dtype=torch.float64)
        self.x = scales * torch.randn(
            num_examples, inputs, generator=drawn, dtype=torch.float64
        )
        noise = torch.randn(num_examples, generator=drawn, dtype=torch.float64)
        self.y = self.x.sum(1) + noise
        self.model = nn.Linear(inputs, 1, bias=False).double()
        nn.init.constant_(self.model.weight, 0.5)
        self.loss = HALF_SQUARES
        error = self.x @ self.model.weight.detach()[0] - self.y
        self.rows = error[:, None] * self.x
        self.gradient = self.rows.mean(0)
        self.covariance = torch.cov(self.rows.T, correction=0)
        self.hessian = self.x.T @ self.x / num_examples

    def batches(self, count, size, seed=0):
        """So many independent batches."""
        drawn = torch.Generator().manual_seed(seed)
        places = torch.randint(len(self.x), (count, size), generator=drawn)
        return [(self.x[place], self.y[place]) for place in places]

    @property
    def noise_curvature(self):
        return float((self.hessian @ self.covariance).trace())

    @property
    def gradient_curvature(self):
        return float(self.gradient @ self.hessian @ self.gradient)
