"""Checkpoints: all that a run is, written whole or not at all, and gone on from."""

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from rightbatch import _checks
from rightbatch.controller import BatchSizeController
from rightbatch.errors import InputError
from rightbatch.training.columns import RecordColumns, records_from
from rightbatch.training.generators import all_generators, put_back
from rightbatch.training.together import first_word

_NO_FILE, _UNREADABLE = 0, -1
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where and how often the state of a run is written.

    Args:
        path: The file; replaced whole or not at all. Its folder is made.
        every_seconds: Between two writings; the end is always written.
        resume: Go on from the file where there is one.

    Raises:
        InputError: `every_seconds` is negative, or `path` is none.

    Example:
        >>> Checkpoint(path="run.pt").every_seconds
        30.0
    """

    path: str | Path
    every_seconds: float = 30.0
    resume: bool = False

    def __post_init__(self) -> None:
        _checks.nonnegative("Checkpoint", "every_seconds", self.every_seconds)
        if not isinstance(self.path, (str, Path)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"Checkpoint: `path` must be a path, got {self.path!r}.")


class Files:
    """Writes the state of a run now and then, and goes on from it.

    Args:
        checkpoint: Where; nothing is written when None. The first replica's counts.
        controller: Of the run.

    Raises:
        InputError: The file cannot be written, or is none to go on from.
    """

    def __init__(
        self, checkpoint: Checkpoint | None, controller: BatchSizeController
    ) -> None:
        self._controller = controller
        self._path = None if checkpoint is None else Path(checkpoint.path)
        self._every = 0.0 if checkpoint is None else checkpoint.every_seconds
        self._records = RecordColumns()
        self.said: list[str] = []
        self._are_wanted = _are_wanted(self._path, controller)
        resumes = checkpoint is not None and checkpoint.resume
        path = self._path if resumes else None
        if self._are_wanted and _same_file(path, controller) and path is not None:
            _load(path, controller)
        self._last = monotonic()

    @property
    def are_due(self) -> bool:
        """Whether it is time to write, by this replica's clock."""
        return self._are_wanted and monotonic() - self._last >= self._every

    def write(self) -> None:
        """Write the state, if anything is written; all replicas must call it."""
        if not self._are_wanted:
            return
        # Not in the block below: a replica that fails to give its part must be heard.
        state = _state(self._controller, self._records)
        if self._path is not None and self._controller.is_first_replica:
            try:
                _write(self._path, state)
            except (OSError, RuntimeError) as error:  # torch's writer raises the latter
                # A full disk is no reason to lose the run; the last file is there.
                reason = str(error).partition("\n")[0]
                text = f"the checkpoint {self._path} was not written: {reason}"
                if text not in self.said:
                    self.said.append(text)
        self._last = monotonic()


def save_checkpoint(path: str | Path, controller: BatchSizeController) -> None:
    """Write all that a run is: weights, optimizer, position, generators, records.

    With several replicas all must call it, and the first one writes.

    Args:
        path: The file; replaced whole or not at all.
        controller: Between two updates.

    Raises:
        OSError: The file cannot be written; an earlier one is as it was.
    """
    state = _state(controller, RecordColumns())
    if controller.is_first_replica:
        _write(Path(path), state)


def load_checkpoint(path: str | Path, controller: BatchSizeController) -> None:
    """Put a run back to where it was written.

    With several replicas all must call it, and find the same file. Where as many wrote
    it, each goes on with its own random numbers; else each is seeded anew, by the first
    one's old state, its own place and the new number of replicas.

    Args:
        path: Written by :func:`save_checkpoint`.
        controller: Made as it was then; micro-batch size and replicas may differ.

    Raises:
        InputError: There is no such file, it is no checkpoint, or of another run; or
            replicas find different ones.
    """
    if not _same_file(Path(path), controller):
        raise InputError(f"load_checkpoint: there is no file {path}.")
    _load(Path(path), controller)


# The file -----------------------------------------------------------------------------


def _state(controller: BatchSizeController, records: RecordColumns) -> dict[str, Any]:
    """Return what is written; all replicas must ask."""
    records.follow(controller.records)
    return {
        **controller.training_state(),
        "records": records.state_dict(),
        "generators": all_generators(controller),
    }


def _write(path: Path, state: dict[str, Any]) -> None:
    # One name for all times: what a killed process left is overwritten by the next.
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _load(path: Path, controller: BatchSizeController) -> None:
    who = "load_checkpoint"
    try:
        # Nothing but numbers is in it: a file from elsewhere must not run code.
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
        records = records_from(state["records"])
    except Exception as error:
        raise InputError(
            f"{who}: {path} is not a checkpoint of rightbatch ({type(error).__name__})."
        ) from None
    controller.load_training_state(state)
    controller.records = records
    put_back(state["generators"], controller)


# Replicas -----------------------------------------------------------------------------


def _are_wanted(path: Path | None, controller: BatchSizeController) -> bool:
    """Return whether the first replica writes; all must ask.

    Raises:
        InputError: It cannot; said on all, before anything was trained.
    """
    refusal: InputError | None = None
    if path is not None and controller.is_first_replica:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _checks.writable_path("Checkpoint", path)
        except InputError as error:
            refusal = error
        except OSError as error:
            refusal = InputError(
                f"Checkpoint: the folder {path.parent} cannot be made: "
                f"{error.strerror}.",
                "name a file in a folder of yours",
            )
    (wanted, refused), _ = first_word(
        controller, [path is not None, refusal is not None]
    )
    if refused:
        raise refusal or InputError("Checkpoint: the first replica cannot write it.")
    return bool(wanted)


def _same_file(path: Path | None, controller: BatchSizeController) -> bool:
    """Return whether all replicas find the same file, or False if none finds any.

    Raises:
        InputError: They find different ones; said on all.
    """
    own = _NO_FILE if path is None else _checksum(path, controller.num_replicas)
    (first,), is_same = first_word(controller, [own])
    if is_same:
        return first != _NO_FILE
    found = {_NO_FILE: "no file", _UNREADABLE: "a file it cannot read"}
    this = f"this one {found.get(own, 'another one')}"
    raise InputError(
        "load_checkpoint: replicas must go on from the same checkpoint; at "
        f"{path} the first one has {found.get(first, 'a file')}, "
        f"{'another one not the same' if own == first else this}.",
        "keep it where all machines see it, or copy it to each",
    )


def _checksum(path: Path, num_replicas: int) -> int:
    """Return a number that says which file is there; of a process alone, whether."""
    if not path.exists():
        return _NO_FILE
    if num_replicas == 1:
        return 1
    total = 1  # an empty file is not no file
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total = zlib.crc32(chunk, total)
    except OSError:
        return _UNREADABLE
    return total + 1
