"""Repeats in tables of runs: curves of losses told apart, rows entered twice."""

from collections import Counter
from collections.abc import Sequence

from rightbatch.convergence.losses.crossing import steps_to_loss
from rightbatch.experiments.tables import TableLoss, TableRun


def runs_to_loss(rows: Sequence[TableLoss], target: float) -> tuple[TableRun, ...]:
    """Return the runs of a table as if they had stopped where they passed a loss.

    Args:
        rows: Losses of one workload.
        target: Loss to reach.

    Returns:
        One entry per batch size, learning rate and run; see
        :func:`~rightbatch.convergence.losses.crossing.steps_to_loss`.
    """
    crossings = steps_to_loss(
        [row.batch_size for row in rows],
        [row.lr for row in rows],
        [row.steps for row in rows],
        [row.loss for row in rows],
        target,
        runs=[row.run for row in rows],
    )
    return tuple(
        TableRun(
            workload=rows[0].workload,
            target=target,
            batch_size=crossing.batch_size,
            steps=crossing.steps,
            lr=crossing.lr,
            example_unit=rows[0].example_unit,
            run=crossing.run,
            is_mean=crossing.is_mean,
        )
        for crossing in crossings
    )


def repeat_warnings(rows: Sequence[TableRun]) -> tuple[str, ...]:
    """Return what is wrong with the repeats among runs: means, and doubles.

    Args:
        rows: Runs that one law is fitted to.

    Returns:
        Sentences, none where each row is one run.
    """
    said: list[str] = []
    if any(row.is_mean for row in rows):
        said.append(
            "several rows share batch size, learning rate and steps: their mean loss "
            "counts as one run, so no repeats are left to tell the noise; a column run "
            "that names the curve each row is of keeps them apart"
        )
    named = Counter(
        (row.workload, row.target, row.batch_size, row.lr, row.run)
        for row in rows
        if row.run
    )
    doubles = [key for key, num in named.items() if num > 1]
    if doubles:
        *_, batch_size, lr, run = doubles[0]
        where = f"batch size {batch_size:g}"
        where += "" if lr is None else f" and learning rate {lr:g}"
        more = f", as do {len(doubles) - 1} others" if len(doubles) > 1 else ""
        said.append(
            f"run {run!r} stands twice at {where}{more}: a row entered twice makes the "
            "noise look smaller than it is; name each run once"
        )
    return tuple(said)
