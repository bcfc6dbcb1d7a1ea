"""``cluster FILE.toml``: what hardware to buy or rent, and how to share it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch._checks import writable_path
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.errors import NotReachedError

if TYPE_CHECKING:
    from rightbatch.cli.cluster_file import ClusterFile
    from rightbatch.cli.cluster_jobs import KnownJob
    from rightbatch.cluster import BestMix, Machine, Mix
    from rightbatch.cluster.mix import JobShare

NAME = "cluster"
LEVEL = 0.9
NUM_DRAWS = 1000
MOST_REPLICAS = 512
FRONT, FRONT_OF_SEVERAL = 12, 8


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml")],
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML report here.")
    ] = None,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Find the best mix of replicas, speed, bandwidth and memory for the money.

    FILE.toml names what can be bought at which price, the jobs (their laws as numbers,
    or tables of runs and times beside the file), and a budget or a deadline.
    """
    from rightbatch.cli.cluster_file import read_cluster
    from rightbatch.cluster import best_mix, pareto_front
    from rightbatch.reporting.cluster_tables import cluster_sheets

    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    if report:
        writable_path("--report", report)
    read = read_cluster(file)
    inputs = cluster_inputs(file, read)
    try:
        best = best_mix(read.design, budget=read.budget, deadline=read.deadline)
    except NotReachedError as error:
        out.fail(out.document(inputs), error)
    several = len(read.design.jobs) > 1
    front = pareto_front(
        read.design, best.mix, num=FRONT_OF_SEVERAL if several else FRONT
    )
    document = out.document(inputs, **cluster_results(read, best, front))
    if report:
        from rightbatch.reporting.html import write_html

        out.note(f"report: {write_html(document, report)}")
    shown: list[Any] = []
    for sheet in cluster_sheets(document):
        shown += [sheet, ""]
    shown += [f"warning: {said}" for said in document["warnings"]]
    shown += [""] if document["warnings"] else []
    out.show(document, *shown, document["sentence"])


def cluster_inputs(path: Path, read: "ClusterFile") -> dict[str, Any]:
    """Return what was asked for, as the JSON document has it.

    Args:
        path: The file.
        read: What it says.

    Returns:
        The inputs.
    """
    return {
        "file": str(path),
        "title": read.title,
        "budget": read.budget,
        "deadline": read.deadline,
        "currency": read.currency,
        "prices": "per hour" if read.design.renting else "bought",
        "aim": read.design.aim,
        "components": [
            {
                "name": each.name,
                "low": each.low,
                "high": each.high,
                "per_replica": each.per_replica,
            }
            for each in read.design.components
        ],
    }


def cluster_results(
    read: "ClusterFile", best: "BestMix", front: "tuple[Mix, ...]"
) -> dict[str, Any]:
    """Return the results under their stable keys.

    Args:
        read: What the file says.
        best: The best mix.
        front: Mixes around it.

    Returns:
        `best`, `pareto`, `marginal`, `jobs`, `scaling`, `warnings`, `sentence`.
    """
    mix = best.mix
    machine = read.design.machine(
        tuple(mix.used[each.name] for each in read.design.components)
    )
    shares = [
        _share(known, share, machine)
        for known, share in zip(read.jobs, mix.jobs, strict=True)
    ]
    latest = max(shares, key=lambda share: share["seconds"])
    return {
        "best": {
            **_mix(mix),
            "used": mix.used,
            "prices": mix.prices,
            "idle_replicas": mix.idle_replicas,
            "seconds_interval": latest["seconds_interval"],
            "jobs": shares,
        },
        "pareto": [_mix(each) for each in front],
        "marginal": {
            "gain": best.rate,
            "unit": f"seconds saved per {_unit(read)}",
            "components": [each.to_dict() for each in best.marginal],
            "changes": [each.to_dict() for each in best.worth],
        },
        "jobs": [_job(known) for known in read.jobs],
        "scaling": _scaling(read, machine),
        "warnings": _warnings(read, mix),
        "sentence": _sentence(read, best),
    }


def _mix(mix: "Mix") -> dict[str, Any]:
    return {
        "amounts": mix.amounts,
        "price": mix.price,
        "money": mix.money,
        "seconds": mix.seconds,
        "objective": mix.objective,
        "num_replicas": mix.num_replicas,
        "batch_sizes": {share.name: share.batch_size for share in mix.jobs},
    }


def _share(known: "KnownJob", share: "JobShare", machine: "Machine") -> dict[str, Any]:
    interval = seconds_interval(known, share, machine)
    return {**asdict(share), "seconds_interval": interval}


def seconds_interval(
    known: "KnownJob", share: "JobShare", machine: "Machine"
) -> dict[str, Any] | None:
    """Return the interval of a job's seconds, from draws of the laws that were fitted.

    The batch and the machine are held. Drawn step times are taken as so much longer or
    shorter than the fitted law as they are on the machine that was timed.

    Args:
        known: The job and its fits.
        share: What it gets.
        machine: Speed, bandwidth and memory.

    Returns:
        The JSON form; without a lower side where the batch was held to the largest one
        run. None where nothing was fitted, or nothing tells the noise.
    """
    import numpy as np

    from rightbatch.fitting import Interval

    batch, count = np.array([float(share.batch_size)]), share.num_replicas
    times = np.array([share.seconds])
    drawn = None if known.tuned is None else known.tuned.fit.draws(NUM_DRAWS)
    if drawn is not None:
        # No run takes less than one step, whatever a drawn law says.
        times = times * np.maximum(drawn.steps(batch)[:, 0], 1.0) / share.steps
    if known.timed is not None:
        limits = known.job.limits_on(machine)
        laws = known.timed.draws(NUM_DRAWS, seed=1), known.timed.law
        steps = [limits.served_step_seconds(law, batch, count) for law in laws]
        times = times * np.ravel(steps[0]) / np.ravel(steps[1])
    if len(times) == 1:
        return None
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(times, [tail, 1 - tail]).tolist()
    return Interval(
        value=share.seconds,
        low=None if known.capped_by_runs else low,
        high=high,
        level=LEVEL,
        unit="seconds",
        definition="seconds to the target on this mix, at this batch size",
    ).to_dict()


