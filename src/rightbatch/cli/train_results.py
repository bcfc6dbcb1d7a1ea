"""The JSON document of training runs, and the files made of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rightbatch.cli.train_words import payoff_sentence, train_warnings
from rightbatch.experiments.train_payoff import Payoff, compare
from rightbatch.experiments.train_pricing import PricedRun, price_run
from rightbatch.experiments.train_record import DETAILS, TrainingRun
from rightbatch.simulation.trace import COLUMNS, MEASUREMENTS

if TYPE_CHECKING:
    from pathlib import Path

    from rightbatch.training_time import StepTimeModel

MOST_POINTS = 300  # of a curve
MOST_ROWS = 9  # of the course of a run
KEYS = (*COLUMNS, *MEASUREMENTS, *DETAILS)


def train_results(
    runs: Sequence[TrainingRun],
    step_time: "StepTimeModel",
    replicas: Sequence[int],
    *,
    baseline: str | None,
    target: float | None = None,
    price_per_hour: float | None = None,
    max_batch_size: int,
) -> dict[str, Any]:
    """Return the results of training under their stable keys.

    Args:
        runs: That were made; the trace is that of the first but the baseline.
        step_time: Seconds per step.
        replicas: Numbers of replicas to price at.
        baseline: The policy that others are compared with.
        target: A loss.
        price_per_hour: Of one replica.
        max_batch_size: What no batch may exceed.

    Returns:
        `trace`, `summary`, `trained`, `comparison`, `course`, `warnings`, `sentence`.
    """
    payoffs = _payoffs(runs, step_time, replicas, baseline, target)
    trained: list[dict[str, Any]] = []
    for run in runs:
        sizes = run.trace.batch_sizes
        prices = [
            price_run(sizes, step_time, p, price_per_hour=price_per_hour)
            for p in replicas
        ]
        entry = trained_entry(run, prices)
        trained.append({**entry, "baseline": run.policy == baseline})
    # The baseline is what the others are looked at beside.
    followed = [run for run in runs if run.policy != baseline] or [*runs]
    first = followed[0] if followed else None
    sentence = payoff_sentence(payoffs, replicas)
    if not sentence and first is not None:
        sentence = alone_sentence(first)
    return {
        "trace": [] if first is None else first.rows(),
        "summary": {} if first is None else first.summary(),
        "trained": trained,
        "comparison": [payoff.to_dict() for payoff in payoffs],
        "course": [] if first is None else course_of(first),
        "warnings": train_warnings(runs, max_batch_size),
        "sentence": sentence or "No run has begun.",
    }


def _payoffs(
    runs: Sequence[TrainingRun],
    step_time: "StepTimeModel",
    replicas: Sequence[int],
    baseline: str | None,
    target: float | None,
) -> list[Payoff]:
    # A run that was cut short would be compared by where it happened to be.
    whole = [run for run in runs if run.status != "interrupted"]
    others = [run for run in whole if run.policy == baseline]
    seeds = {run.seed for run in others}
    names = dict.fromkeys(run.policy for run in whole if run.policy != baseline)
    found: list[Payoff] = []
    for name in names:
        mine = [run for run in whole if run.policy == name and run.seed in seeds]
        if mine:
            found.append(compare(mine, others, step_time, replicas, target=target))
    return found


def alone_sentence(run: TrainingRun) -> str:
    """Return what a run came to, where there is nothing to compare it with."""
    from rightbatch.reporting.formats import count, number, seconds

    return (
        f"{run.policy} came to a loss of {number(run.loss)} in {count(run.steps)} "
        f"updates on {count(run.examples)} examples, in {seconds(run.seconds)}."
    )


def trained_entry(run: TrainingRun, prices: Sequence[PricedRun]) -> dict[str, Any]:
    """Return a run's entry: its ends, its evaluations, its curve thinned.

    Args:
        run: Any.
        prices: Its clocks.

    Returns:
        The entry.
    """
    clocks = [[0.0, *one.clock.tolist()] for one in prices]
    evaluations = [
        {**one._asdict(), "seconds": [clock[one.step] for clock in clocks]}
        for one in run.evaluations
    ]
    trace = run.trace
    places = thinned(len(trace), trace.batch_sizes.tolist())
    columns = {
        "steps": trace.steps,
        "examples": trace.examples,
        "batch_size": trace.batch_sizes,
        "lr": trace.lrs,
    }
    curve = {
        name: [value for i, value in enumerate(values.tolist()) if i in places]
        for name, values in columns.items()
    }
    return {
        **run.summary(),
        "prices": [one.to_dict() for one in prices],
        "evaluations": evaluations,
        "curve": curve,
        "notes": list(run.notes),
    }


def thinned(num: int, batch_sizes: Sequence[float]) -> set[int]:
    """Return the updates a curve is drawn through: even ones, and where it jumps.

    Args:
        num: Updates.
        batch_sizes: Of each.

    Returns:
        Their places.

    Example:
        >>> sorted(thinned(3, [8, 8, 16]))
        [0, 1, 2]
    """
    if num <= MOST_POINTS:
        return set(range(num))
    even = {round(i * (num - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)}
    jumps = [i for i in range(1, num) if batch_sizes[i] != batch_sizes[i - 1]]
    if len(jumps) <= MOST_POINTS:
        even |= {place for i in jumps for place in (i - 1, i)}
    return even


def course_of(run: TrainingRun) -> list[dict[str, Any]]:
    """Return a run at a few of its evaluations: batch, rate, loss, noise scale.

    Args:
        run: Any.

    Returns:
        Rows of its trace, the evaluated loss in place of the batch's.
    """
    rows, later = run.rows(), [one for one in run.evaluations if one.step]
    if not later:
        return []
    last = len(later) - 1
    places = sorted({round(i * last / (MOST_ROWS - 1)) for i in range(MOST_ROWS)})
    return [{**rows[later[i].step - 1], "loss": later[i].loss} for i in places]


def write_trace(path: "Path", document: Mapping[str, Any]) -> None:
    """Write a trace to a CSV file as ``replay`` reads it: the start, then each update.

    Args:
        path: The file.
        document: Of `train`.
    """
    from rightbatch.experiments.tables import write_csv

    rows = document["trace"]
    known = {key for row in rows for key in row}
    names = [name for name in KEYS if name in known or name in COLUMNS]
    start = {
        "step": 0,
        "examples": 0,
        "loss": document["summary"].get("initial_loss"),
    }
    write_csv(
        path, names, [[row.get(name) for name in names] for row in (start, *rows)]
    )
