"""What replicas tell each other between two updates, so that all do the same next.

Each has its own clock and hears its own Ctrl-C; a replica that ends, or writes its part
of a sharded model, while another goes on would wait for it for ever.
"""

from collections.abc import Sequence
from typing import NamedTuple

from rightbatch.controller import BatchSizeController


class Signs(NamedTuple):
    """What may follow an update.

    Args:
        stop: `on_update` asked for the end.
        interrupt: Ctrl-C was pressed.
        time_is_up: The seconds of training are used up.
        write: A checkpoint is due.
    """

    stop: bool
    interrupt: bool
    time_is_up: bool
    write: bool


def seen_by_any(controller: BatchSizeController, own: Signs) -> Signs:
    """Return the signs that count for all replicas; all of them must ask.

    An end that one of them sees is the end of all; the first one, which writes, says
    when to. A process alone has its own, and exchanges nothing.

    Args:
        controller: Of the replicas.
        own: What this one sees.
    """
    if controller.num_replicas == 1:
        return own
    writes = own.write and controller.is_first_replica
    totals = controller.sum_over_replicas(
        [float(sign) for sign in own._replace(write=writes)]
    )
    return Signs(*(total > 0 for total in totals))


def first_word(
    controller: BatchSizeController, own: Sequence[int]
) -> tuple[list[int], bool]:
    """Return the first replica's numbers, and whether all others have the same.

    All of them must ask, and all get the same answer.

    Args:
        controller: Of the replicas.
        own: Of this one; as many on each, below 2**53.
    """
    if controller.num_replicas == 1:
        return list(own), True
    speaks = controller.is_first_replica
    sums = controller.sum_over_replicas([float(n) if speaks else 0.0 for n in own])
    first = [int(total) for total in sums]
    others = controller.sum_over_replicas([float(first != list(own))])
    return first, others[0] == 0
