"""The reference training loop, the checkpoints it writes, and Ctrl-C.

Read ``loop.py`` from top to bottom: it is all that an adaptive batch size asks of a
loop.
"""

from rightbatch.training.checkpoints import (
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from rightbatch.training.loop import Loss, Status, TrainingEnd, Until, accumulate, train

__all__ = [
    "Checkpoint",
    "Loss",
    "Status",
    "TrainingEnd",
    "Until",
    "accumulate",
    "load_checkpoint",
    "save_checkpoint",
    "train",
]