def _job(known: "KnownJob") -> dict[str, Any]:
    job, tuned = known.job, known.tuned
    found: dict[str, Any] = {
        "name": job.name,
        "weight": job.weight,
        "law": None,
        "status": "given",
        "advice": "",
        "communication": job.step_time.communication.to_dict(),
        "seconds_per_example": job.step_time.seconds_per_example,
        "saturation_batch_size": job.step_time.saturation_batch_size,
        "overhead_seconds": job.step_time.overhead_seconds,
        "max_batch_size": job.limits.max_batch_size,
    }
    if tuned is None:
        law: Any = job.convergence
        exact = {"low": None, "high": None, "level": None}
        phi = law.critical_batch_size if law.min_steps > 0 else None
        found |= {
            "law": law.name,
            "min_steps": {"value": law.min_steps, **exact},
            "min_examples": {"value": law.min_examples, **exact},
            "critical_batch_size": {"value": phi, **exact},
        }
        return found
    fit = tuned.fit
    return found | {
        "law": fit.law.name,
        "status": fit.status,
        "advice": fit.advice,
        "min_steps": fit.min_steps.to_dict(),
        "min_examples": fit.min_examples.to_dict(),
        "critical_batch_size": fit.critical_batch_size.to_dict(),
        "fitted_range": list(fit.fitted_range),
    }


def _scaling(read: "ClusterFile", machine: "Machine") -> dict[str, Any]:
    """Return each job's time against replicas, all else as in the best mix."""
    from dataclasses import replace

    import numpy as np

    used = int(machine.num_replicas)
    most = min(max(4 * used, 8), max(MOST_REPLICAS, used))
    counts = np.unique(np.rint(np.geomspace(1, most, 48)))
    counts = np.unique(np.append(counts, used))
    many = replace(machine, num_replicas=counts)
    return {
        "replicas": counts.astype(int).tolist(),
        "jobs": [
            {"name": job.name, "seconds": job.seconds(many).tolist()}
            for job in read.design.jobs
        ],
    }


def _warnings(read: "ClusterFile", mix: "Mix") -> list[str]:
    from rightbatch.cluster.components import FARTHEST

    said = [warning for known in read.jobs for warning in known.warnings]
    for known, share in zip(read.jobs, mix.jobs, strict=True):
        batch = share.batch_size
        if known.tuned is not None:
            low, high = known.tuned.fit.fitted_range
            if not low <= batch <= high:
                said.append(
                    f"{share.name}: batch size {batch} lies outside {low:g} to "
                    f"{high:g}, where steps were measured: run there first"
                )
        if known.timed is not None:
            low, high = known.timed.fitted_range
            if not low <= share.micro_batch_size <= high:
                said.append(
                    f"{share.name}: {share.micro_batch_size} examples per replica lie "
                    f"outside {low:g} to {high:g}, which were timed"
                )
    for component in read.design.components:
        if component.high == FARTHEST and mix.amounts[component.name] >= FARTHEST:
            said.append(
                f"{component.name}: nothing beyond {FARTHEST} was looked at; give "
                "`high` to look further"
            )
    if mix.idle_replicas:
        said.append(
            f"{mix.idle_replicas} of {mix.num_replicas} replicas are better left idle"
        )
    return list(dict.fromkeys(said))


def _unit(read: "ClusterFile") -> str:
    return f"{read.currency}/h" if read.design.renting else read.currency


def _sentence(read: "ClusterFile", best: "BestMix") -> str:
    from rightbatch.reporting.formats import number, replicas_text, seconds

    mix = best.mix
    parts = [
        replicas_text(amount) if name == "replicas" else f"{name} {number(amount)}"
        for name, amount in mix.amounts.items()
    ]
    verb = "Rent" if read.design.renting else "Buy"
    if read.is_shared:
        verb, parts = "Use", [replicas_text(mix.num_replicas)]
    price = f"{number(mix.money)} {read.currency}"
    if read.design.renting:
        price += f" at {number(mix.price)} per hour"
    if len(mix.jobs) == 1:
        said = f"{verb} {', '.join(parts)} and train at {mix.jobs[0].batch_size:,}: "
        said += f"{seconds(mix.seconds)} to the target"
    else:
        each = ", ".join(f"{s.name} {s.num_replicas}" for s in mix.jobs)
        said = f"{verb} {', '.join(parts)}, shared as {each}: "
        said += f"the last job is done in {seconds(mix.seconds)}"
    said += "." if read.is_shared else f", for {price}."
    capped = [known.job for known in read.jobs if known.capped_by_runs]
    if capped:
        said += (
            f" The runs of {capped[0].name} show no limit to what larger batches save: "
            "the batch is a lower bound of the best, the time an upper bound."
        )
    return said
