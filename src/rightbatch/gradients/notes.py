"""What a reading has to say about itself, beyond its numbers."""

from collections.abc import Collection

from torch import nn

from rightbatch.batch_norm import batch_normalizations, mixes_examples


def notes_on(
    model: nn.Module, source: str, sizes: Collection[float]
) -> tuple[str, ...]:
    """Return what to know of a reading, one sentence each.

    Args:
        model: What was read.
        source: How.
        sizes: Examples of the units seen.

    Returns:
        The sentences.

    Example:
        >>> notes_on(nn.BatchNorm1d(2), "units", {8})[0][:36]
        'Batch normalization in training mode'
    """
    said: list[str] = []
    if source == "normalization":
        said.append(
            "Read from normalization layers alone, which follow the noise scale of the "
            "whole model without being it."
        )
    if source == "units" and any(map(mixes_examples, batch_normalizations(model))):
        known = ", ".join(f"{size:g}" for size in sorted(sizes)[:5])
        said.append(
            "Batch normalization in training mode: a unit's gradient depends on the "
            f"unit's size, and so does this noise scale (units of {known})."
        )
        if len(sizes) > 1:
            said.append("Give all units the same size, or it has no clear meaning.")
    return tuple(said)
