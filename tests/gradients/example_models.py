"""Small models with every kind of layer, and what their gradients are one by one."""

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional

VOCABULARY, WIDTH, LENGTH = 11, 6, 5


class TiedTransformer(nn.Module):
    """One block; embedding and head are one matrix; one layer serves twice; padding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.position = nn.Embedding(LENGTH, WIDTH)
        self.norm1 = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.RMSNorm(WIDTH)
        self.twice = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        places = torch.arange(ids.shape[1]).expand_as(ids)
        x = self.embedding(ids) + self.position(places)
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v))
        x = x + self.twice(torch.tanh(self.twice(self.norm2(x))))
        return self.head(x)


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 12),
        nn.ReLU(),
        nn.Linear(12, 10),
    )


class GroupNormResNet(nn.Module):
    """Two residual blocks, the second with a strided shortcut; in-place activations."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm0 = nn.GroupNorm(2, 4)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(2, 4)
        self.conv2 = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.norm2 = nn.GroupNorm(4, 8)
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2)
        self.head = nn.Linear(8, 10)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.norm0(self.stem(x)))
        x = x + self.relu(self.norm1(self.conv1(x)))
        x = self.relu(self.norm2(self.conv2(x))) + self.shortcut(x)
        return self.head(x.mean((2, 3)))


def token_loss(logits, targets):
    """Mean over the tokens that are not padding."""
    logits, targets = logits.flatten(0, -2), targets.flatten()
    return functional.cross_entropy(logits, targets, ignore_index=0)


def sequences(batch, seed=0, padded=True):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, VOCABULARY, (batch, LENGTH + 1), generator=generator)
    if padded:
        for row in range(batch):
            ids[row, LENGTH + 1 - row % 3 :] = 0
    return ids[:, :-1], ids[:, 1:]


def images(batch, channels, side, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, side, side, generator=generator).double()
    return x, torch.randint(10, (batch,), generator=generator)


def each_gradient(model, loss, x, y):
    """Return every example's gradient by name, shape (B, ...), by vmap."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def one(values, a, b):
        return loss(functional_call(model, values, (a.unsqueeze(0),)), b.unsqueeze(0))

    return vmap(grad(one), in_dims=(None, 0, 0))(parameters, x, y)


def moments_of(contributions, examples):
    """Return |G|^2 and tr Sigma from what equal units added, the textbook way."""
    stacked = torch.stack([c.flatten() for c in contributions])
    count = len(stacked)
    mean = stacked.sum(0)
    own = stacked * count
    variance = (own - mean).square().sum() / (count - 1) * examples
    return float(mean.square().sum() - variance / (count * examples)), float(variance)
