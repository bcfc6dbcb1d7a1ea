"""Fetching of data sets, on explicit demand only."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

import platformdirs

from rightbatch._checks import did_you_mean
from rightbatch.errors import FetchError, InputError
from rightbatch.experiments.data.checksums import md5_of, note_sum
from rightbatch.experiments.data.published import PUBLISHED, PublishedFile
from rightbatch.workload import DATA_VARIABLE

CHUNK = 1 << 20
SILENCE_SECONDS = 30

# Bytes had so far, of all the bytes wanted.
Progress = Callable[[int], None]


def files_of(data_set: str) -> tuple[PublishedFile, ...]:
    """Return the files that fetching a data set brings.

    Where it is published in several forms, those of the first: the Python version of
    CIFAR.

    Raises:
        InputError: There is no such data set to fetch; the near names are offered.

    Example:
        >>> [file.name for file in files_of("cifar10")]
        ['cifar-10-python.tar.gz']
    """
    if data_set not in PUBLISHED:
        names = sorted(PUBLISHED)
        raise InputError(
            f"--fetch: there is no data set {data_set!r} to fetch.",
            did_you_mean(data_set, names) or f"there are {', '.join(names)}",
        )
    files = PUBLISHED[data_set]
    archives = [file for file in files if ".tar" in file.name]
    return tuple(archives[:1]) or files


def folder_for(data_set: str, data_dir: Path | None = None) -> Path:
    """Return the folder a data set is fetched to: one that is looked in later.

    Args:
        data_set: Its name.
        data_dir: Where data sets lie; else the environment's ``RIGHTBATCH_DATA``, then
            the platform's folder for user data.

    Example:
        >>> folder_for("mnist", Path("data")).as_posix()
        'data/mnist'
    """
    named = os.environ.get(DATA_VARIABLE)
    root = data_dir or (Path(named) if named else None)
    return (root or platformdirs.user_data_path("rightbatch")) / data_set


def fetch(
    data_set: str, data_dir: Path | None = None, progress: Progress = lambda _: None
) -> tuple[Path, ...]:
    """Fetch the published files of a data set; those already there are kept.

    Each is checked against its published size and MD5 sum before it takes its name, and
    the sum is noted beside it, which readers hold it to from then on.

    Args:
        data_set: Its name, ``cifar10``.
        data_dir: As :func:`folder_for` takes it.
        progress: Told how many bytes are there, after each piece.

    Returns:
        The paths of the files.

    Raises:
        InputError: There is no such data set, or a file of that name is there already
            that is not the published one.
        FetchError: A file cannot be had or written.
    """
    folder = folder_for(data_set, data_dir)
    files = files_of(data_set)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FetchError(f"{folder}: cannot be made: {error.strerror}.") from None
    done = 0
    for file in files:
        path = folder / file.name
        if path.exists():
            _must_be(file, path)
        else:
            before = done
            _fetch_file(file, path, lambda had, before=before: progress(before + had))
        done += file.size
        progress(done)
    return tuple(folder / file.name for file in files)


def _must_be(file: PublishedFile, path: Path) -> None:
    if path.stat().st_size != file.size or md5_of(path) != file.md5:
        raise InputError(
            f"{path} is there already and is not the published file.",
            "move it away first",
        )
    note_sum(path, file.md5)


def _fetch_file(file: PublishedFile, path: Path, progress: Progress) -> None:
    reasons: list[str] = []
    for url in file.urls:
        try:
            with tempfile.NamedTemporaryFile(
                dir=path.parent, prefix=f".{path.name}.", delete=False
            ) as into:
                unfinished = Path(into.name)
        except OSError as error:
            raise FetchError(f"{path}: cannot be written: {error.strerror}.") from None
        try:
            reason = _download(file, url, unfinished, progress)
            if not reason:
                unfinished.chmod(0o644)
                unfinished.replace(path)
                note_sum(path, file.md5)
                return
            reasons.append(f"{url}: {reason}")
        finally:
            unfinished.unlink(missing_ok=True)
    raise FetchError(
        f"{file.name} could not be fetched: {'; '.join(reasons)}.",
        "put the file into its folder by hand, or try again later",
    )


def _download(file: PublishedFile, url: str, into: Path, progress: Progress) -> str:
    """Return why the file at `url` is not the one wanted, or "" when it is."""
    digest, size = hashlib.md5(usedforsecurity=False), 0
    try:
        with urlopen(url, timeout=SILENCE_SECONDS) as source, into.open("wb") as out:
            # One byte past what is wanted tells a longer file, however long it is.
            while piece := source.read(min(CHUNK, file.size + 1 - size)):
                out.write(piece)
                digest.update(piece)
                size += len(piece)
                progress(min(size, file.size))
    except (OSError, HTTPException) as error:
        return str(error) or type(error).__name__
    if size != file.size:
        told = "more than" if size > file.size else f"{size:,} of"
        return f"it has {told} {file.size:,} bytes"
    if digest.hexdigest() != file.md5:
        return f"its MD5 sum is {digest.hexdigest()}, not {file.md5}"
    return ""
