"""What a Trainer's loader serves: how many, of how many examples."""

from typing import Any


def length_of(loader: Any) -> int | None:
    """Return the number of micro-batches of an epoch; None where nobody knows.

    Example:
        >>> length_of([1, 2, 3]), length_of(iter([1, 2, 3]))
        (3, None)
    """
    try:
        return len(loader)
    except TypeError:
        return None


def micro_batch_size(loader: Any, args: Any, replicas: int) -> int:
    """Return a loader's own, which need not be the Trainer's where a user made it.

    Args:
        loader: As accelerate wraps it.
        args: The Trainer's.
        replicas: Who share an update.
    """
    try:
        return int(loader.total_batch_size) // replicas
    except (AttributeError, TypeError):
        return int(args.train_batch_size)


def epoch_size(trainer: Any, loader: Any, length: int, granule: int) -> int:
    """Return the examples of an epoch, the last micro-batch maybe short.

    Args:
        trainer: Whose.
        loader: Of its training data.
        length: Micro-batches of a replica.
        granule: Examples of one for each replica.
    """
    most, known = length * granule, int(trainer.num_examples(loader))
    alone = trainer.args.world_size == 1  # replicas fill up the last one
    return known if alone and most - granule < known <= most else most
