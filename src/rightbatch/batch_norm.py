"""Batch normalization: where the examples of a batch have no gradient of their own."""

from torch import Tensor, nn

BATCH_NORMALIZATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)


def batch_normalizations(model: nn.Module) -> list[nn.Module]:
    """Return the batch normalizations of a model, in whatever mode.

    Args:
        model: Any.

    Example:
        >>> len(batch_normalizations(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))))
        1
    """
    return [m for m in model.modules() if isinstance(m, BATCH_NORMALIZATIONS)]


def mixes_examples(layer: nn.Module) -> bool:
    """Return whether a batch normalization takes its mean from the batch as it is now.

    In training mode it does, and in evaluation mode where it keeps no statistics.

    Args:
        layer: A batch normalization.

    Example:
        >>> mixes_examples(nn.BatchNorm1d(2)), mixes_examples(nn.BatchNorm1d(2).eval())
        (True, False)
    """
    return layer.training or not isinstance(layer.running_mean, Tensor)
