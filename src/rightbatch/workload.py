"""A workload: a model, data, loss, optimizer and target; and how one is found.

A workload goes by a registered name (``digits-mlp``), by ``module:attribute``, or by
``path/file.py:attribute``; the attribute is a function that returns a
:class:`Workload`, so a user's own script is a workload after adding one function.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import platformdirs
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from rightbatch._checks import (
    did_you_mean,
    finite,
    one_of,
    positive_array,
    positive_integer,
)
from rightbatch.errors import (
    DataMissingError,
    InputError,
    RightbatchError,
    WorkloadError,
    WorkloadFailedError,
)

ENTRY_POINT_GROUP = "rightbatch.workloads"
DATA_VARIABLE = "RIGHTBATCH_DATA"
# Lies beside files that were generated in a data set's format, and says so.
STAND_IN_FILE = "STAND-IN.txt"
STAND_IN_MARK = "(stand-in)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What training is for: a metric that gets to a value, on some examples.

    Args:
        metric: ``"loss"``, or a key of the workload's ``metrics``.
        value: Where the metric must get to; finite.
        direction: ``"min"`` when lower is better, ``"max"`` when higher is.
        on: Which examples the metric is a mean over: a fixed subset of those
            trained on (as Perrone et al. do), or ones held out.
        crossing: ``"smoothed"``: where the smoothed curve crosses the value;
            ``"first"``: the first update at or past it, which comes earlier the
            noisier the curve is.
        every: For ``"first"``: updates from check to check.

    Raises:
        InputError: A field is not one of its choices, `value` is not finite, or
            `every` is no whole number above 0.

    Example:
        >>> Target(value=0.15).is_met_by(0.14)
        True
    """

    value: float
    metric: str = "loss"
    direction: Literal["min", "max"] = "min"
    on: Literal["train_subset", "held_out"] = "train_subset"
    crossing: Literal["smoothed", "first"] = "smoothed"
    every: int = 1

    def __post_init__(self) -> None:
        finite("Target", "value", self.value)
        positive_integer("Target", "every", self.every)
        one_of("Target", "direction", self.direction, ("min", "max"))
        one_of("Target", "on", self.on, ("train_subset", "held_out"))
        one_of("Target", "crossing", self.crossing, ("smoothed", "first"))

    def is_met_by(self, value: float) -> bool:
        """Return whether `value` is at the target or past it; never so for NaN."""
        if self.direction == "min":
            return value <= self.value
        return value >= self.value


