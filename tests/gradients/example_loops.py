"""A small network, its data, and a loop that accumulates the mean over a batch."""

import torch
from torch import nn
from torch.nn import functional


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()


def data(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 5, generator=generator).double()
    return x, torch.randint(3, (count,), generator=generator)


def flat_gradient(model, x, y):
    loss = functional.cross_entropy(model(x), y)
    parts = torch.autograd.grad(
        loss, [p for p in model.parameters() if p.requires_grad]
    )
    return torch.cat([part.flatten() for part in parts])


def expected(model, x, y, sizes, weights=None):
    """Return |G|^2 and tr Sigma from the gradient of each unit, spelled out."""
    units = [
        flat_gradient(model, a, b)
        for a, b in zip(x.split(sizes), y.split(sizes), strict=True)
    ]
    weights = torch.tensor(weights or sizes, dtype=torch.float64)
    weights = weights / weights.sum()
    b = torch.tensor(sizes, dtype=torch.float64)
    mean = sum(w * g for w, g in zip(weights, units, strict=True))
    squares = torch.stack([g.square().sum() for g in units])
    a, m = (weights * squares).sum(), mean.square().sum()
    k1, k2 = (weights / b).sum(), (weights**2 / b).sum()
    variance = (a - m) / (k1 - k2)
    return float(m - k2 * variance), float(variance)


def run_update(meter, model, x, y, sizes, *, scale=1.0):
    """Accumulate the mean over the batch in micro-batches, and read it."""
    model.zero_grad()
    for a, b in zip(x.split(sizes), y.split(sizes), strict=True):
        with meter.unit(examples=len(a)):
            loss = functional.cross_entropy(model(a), b) * len(a) / len(x)
            (loss * scale).backward()
    meter.update(grad_scale=scale)


def measured(meter):
    moments = meter.last_moments
    return moments.grad_sq_norm, moments.grad_variance
