"""``simulate``: steps to a target in the noisy quadratic model, without training."""

from pathlib import Path
from typing import Annotated

import typer

from rightbatch import _checks
from rightbatch.cli import flags
from rightbatch.cli.options import parse_counts
from rightbatch.cli.output import Output

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
        float, typer.Option(help="Share of the iterates that tail-average takes.")
    ] = 0.5,
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
    from rightbatch.cli.simulate_problem import bin_by, read_problem
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
    for option, path in (("--csv", csv), ("--report", report)):
        if path is not None:
            _checks.writable_path(option, path)
    exact = read_problem(
        spectrum=spectrum,
        dims=dims,
        noise=noise,
        initial=initial,
        irreducible=irreducible,
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
    results = answer(out, question)
    read = {"optimizer": names, "power": powers, "batch_sizes": sizes}
    document = out.document(inputs_of(context, read), **results)
    finish(out, document, total=question.num_cells, csv=csv, report=report)
