"""Reader of text files, UTF-8, gzipped or not; broken ones are refused by line."""

import gzip
import zlib
from pathlib import Path

from rightbatch.errors import InputError

GZIP_MAGIC = b"\x1f\x8b"


def read_text(path: Path) -> str:
    r"""Return a file's text; whether it is gzipped is told by its first bytes.

    Line ends of other systems become ``\n``, and a byte-order mark is left out.

    Raises:
        InputError: The file cannot be read, is cut short, is not UTF-8, or is empty.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "song.txt"
        >>> _ = path.write_bytes(gzip.compress("ein Männlein\r\nsteht".encode()))
        >>> read_text(path)
        'ein Männlein\nsteht'
    """
    try:
        content = path.read_bytes()
        if content[:2] == GZIP_MAGIC:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read: {error}.", "fetch the file again"
        ) from None
    return decoded(content, str(path))


def decoded(content: bytes, name: str) -> str:
    """Return bytes as text.

    Args:
        content: UTF-8.
        name: The file they are from, for errors.

    Raises:
        InputError: They are not UTF-8, which names the line, or there are none.

    Example:
        >>> decoded(b"one", "song.txt")
        'one'
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"{name}: line {line} is not UTF-8: {error.reason}.",
            "convert the file, as iconv -t UTF-8 does",
        ) from None
    if not text.strip():
        raise InputError(f"{name}: the file is empty.")
    return text.replace("\r\n", "\n")


def lines_of(text: str) -> list[str]:
    r"""Return the lines of a text, without the spaces around them.

    Lines end at ``\n`` alone: the other characters that ``str.splitlines`` takes for
    an end occur within the sentences of real corpora, and would shift all that follow.

    Example:
        >>> lines_of("one\u2028still one\n two \n")
        ['one\u2028still one', 'two']
    """
    return [line.strip() for line in text.removesuffix("\n").split("\n")]