@runtime_checkable
class NeedsModel(Protocol):
    """What a workload may have as its `optimizer` if the parameters are not enough."""

    def for_model(self, model: nn.Module, lr: float) -> Optimizer:
        """Return the optimizer of a model.

        Args:
            model: Whose parameters it is to change.
            lr: Learning rate.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a sweep or a plan runs on.

    A *batch* is what ``collate`` makes of a list of items; without it, the items'
    tensors stacked, as ``torch.utils.data.default_collate`` does.

    Args:
        name: What it is called in tables and stores.
        model: ``model(seed)`` returns a freshly initialised module; the same one
            for the same seed.
        train: The examples to train on; map-style.
        evaluate_on: The examples the target is a mean over; map-style.
        held_out: Examples that are not trained on, where `evaluate_on` is a part of
            those that are; map-style.
        loss: ``loss(model, batch)`` returns the loss of each example, shape (B,).
        optimizer: ``optimizer(parameters, lr)`` returns a torch optimizer.
        target: What training is for.
        lrs: Learning rates to choose among.
        ema_decay: The target is checked on the average of the weights, an exponential
            moving one with this decay that starts at the untrained weights; None
            for the weights themselves.
        example_unit: What an example is, in one word.
        source: Where the workload comes from, in a sentence.
        collate: Makes a batch of a list of items.
        example_count: ``example_count(item)`` returns how many examples an item
            counts for, where that is not one (a sentence's target words).
        metrics: Further metrics, as ``loss``: a value per example.
        corpus_metrics: Metrics that are no mean over examples (a BLEU score):
            ``metric(model, dataset)`` returns one number for a whole set.
        data_set: Folder under which the files are looked for.
        data_files: Names of the files; none when the data is bundled.
        other_data_files: Sets of files that do as well, in the order they are taken.
        data_dir: Where its files are looked for first, and found a stand-in or not.
        published_parameters: How many parameters its source says the model has, where
            it says so; with a head of another size they may not be the model's.

    Raises:
        WorkloadError: A field is not what it must be.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> mlp().target.value
        0.15
    """

    name: str
    model: Callable[[int], nn.Module]
    train: Dataset[Any]
    evaluate_on: Dataset[Any]
    loss: Callable[[nn.Module, Any], Tensor]
    optimizer: Callable[[Iterable[nn.Parameter], float], Optimizer]
    target: Target
    lrs: tuple[float, ...]
    ema_decay: float | None = None
    example_unit: str = "example"
    source: str = ""
    held_out: Dataset[Any] | None = None
    collate: Callable[[list[Any]], Any] | None = None
    example_count: Callable[[Any], int] | None = None
    metrics: Mapping[str, Callable[[nn.Module, Any], Tensor]] = field(
        default_factory=dict[str, Callable[[nn.Module, Any], Tensor]]
    )
    corpus_metrics: Mapping[str, Callable[[nn.Module, Dataset[Any]], float]] = field(
        default_factory=dict[str, Callable[[nn.Module, Dataset[Any]], float]]
    )
    data_set: str = ""
    data_files: tuple[str, ...] = ()
    other_data_files: tuple[tuple[str, ...], ...] = ()
    data_dir: Path | None = None
    published_parameters: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise WorkloadError("Workload: `name` must not be empty.")
        who = f"Workload {self.name}"
        for name in ("model", "loss", "optimizer"):
            if not callable(getattr(self, name)):
                raise WorkloadError(f"{who}: `{name}` must be callable.")
        if "loss" in self.metrics or "loss" in self.corpus_metrics:
            raise WorkloadError(
                f"{who}: `metrics` must not hold 'loss'; that is the field `loss`."
            )
        positive_array(who, "lrs", self.lrs)
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise WorkloadError(
                f"{who}: `ema_decay` must be between 0 and 1, got {self.ema_decay:g}."
            )
        known = ("loss", *self.metrics, *self.corpus_metrics)
        one_of(who, "target.metric", self.target.metric, known)

    def optimizer_for(
        self, model: nn.Module
    ) -> Callable[[Iterable[nn.Parameter], float], Optimizer]:
        """Return what makes the optimizer of a model from parameters and lr.

        Args:
            model: A model of this workload.

        Returns:
            The field `optimizer`, or what stands for it where it :class:`NeedsModel`.
        """
        optimizer = self.optimizer
        if not isinstance(optimizer, NeedsModel):
            return optimizer
        return lambda _, lr: optimizer.for_model(model, lr)

    def metric(self, name: str) -> Callable[[nn.Module, Any], Tensor]:
        """Return the function behind a metric's name.

        Raises:
            InputError: There is none of that name; the near names are offered.
        """
        one_of(f"Workload {self.name}", "metric", name, ("loss", *self.metrics))
        return self.loss if name == "loss" else self.metrics[name]


def num_parameters(workload: Workload) -> int:
    """Return how many numbers the workload's model learns; reads no data.

    Raises:
        WorkloadError: The workload's `model` returns something else than a module.
        WorkloadFailedError: It raised.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> num_parameters(mlp())
        4810
    """
    with failing_as(f"{workload.name}: `model`"):
        model: Any = workload.model(0)
    if not isinstance(model, nn.Module):
        raise WorkloadError(
            f"{workload.name}: `model` must return a torch module, got "
            f"{type(model).__name__}."
        )
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def registered_workloads() -> tuple[str, ...]:
    """Return the names of all registered workloads, sorted.

    Example:
        >>> "digits-mlp" in registered_workloads()
        True
    """
    return tuple(sorted(entry_points(group=ENTRY_POINT_GROUP).names))


