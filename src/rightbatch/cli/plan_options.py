"""What may be asked of a plan together: options read and checked."""

from pathlib import Path

import typer

from rightbatch.cli.planning import PlanOptions
from rightbatch.errors import InputError

# The last of the powers of two to choose from: as far as any search goes.
MOST_DOUBLINGS = 40
# What steers runs and timings made here: a plan from tables makes none.
MADE_HERE = (
    "batch_sizes",
    "seeds",
    "lr",
    "max_steps",
    "crossing",
    "store",
    "resume",
    "processes",
    "regret",
    "budget",
    "data_dir",
    "device",
    "timing_seconds",
)


def check_ways(
    context: typer.Context,
    workload: str | None,
    name: str | None,
    tables: tuple[Path | None, Path | None],
    options: PlanOptions,
) -> None:
    """Refuse a plan that is half of tables and half measured here.

    Args:
        context: Tells which options were given.
        workload: To measure; None when not given.
        name: Which workload of the tables; None when not given.
        tables: Runs and times; None when not given.
        options: The others.

    Raises:
        InputError: Two of them contradict each other, or one would do nothing.
    """
    from rightbatch.cli.options import check_device

    if any(tables):
        if workload or options.verify or not all(tables):
            raise InputError(
                "plan: --runs and --times go together, without WORKLOAD or --verify."
            )
        _check_unused(context)
        return
    if name:
        raise InputError(
            "plan: --workload chooses among those of --runs.",
            "name a workload to measure without the option",
        )
    if check_device(options.device) != "cpu" and options.verify:
        raise InputError(
            f"plan: --verify trains on the CPU, and steps are timed on "
            f"{options.device}.",
            "leave one of them out",
        )


def _check_unused(context: typer.Context) -> None:
    for name in MADE_HERE:
        source = context.get_parameter_source(name)
        # Compared by name, as typer may bring its own click.
        if getattr(source, "name", "") != "COMMANDLINE":
            continue
        way_out = "leave it out, or plan a WORKLOAD without --runs and --times"
        if name == "batch_sizes":
            way_out += "; --candidates says what to choose from"
        if name == "lr":
            way_out += "; rows of one rate alone make a plan for that rate"
        raise InputError(
            f"plan: --{name.replace('_', '-')} has no use with --runs and --times: "
            "nothing is run or timed here.",
            way_out,
        )


def one_target(target: str | None) -> float | None:
    """Return the one target that a plan from tables may name.

    Args:
        target: As given; None when not.

    Returns:
        The number; None when not given.

    Raises:
        InputError: It is no number, or there are several.
    """
    from rightbatch.cli.options import parse_numbers

    if target is None:
        return None
    first, *others = parse_numbers("--target", target)
    if others:
        raise InputError(
            f"--target: one at a time with --runs, got {1 + len(others)}.",
            "a column target keeps several apart; the plan is for the hardest",
        )
    return first


def read_candidates(text: str | None) -> tuple[int, ...] | None:
    """Return the batch sizes to choose from.

    Args:
        text: A list, or ``powers-of-two``; None when not given.

    Returns:
        The batch sizes, ascending; None for all.

    Raises:
        InputError: It is no such list.
    """
    from rightbatch.cli.options import parse_counts

    if text is None:
        return None
    if text == "powers-of-two":
        return tuple(2**i for i in range(MOST_DOUBLINGS + 1))
    return parse_counts("--candidates", text)


def check_options(options: PlanOptions) -> None:
    """Refuse limits that contradict each other.

    Args:
        options: All of them.

    Raises:
        InputError: One says nothing without another, or is above it.
    """
    if options.max_accumulation_steps and not options.max_micro_batch_size:
        raise InputError(
            "--max-accumulation-steps: says nothing without the largest pass that "
            "fits.",
            "give --max-micro-batch-size",
        )
    most = options.max_batch_size
    for size in options.compare:
        if most is not None and size > most:
            raise InputError(f"--compare: {size} is above --max-batch-size {most}.")
