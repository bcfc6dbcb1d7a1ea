"""Files inside a tar archive or a folder, read without unpacking anything to disk."""

import lzma
import tarfile
import zlib
from collections.abc import Callable, Generator
from pathlib import Path, PurePosixPath

from rightbatch.errors import InputError
from rightbatch.experiments.data.checksums import check_sum

CHUNK = 1 << 20
# A tar archive ends in two blocks of zeros.
END = bytes(2 * tarfile.BLOCKSIZE)


def members(
    path: Path, wanted: Callable[[PurePosixPath], bool]
) -> Generator[tuple[str, bytes]]:
    """Yield the names and contents of the files wanted, of an archive or a folder.

    An archive may be packed with gzip, bzip2 or xz, told by its content. Links are
    passed over.

    Args:
        path: The archive or the folder.
        wanted: Whether a file is wanted, given its name inside, folders included.

    Yields:
        Names as they stand inside, and contents; a folder's in the order of names.

    Raises:
        InputError: The archive is none, is cut short or damaged, or a file cannot be
            read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_bytes(b"hello")
        >>> list(members(folder, lambda name: name.suffix == ".txt"))
        [('a.txt', b'hello')]
    """
    if path.is_dir():
        yield from _of_folder(path, wanted)
        return
    check_sum(path)
    try:
        with _opened(path) as archive:
            for member in archive:
                if member.isfile() and wanted(PurePosixPath(member.name)):
                    file = archive.extractfile(member)
                    assert file is not None  # it is a plain file
                    yield member.name, file.read()
            _read_end(archive)
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"{path}: cut short or damaged: {error}.", "fetch the file again"
        ) from None


def _opened(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:*")
    except tarfile.ReadError:
        raise InputError(
            f"{path}: not a tar archive, or cut short at its beginning.",
            "fetch the file again",
        ) from None


def _read_end(archive: tarfile.TarFile) -> None:
    file = archive.fileobj
    assert file is not None  # it is open
    # A damaged header reads like the end, and so does the lack of one.
    file.seek(archive.offset)
    if file.read(len(END)) != END:
        raise tarfile.ReadError(f"no further file and no end at byte {archive.offset}")
    # The sum over a gzip file stands at its end, past what an archive needs.
    while file.read(CHUNK):
        pass


def _of_folder(
    folder: Path, wanted: Callable[[PurePosixPath], bool]
) -> Generator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = PurePosixPath(path.relative_to(folder).as_posix())
        if not path.is_file() or not wanted(name):
            continue
        check_sum(path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}.") from None
        yield str(name), content