def load_workload(spec: str, data_dir: Path | None = None) -> Workload:
    """Return the workload that goes by `spec`.

    Args:
        spec: A registered name, ``module:attribute`` or ``path/file.py:attribute``.
            The module may lie in the current folder; a file may import its
            neighbours.
        data_dir: Folder to look for data in first; passed on to a function that has
            an argument `data_dir`.

    Returns:
        What the named function returned; with name and source marked where the files
        it finds are a stand-in for its data.

    Raises:
        WorkloadError: There is no such name, module, file or attribute, or it is
            not a function that returns a workload.
        WorkloadFailedError: The module or the function raised; its own error.
        InputError: There is no such folder.

    Example:
        >>> load_workload("digits-mlp").name
        'digits-mlp'
    """
    if data_dir is not None and not data_dir.is_dir():
        raise InputError(
            f"data: `data_dir` must be a folder that is there, got {data_dir}.",
            "name another with --data-dir",
        )
    place, colon, attribute = spec.rpartition(":")
    if not colon:
        return _call(_registered(spec), spec, data_dir)
    if not place or not attribute:
        raise WorkloadError(
            f"workload {spec!r}: a module or file and a function are needed.",
            "write module:function or path/file.py:function",
        )
    module = _load_file(Path(place)) if _is_path(place) else _load_module(place)
    found = vars(module).get(attribute)
    if found is None:
        offered = did_you_mean(attribute, [n for n in vars(module) if n[0] != "_"])
        raise WorkloadError(f"workload {spec!r}: {place} has no {attribute}.", offered)
    return _call(found, spec, data_dir)


def find_data(
    data_set: str, files: Sequence[str], data_dir: Path | None = None
) -> tuple[Path, ...]:
    """Return the paths of a data set's files, in the order asked for.

    Looks in ``DIR/<data set>/``, then ``DIR``, for DIR the given folder, the one in
    the environment's ``RIGHTBATCH_DATA``, and the platform's folder for user data.
    All files must lie together; ``x`` is accepted for ``x.gz``, and the reverse.

    Raises:
        DataMissingError: They were not found; names the files and where it looked.
    """
    return find_any(data_set, [files], data_dir)


def find_any(
    data_set: str, choices: Sequence[Sequence[str]], data_dir: Path | None = None
) -> tuple[Path, ...]:
    """Return the paths of the first of several sets of files that is there.

    A nearer place comes before an earlier choice: files in the folder that was named
    are taken before any elsewhere. Folders are found as files are.

    Args:
        data_set: As in :func:`find_data`, which looks in the same places.
        choices: Names of files that lie together, set after set.
        data_dir: Where to look first.

    Returns:
        The paths, in the order of that choice.

    Raises:
        DataMissingError: None is there; names all choices and where it looked.
    """
    named = os.environ.get(DATA_VARIABLE)
    usual = platformdirs.user_data_path("rightbatch")
    roots = (data_dir, Path(named) if named else None, usual)
    places = [p for root in roots if root is not None for p in (root / data_set, root)]
    for place in places:
        for files in choices:
            paths = [p for file in files if (p := _with_or_without_gz(place / file))]
            if len(paths) == len(files):
                return tuple(paths)
    wanted = "; or ".join(", ".join(files) for files in choices)
    raise DataMissingError(
        f"data set {data_set!r} was not found: need {wanted} "
        f"in one of {', '.join(str(p) for p in dict.fromkeys(places))}.",
        f"name their folder with --data-dir or {DATA_VARIABLE}",
    )


def data_status(
    workload: Workload,
) -> Literal["bundled", "found", "missing", "stand-in"]:
    """Return whether its data needs no files, is there, is missing, or was generated.

    Example:
        >>> from rightbatch.experiments.workloads.digits import mlp
        >>> data_status(mlp())
        'bundled'
    """
    if not workload.data_files:
        return "bundled"
    choices = (workload.data_files, *workload.other_data_files)
    try:
        paths = find_any(workload.data_set, choices, workload.data_dir)
    except DataMissingError:
        return "missing"
    stand_in = any((path.parent / STAND_IN_FILE).exists() for path in paths)
    return "stand-in" if stand_in else "found"


