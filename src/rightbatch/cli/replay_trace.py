"""The recorded run that ``replay`` asks about: a JSON result, a CSV, or a store."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rightbatch.errors import InputError
from rightbatch.policies import Policy, check_policy
from rightbatch.reporting.formats import field
from rightbatch.simulation import Trace, read_trace

if TYPE_CHECKING:
    from rightbatch.experiments.train_record import TrainingRun

SQLITE = b"SQLite format 3"
# What a policy may need, the columns that tell it, and what records these.
_RECORDED = {
    "moments": (
        ("grad_sq_norm", "grad_variance"),
        "train --policy noise-following records it, and so does --lr-rule adascale",
    ),
    "noise_scale": (
        ("noise_scale",),
        "train --policy noise-following records it, and so does --lr-rule adascale",
    ),
    "batch_grad_sq_norm": (
        ("batch_grad_sq_norm",),
        "train --policy radadamp records it",
    ),
    "inner_product_variance": (
        ("inner_product_variance",),
        "a loop of your own records it, with rightbatch.controller.Sensing",
    ),
    "seconds": (("seconds",), "a column `seconds` since the first update began"),
    "tokens": (("tokens",), "a column `tokens`, or count in unit=example"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A recorded run.

    Args:
        trace: Its updates.
        name: Of its policy; empty where not told.
        dataset_size: Examples of its data set; None where not told.
    """

    trace: Trace
    name: str = ""
    dataset_size: int | None = None


def read_recorded(path: Path, name: str | None, seed: int | None) -> Recorded:
    """Return the recorded run of a file.

    Args:
        path: JSON as ``train`` prints it or rows alone, CSV, or a store.
        name: Of the policy, in a store that holds several.
        seed: Likewise.

    Returns:
        The run.

    Raises:
        InputError: There is no such file, it holds no run, or several.
    """
    try:
        with path.open("rb") as content:
            head = content.read(len(SQLITE))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    if head == SQLITE:
        return _from_store(path, name, seed)
    if name is not None or seed is not None:
        raise InputError(f"{path}: is no store: --of and --seed choose among its runs.")
    try:
        trace = read_trace(path)
    except InputError as error:
        said = str(error).removeprefix("read_trace: ")
        raise InputError(said if str(path) in said else f"{path}: {said}") from None
    document: Any = {}
    if path.suffix == ".json":
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    if field(document, "command") == "replay":
        raise InputError(
            f"{path}: is a replay, whose batches nobody took.",
            "give the run that it was made of",
        )
    size = field(document, "inputs", "dataset_size")
    return Recorded(
        trace=trace,
        name=str(field(document, "summary", "policy") or ""),
        dataset_size=size if isinstance(size, int) else size_from_epochs(trace),
    )


def size_from_epochs(trace: Trace) -> int | None:
    """Return the size of the data set that a trace's epochs tell.

    Args:
        trace: Any.

    Returns:
        Examples over epochs at its end; None where it counts no epochs.

    Example:
        >>> rows = [{"step": 1, "examples": 64, "batch_size": 64, "loss": 1.0,
        ...     "epoch": 0.25}]
        >>> size_from_epochs(read_trace(rows))
        256
    """
    epochs = trace.measurements.get("epoch")
    if epochs is None or not len(trace) or not epochs[-1] > 0:
        return None
    return round(float(trace.examples[-1] / epochs[-1]))


def _from_store(path: Path, name: str | None, seed: int | None) -> Recorded:
    from rightbatch.experiments.store import RunStore

    with RunStore(path) as store:
        runs = store.trainings(policy=name, seed=seed)
        others = store.trainings()
    if not runs:
        way_out = _listed(others) if others else "train makes them"
        raise InputError(f"{path}: holds no such training run.", way_out)
    # Of runs that differ in settings or session alone, the latest: it comes first.
    different = {(run.policy, run.seed) for run in runs}
    if len(different) > 1:
        raise InputError(
            f"{path}: holds {len(different)} training runs; choose one with --of and "
            "--seed.",
            _listed(runs),
        )
    run = runs[0]
    return Recorded(
        trace=run.trace, name=run.policy, dataset_size=size_from_epochs(run.trace)
    )


def _listed(runs: "tuple[TrainingRun, ...]") -> str:
    names = dict.fromkeys(f"{run.policy} seed {run.seed}" for run in runs)
    return f"there are {', '.join(names)}"


def refuse_unrecorded(name: str, policy: Policy[Any], recorded: Recorded) -> None:
    """Refuse a policy that needs what the recorded run does not tell.

    Args:
        name: The policy's text.
        policy: Made from it.
        recorded: The run.

    Raises:
        InputError: It does; what records it is named.
    """
    trace = recorded.trace
    for need in sorted(check_policy("replay", policy)):
        columns, way_out = _RECORDED.get(need, ((), ""))
        lacks = [column for column in columns if column not in trace.measurements]
        if need == "lr" and np.isnan(trace.lrs).all():
            lacks, way_out = ["lr"], "a column `lr`"
        if need in ("epoch", "dataset_size") and recorded.dataset_size is None:
            lacks, way_out = [need], "give --dataset-size"
        if lacks:
            raise InputError(
                f"--policy {name}: needs `{need}`, but the trace has no "
                f"{' and no '.join(lacks)}.",
                way_out,
            )
