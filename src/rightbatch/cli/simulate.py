"""``simulate``: steps to a target in the noisy quadratic model, without training."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rightbatch import _checks
from rightbatch.cli import flags
from rightbatch.cli.options import parse_counts
from rightbatch.cli.output import Output
from rightbatch.errors import InputError, InterruptedRunError

NAME = "simulate"
Number = float | None


def run(
    context: typer.Context,
    optimizer: Annotated[
        str,
        typer.Option(
            help="sgd, momentum, nesterov, ema, momentum+ema, nesterov+ema, average, "
            "tail-average; a list of them, or all."
        ),
    ] = "sgd,momentum,ema",
    power: Annotated[
        str, typer.Option(help="Preconditioner powers, 0 (none) to 1 (Newton).")
    ] = "0",
    batch_sizes: Annotated[
        str, typer.Option(help="A list: 16,64,256 or 4:1048576:x4.")
    ] = "4:1048576:x4",
    dims: Annotated[
        int | None, typer.Option(min=1, help="Directions; 10000 by default.")
    ] = None,
    spectrum: Annotated[
        str,
        typer.Option(
            help="inverse (h_i = 1/i), power:1.5 (i^-1.5), or a CSV file with the "
            "column curvature and optional weight, noise, start."
        ),
    ] = "inverse",
    bins: Annotated[
        str,
        typer.Option(
            help="exact, centroid, centroid:84, or notebook:100 as the paper's code."
        ),
    ] = "centroid",
    noise: Annotated[
        str | None,
        typer.Option(
            help="curvature (c = h, the default), isotropic:1, or "
            "mixed:curvature=1,isotropic=.1."
        ),
    ] = None,
    initial: Annotated[
        Number, typer.Option(help="Second moment at the start; 1 by default.")
    ] = None,
    irreducible: Annotated[float, typer.Option(help="Loss at the minimum.")] = 0.0,
    target: Annotated[float, typer.Option(help="Expected loss to reach.")] = 0.01,
    search: Annotated[
        str, typer.Option(help="continuous, or grid: the paper's grids.")
    ] = "continuous",
    schedule: Annotated[
        str,
        typer.Option(
            help="Of the learning rate, its peak tuned: constant, pieces:10, "
            "cosine, linear, quarter_cosine, wsd:.2, step, inverse_time."
        ),
    ] = "constant",
    grow: Annotated[
        bool,
        typer.Option("--grow", help="Also grow the batch where the schedule decays."),
    ] = False,
    lr: Annotated[
        str | None,
        typer.Option(
            help="Settings instead of a search: one learning rate or several."
        ),
    ] = None,
    momentum: Annotated[
        str | None, typer.Option(help="Beside --lr; in [0, 1).")
    ] = None,
    ema_decay: Annotated[
        str | None, typer.Option(help="Beside --lr; in [0, 1).")
    ] = None,
    tail_fraction: Annotated[
        Number,
        typer.Option(
            help="Share of the iterates that tail-average takes; .5 as usual."
        ),
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="More steps count as unreachable.")
    ] = None,
    settling: Annotated[
        bool,
        typer.Option(
            "--settling",
            help="Also say from when on the loss stays at or below the target.",
        ),
    ] = False,
    backend: Annotated[str, typer.Option(help="auto, numpy or numba.")] = "auto",
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="The paper's figures 1 to 4 and its claims, as a report."
        ),
    ] = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write the cells to this CSV file.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write an HTML report here; report.html for --paper."),
    ] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Say how many steps an optimizer needs at each batch size, without training.

    The model is a noisy quadratic; the answer is exact, for settings tuned at each
    batch size. Without options it is the standard problem of Zhang et al. (2019):
    10 000 directions of curvature 1/i, to a loss of 0.01.
    """
    # Late, with all they lead to: other commands shall not wait for it.
    from rightbatch.cli.simulate_problem import bin_by, read_problem, spectrum_file
    from rightbatch.cli.simulate_results import Question, answer, finish, inputs_of
    from rightbatch.cli.simulate_tuning import Wishes, read_optimizers, read_powers

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    if paper:
        from rightbatch.cli.simulate_paper import check_alone, show_paper

        check_alone(context)
        show_paper(out, report or Path("report.html"), backend)
        return
    names, powers = read_optimizers(optimizer), read_powers(power)
    sizes = parse_counts("--batch-sizes", batch_sizes)
    wishes = Wishes(
        search=search,
        schedule=schedule,
        grow=grow,
        lr=lr,
        momentum=momentum,
        ema_decay=ema_decay,
        tail_fraction=tail_fraction,
        max_steps=max_steps,
        settling=settling,
        backend=backend,
    )
    tuning = wishes.tuning(names)
    _check_files(spectrum_file(spectrum), csv, report)
    with _nothing_done():
        exact = read_problem(
            spectrum=spectrum,
            dims=dims,
            noise=noise,
            initial=initial,
            irreducible=irreducible,
            note=out.note,
        )
        problem, rule = bin_by(bins, exact)
    question = Question(
        names=names,
        powers=powers,
        batch_sizes=sizes,
        target=target,
        tuning=tuning,
        exact=exact,
        problem=problem,
        rule=rule,
    )
    with _nothing_done():
        results = answer(out, question)
    read = {
        "optimizer": names,
        "power": powers,
        "batch_sizes": sizes,
        "tail_fraction": tuning.tail_fraction,
    }
    document = out.document(inputs_of(context, read), **results)
    finish(out, document, total=question.num_cells, csv=csv, report=report)


def _check_files(spectrum: Path | None, csv: Path | None, report: Path | None) -> None:
    """Refuse files that cannot be written, or would be written over one another."""
    used = {} if spectrum is None else {"--spectrum": spectrum.resolve()}
    for option, path in (("--csv", csv), ("--report", report)):
        if path is None:
            continue
        _checks.writable_path(option, path)
        for other, taken in used.items():
            if taken == path.resolve() or (taken.exists() and _same(taken, path)):
                raise InputError(
                    f"{option}: {path} is the file of {other} too.", "name another file"
                )
        used[option] = path.resolve()


def _same(one: Path, other: Path) -> bool:
    # Two names of one file, as links are.
    return other.exists() and one.samefile(other)


@contextmanager
def _nothing_done() -> Generator[None]:
    """Say at Ctrl-C that nothing is kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "simulate: interrupted; nothing is written."
        ) from None