@contextmanager
def failing_as(what: str, file: str | None = None) -> Generator[None]:
    """Turn an error of the user's own code into a `WorkloadFailedError`.

    Errors of rightbatch pass as they are; so does Ctrl-C.

    Args:
        what: Whose code runs inside: "digits-mlp: `model`".
        file: The user's file; the place named is the deepest frame in it, or the
            deepest of all where none is.

    Raises:
        WorkloadFailedError: Names the error's type, its message and its place.
        RightbatchError: As it was raised inside.
    """
    try:
        yield
    except RightbatchError:
        raise
    except (Exception, SystemExit) as error:
        message = f"{what} raised {type(error).__name__}: {error}"
        raise WorkloadFailedError(f"{message} [{_place(error, file)}]") from error


def _place(error: BaseException, file: str | None) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if file and Path(f.filename) == Path(file)]
    # An import that fails ends in the interpreter's own frames, which say nothing.
    told = [f for f in frames if not f.filename.startswith("<frozen")]
    frame = (own or told or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


def _registered(name: str) -> Any:
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        names = sorted(points)
        way_out = did_you_mean(name, names)
        if name.endswith(".py"):
            way_out = f"name its function too: {name}:function"
        raise WorkloadError(
            f"there is no workload {name!r}.",
            way_out or f"there are {', '.join(names)}; or write module:function",
        )
    with failing_as(f"workload {name!r}: importing {points[name].value}"):
        return points[name].load()


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place or os.sep in place


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise WorkloadError(f"workload file {path} was not found.")
    path = path.resolve()
    # One name per path: two files of the same stem must not stand in for each other.
    name = f"_workload_{path.stem}_{hashlib.sha1(str(path).encode()).hexdigest()[:8]}"
    specification = importlib.util.spec_from_file_location(name, path)
    if specification is None or specification.loader is None:
        raise WorkloadError(f"workload file {path} is not a Python file.")
    _put_on_path(path.parent)
    module = importlib.util.module_from_spec(specification)
    # Dataclasses and pickle look their module up while it is being executed.
    sys.modules[name] = module
    with failing_as(f"workload file {path}", str(path)):
        specification.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise WorkloadError(f"{name!r} is not the name of a module.")
    _put_on_path(Path.cwd())
    try:
        with failing_as(f"importing {name}"):
            return importlib.import_module(name)
    except WorkloadFailedError as error:
        cause = error.__cause__
        unfound = cause.name if isinstance(cause, ModuleNotFoundError) else None
        if unfound is not None and f"{name}.".startswith(f"{unfound}."):
            raise WorkloadError(
                f"workload module {name!r} was not found.",
                "looked in the current folder and among installed packages; "
                "a file is written path/file.py:function",
            ) from None
        raise


def _put_on_path(folder: Path) -> None:
    # As `python file.py` does, so that a script finds its neighbours.
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _call(function: Any, spec: str, data_dir: Path | None) -> Workload:
    if not callable(function):
        raise WorkloadError(
            f"workload {spec!r}: {type(function).__name__} is not callable.",
            "name a function that returns a Workload",
        )
    try:
        takes_data_dir = "data_dir" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        takes_data_dir = False
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    with failing_as(f"workload {spec!r}", file):
        made = function(data_dir=data_dir) if takes_data_dir else function()
    if not isinstance(made, Workload):
        raise WorkloadError(
            f"workload {spec!r}: the function must return a Workload, "
            f"got {type(made).__name__}."
        )
    if takes_data_dir and made.data_dir is None:
        made = replace(made, data_dir=data_dir)
    if data_status(made) != "stand-in" or made.name.endswith(STAND_IN_MARK):
        return made
    source = f"{made.source} {STAND_IN_MARK}".strip()
    return replace(made, name=f"{made.name} {STAND_IN_MARK}", source=source)


def _with_or_without_gz(path: Path) -> Path | None:
    other = path.with_suffix("") if path.suffix == ".gz" else Path(f"{path}.gz")
    return next((candidate for candidate in (path, other) if candidate.exists()), None)
