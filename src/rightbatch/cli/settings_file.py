"""A file of settings: read, written with what it replaces kept beside it, reverted."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rightbatch.cli.output import to_plain
from rightbatch.errors import InputError


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a file, `batch_size` among them where it says so.

    Args:
        path: A JSON object.

    Returns:
        Names and values.

    Raises:
        InputError: The file cannot be read or holds something else.
    """
    found = _read(path)
    if not isinstance(found, dict):
        raise InputError(
            f"{path}: must be one JSON object.",
            'such as {"optimizer": "adamw", "lr": 0.001, "batch_size": 256}',
        )
    return found


def write_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> Path:
    """Write new settings, and what they replace beside them.

    Args:
        path: File of the new settings.
        old: What they replace.
        new: The settings.

    Returns:
        The file that keeps the old ones, newest last: FILE.before.json.

    Raises:
        InputError: The file of old settings is not one of ours.
    """
    history = _history(path)
    entry = {"settings": to_plain(old), "became": to_plain(new)}
    # The old ones first: a crash between the two leaves more to go back to, not less.
    _write(_beside(path), [*history, entry])
    _write(path, to_plain(new))
    return _beside(path)


def revert_settings(path: Path) -> dict[str, Any]:
    """Put back the settings that the last write replaced.

    Args:
        path: The file written.

    Returns:
        The settings now in it.

    Raises:
        InputError: There is nothing to go back to, or the file was changed since.
    """
    history = _history(path)
    if not history:
        raise InputError(f"--revert: {_beside(path)} holds nothing to go back to.")
    last = history[-1]
    if read_settings(path) != last["became"]:
        raise InputError(
            f"--revert: {path} was changed since it was written.",
            f"the old settings are the last in {_beside(path)}",
        )
    _write(path, last["settings"])
    if len(history) > 1:
        _write(_beside(path), history[:-1])
    else:
        _beside(path).unlink()
    return last["settings"]


def _beside(path: Path) -> Path:
    return path.with_suffix(".before.json")


def _history(path: Path) -> list[dict[str, Any]]:
    beside = _beside(path)
    if not beside.exists():
        return []
    found = _read(beside)
    keys = {"settings", "became"}
    if not isinstance(found, list) or not all(
        isinstance(one, dict) and one.keys() == keys for one in found
    ):
        raise InputError(f"{beside}: is no list of earlier settings.", "move it away")
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}.") from None


def _write(path: Path, value: Any) -> None:
    half = path.with_name(path.name + ".part")
    half.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    os.replace(half, path)
