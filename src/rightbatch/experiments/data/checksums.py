"""Checksums of files: those noted beside them, and those of published files.

A folder's ``MD5SUMS``, in the form ``md5sum`` writes, is what its files are held to:
fetching leaves one, and ``md5sum * > MD5SUMS`` makes one by hand. Without it a file of
a known name may be another data set's, as Fashion-MNIST's are named like MNIST's: it is
read, and :func:`difference` says that it is not the published one.
"""

import hashlib
import re
from pathlib import Path

from rightbatch.errors import InputError
from rightbatch.experiments.data.published import PUBLISHED
from rightbatch.workload import STAND_IN_FILE

SUMS_FILE = "MD5SUMS"
# md5sum marks a file read as binary with a star.
LINE = re.compile(r"\s*([0-9a-fA-F]{32})\s+\*?(?:\./)?(.+)")


def md5_of(path: Path) -> str:
    """Return the MD5 sum of a file, in hexadecimal.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a"
        >>> _ = path.write_bytes(b"abc")
        >>> md5_of(path)
        '900150983cd24fb0d6963f7d28e17f72'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def check_sum(path: Path) -> None:
    """Hold a file to the sum noted in its folder, if one is.

    Raises:
        InputError: Its sum is another; both are named.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a").write_bytes(b"abd")
        >>> _ = (folder / SUMS_FILE).write_text("900150983cd24fb0d6963f7d28e17f72  a")
        >>> check_sum(folder / "a")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        rightbatch.errors.InputError: ...a: its MD5 sum is 4911e516e5aa21d327512e0c8b...
    """
    noted = noted_sums(path.parent).get(path.name)
    if noted is None or not path.is_file():
        return
    found = md5_of(path)
    if found != noted:
        raise InputError(
            f"{path}: its MD5 sum is {found}, but {SUMS_FILE} beside it says {noted}.",
            f"fetch the file again, or take its line out of {SUMS_FILE}",
        )


def noted_sums(folder: Path) -> dict[str, str]:
    """Return the sums noted in a folder, by the file's name; empty without any.

    Raises:
        InputError: The file of sums cannot be read as text, or a line is none of
            ``md5sum``'s.
    """
    path = folder / SUMS_FILE
    if not path.is_file():
        return {}
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}.") from None
    sums: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = LINE.fullmatch(line)
        if found is None:
            raise InputError(
                f"{path}: line {number} must be 32 hexadecimal digits and a file's "
                f"name, got {line[:60]!r}.",
                f"write it with md5sum * > {SUMS_FILE}, without --tag",
            )
        sums[found[2]] = found[1].lower()
    return sums


def note_sum(path: Path, md5: str) -> None:
    """Note a file's sum in its folder, in the place of an older one.

    Args:
        path: The file.
        md5: Its sum, in hexadecimal.
    """
    sums = {**noted_sums(path.parent), path.name: md5}
    lines = [f"{value}  {name}\n" for name, value in sorted(sums.items())]
    (path.parent / SUMS_FILE).write_text("".join(lines), "utf-8")


def difference(data_set: str, path: Path) -> str:
    """Return in words how a file differs from the published one of its name, or "".

    Only sizes are compared: reading 170 MB to list a workload would be too slow, and
    the archives carry checks of their own.

    Args:
        data_set: The data set's name, ``mnist``.
        path: The file; one that is there under another name has nothing to differ from.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "train-labels-idx1-ubyte.gz"
        >>> _ = path.write_bytes(b"abc")
        >>> difference("mnist", path)
        'train-labels-idx1-ubyte.gz has 3 bytes, the published file 28,881'
    """
    if (path.parent / STAND_IN_FILE).exists():
        return "generated"
    for file in PUBLISHED.get(data_set, ()):
        if file.name == path.name and path.is_file():
            size = path.stat().st_size
            if size != file.size:
                return (
                    f"{path.name} has {size:,} bytes, the published file {file.size:,}"
                )
    return ""
