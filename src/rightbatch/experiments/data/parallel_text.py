"""Reader of parallel text: two files, whose lines are each other's translations."""

import warnings
from dataclasses import dataclass
from pathlib import Path

from rightbatch.errors import InputError
from rightbatch.experiments.data.archives import members
from rightbatch.experiments.data.plain_text import decoded, lines_of, read_text


@dataclass(frozen=True, slots=True)
class SentencePair:
    """A sentence and its translation, as they stand in the files."""

    source: str
    target: str


def read_parallel(source: Path, target: Path) -> tuple[SentencePair, ...]:
    r"""Return the sentence pairs of two files, gzipped or not, in their order.

    A pair with an empty side is left out, both sides of it, and a warning says how
    many were.

    Raises:
        InputError: A file cannot be read, is not UTF-8 or is empty; their numbers of
            lines differ; or no pair has two sides.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, text in (("de", "ja\nnein\n"), ("en", "yes\nno\n")):
        ...     _ = (folder / name).write_text(text)
        >>> read_parallel(folder / "de", folder / "en")[1]
        SentencePair(source='nein', target='no')
    """
    return paired(
        (read_text(source), read_text(target)), names=(str(source), str(target))
    )


def read_parallel_archive(
    archive: Path, source: str, target: str
) -> tuple[SentencePair, ...]:
    """Return the sentence pairs of two files of a tar archive, of any compression.

    Args:
        archive: Read in one go; nothing is unpacked to the disk.
        source: Name of one file, in whichever folder of the archive.
        target: Name of the other.

    Raises:
        InputError: As of :func:`read_parallel`; or the archive lacks a file or cannot
            be read.
    """
    found = {
        Path(name).name: content
        for name, content in members(
            archive, lambda name: name.name in (source, target)
        )
    }
    for name in (source, target):
        if name not in found:
            raise InputError(f"{archive}: holds no file {name}.")
    names = f"{archive}: {source}", f"{archive}: {target}"
    return paired(
        (decoded(found[source], names[0]), decoded(found[target], names[1])),
        names=names,
    )


def paired(
    texts: tuple[str, str], *, names: tuple[str, str]
) -> tuple[SentencePair, ...]:
    """Return the lines of two texts in pairs.

    Args:
        texts: Source and target.
        names: Their files, for errors and the warning.

    Raises:
        InputError: The numbers of lines differ, or no pair has two sides.

    Example:
        >>> paired(("eins", "one"), names=("de", "en"))
        (SentencePair(source='eins', target='one'),)
    """
    sources, targets = map(lines_of, texts)
    if len(sources) != len(targets):
        raise InputError(
            f"{names[0]} has {len(sources)} lines and {names[1]} {len(targets)}.",
            "each line must be the translation of the same line of the other file",
        )
    both = zip(sources, targets, strict=True)
    pairs = tuple(SentencePair(*pair) for pair in both if all(pair))
    if not pairs:
        raise InputError(f"{names[0]} and {names[1]}: every pair has an empty side.")
    if left_out := len(sources) - len(pairs):
        warnings.warn(
            f"{names[0]} and {names[1]}: {left_out} of {len(sources)} pairs have an "
            "empty side and are left out.",
            stacklevel=2,
        )
    return pairs
