"""The nets of Perrone et al. and Zhang et al. for CIFAR's 32 x 32 colour images.

Each has exactly the published number of parameters with a ten-way head. The counts fix
widths, kernels and biases, not where a net pools or whether it pads; what is chosen
here is said with each net.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

# A number is a convolution of that width, "pool" halves the image.
VGG_9 = (64, 64, "pool", 64, 64, "pool", 128, "pool", 256, "pool", 256, "pool")
VGG_11 = (
    *(64, 64, "pool", 64, 64, "pool", 128, 128, "pool"),
    *(256, 256, "pool", 256, "pool"),
)


def lenet(num_classes: int) -> nn.Module:
    """Return the LeNet; with ten classes 487,458 parameters.

    conv3 3 -> 64, pool 3/3, conv3 64 -> 128, pool 2/2 (32 -> 30 -> 10 -> 8 -> 4), no
    padding, 4*4*128 -> 200 -> classes, ReLU, biases. Pools 2/2, then 3/3 would have the
    same count, at twice the cost. Weights start as torch starts them.

    Args:
        num_classes: Width of the head.
    """
    return nn.Sequential(
        nn.Conv2d(3, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(3),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 4 * 128, 200),
        nn.ReLU(),
        nn.Linear(200, num_classes),
    )


def vgg(plan: tuple[int | str, ...], num_classes: int) -> nn.Module:
    """Return a VGG: padded conv3 with ReLU, five pools 2/2, 256 -> 200 -> classes.

    Biases, no batch normalization, no dropout. With ten classes :data:`VGG_9` has
    1,125,090 parameters and :data:`VGG_11` 1,862,754. The pools come after pairs of
    convolutions, as far as the widths make pairs; the paper does not say where.

    All but the head start as He et al. have it: as torch starts them, the image's share
    in the first logits has a standard deviation of 2e-4, and the loss long stays at the
    logarithm of the classes. How the paper starts is not said.

    Args:
        plan: Widths and pools in their order.
        num_classes: Width of the head.
    """
    layers: list[nn.Module] = []
    channels = 3
    for item in plan:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [_he(nn.Conv2d(channels, item, 3, padding=1)), nn.ReLU()]
            channels = item
    hidden = _he(nn.Linear(channels, 200))
    head = nn.Linear(200, num_classes)
    return nn.Sequential(*layers, nn.Flatten(), hidden, nn.ReLU(), head)


def _he(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Two convolutions with batch normalization and a shortcut around them.

    The shortcut has no parameters (option A of He et al.): where the block halves the
    image it takes every second pixel, and fills new channels with zeros.

    Args:
        channels: Of the input.
        width: Of the output; twice the channels where the image is halved.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stride = 1 if width == channels else 2
        self.new_channels = width - channels
        self.conv1 = nn.Conv2d(channels, width, 3, self.stride, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, images: Tensor) -> Tensor:
        """Return the block's output, shape (B, width, height / stride, width / stride).

        Args:
            images: Shape (B, channels, height, width).
        """
        inner = torch.relu(self.bn1(self.conv1(images)))
        shortcut = images[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(self.bn2(self.conv2(inner)) + shortcut)


def resnet(depth: int, num_classes: int) -> nn.Module:
    """Return the ResNet of He et al. for CIFAR; 270,410 parameters with depth 20.

    conv3 3 -> 16, then (depth - 2) / 6 blocks each of widths 16, 32 and 64, mean over
    pixels, 64 -> classes. Convolutions keep their biases: the published count has them.
    Weights start as torch starts them.

    Args:
        depth: 6n + 2: 8, 20, 32.
        num_classes: Width of the head.
    """
    blocks: list[nn.Module] = []
    channels = 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            blocks.append(Block(channels, width))
            channels = width
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )
