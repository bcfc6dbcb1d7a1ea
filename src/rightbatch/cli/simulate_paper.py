"""``simulate --paper``: the paper's figures and claims as a report."""

from pathlib import Path
from typing import Any, cast

import typer

from rightbatch._checks import one_of, writable_path
from rightbatch.cli.output import Output
from rightbatch.cli.simulate_tuning import BACKENDS
from rightbatch.errors import InputError, InterruptedRunError
from rightbatch.quadratic.paper import Paper, reproduce_paper
from rightbatch.quadratic.recursions.powers import Backend, compiled

_BESIDE = ("paper", "report", "backend", "json", "quiet", "no_progress")


def check_alone(context: typer.Context) -> None:
    """Refuse options beside --paper, which would do nothing.

    Args:
        context: Of the command.

    Raises:
        InputError: One was given.
    """
    for name in context.params:
        source = getattr(context.get_parameter_source(name), "name", "")
        if source == "COMMANDLINE" and name not in _BESIDE:
            raise InputError(
                f"--{name.replace('_', '-')}: has no use beside --paper.",
                "the paper's problems are fixed",
            )


def show_paper(out: Output, report: Path, backend: str) -> None:
    """Compute the paper again, write the report and print the verdicts.

    Args:
        out: How the command speaks.
        report: The HTML file.
        backend: ``auto``, ``numpy`` or ``numba``.

    Raises:
        InputError: There is no such backend, or the file cannot be written.
        InterruptedRunError: Ctrl-C.
    """
    one_of("--backend", "backend", backend, BACKENDS)
    compiled(cast("Backend", backend))
    writable_path("--report", report)
    try:
        with out.bar("computing the paper's figures and claims", 100) as show:
            paper = reproduce_paper(
                backend=cast("Backend", backend),
                on_progress=lambda share: show(round(100 * share)),
            )
    except KeyboardInterrupt:
        raise InterruptedRunError(
            "simulate: interrupted; no report is written."
        ) from None
    from rightbatch.reporting.paper_report import verdict_sheet, write_paper_report

    written = write_paper_report(report, paper)
    found = {**paper.to_dict(), "cells": _cells(paper), "report": str(written)}
    document = out.document({"paper": True, "backend": backend}, **found)
    out.show(document, verdict_sheet(paper))
    out.note(f"report: {written}")


def _cells(paper: Paper) -> list[dict[str, Any]]:
    """Return the tuned cells with the keys of the table."""
    results = paper.results
    return [
        {
            "power": power,
            **found.to_dict(),
            "max_likelihood_bound": results.max_likelihood / found.batch_size,
            "bayes_bound": results.bayes / found.batch_size,
        }
        for (_, power), fit in results.tuned.fits.items()
        for found in fit.curve.cells
    ]
