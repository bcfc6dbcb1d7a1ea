"""``transfer``: what else must change when the batch size does."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightbatch import _checks
from rightbatch.cli import flags
from rightbatch.cli.output import Output
from rightbatch.cli.settings_file import (
    read_settings,
    revert_settings,
    write_settings,
)
from rightbatch.errors import InputError

if TYPE_CHECKING:
    from rightbatch.lr_scaling import Growth, Settings, Transfer

NAME = "transfer"
Number = float | None
_OUTPUT = ("revert", "json", "quiet", "no_progress")
# What stands idle without another option.
_NEEDS = {
    "grow": "schedule",
    "max_batch_size": "schedule",
    "multiple_of": "schedule",
    "rule": "to_batch",
    "half_life": "to_batch",
    "keep": "to_batch",
}


def run(
    context: typer.Context,
    from_batch: Annotated[Number, typer.Option(help="The batch size now.")] = None,
    to_batch: Annotated[Number, typer.Option(help="The batch size wanted.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam, adamw, nadam, lamb or rmsprop.")
    ] = None,
    lr: Annotated[Number, typer.Option(help="Learning rate, at its peak.")] = None,
    rule: Annotated[
        str,
        typer.Option(
            help="auto, linear, square_root, power:EXPONENT, noise_scale, adascale, "
            "adascale_adam, adam_sde, half_life or legw."
        ),
    ] = "auto",
    noise_scale: Annotated[
        Number, typer.Option(help="Critical batch size or noise scale, in examples.")
    ] = None,
    momentum: Annotated[Number, typer.Option(help="Of sgd or rmsprop.")] = None,
    beta1: Annotated[Number, typer.Option(help="Of the Adam family.")] = None,
    beta2: Annotated[Number, typer.Option(help="Of the Adam family.")] = None,
    eps: Annotated[Number, typer.Option(help="Of the Adam family.")] = None,
    weight_decay: Annotated[Number, typer.Option(help="As the optimizer's.")] = None,
    ema_decay: Annotated[
        Number, typer.Option(help="Of an average of the weights.")
    ] = None,
    warmup_steps: Annotated[Number, typer.Option(help="Steps of warm-up.")] = None,
    total_steps: Annotated[
        Number, typer.Option(help="Steps of the run, warm-up included.")
    ] = None,
    dataset_size: Annotated[Number, typer.Option(help="Examples in an epoch.")] = None,
    half_life: Annotated[
        str, typer.Option(help="Averages that keep their half-life: beta1,beta2.")
    ] = "",
    keep: Annotated[str, typer.Option(help="Settings left alone: eps,ema_decay.")] = "",
    settings: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of settings (optimizer, lr, batch_size, beta1, ...); "
            "options come on top."
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            help="Write the new settings here, the old ones to FILE.before.json. "
            "Without it nothing is written."
        ),
    ] = None,
    revert: Annotated[
        Path | None, typer.Option(help="Put back what the last --write replaced.")
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Turn a schedule's decay into growth of the batch: constant, linear, "
            "cosine, quarter_cosine, wsd:tail=.1, step:factor=10,num=2, inverse_time; "
            "needs --total-steps."
        ),
    ] = None,
    grow: Annotated[
        str | None,
        typer.Option(help="smith (sgd), seesaw (Adam family) or convex."),
    ] = None,
    max_batch_size: Annotated[
        Number, typer.Option(help="Where growth stops and decay goes on.")
    ] = None,
    multiple_of: Annotated[
        int, typer.Option(min=1, help="Batch sizes must be multiples of this.")
    ] = 1,
    json: flags.Json = False,
    quiet: flags.Quiet = False,
    no_progress: flags.NoProgress = False,
) -> None:
    """Say what else must change when the batch size does, and by which rule.

    Prints learning rate, betas, eps, weight decay, averages, warm-up and horizon with
    their sources and conditions. Nothing is written without --write. --schedule turns a
    decaying learning rate into a growing batch.
    """
    out = Output(command=NAME, json=json, quiet=quiet, progress=not no_progress)
    _check_given(context)
    if revert:
        back = revert_settings(revert)
        document = out.document({"revert": str(revert)}, settings=back)
        out.show(document, f"{revert}: the old settings are back")
        return
    options = {
        "optimizer": optimizer,
        "lr": lr,
        "momentum": momentum,
        "beta1": beta1,
        "beta2": beta2,
        "eps": eps,
        "weight_decay": weight_decay,
        "ema_decay": ema_decay,
        "warmup_steps": warmup_steps,
        "total_steps": total_steps,
        "dataset_size": dataset_size,
    }
    old, from_batch = _read(settings, options, from_batch)
    target = _goal(to_batch, from_batch, schedule, write, settings)
    from rightbatch.lr_scaling import transfer

    moved = transfer(
        old,
        from_batch,
        target,
        rule=rule,
        noise_scale=noise_scale,
        half_life=_names(half_life),
        keep=_names(keep),
    )
    growth = None
    if schedule:
        growth = _grow(
            moved, schedule, grow, max_batch_size=max_batch_size, noise=noise_scale
        )
    inputs = {
        **old.to_dict(),
        "from_batch": from_batch,
        "to_batch": to_batch,
        "rule": rule,
        "noise_scale": noise_scale,
        "schedule": schedule,
        "grow": grow,
        "max_batch_size": max_batch_size,
    }
    document = out.document(
        inputs, **_results(moved, growth, multiple_of), written=None
    )
    if write:
        document["written"] = str(write)
        _write(write, settings, moved)
    _show(out, document)


def _check_given(context: typer.Context) -> None:
    """Refuse options that would do nothing beside the others."""
    given = [
        name
        for name in context.params
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if "revert" in given:
        for name in given:
            if name not in _OUTPUT:
                raise InputError(
                    f"{_option(name)}: has no use beside --revert.",
                    "revert first, then transfer",
                )
        return
    for name in given:
        needs = _NEEDS.get(name)
        # Without --schedule the want of --to-batch has its own error.
        idle = needs == "schedule" or "schedule" in given
        if needs and needs not in given and idle:
            raise InputError(f"{_option(name)}: needs {_option(needs)}.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read(
    path: Path | None, options: dict[str, Any], from_batch: float | None
) -> "tuple[Settings, float]":
    from rightbatch.lr_scaling import Settings

    values = read_settings(path) if path else {}
    stored = values.pop("batch_size", None)
    if from_batch is None:
        from_batch = stored
    elif stored is not None and stored != from_batch:
        raise InputError(
            f"transfer: --from-batch {from_batch:g} contradicts `batch_size` "
            f"{stored!r} of {path}.",
            "leave --from-batch out",
        )
    if from_batch is None:
        raise InputError("transfer: --from-batch is missing.", "give the batch size")
    values |= {name: value for name, value in options.items() if value is not None}
    for name in ("optimizer", "lr"):
        if name not in values:
            raise InputError(
                f"transfer: --{name} is missing.", "give it, or a file by --settings"
            )
    return Settings.from_dict(values), from_batch


def _goal(
    to_batch: float | None,
    from_batch: float,
    schedule: str | None,
    write: Path | None,
    settings: Path | None,
) -> float:
    if to_batch is None and not schedule:
        raise InputError(
            "transfer: --to-batch is missing.", "give it, or a --schedule to convert"
        )
    if write:
        if to_batch is None:
            raise InputError("--write: needs --to-batch; a schedule is only printed.")
        _checks.writable_path("--write", write)
        in_place = settings is not None and settings.resolve() == write.resolve()
        if write.exists() and not in_place:
            raise InputError(
                f"--write: {write} is there already.",
                f"name another file, or transfer it by --settings {write}",
            )
    return from_batch if to_batch is None else to_batch


def _names(text: str) -> tuple[str, ...]:
    return tuple(word.strip().replace("-", "_") for word in text.split(",") if word)


def _grow(
    moved: "Transfer",
    schedule: str,
    how: str | None,
    *,
    max_batch_size: float | None,
    noise: float | None,
) -> "Growth":
    from rightbatch.lr_scaling import grow, named_schedule

    run = moved.settings
    if run.total_steps is None:
        raise InputError("--schedule: needs --total-steps.", "count the warm-up in")
    steps = run.total_steps - (run.warmup_steps or 0)
    if steps <= 0:
        raise InputError(
            f"--schedule: the warm-up, {run.warmup_steps:g} steps, takes the whole run "
            f"of {run.total_steps:g}."
        )
    return grow(
        named_schedule(schedule),
        how or ("smith" if run.family == "sgd" else "seesaw"),
        batch_size=moved.to_batch,
        total_steps=steps,
        max_batch_size=max_batch_size,
        noise_scale=noise,
    )


def _results(
    moved: "Transfer", growth: "Growth | None", multiple_of: int
) -> dict[str, Any]:
    results: dict[str, Any] = {**moved.to_dict(), "schedule": None}
    if growth is not None:
        lr = moved.settings.lr
        entry = growth.to_dict(growth.stages(multiple_of=multiple_of))
        stages = [{**one, "lr": lr * one["lr_factor"]} for one in entry["stages"]]
        warmup = moved.settings.warmup_steps or 0
        results["schedule"] = {**entry, "stages": stages, "warmup_steps": warmup}
        results["warnings"] = [*results["warnings"], *growth.warnings]
        if growth.how == "smith" and moved.settings.family != "sgd":
            results["warnings"].append(
                f"smith's exchange is SGD's; for {moved.settings.optimizer} the noise "
                "goes with lr/sqrt(B): --grow seesaw"
            )
    return results


def _write(path: Path, settings: Path | None, moved: "Transfer") -> None:
    from rightbatch.lr_scaling.settings import as_count

    in_place = settings is not None and settings.resolve() == path.resolve()
    before: dict[str, Any] = (
        read_settings(path)
        if in_place
        else {**moved.old.to_dict(), "batch_size": as_count(moved.from_batch)}
    )
    after = {**moved.settings.to_dict(), "batch_size": as_count(moved.to_batch)}
    write_settings(path, before, after)


def _show(out: Output, document: dict[str, Any]) -> None:
    from rightbatch.cli.output import to_plain
    from rightbatch.reporting.transfer_tables import changes_sheet, growth_sheet

    plain = to_plain(document)
    parts: list[Any] = []
    if plain["from_batch"] != plain["to_batch"] or not plain["schedule"]:
        parts += [changes_sheet(plain), f"rule {plain['rule']}: {plain['why']}"]
    if plain["schedule"]:
        parts.append(growth_sheet(plain["schedule"]))
    parts += [f"warning: {warning}" for warning in plain["warnings"]]
    if plain["written"]:
        parts.append(f"written: {plain['written']}")
    elif plain["changes"]:
        out.note("nothing is written; --write FILE.json does")
    out.show(document, *parts)
