"""Training runs made up from batch sizes and losses."""

import numpy as np

from rightbatch.experiments.train_record import Evaluated, TrainingRun
from rightbatch.simulation import Trace


def evaluated(*rows):
    return tuple(Evaluated(*row) for row in rows)


def run_of(batch_sizes, losses=None, **changes):
    """Return a run of these batch sizes, evaluated after every update.

    `losses` are those evaluated, the first before any update; they halve by default.
    """
    sizes = np.array(batch_sizes, dtype=float)
    num = len(sizes)
    examples = np.cumsum(sizes)
    if losses is None:
        losses = [2.0 * 0.5**k for k in range(num + 1)]
    seconds = changes.pop("seconds", 0.001 * np.arange(1, num + 1))
    batch_losses = changes.pop("batch_losses", losses[1 : num + 1])
    trace = Trace(
        steps=np.arange(1, num + 1),
        examples=examples,
        batch_sizes=sizes,
        lrs=np.full(num, changes.pop("lr", 0.1)),
        losses=np.array(batch_losses, dtype=float),
        reasons=["made up"] * num,
        initial_loss=losses[0],
        measurements={"seconds": seconds},
    )
    points = [(k, int(e), losses[k]) for k, e in enumerate([0, *examples])]
    settings = {
        "policy": "constant",
        "seed": 0,
        "settings": {"lr": 0.1},
        "status": "finished",
        "trace": trace,
        "evaluations": evaluated(*points),
        "details": {
            "micro_batch_size": np.full(num, 8.0),
            "accumulation_steps": np.maximum(1, sizes // 8),
            "lr_factor": np.ones(num),
            "wish": sizes,
        },
    }
    return TrainingRun(**(settings | changes))
